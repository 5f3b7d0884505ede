"""A question refuses what is wrong when it is made, and costs nothing until it is answered."""

from __future__ import annotations

import os
import subprocess
import threading
import time
import uuid
from pathlib import Path

import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetError, ConfigError, ProtocolError, RunsFailedError, TaskError, UsageError
from stabilitykit.execution.question import Question
from stabilitykit.execution.session import measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.testing import FakeTask
from stabilitykit.training.recipe import Recipe
from stabilitykit.verdicts.budgets import Budget

PROTOCOL, TOO_FEW = NoiseProtocol("init", runs=3), NoiseProtocol("init", runs=2)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"metrics": {"accuracy": len}}, UsageError),
        ({"metrics": 3}, TaskError),
        ({"control": "once"}, ProtocolError),
        ({"budget": 0.3}, BudgetError),
        ({"budget": Budget(f1_sd=1.0)}, BudgetError),
        (
            {"protocol": TOO_FEW, "budget": Budget(accuracy_sd=9), "stops_early": True},
            ConfigError,
        ),
        ({"task": lambda run: None, "outputs": "logits"}, TaskError),
        ({"labels": [0, 1]}, TaskError),
    ],
)
def test_a_wrong_question_cannot_be_made(more, error):
    asked = {"task": FakeTask(), "protocol": PROTOCOL} | more
    with pytest.raises(error):
        Question.of(asked.pop("task"), asked.pop("protocol"), **asked)


def test_two_runs_are_enough_where_the_study_does_not_stop_early():
    budget = Budget(accuracy_sd=9)
    assert Question.of(FakeTask(), TOO_FEW, budget=budget).budget == budget


def test_the_names_of_its_measures_are_known_before_anything_trains():
    question = Question.of(FakeTask(), PROTOCOL, metrics={"f1": lambda logits, labels: 0.5})
    assert {"accuracy_sd", "f1", "f1_sd"} <= set(question.names)


def test_content_is_read_when_the_key_is_asked_for_and_once(make_session):
    class Read(FakeTask):
        times = 0

        def content(self):
            type(self).times += 1
            return super().content()

    asked = make_session().prepare(Question.of(Read(), PROTOCOL))
    assert Read.times == 0
    assert len(asked.key) == 32
    assert (asked.about["protocol"]["vary"], asked.private) == (["init"], "")
    assert Read.times == 1


@pytest.mark.usefixtures("two_threads")
def test_its_check_rehearses_as_a_run_trains_and_puts_the_process_back(make_session):
    seen = []

    def careless(logits, labels):
        seen.append((torch.get_num_threads(), torch.is_deterministic_algorithms_warn_only_enabled()))
        torch.set_num_threads(3)
        torch.backends.cudnn.benchmark = True
        torch.use_deterministic_algorithms(False)
        return nn.functional.cross_entropy(logits, labels)

    x, y = torch.randn(8, 4), torch.arange(8) % 2
    recipe = Recipe(
        lambda: nn.Linear(4, 2),
        (x, y),
        (x, y),
        epochs=1,
        batch_size=8,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        loss=careless,
    )
    before = torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode()
    # Nothing is rounded in a check, and so nothing is missed where a task rehearses no step.
    make_session().prepare(Question.of(recipe, NoiseProtocol("low_level", runs=3))).check()
    assert seen == [(1, True)]
    assert before == (torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.get_deterministic_debug_mode())
    make_session().prepare(Question.of(FakeTask(), NoiseProtocol("low_level", runs=3))).check()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with files that only a training reads: paths in a task would count by themselves."""
    monkeypatch.chdir(tmp_path)
    for name in ("early", "late"):
        (tmp_path / name).write_text("1")
    time.sleep(0.02)  # the clock of time stamps has steps of 4 to 10 ms
    return tmp_path


def reads(at):
    """Return a train function that reads ``early``, and in the runs from ``at`` on ``late``, and notes its runs."""
    trained = []

    def read(run):
        trained.append(run.index)
        late = Path("late").read_text() if run.index >= at else "0"
        with run.stream("init"):
            model = nn.Linear(2, 2)
        run.perturb(model)
        list(run.epochs(1))
        return model(torch.eye(2)).detach() + float(Path("early").read_text()) + 10 * float(late)

    return read, trained


def edit(name):
    """Write another content into a file, as another program does it."""
    subprocess.run(["sh", "-c", f"echo 2 > {name}"], check=True)
    time.sleep(0.02)  # as above


class TestLaterInputs:
    """What only later runs read counts from the next question on, in this session and in others."""

    LABELS = torch.tensor([0, 1])

    def ask(self, session, train, runs=3, **options):
        return measure(train, NoiseProtocol("init", runs=runs), labels=self.LABELS, session=session, **options)

    def test_all_runs_are_trained_anew_and_the_old_ones_are_back_with_the_old_content(self, folder, make_session):
        train, trained = reads(at=2)
        first = self.ask(make_session("1"), train)
        (folder / "late").write_text("2")
        trained.clear()  # it is captured, and so part of the key
        second = self.ask(make_session("2"), train)
        assert "no stored run read what is there now: file late (edited)" in second.journal.remarks
        assert [two.fingerprint for two in second.records] == [one.fingerprint for one in first.records]
        assert (second.records[2].logits - first.records[2].logits).round().unique() == 10
        trained.clear()
        again = self.ask(make_session("3"), train)
        assert not any("no stored run" in remark for remark in again.journal.remarks)
        (folder / "late").write_text("1")
        assert torch.equal(self.ask(make_session("4"), train).records[2].logits, first.records[2].logits)
        assert trained == []

    def test_the_remark_names_what_differs_from_the_stored_run_that_is_nearest(self, folder, make_session):
        train, trained = reads(at=0)
        for session, (early, late) in {"1": "11", "2": "22", "3": "13"}.items():
            (folder / "early").write_text(early)
            (folder / "late").write_text(late)
            trained.clear()  # as above
            study = self.ask(make_session(session), train)
        assert "no stored run read what is there now: file late (edited)" in study.journal.remarks

    def test_in_one_session_and_in_the_runs_of_an_extension(self, folder, make_session):
        session, (train, trained) = make_session(), reads(at=3)
        self.ask(session, train, runs=3)
        (folder / "late").write_text("2")
        trained.clear()
        self.ask(session, train, runs=3)
        assert trained == [], "none of these runs has read it"
        assert self.ask(session, train, runs=5).records[4].logits.max() > 20
        (folder / "late").write_text("3")
        trained.clear()
        assert self.ask(session, train, runs=5).records[4].logits.max() > 30
        assert set(trained) == {0, 1, 2, 3, 4}

    @pytest.mark.parametrize("name", ["early", "late"])
    def test_runs_of_two_contents_are_no_study(self, folder, make_session, name):
        train, _ = reads(at=1)

        def editing(run):
            if run.index == 2:
                edit(name)
            return train(run)

        with pytest.raises(RunsFailedError, match=f"file {name} was edited while the study trained"):
            self.ask(make_session("1"), editing, runs=5, control="first")
        study = self.ask(make_session("2"), editing, runs=5, control="first")
        assert [record.status for record in study.records] == ["ok"] * 5

    @pytest.mark.parametrize("name", ["early", "late"])
    def test_nor_are_they_one_where_the_runs_are_not_kept(self, folder, make_session, name):
        train, _ = reads(at=1)
        unhashed = threading.Lock()

        def editing(run):
            with unhashed:
                if run.index == 2:
                    edit(name)
                return train(run)

        with pytest.raises(RunsFailedError, match=f"file {name} was edited while the study trained"):
            self.ask(make_session("1"), editing, runs=5, control="first")

    def test_an_extension_knows_what_a_stored_run_has_read(self, folder, make_session):
        train, trained = reads(at=3)

        def editing(run):
            if run.index == 4 and Path("EDIT").exists():
                edit("late")
            return train(run)

        self.ask(make_session("1"), editing, runs=4)
        (folder / "EDIT").touch()
        trained.clear()
        with pytest.raises(RunsFailedError, match="file late was edited while the study trained"):
            self.ask(make_session("2"), editing, runs=6)
        trained.clear()
        study = self.ask(make_session("3"), editing, runs=6)
        assert {float(run.logits.max()) > 20 for run in study.records[3:]} == {True}, "all are of what is there now"

    def test_what_a_run_of_another_session_has_written_is_said(self, folder, make_session):
        train, trained = reads(at=9)

        def handing(run):
            if run.index == 1:
                Path("hand").write_text("1")
            elif run.index == 3:
                Path("hand").read_text()
            return train(run)

        self.ask(make_session("1"), handing, runs=3)
        trained.clear()
        study = self.ask(make_session("2"), handing, runs=4)
        assert "It reads hand, which an earlier run has written: it is not traced." in study.journal.remarks

    def test_what_an_earlier_run_has_written_is_said_and_no_reason_to_train(self, folder, make_session):
        train, trained = reads(at=9)

        def caching(run):
            cache = Path("cache")
            if not cache.exists():
                cache.write_text("1")
                os.environ.setdefault("ACME_SET", "1")
            elif run.index:
                cache.read_text()
            return train(run)

        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("ACME_SET", raising=False)
            for number in range(3):
                study = self.ask(make_session(str(number)), caching)
                (folder / "cache").unlink(missing_ok=True)
                os.environ.pop("ACME_SET", None)
                assert "It reads cache, which an earlier run has written: it is not traced." in study.journal.remarks
                assert bool(trained) == (number == 0)
                trained.clear()

    @pytest.mark.parametrize("reads_from", [0, 1])
    def test_what_a_later_run_writes_of_what_runs_have_read_is_no_reason_to_train(
        self, folder, make_session, reads_from
    ):
        """The best value so far: run 0 reads it, and run 2 writes it."""
        train, trained = reads(at=9)

        def improving(run):
            if run.index >= reads_from:
                best = int(Path("best").read_text())
                if run.index == 2:
                    Path("best").write_text(str(best + 1))
            return train(run)

        (folder / "best").write_text("1")
        time.sleep(0.02)
        for number in range(3):
            study = self.ask(make_session(str(number)), improving)
            assert study.journal.remarks == ["It writes to best: what it reads there is not traced."]
            assert bool(trained) == (number == 0)
            trained.clear()
        assert len(self.ask(make_session("4"), improving, runs=5).records) == 5
        assert set(trained) == {3, 4}

    def test_a_folder_that_is_filled_is_no_reason_to_train_and_a_new_image_in_it_is(self, folder, make_session):
        train, trained = reads(at=9)

        def filling(run):
            for name in ("mlruns", "images"):
                Path(name).mkdir(exist_ok=True)
                os.listdir(name)  # noqa: PTH208  # as users do
            Path("mlruns", uuid.uuid4().hex).mkdir()
            Path("images", f"cache-{run.index}.npy").write_text("1")
            return train(run)

        for number in range(4):
            if number == 3:
                (folder / "images" / "7.png").touch()
            study = self.ask(make_session(str(number)), filling, runs=3 if number == 0 else 4)
            assert set(trained) == [{0, 1, 2}, {3}, set(), {0, 1, 2, 3}][number]
            trained.clear()
        said = ("mlruns/", "#"), ("images/", "cache-#.npy")
        for name, shape in said:
            sentence = f"It makes names like {shape} in {name}: which of these are there is not traced."
            assert sentence in study.journal.remarks
        assert "no stored run read what is there now: folder images/ (other names in it)" in study.journal.remarks

    def test_what_a_later_run_is_seen_to_ask_elsewhere_is_said(self, folder, make_session):
        train, _ = reads(at=9)

        def asking(run):
            if run.index == 2:
                subprocess.run(["true"], check=True)
            return train(run)

        for name in ("1", "2"):
            study = self.ask(make_session(name), asking)
            assert any("another program (true)" in remark for remark in study.journal.remarks)
