"""Baselines: what is kept of a study, what is refused, and what counts as worse."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import numpy as np
import pytest
import torch

from stabilitykit.errors import BaselineError, ConfigError, IsolationError, StoreError
from stabilitykit.execution.question import Question
from stabilitykit.plugin.askers import Place
from stabilitykit.plugin.baselines import ALPHA, Baselines, differences, find, what_must_match
from stabilitykit.plugin.options import check_baselines
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.baseline_files import BaselineFiles
from stabilitykit.store.sealed_files import array_name
from stabilitykit.study.comparison import Comparison, NoWorse, Sample
from stabilitykit.testing import FakeTask, fake_study
from stabilitykit.training.environment import current_environment
from stabilitykit.training.task import as_task
from stabilitykit.verdicts.judgement import Outcome

INIT = NoiseProtocol("init", runs=3)


@pytest.fixture
def visit(make_session):
    """Measure in a session with baselines: ``visit("one", task, save="main")``; give study, comparisons, complaint."""

    def visit(name, task=None, protocol=INIT, test="t.py::test", call=0, *, update=False, is_helping=False, **names):
        session, baselines = make_session(name), Baselines(name, update=update, **names)
        asked = session.prepare(Question.of(task or FakeTask(), protocol))
        awaited = baselines.prepare(asked, session.store.folder, Place(test, call), is_helping=is_helping)
        study = session.train(asked, awaited.remarks if awaited else ())
        comparison = baselines.receive(awaited, study, test) if awaited else None
        return study, [comparison] if comparison else [], baselines.complaint(test)

    return visit


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def test_a_study_is_kept_whole_and_found_again(visit, store):
    study, none, complaint = visit("one", save="main")
    assert (none, complaint) == ([], "")
    header, answers = BaselineFiles(store, "main").read("t.py::test", 0)
    assert np.array_equal(answers, study.outputs.argmax(-1).numpy())
    assert header["runs"] == 3
    assert header["seeds"] == [dict(record.seeds) for record in study.records]
    assert header["task"] == "fake"

    study, (comparison,), complaint = visit("two", compare="main")
    assert comparison.identical
    assert comparison.paired
    assert comparison.baseline.saved == "main"
    assert comparison.alpha == ALPHA / 3
    assert complaint == ""


def test_a_regression_is_kept_with_its_outputs(visit, store):
    @dataclasses.dataclass(frozen=True, eq=False)
    class Regression(FakeTask):
        labels = torch.arange(20.0)

        def fit(self, run):
            return self.labels + FakeTask().fit(run)[:, 0]

    study, *_ = visit("one", Regression(), save="main")
    _, answers = BaselineFiles(store, "main").read("t.py::test", 0)
    assert np.array_equal(answers, study.outputs.numpy())
    _, (comparison,), _ = visit("two", Regression(), compare="main")
    assert comparison.metric == "rmse"
    assert comparison.identical


def test_what_is_worse_is_a_complaint_that_names_all_that_is(visit):
    visit("one", FakeTask(noise=0.5), NoiseProtocol("all", runs=9), save="main")
    _, (comparison,), complaint = visit("two", FakeTask(noise=4.0), NoiseProtocol("all", runs=9), compare="main")
    assert comparison.is_worse
    assert comparison.is_disagreement_larger
    assert complaint.startswith("Expected t.py::test to be no worse than the baseline 'main' (9 runs, kept on ")
    assert "but the mean got worse, and the " in complaint
    assert "the disagreement got larger, beyond error" in complaint
    assert str(comparison) in complaint
    _, _, back = visit("three", FakeTask(noise=4.0), NoiseProtocol("all", runs=9), save="noisy")
    _, (comparison,), better = visit("four", FakeTask(noise=0.5), NoiseProtocol("all", runs=9), compare="noisy")
    assert comparison.is_better
    assert back == better == "", "what got better is no complaint"


def test_runs_may_be_more_or_fewer_and_are_then_not_paired(visit):
    visit("one", save="main")
    _, (comparison,), _ = visit("two", protocol=dataclasses.replace(INIT, runs=5), compare="main")
    assert (comparison.baseline.runs, comparison.candidate.runs) == (3, 5)
    assert not comparison.paired
    _, (other,), _ = visit("three", protocol=dataclasses.replace(INIT, seed=1), compare="main")
    assert not other.paired


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
def test_an_unchanged_model_fails_in_five_percent_at_most(paired):
    draw = torch.Generator().manual_seed(int(paired))
    mean, labels = 2 * torch.randn(100, 4, generator=draw), torch.arange(100) % 4
    failed = 0
    for _ in range(600):
        logits = mean + torch.randn(2, 5, 100, 4, generator=draw) + torch.randn(2, 5, 1, 4, generator=draw)
        one, other = (Sample.of(fake_study(runs, labels)) for runs in logits)
        if not paired:
            other = dataclasses.replace(other, seeds=tuple({"init": 99 + i} for i in range(5)))
        failed += NoWorse(Comparison.of_samples(one, other, alpha=ALPHA / 3)).outcome is Outcome.FAIL
    assert failed <= 30 + 3 * 5.3


class TestUnlike:
    def about(self, task, protocol, tmp_path, **environment):
        here = dataclasses.replace(current_environment("cpu", 1, tmp_path), **environment)
        return what_must_match(task, protocol, here)

    def test_every_difference_is_named(self, linear, blobs, tmp_path):
        x, y = blobs
        old = self.about(linear, INIT, tmp_path)
        other = dataclasses.replace(linear, train=(x + 1, y), test=(x + 1, y.flip(0)), epochs=9)
        protocol = NoiseProtocol("shuffle", "ulp", constants={"init": 4})
        new = self.about(other, protocol, tmp_path, torch="1.0", threads=7)
        reasons = differences(old, new)
        assert reasons[:5] == [
            "the test labels differ",
            "the test data differ",
            "the training data differ",
            "epochs: 3 there, 9 here",
            "what varies: init there, shuffle here",
        ]
        assert reasons[5].startswith("perturbation: nothing there, {'kind': 'ulp'")
        assert reasons[6] == "constants: {} there, {'init': 4} here"
        assert reasons[7] == f"torch: {torch.__version__} there, 1.0 here"
        assert reasons[8:] == ["threads: 1 there, 7 here"]

    def test_model_recipe_source_runs_and_seed_may_differ(self, linear, dropout_net, tmp_path):
        old = self.about(linear, INIT, tmp_path)
        changed = dataclasses.replace(dropout_net, batch_size=7, curve=True, name="other")
        assert differences(old, self.about(changed, NoiseProtocol("init", runs=8, seed=5), tmp_path)) == []
        assert differences(old, self.about(linear, INIT, tmp_path, commit="abc", host="there")) == []

    def test_a_regression_is_not_a_classification(self, tmp_path):
        one = self.about(FakeTask(), INIT, tmp_path)
        assert "kind of task: classification there, regression here" in differences(one, one | {"kind": "regression"})

    def test_a_dataset_is_known_by_its_items(self, linear, blobs, tmp_path):
        class Pairs(torch.utils.data.Dataset):
            def __init__(self, shift):
                self.shift = shift

            def __len__(self):
                return 48

            def __getitem__(self, index):
                return blobs[0][index] + self.shift, blobs[1][index]

        old, same, new = (
            self.about(dataclasses.replace(linear, train=Pairs(shift)), INIT, tmp_path) for shift in (0, 0, 1)
        )
        assert old["train"] is not None
        assert differences(old, same) == []
        assert differences(old, new) == ["the training data differ"]

    def test_it_is_refused_before_anything_trains_and_in_helpers_too(self, visit, store):
        visit("one", save="main")
        runs = len(list(store.glob("v*/*/runs/*.json")))
        for is_helping in (False, True):
            with pytest.raises(BaselineError, match=r"comparable with the baseline 'main' but the test labels differ"):
                visit("two", FakeTask(examples=21), compare="main", is_helping=is_helping)
        assert len(list(store.glob("v*/*/runs/*.json"))) == runs


class TestKeeping:
    def test_another_session_that_began_at_the_same_time_is_not_overwritten(self, visit):
        visit("one", save="main")
        visit("one", save="main")  # the test is run again
        with pytest.raises(StoreError, match=r"another session has kept t\.py::test in it"):
            visit("two", save="main")
        visit("two", save="main", update=True)

    def test_studies_are_told_apart_by_test_and_number(self, visit, store):
        visit("one", save="main")
        visit("one", FakeTask(noise=3.0), save="main", call=1)
        visit("one", FakeTask(noise=2.0), save="main", test="t.py::other")
        found = {(header["test"], header["call"]) for header in BaselineFiles(store, "main").headers()}
        assert found == {("t.py::test", 0), ("t.py::test", 1), ("t.py::other", 0)}
        _, (comparison,), _ = visit("two", FakeTask(noise=3.0), compare="main", call=1)
        assert comparison.identical

    def test_a_test_without_an_entry_is_a_note(self, visit):
        visit("one", save="main")
        study, comparisons, complaint = visit("two", compare="main", test="t.py::new")
        assert "no baseline of this test in main" in study.notes
        assert (comparisons, complaint) == ([], "")

    def test_helpers_keep_and_judge_nothing(self, visit, store):
        visit("one", save="main", is_helping=True)
        assert not BaselineFiles(store, "main").exists()

    def test_a_study_that_fails_is_not_kept(self, visit, store):
        @dataclasses.dataclass(frozen=True, eq=False)
        class Fails(FakeTask):
            def fit(self, run):
                raise ValueError("boom")

        study, comparisons, _ = visit("one", Fails(), save="main")
        assert (len(study.failed), comparisons) == (3, [])
        assert not BaselineFiles(store, "main").exists()

    @pytest.mark.parametrize("damage", ["header", "array", "gone", "format"])
    def test_a_damaged_entry_is_an_error_that_says_what_to_do(self, visit, store, damage):
        visit("one", save="main")
        (header,) = store.glob("baselines/main/*.json")
        (array,) = store.glob("baselines/main/*.npy")
        if damage == "header":
            header.write_text("{")
        elif damage == "array":
            array.write_bytes(array.read_bytes()[:-1] + b"\x07")
        elif damage == "gone":
            array.unlink()
        else:
            header.write_text(json.dumps(json.loads(header.read_text()) | {"format": 99}))
        with pytest.raises(StoreError, match=r"cannot be used: .*--stability-save main --stability-update"):
            find(BaselineFiles(store, "main"), Place("t.py::test", 0), {})

    def test_nothing_is_executed(self, visit, store):
        visit("one", save="main")
        (header,) = store.glob("baselines/main/*.json")
        (array,) = store.glob("baselines/main/*.npy")
        np.save(array, np.array([print], dtype=object), allow_pickle=True)
        told = json.loads(header.read_text())
        told["array"]["sha256"] = digest = hashlib.sha256(array.read_bytes()).hexdigest()
        array.rename(array.with_name(array_name(header.stem, ".npy", digest)))
        header.write_text(json.dumps(told))
        with pytest.raises(StoreError, match="allow_pickle"):
            find(BaselineFiles(store, "main"), Place("t.py::test", 0), {})


class TestDoor:
    def test_names_are_checked_before_a_session_begins(self, visit, store):
        visit("one", save="main")
        check_baselines(store, save="new", compare="main", update=False)
        check_baselines(store, save="main", compare=None, update=True)
        cases = [
            ({"save": "main", "compare": None, "update": False}, r"name a new baseline but .* has 'main'"),
            ({"save": None, "compare": "nope", "update": False}, r"has no 'nope'. There are: main\. "),
            ({"save": "main", "compare": "main", "update": True}, "both name 'main'"),
        ]
        for asked, message in cases:
            with pytest.raises(ConfigError, match=message):
                check_baselines(store, **asked)

    def test_a_folder_without_studies_is_no_baseline(self, tmp_path):
        (tmp_path / "baselines" / "empty").mkdir(parents=True)
        assert BaselineFiles.all(tmp_path) == []
        with pytest.raises(ConfigError, match="There are: none"):
            check_baselines(tmp_path, save=None, compare="empty", update=False)


def test_a_study_in_which_nothing_moves_is_no_baseline(visit):
    def train(run):
        torch.manual_seed(0)
        return run.perturb(torch.nn.Linear(4, 3))(torch.ones(6, 4))

    with pytest.raises(IsolationError, match="init never reaches the weights"):
        visit("dead", as_task(train, torch.arange(6) % 3), save="other")
