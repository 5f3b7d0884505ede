"""Each way a budget can be wrong, with its message; how its judgements make a verdict."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.errors import BudgetError
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import sd_estimate
from stabilitykit.testing import fake_study
from stabilitykit.verdicts.budgets import Budget, Verdict
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.limits import FailedRuns


def estimate(value: float, low: float, high: float, runs: int = 10) -> Estimate:
    return Estimate(value, low, high, runs, "chi-square")


class TestConstruction:
    def test_limits_come_in_the_order_of_the_papers_columns_and_custom_ones_last(self):
        budget = Budget(f1_sd=0.01, disagreement=11, accuracy_sd=0.3, auc_sd=0.02)
        assert list(budget.limits.items()) == [
            ("accuracy_sd", 0.3),
            ("disagreement", 11.0),
            ("f1_sd", 0.01),
            ("auc_sd", 0.02),
        ]
        assert repr(budget) == "Budget(accuracy_sd=0.3, disagreement=11.0, f1_sd=0.01, auc_sd=0.02)"

    def test_a_budget_is_a_value(self):
        budget = Budget(accuracy_sd=0.3)
        assert budget == Budget(accuracy_sd=0.30, correlation=None)
        assert len({budget, Budget(accuracy_sd=0.3), Budget(accuracy_sd=0.4)}) == 2
        with pytest.raises(dataclasses.FrozenInstanceError):
            budget._limits = ()
        with pytest.raises(TypeError):
            budget.limits["accuracy_sd"] = 1.0

    @pytest.mark.parametrize("limit", [0, 0.3, 50, np.float32(0.25), np.int64(1), Fraction(1, 4)])
    def test_any_real_number_in_range_is_taken_without_complaint(self, limit):
        assert type(Budget(accuracy_sd=limit).limits["accuracy_sd"]) is float

    def test_a_correlation_may_be_negative(self):
        assert Budget(correlation=-0.2, pearson=-1).limits == {"correlation": -0.2, "pearson": -1}

    @pytest.mark.parametrize("limits", [{}, {"accuracy_sd": None}])
    def test_an_empty_budget_is_refused(self, limits):
        with pytest.raises(BudgetError) as refusal:
            Budget(**limits)
        assert str(refusal.value) == (
            "Expected at least one limit but got Budget(). Without a limit every model passes. Name what may vary and "
            "by how much, as in Budget(accuracy_sd=0.30, disagreement=11.0)."
        )

    @pytest.mark.parametrize("limit", ["0.3", True, math.nan, math.inf, -math.inf, [0.3], 1j, np.bool_(True)])
    def test_what_is_not_a_finite_number_is_refused(self, limit):
        with pytest.raises(BudgetError) as refusal:
            Budget(accuracy_sd=limit)
        assert str(refusal.value) == (
            f"Expected accuracy_sd to be a finite number but got accuracy_sd={limit!r}. It is in percentage points, "
            "and the SD of numbers from 0 to 100 is 50 at most; write accuracy_sd=0.30, for example."
        )

    @pytest.mark.parametrize(
        ("name", "limit", "message"),
        [
            ("accuracy_sd", 51, "Expected accuracy_sd <= 50 but got accuracy_sd=51. It is in percentage points"),
            ("accuracy_sd", -0.1, "Expected accuracy_sd >= 0 but got accuracy_sd=-0.1. It is in percentage points"),
            ("cross_entropy_sd", -1, "Expected cross_entropy_sd >= 0 but got cross_entropy_sd=-1. It is in nats"),
            (
                "disagreement",
                101,
                "Expected disagreement <= 100 but got disagreement=101. It is in percent of the test",
            ),
            ("disagreement", -1, "Expected disagreement >= 0 but got disagreement=-1. It is in percent of the test"),
            (
                "ensemble_delta",
                100.5,
                "Expected ensemble_delta <= 100 but got ensemble_delta=100.5. It is in percentage",
            ),
            (
                "ensemble_delta",
                -2,
                "Expected ensemble_delta >= 0 but got ensemble_delta=-2. It is in percentage points",
            ),
            ("correlation", 87, "Expected correlation <= 1 but got correlation=87. It is a correlation coefficient"),
            ("correlation", -1.1, "Expected correlation >= -1 but got correlation=-1.1. It is a correlation"),
            ("pearson", 2, "Expected pearson <= 1 but got pearson=2. It is a correlation coefficient, without a unit"),
            ("rmse_sd", -1, "Expected rmse_sd >= 0 but got rmse_sd=-1. It limits a spread, and no spread is negative"),
            ("f1_sd", -0.1, "Expected f1_sd >= 0 but got f1_sd=-0.1. It limits a spread, and no spread is negative"),
        ],
    )
    def test_an_impossible_value_is_refused_with_its_unit(self, name, limit, message):
        with pytest.raises(BudgetError) as refusal:
            Budget(**{name: limit})
        assert str(refusal.value).startswith(message)
        assert f"; write {name}=" in str(refusal.value)

    def test_no_task_names_its_metrics_before_training(self):
        budget = Budget(accuracy_sd=0.3, f1_sd=0.1)
        budget.check_names({"accuracy_sd", "f1_sd", "disagreement"})
        with pytest.raises(BudgetError) as refusal:
            budget.check_names(["accuracy_sd", "f2_sd"])
        assert str(refusal.value) == (
            "Expected a limit on a metric of this task but got Budget(f1_sd=...), which would never be judged. Did you "
            "mean f2_sd? The task has accuracy_sd, f2_sd."
        )

    def test_a_name_like_no_other_gets_no_suggestion(self):
        with pytest.raises(BudgetError, match=r"never be judged\. The task has rmse_sd\."):
            Budget(disagreement=11).judge({"rmse_sd": estimate(0.2, 0.1, 0.4)})


class TestErrorRates:
    @pytest.mark.parametrize("name", ["alpha", "beta"])
    @pytest.mark.parametrize("rate", [0, 0.5, -0.1, 1, math.nan, "0.05", True, None])
    def test_a_rate_that_means_nothing_is_refused(self, name, rate):
        with pytest.raises(BudgetError) as refusal:
            Budget(accuracy_sd=0.3, **{name: rate})
        assert str(refusal.value).startswith(f"Expected {name} between 0 and 0.5 but got {name}={rate!r}. It is how ")

    @pytest.mark.parametrize("ratio", [1, 0.5, -2, math.inf, math.nan, "2", True])
    def test_a_ratio_that_excludes_nothing_is_refused(self, ratio):
        with pytest.raises(BudgetError) as refusal:
            Budget(accuracy_sd=0.3, ratio=ratio)
        assert str(refusal.value).startswith(f"Expected ratio > 1 but got ratio={ratio!r} for accuracy_sd. A PASS says")

    def test_a_ratio_of_what_has_no_limit_is_refused(self):
        with pytest.raises(BudgetError, match=r"limits of this budget but got 'disagreement'\. It has accuracy_sd"):
            Budget(accuracy_sd=0.3, ratio={"disagreement": 1.5})

    @pytest.mark.parametrize("count", [-1, 1.0, True, "0"])
    def test_failed_runs_are_counted(self, count):
        with pytest.raises(BudgetError, match=f"Expected max_failed_runs >= 0 but got max_failed_runs={count!r}"):
            Budget(accuracy_sd=0.3, max_failed_runs=count)

    def test_ratios_are_2_for_sds_and_a_quarter_more_for_pairs(self):
        budget = Budget(accuracy_sd=0.3, disagreement=11, correlation=0.9, ensemble_delta=1, f1_sd=0.1)
        assert list(budget.ratios.values()) == [2, 1.25, 1.25, 1.25, 2]
        assert dict(Budget(accuracy_sd=0.3, disagreement=11, ratio=1.5).ratios) == dict.fromkeys(
            ("accuracy_sd", "disagreement"), 1.5
        )
        assert dict(Budget(accuracy_sd=0.3, disagreement=11, ratio={"accuracy_sd": 3}).ratios) == {
            "accuracy_sd": 3,
            "disagreement": 1.25,
        }

    def test_what_is_not_usual_is_in_the_name(self):
        budget = Budget(accuracy_sd=0.3, alpha=0.01, beta=0.1, ratio=1.5, max_failed_runs=1)
        assert (
            repr(budget)
            == "Budget(accuracy_sd=0.3, alpha=0.01, beta=0.1, ratio={'accuracy_sd': 1.5}, max_failed_runs=1)"
        )
        assert eval(repr(budget)) == budget

    def test_limits_share_alpha_and_each_has_all_of_beta(self):
        spread = sd_estimate([90.1, 90.9, 89.9, 90.2, 90.3])
        estimates = {"accuracy_sd": spread, "rmse_sd": spread}
        alone, shared = Budget(accuracy_sd=0.3), Budget(accuracy_sd=0.3, rmse_sd=0.3)
        (one,), (two, _) = alone.judge(estimates).judgements, shared.judge(estimates).judgements
        assert one.estimate == spread.at(0.05, 0.05)
        assert two.estimate == spread.at(0.025, 0.05)


class TestContradictions:
    @pytest.mark.parametrize(
        ("limits", "message"),
        [
            (
                {"accuracy_sd": 0.3, "disagreement": 0},
                "accuracy_sd=0.3 beside disagreement=0: runs that",
            ),
            (
                {"accuracy_sd": 8, "disagreement": 1},
                "accuracy_sd=8 beside disagreement=1: runs that",
            ),
            (
                {"ensemble_delta": 3, "disagreement": 2},
                "ensemble_delta=3 beside disagreement=2: runs that",
            ),
        ],
    )
    def test_a_limit_that_another_one_makes_idle_is_refused(self, limits, message):
        with pytest.raises(BudgetError) as refusal:
            Budget(**limits)
        assert message in str(refusal.value)

    @given(st.integers(2, 8), st.integers(2, 30), st.integers(0, 999))
    @settings(deadline=None, max_examples=60)
    def test_no_models_can_vary_more_than_is_claimed(self, runs, examples, seed):
        draw = np.random.default_rng(seed)
        shape, right = (runs, examples), draw.integers(3, size=examples)
        classes = np.where(draw.random(shape) < draw.random(), right, draw.integers(3, size=shape))
        logits = torch.eye(3)[torch.tensor(classes)].double() + 0.1 * torch.tensor(draw.random((*shape, 3)))
        study = fake_study(logits, torch.tensor(right))
        assert study.accuracy_sd.value <= math.sqrt(50 * study.disagreement.value) + 1e-9
        assert abs(study.ensemble_delta.value) <= study.disagreement.value + 1e-9


class TestVerdict:
    good, bad, open_ = estimate(0.2, 0.1, 0.4), estimate(0.9, 0.6, 1.4), estimate(0.5, 0.3, 0.8)

    @pytest.mark.parametrize(
        ("estimates", "outcome"),
        [
            ((good, good), Outcome.PASS),
            ((good, open_), Outcome.UNDECIDED),
            ((open_, bad), Outcome.FAIL),
            ((bad, good), Outcome.FAIL),
        ],
    )
    def test_the_worst_judgement_is_the_outcome(self, estimates, outcome):
        one, two = estimates
        budget = Budget(accuracy_sd=0.4, cross_entropy_sd=0.4, ratio=1.2)
        verdict = budget.judge({"accuracy_sd": one, "cross_entropy_sd": two})
        assert verdict.outcome is outcome

    def test_every_limit_is_judged_and_its_reason_is_in_the_summary(self):
        estimates = {
            "rmse_sd": self.open_,
            "disagreement": self.bad,
            "accuracy_sd": self.good,
            "correlation": self.good,
        }
        verdict = Budget(disagreement=0.4, accuracy_sd=0.4, rmse_sd=0.4, ratio=1.2).judge(estimates)
        assert [judgement.metric for judgement in verdict.judgements] == ["accuracy_sd", "disagreement", "rmse_sd"]
        lines = verdict.summary().splitlines()
        assert [line.split()[0] for line in lines] == ["FAIL", "UNDECIDED", "PASS"]  # the worst first
        accuracy, disagreement, rmse = (judgement.reason for judgement in verdict.judgements)
        assert [line[11:] for line in lines] == [disagreement, rmse, accuracy]

    def test_it_says_how_often_it_is_wrong(self):
        verdict = Budget(accuracy_sd=0.4, alpha=0.01, beta=0.1).judge({"accuracy_sd": self.good})
        assert verdict.error_rates() == (
            "error rates: a model within its budget fails in 1 % of studies at most, one beyond the ratio times it "
            "passes in 10 % at most"
        )

    def test_failed_runs_are_a_judgement_beside_the_others(self):
        verdict = Budget(accuracy_sd=0.4).judge({"accuracy_sd": self.good})
        assert verdict.beside(FailedRuns(0, 10, 0)).outcome is Outcome.PASS
        assert verdict.beside(FailedRuns(2, 10, 1)).outcome is Outcome.FAIL
        assert verdict.beside(FailedRuns(2, 10, 1)).summary().splitlines()[0] == (
            "FAIL       2 of 10 runs failed, and 1 may."
        )

    def test_outcomes_have_the_values_of_the_json_report(self):
        assert [outcome.value for outcome in Outcome] == ["pass", "fail", "undecided"]

    def test_a_verdict_is_a_value(self):
        judged = [Budget(accuracy_sd=0.4).judge({"accuracy_sd": self.good}) for _ in range(2)]
        assert isinstance(judged[0], Verdict)
        assert len(set(judged)) == 1


def test_making_a_budget_loads_neither_torch_nor_scipy():
    code = (
        "import sys; from stabilitykit.verdicts.budgets import Budget; Budget(accuracy_sd=0.3); "
        "print(sorted({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
