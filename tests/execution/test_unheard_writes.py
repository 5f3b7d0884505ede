"""What a run comes to that read files which changed meanwhile, though nothing was heard to write them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from stabilitykit.errors import RunsFailedError
from stabilitykit.execution.session import measure
from stabilitykit.execution.unheard_writes import UnheardWrites
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.store.traced_inputs import ABSENT, Inputs


def run(*unheard: str, index: int = 0) -> RunRecord:
    read = Inputs(files=dict.fromkeys(unheard, "1"), unheard=dict.fromkeys(unheard, "2"))
    return RunRecord(index, {}, status="ok", seconds=1.0, logits=torch.zeros(1, 2), inputs=read.to_json())


class TestSettled:
    def test_a_run_in_which_nothing_changed_is_itself(self):
        assert UnheardWrites().settled(first := run()) is first

    def test_what_changes_twice_the_task_writes(self):
        writes = UnheardWrites()
        assert writes.settled(run("stats.json")) is None
        settled = writes.settled(run("stats.json"))
        read = Inputs.from_json(settled.inputs)
        assert (settled.status, dict(read.files), read.written, read.unheard) == ("ok", {}, ("stats.json",), {})
        assert read.untraced == ("Each training changes file stats.json: what it reads there is not traced.",)
        assert writes.settled(run("stats.json", index=1)).status == "ok", "known of an earlier run"

    def test_what_changes_once_was_edited_and_the_second_training_counts(self):
        writes = UnheardWrites()
        assert writes.settled(run("data.csv")) is None
        settled = writes.settled(run())
        assert (settled.status, settled.inputs["untraced"]) == ("ok", ())
        assert writes.settled(run("data.csv", index=1)) is None, "it is not known to be written"

    def test_a_large_file_that_is_only_touched_is_an_input(self):
        def touched(digest: str, index: int = 0) -> RunRecord:
            read = Inputs(files={"big.npy": ABSENT}, unheard={"big.npy": digest})
            return RunRecord(index, {}, status="ok", seconds=1.0, inputs=read.to_json())

        writes = UnheardWrites()
        assert writes.settled(touched("1")) is None
        assert writes.settled(touched("1")).inputs["files"] == {"big.npy": "1"}
        later = writes.settled(touched("1", 1)).inputs
        assert (later["files"], later["untraced"], later["unheard"]) == ({"big.npy": "1"}, (), {})
        assert writes.settled(touched("2", 2)) is None, "another content"
        assert writes.settled(touched("3", 2)).inputs["written"] == ("big.npy",)

    def test_another_file_each_time_is_a_failure_that_names_the_causes(self):
        writes = UnheardWrites()
        writes.settled(run("one.csv"))
        settled = writes.settled(run("two.csv", "link ->"))
        assert (settled.status, settled.logits) == ("failed", None)
        assert "file two.csv, link link changed while the run read it" in settled.error
        assert "safetensors" in settled.error

    def test_a_failed_second_training_is_a_failure(self):
        writes = UnheardWrites()
        writes.settled(run("one.csv"))
        failed = RunRecord(0, {}, status="failed", seconds=1.0, error="no memory")
        assert writes.settled(failed).error == "no memory"


LABELS = torch.tensor([0, 1] * 10)


def train_with(change):
    def train(run):
        seen = Path("kept").read_text()
        with run.stream("init"):
            outputs = torch.randn(20, 2)
        change(run)
        return outputs + 0 * len(seen)

    return train


class TestStudies:
    def test_one_whose_large_file_gets_another_time_alone(self, folder, make_session):
        (folder / "kept").write_text("1" * 100_000)
        train = train_with(lambda run: subprocess.run(["touch", "kept"], check=True))
        first = self.ask(make_session("1"), train)
        assert [remark for remark in first.journal.remarks if "kept" in remark] == []
        again = self.ask(make_session("2"), train)
        assert [one.seconds for one in again.records] == [one.seconds for one in first.records], "they are stored"
        (folder / "kept").write_text("2" * 100_000)
        last = self.ask(make_session("3"), train)
        assert "no stored run read what is there now: file kept (edited)" in last.journal.remarks

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "kept").write_text("1")
        return tmp_path

    @staticmethod
    def ask(session, train, runs=3, **options):
        return measure(train, NoiseProtocol("init", runs=runs), labels=LABELS, session=session, **options)

    @pytest.mark.parametrize("options", [{}, {"control": "first"}])
    def test_one_whose_task_writes_what_it_reads_by_another_program_is_said_and_kept(self, make_session, options):
        train = train_with(lambda run: subprocess.run(["sh", "-c", "date +%N >> kept"], check=True))
        first = self.ask(make_session("1"), train, **options)
        assert "Each training changes file kept: what it reads there is not traced." in first.journal.remarks
        again = self.ask(make_session("2"), train, **options)
        assert [one.seconds for one in again.records] == [one.seconds for one in first.records], "they are stored"
        assert not any("no stored run" in remark for remark in again.journal.remarks)

    def test_what_a_stored_run_was_seen_to_write_needs_no_second_training(self, folder, make_session):
        train = train_with(
            lambda run: subprocess.run(["sh", "-c", f"date +%N >> kept; echo {run.index} >> trained"], check=True)
        )
        self.ask(make_session("1"), train, control="first")
        (folder / "trained").unlink()
        self.ask(make_session("2"), train, runs=5, control="first")
        assert (folder / "trained").read_text().split() == ["3", "4"]

    def test_one_that_asks_for_its_file_in_two_ways(self, make_session):
        def change(run):
            (Path.cwd() / "kept").read_text()
            subprocess.run(["sh", "-c", "date +%N >> kept"], check=True)

        said = [
            remark for remark in self.ask(make_session("1"), train_with(change)).journal.remarks if "kept" in remark
        ]
        assert said == ["Each training changes file kept: what it reads there is not traced."]
        again = self.ask(make_session("2"), train_with(change))
        assert not any("no stored run" in remark for remark in again.journal.remarks)

    def test_one_whose_file_is_edited_once_has_runs_of_the_new_content(self, folder, make_session):
        def edit(run):
            if run.index == 0 and not (folder / "edited").exists():
                subprocess.run(["sh", "-c", "echo 2 > kept; touch edited"], check=True)

        study = self.ask(make_session("1"), train_with(edit), control="first")
        assert {one.status for one in study.records} == {"ok"}
        (folder / "kept").write_text("1")
        assert (
            "no stored run read what is there now: file kept (edited)"
            in self.ask(make_session("2"), train_with(edit), control="first").journal.remarks
        )

    def test_one_whose_file_is_edited_between_its_runs_fails(self, make_session):
        def edit(run):
            if run.index == 1:
                subprocess.run(["sh", "-c", "test -e edited || echo 2 > kept; touch edited"], check=True)

        with pytest.raises(RunsFailedError, match="file kept was edited while the study trained"):
            self.ask(make_session("1"), train_with(edit))
