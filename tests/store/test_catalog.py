"""What a store holds: which folder it is, what each experiment says of itself, and how many bytes."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
import torch

from stabilitykit import NoiseProtocol, Run, measure
from stabilitykit.cli import main
from stabilitykit.store.catalog import Catalog
from tests.store.two_experiments import ABOUT, DEAD, experiment_folder


class TestWhichStore:
    def test_the_store_is_found_from_a_folder_below(self, stored, tmp_path, monkeypatch, capsys):
        below = tmp_path / "a" / "b"
        below.mkdir(parents=True)
        monkeypatch.chdir(below)
        assert main(["list"]) == 0
        assert "ab12cd000000" in capsys.readouterr().out

    def test_the_folder_that_it_lies_in_is_a_name_for_it(self, carry_out, tmp_path):
        assert "ab12cd000000" in carry_out("list", at=tmp_path)[1]

    def test_no_store_is_an_error(self, carry_out, tmp_path, monkeypatch, capsys):
        (tmp_path / "none").mkdir()
        code, _, err = carry_out("list", at=tmp_path / "none")
        assert code == 2
        assert err.startswith(f"stability-cache: Expected a run store but {tmp_path / 'none'} has no file FORMAT.")
        monkeypatch.chdir("/")
        assert main(["list"]) == 2
        assert "Expected a run store, .stabilitykit, in / or above it but found none" in capsys.readouterr().err


class TestEntries:
    def test_what_is_trained_now_is_counted(self, carry_out, hold):
        child = hold("ab34", 5)
        assert "1 ok, 1 running" in carry_out("list")[1]
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert "running" not in carry_out("list")[1]

    @pytest.mark.parametrize("about", ["", "[]", "{}", '{"protocol": {"vary": ["tea"], "perturb": {"kind": 3}}}'])
    def test_an_experiment_that_does_not_say_what_it_is_of_is_listed_all_the_same(self, carry_out, stored, about):
        (experiment_folder(stored, "ab34") / "experiment.json").write_text(about)
        assert re.search(r"ab34ef000000 +unknown +unknown +1 ok", carry_out("list")[1])

    def test_a_moved_weight_is_named(self, carry_out, stored):
        about = {"task": "x", "protocol": ABOUT["protocol"] | {"vary": [], "perturb": {"kind": "ulp"}}}
        (experiment_folder(stored, "ab34") / "experiment.json").write_text(json.dumps(about))
        assert re.search(r"ab34ef000000 +x +ulp +1 ok", carry_out("list")[1])

    def test_an_unreadable_run_is_counted(self, carry_out, stored):
        (experiment_folder(stored, "ab34") / "runs/0000.json").write_text("{")
        assert "1 unreadable" in carry_out("list")[1]


class TestFoldersOfInputs:
    """What trainings of a task have read is kept beside the experiments, and counts as used as long as these are."""

    @pytest.fixture
    def ask(self, make_session, tmp_path):
        (tmp_path / "rate.txt").write_text("0.1")

        def train(run: Run) -> torch.Tensor:
            model = torch.nn.Linear(4, 3)
            run.perturb(model)
            return model(torch.ones(5, 4)) * float((tmp_path / "rate.txt").read_text())

        def ask(session: str) -> Catalog:
            place = make_session(session)
            measure(train, NoiseProtocol("init", runs=2), labels=torch.arange(5) % 3, session=place)
            place.store.end_session()
            return Catalog(place.store.folder)

        return ask

    def test_they_have_a_name(self, ask):
        assert sorted(entry.name for entry in ask("one").entries()) == [
            "train [init]",
            "train [inputs]",
            "train [none]",
        ]

    def test_each_session_uses_them(self, ask):
        for entry in ask("one").entries():
            os.utime(entry.folder / "experiment.json", (1.0, 1.0))
        by_name = {entry.name: entry for entry in ask("two").entries()}
        assert by_name["train [init]"].used > 1
        assert by_name["train [inputs]"].used > 1


class TestEveryByte:
    def test_every_byte_is_counted_once(self, carry_out, stored):
        experiment = stored.experiment("ab12cd" + "0" * 26, {})
        experiment._files.retire(1)
        (stored.folder / "v1").mkdir()
        (stored.folder / "v1" / "runs.npz").write_bytes(b"x" * 1000)
        (stored.folder / "sessions" / DEAD).mkdir(parents=True)
        (stored.folder / "sessions" / DEAD / "owners.lock").write_bytes(b"y" * 10)
        sizes = json.loads(carry_out("size", "--json")[1])
        assert sizes["other_formats"] == 1000
        assert sizes["sessions"] == 10
        assert sizes["experiments"] == sum(sizes["keys"].values())
        top = sum(path.stat().st_size for path in stored.folder.iterdir() if path.is_file())
        assert sizes["total"] == top + sizes["experiments"] + sizes["sessions"] + sizes["other_formats"]
        assert 0 < sizes["old"] < sizes["keys"][experiment.folder.name]
        _, out, _ = carry_out("size")
        assert re.search(r"other formats +1 kB", out)
        assert out.index("digits [init], 1 ok") > 0
