"""Each way a budget can be wrong, with its message; each branch of the rule, with its reason."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from stabilitykit.budgets import Budget, Verdict
from stabilitykit.errors import BudgetError
from stabilitykit.estimate import IDENTICAL_RUNS, Estimate
from stabilitykit.intervals import pairwise_estimate, sd_estimate
from stabilitykit.limits import Judgement, Outcome


def estimate(value: float, low: float, high: float, runs: int = 10) -> Estimate:
    return Estimate(value, low, high, runs, "chi-square")


def judge(name: str, limit: float, of: Estimate) -> Judgement:
    (judgement,) = Budget(**{name: limit}).judge({name: of}).judgements
    return judgement


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


class TestRule:
    def test_an_estimate_within_the_budget_passes(self):
        got = judge("accuracy_sd", 0.3, estimate(0.22, 0.16, 0.36))
        assert (got.outcome, got.runs_to_settle) == (Outcome.PASS, None)
        assert got.reason == "accuracy_sd 0.22 [0.16, 0.36] points is within the budget of 0.3 points."

    def test_an_estimate_on_the_budget_passes(self):
        assert judge("accuracy_sd", 0.3, estimate(0.3, 0.2, 0.5)).outcome is Outcome.PASS
        assert judge("correlation", 0.3, estimate(0.3, 0.2, 0.5)).outcome is Outcome.PASS

    def test_a_lower_bound_over_the_budget_fails(self):
        got = judge("disagreement", 11, estimate(13.1, 12.2, 14.0))
        assert (got.outcome, got.runs_to_settle) == (Outcome.FAIL, None)
        assert (
            got.reason == "disagreement 13.1 [12.2, 14.0] % is beyond the budget of 11 %, and so is its whole interval."
        )

    def test_a_lower_bound_on_the_budget_does_not_fail(self):
        assert judge("accuracy_sd", 0.3, estimate(0.4, 0.3, 0.5)).outcome is Outcome.UNDECIDED

    def test_an_interval_across_the_budget_is_undecided_and_says_how_many_runs_settle_it(self):
        got = judge("accuracy_sd", 0.3, estimate(0.35, 0.2552, 0.5758))
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, 49)
        assert got.reason == (
            "accuracy_sd 0.35 [0.26, 0.58] points is beyond the budget of 0.3 points, but its interval is not; about "
            "49 runs would settle it: --stability-runs 49."
        )

    def test_an_estimate_next_to_the_budget_is_not_worth_more_runs(self):
        got = judge("accuracy_sd", 0.3, estimate(0.301, 0.22, 0.5))
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, None)
        assert got.reason.endswith("but its interval is not; not even 1000 runs would settle it, so move the budget.")

    @pytest.mark.parametrize("metric", ["correlation", "pearson"])
    def test_a_likeness_has_a_lower_limit(self, metric):
        assert judge(metric, 0.87, estimate(0.90, 0.86, 0.94)).outcome is Outcome.PASS
        assert judge(metric, 0.87, estimate(0.85, 0.82, 0.88)).outcome is Outcome.UNDECIDED
        got = judge(metric, 0.87, estimate(0.81, 0.78, 0.84))
        assert got.outcome is Outcome.FAIL
        assert (
            got.reason
            == f"{metric} 0.810 [0.780, 0.840] is beyond the budget of at least 0.87, and so is its whole interval."
        )

    def test_an_undecided_likeness_is_settled_from_its_own_side(self):
        plain = judge("disagreement", 11, estimate(12, 10, 15))
        mirrored = judge("correlation", -0.11, estimate(-0.12, -0.15, -0.10))
        assert plain.runs_to_settle == mirrored.runs_to_settle > 10

    @pytest.mark.parametrize("metric", ["ensemble_delta", "cross_entropy_ensemble_delta", "f1_ensemble_delta"])
    @pytest.mark.parametrize(
        ("numbers", "outcome"),
        [
            ((0.4, 0.3, 0.5), Outcome.PASS),
            ((0.9, 0.6, 1.2), Outcome.FAIL),
            ((0.6, 0.4, 0.8), Outcome.UNDECIDED),
            ((0.6, -0.7, 1.9), Outcome.UNDECIDED),
            ((0.1, -0.8, 1.0), Outcome.PASS),
        ],
    )
    def test_an_ensemble_delta_is_judged_by_its_size(self, metric, numbers, outcome):
        value, low, high = numbers
        gain, loss = judge(metric, 0.5, estimate(value, low, high)), judge(metric, 0.5, estimate(-value, -high, -low))
        assert gain.outcome is loss.outcome is outcome
        assert gain.runs_to_settle == loss.runs_to_settle
        assert loss.estimate.value == -value

    @pytest.mark.parametrize("metric", ["correlation", "accuracy_sd", "f1_ensemble_delta"])
    def test_what_is_undefined_fails(self, metric):
        got = judge(metric, 0.3, Estimate.undefined(5, "a pair's value is not finite"))
        assert got.outcome is Outcome.FAIL
        assert (
            got.reason
            == f"{metric} is undefined (a pair's value is not finite), and what cannot be measured cannot pass."
        )

    @pytest.mark.parametrize(("runs", "share"), [(10, "28.3%"), (30, "9.8%")])
    def test_identical_runs_pass_with_what_they_prove(self, runs, share):
        got = judge("accuracy_sd", 0.0, sd_estimate([90.3] * runs))
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            f"accuracy_sd is exactly 0 points: all {runs} runs are equal in it, so P(a run differs) <= {share} "
            "at 95 % confidence."
        )

    def test_identical_runs_correlate_by_exactly_one(self):
        got = judge("correlation", 1.0, Estimate(1, 1, 1, 3, IDENTICAL_RUNS))
        assert got.outcome is Outcome.PASS
        assert got.reason.startswith("correlation is exactly 1: all 3 runs are equal in it")

    def test_one_pair_asks_for_a_third_run(self):
        got = judge("disagreement", 5, pairwise_estimate([[0, 9.0], [9.0, 0]]))
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, 3)
        assert got.reason.endswith("at least 3 runs would settle it: --stability-runs 3.")


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
        verdict = Budget(accuracy_sd=0.4, cross_entropy_sd=0.4).judge({"accuracy_sd": one, "cross_entropy_sd": two})
        assert verdict.outcome is outcome

    def test_every_limit_is_judged_and_its_reason_is_in_the_summary(self):
        estimates = {
            "rmse_sd": self.open_,
            "disagreement": self.bad,
            "accuracy_sd": self.good,
            "correlation": self.good,
        }
        verdict = Budget(disagreement=0.4, accuracy_sd=0.4, rmse_sd=0.4).judge(estimates)
        assert [judgement.metric for judgement in verdict.judgements] == ["accuracy_sd", "disagreement", "rmse_sd"]
        lines = verdict.summary().splitlines()
        assert [line.split()[0] for line in lines] == ["FAIL", "UNDECIDED", "PASS"]  # the worst first
        accuracy, disagreement, rmse = (judgement.reason for judgement in verdict.judgements)
        assert [line[11:] for line in lines] == [disagreement, rmse, accuracy]

    def test_outcomes_have_the_values_of_the_json_report(self):
        assert [outcome.value for outcome in Outcome] == ["pass", "fail", "undecided"]

    def test_a_verdict_is_a_value(self):
        judged = [Budget(accuracy_sd=0.4).judge({"accuracy_sd": self.good}) for _ in range(2)]
        assert isinstance(judged[0], Verdict)
        assert len(set(judged)) == 1


def test_making_a_budget_loads_neither_torch_nor_scipy():
    code = (
        "import sys; from stabilitykit.budgets import Budget; Budget(accuracy_sd=0.3); "
        "print(sorted({'torch', 'scipy', 'numpy'} & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
