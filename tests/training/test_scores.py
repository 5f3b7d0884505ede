"""Scores that a training returns, alone and beside its outputs."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
import torch

from stabilitykit import Budget, Outcome, at_least, check
from stabilitykit.errors import IsolationError, RunsFailedError, TaskError
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_files import RunFiles
from stabilitykit.training.control import difference
from stabilitykit.training.scores import (
    fault_of_scores,
    results_digest,
    scores_alone,
    scores_of_runs,
    without_scores,
)
from stabilitykit.training.task import as_task
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED

LABELS = torch.arange(12) % 3
OUTPUTS = torch.zeros(12, 3)


class TestAlone:
    @pytest.mark.parametrize(
        "number",
        [
            0.5,
            torch.tensor(0.5),
            torch.tensor(0.5, dtype=torch.bfloat16),
            np.float32(0.5),
            np.array(0.5),
            Decimal("0.5"),
        ],
    )
    def test_every_kind_of_real_number_is_taken(self, number):
        assert scores_alone(number) == {"score": 0.5}
        assert scores_alone({"val_loss": number}) == {"val_loss": 0.5}

    def test_an_integer_becomes_a_float(self):
        (found,) = scores_alone(450).values()
        assert type(found) is float

    @pytest.mark.parametrize(
        "value",
        [
            True,
            np.bool_(True),
            torch.tensor(True),
            "0.5",
            None,
            1j,
            torch.tensor(1j),
            torch.ones(1),
            np.ones(3),
            np.ma.masked,
            [0.5],
            {"a": 1.0},
        ],
    )
    def test_what_is_no_real_number_is_refused_by_name(self, value):
        with pytest.raises(TaskError, match="Expected the score 'reward' to be one real number but got"):
            scores_alone({"reward": value})

    @pytest.mark.parametrize("value", [True, "0.5", None, OUTPUTS, (OUTPUTS, LABELS)])
    def test_what_is_neither_a_number_nor_a_mapping_is_refused_with_the_way_out(self, value):
        with pytest.raises(TaskError, match=r"from a training without labels= but got .* or give labels="):
            scores_alone(value)

    def test_outputs_without_labels_are_told_to_have_labels(self):
        with pytest.raises(TaskError, match="are scored by labels="):
            scores_alone({"outputs": OUTPUTS})

    def test_no_score_at_all_is_refused(self):
        with pytest.raises(TaskError, match="an empty mapping"):
            scores_alone({})

    @pytest.mark.parametrize(
        "name",
        ["accuracy", "rmse", "brier", "disagreement", "correlation", "perplexity", "loss_sd", "a_ensemble_delta"],
    )
    def test_a_name_that_a_measure_has_is_refused(self, name):
        with pytest.raises(TaskError, match=f"but got '{name}', which "):
            scores_alone({name: 0.5})

    @pytest.mark.parametrize("name", ["val/loss", "", 3])
    def test_a_name_that_no_budget_could_give_is_refused(self, name):
        with pytest.raises(TaskError, match="is no identifier"):
            scores_alone({name: 0.5})


class TestBesideOutputs:
    @pytest.mark.parametrize(
        "returned",
        [(OUTPUTS, {"reward": 3.1}), {"outputs": OUTPUTS, "scores": {"reward": 3.1}}],
    )
    def test_they_are_split(self, returned):
        outputs, scores = without_scores(returned)
        assert outputs is OUTPUTS
        assert scores == {"reward": 3.1}

    def test_labels_may_come_between(self):
        assert without_scores((OUTPUTS, LABELS, {"reward": 3})) == ((OUTPUTS, LABELS), {"reward": 3.0})
        named, scores = without_scores({"outputs": OUTPUTS, "labels": LABELS, "scores": {"reward": 3}})
        assert named == {"outputs": OUTPUTS, "labels": LABELS}
        assert scores == {"reward": 3.0}

    @pytest.mark.parametrize("returned", [OUTPUTS, (OUTPUTS, LABELS), {"outputs": OUTPUTS, "labels": LABELS}, None])
    def test_outputs_alone_stay_as_they_are(self, returned):
        assert without_scores(returned) == (returned, {})

    def test_scores_that_are_no_mapping_are_refused(self):
        with pytest.raises(TaskError, match="Expected 'scores' to map names to numbers but got float"):
            without_scores({"outputs": OUTPUTS, "scores": 3.1})


def test_what_is_not_finite_is_a_fault_with_its_name():
    assert fault_of_scores({"a": 1.0, "b": math.nan, "c": -math.inf}) == "the score 'b' is nan; the score 'c' is -inf"
    assert fault_of_scores({"a": 1.0}) == ""


def test_every_bit_of_outputs_and_scores_changes_the_digest():
    results = [
        (OUTPUTS, {}),
        (OUTPUTS, {"a": 1.0}),
        (OUTPUTS + 1, {"a": 1.0}),
        (OUTPUTS, {"a": math.nextafter(1, 2)}),
        (OUTPUTS, {"b": 1.0}),
        (None, {"a": 1.0}),
    ]
    assert len({results_digest(*one) for one in results}) == len(results)
    assert results_digest(None, {"a": 1.0, "b": 2.0}) == results_digest(None, {"b": 2.0, "a": 1.0})


def test_runs_with_other_names_are_refused_with_run_and_names():
    runs = [RunRecord(i, {}, "ok", 0.0, scores=scores) for i, scores in enumerate([{"a": 1.0}, {"a": 2.0, "b": 1.0}])]
    with pytest.raises(TaskError, match="but run 0 returned a and run 1 a, b"):
        scores_of_runs(runs)
    assert scores_of_runs(runs[:1]) == {"a": [1.0]}


@pytest.mark.parametrize("scores", [{"a": "1"}, {"a": True}, {"a": None}, {"a": 3}, {"a": math.inf}, ["a"]])
def test_a_header_whose_scores_are_no_finite_floats_counts_as_damaged(tmp_path, scores):
    files = RunFiles(tmp_path)
    files.folder.mkdir()
    process = {"session": "s", "worker": "main", "host": "h", "pid": 1, "time": 0.0, "attempt": 1}
    values = RunRecord(0, {}, "ok", 0.0, scores={"a": 1e300}, trained_by=process).to_json()
    assert files.write(0, values, None) is not None
    assert files.header(0) is not None
    files.write(0, {**values, "scores": scores}, None, replace=True)
    assert files.header(0) is None


class TestRuns:
    """As runs are trained."""

    def trained(self, function, tmp_path, labels=None, index=0):
        plan = NoiseProtocol("all", runs=3, seed=BASE_SEED).plans()[index]
        return Trainer(as_task(function, labels), "cpu", 1, tmp_path).train_once(plan)

    def test_a_run_leaves_its_scores_and_no_outputs(self, tmp_path):
        record = self.trained(lambda seed: {"val_loss": 0.25}, tmp_path)
        assert (record.status, record.scores, record.logits) == ("ok", {"val_loss": 0.25}, None)
        assert record.fingerprint

    def test_both_are_left_together(self, tmp_path):
        record = self.trained(lambda seed: (OUTPUTS, {"reward": 3}), tmp_path, LABELS)
        assert record.scores == {"reward": 3.0}
        assert torch.equal(record.logits, OUTPUTS)

    @pytest.mark.parametrize("labels", [None, LABELS])
    def test_a_score_that_is_nan_fails_the_run(self, tmp_path, labels):
        score = {"val_loss": math.nan}
        record = self.trained(lambda seed: score if labels is None else (OUTPUTS, score), tmp_path, labels)
        assert (record.status, record.error) == ("failed", "the score 'val_loss' is nan")

    def test_a_score_that_is_none_is_an_error_at_the_first_run(self, tmp_path):
        with pytest.raises(TaskError, match="'val_loss' to be one real number but got NoneType"):
            self.trained(lambda seed: {"val_loss": None}, tmp_path)

    def test_a_round_through_the_store_is_exact(self, ask):
        def train(seed):
            rng = np.random.default_rng(seed)
            return {"a": rng.standard_normal(), "b": 10.0 ** rng.uniform(-300, 300)}

        first, again = ask(train, "all", runs=4), ask(train, "all", runs=4)
        assert [run.trained_by for run in first.records] == [run.trained_by for run in again.records]
        assert [run.scores for run in first.records] == [run.scores for run in again.records]
        seeds = [run.seeds["init"] for run in first.records]
        assert [run.scores["a"] for run in first.records] == [train(seed)["a"] for seed in seeds]

    def test_a_failed_run_fails_the_study(self, ask):
        def train(seed):
            return {"a": math.inf if seed % 2 else 1.0}

        with pytest.raises(RunsFailedError, match="the score 'a' is inf"):
            ask(train, "all", runs=4)

    def test_names_that_differ_between_runs_are_an_error(self, ask):
        def train(seed):
            return {"a": 1.0} if seed % 2 else {"b": 1.0}

        with pytest.raises(TaskError, match="Expected all runs to return the same scores"):
            ask(train, "all", runs=4)

    def test_a_score_that_leaks_is_found_by_the_control(self, ask):
        drawn = iter(range(1000))

        def train(run):
            with run.stream("init"):
                return {"a": torch.rand(()).item() + next(drawn)}

        with pytest.raises(IsolationError, match="they differ in the test outputs or scores"):
            ask(train, "init")

    def test_a_score_that_leaks_beside_equal_outputs_is_found(self, ask):
        drawn = iter(range(1000))

        def train(run):
            with run.stream("init"):
                return torch.randn(12, 3), {"a": float(next(drawn))}

        with pytest.raises(IsolationError, match="scores"):
            ask(train, "init", labels=LABELS)

    def test_scores_that_differ_beside_equal_weights_are_named(self):
        one, other = (RunRecord(0, {}, "ok", 0.0, fingerprint="f", trace=("t",), scores={"a": a}) for a in (1.0, 2.0))
        assert difference(one, other).startswith("their scores differ: a is 1.0 in one and 2.0 in the other, and their")
        assert difference(one, one) == ""

    def test_failed_runs_have_not_reached_a_limit_in_a_check_either(self, make_session):
        def train(seed):
            return math.nan if seed % 2 else 1.0

        protocol = NoiseProtocol("all", runs=8, seed=BASE_SEED)
        budget = Budget(score=at_least(0), max_failed_runs=5)
        study = check(train, protocol, budget=budget, session=make_session())
        assert study.failed
        assert study.verdicts[-1].outcome is Outcome.UNDECIDED
