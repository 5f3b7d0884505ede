"""Each branch of the rule on one limit, with its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from stabilitykit.estimates.estimate import IDENTICAL_RUNS, Estimate
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.limits import FailedRuns, Limit, LimitJudgement


def estimate(value: float, low: float, high: float, runs: int = 10) -> Estimate:
    """One whose bounds are these at any error rate."""
    return Estimate(value, low, high, runs, "chi-square")


def judge(metric: str, limit: float, of: Estimate, *, ratio: float = math.nan) -> LimitJudgement:
    return Limit(metric, limit, ratio).judge(of, 0.05, 0.05)


class TestSpreads:
    def test_an_upper_bound_below_the_ratio_times_the_limit_passes(self):
        got = judge("accuracy_sd", 0.3, estimate(0.22, 0.16, 0.59))
        assert (got.outcome, got.runs_to_settle) == (Outcome.PASS, None)
        assert got.reason == (
            "accuracy_sd 0.22 [0.16, 0.59] points over 10 runs is shown to be below 0.6 points (budget 0.3 points, "
            "ratio 2)."
        )
        assert judge("disagreement", 10, estimate(10.5, 9.9, 12.4)).outcome is Outcome.PASS

    def test_an_upper_bound_at_the_ratio_times_the_limit_does_not_pass(self):
        assert judge("accuracy_sd", 0.3, estimate(0.22, 0.16, 0.6)).outcome is Outcome.UNDECIDED
        assert judge("disagreement", 10, estimate(9.5, 9, 12.5)).outcome is Outcome.UNDECIDED

    def test_a_lower_bound_over_the_limit_fails_even_where_the_upper_bound_is_below_the_ratio_times_it(self):
        got = judge("disagreement", 11, estimate(12.5, 11.2, 13.0))
        assert (got.outcome, got.runs_to_settle) == (Outcome.FAIL, None)
        assert got.reason == (
            "disagreement 12.5 [11.2, 13.0] % over 10 runs is beyond the budget of 11 %, and so is its whole interval."
        )

    def test_a_lower_bound_on_the_limit_does_not_fail(self):
        assert judge("accuracy_sd", 0.3, estimate(0.4, 0.3, 0.7)).outcome is Outcome.UNDECIDED

    def test_each_bound_errs_as_often_as_it_is_told_to(self):
        spread = sd_estimate([90.1, 90.9, 89.9, 90.2, 90.3])
        strict = Limit("accuracy_sd", 0.3).judge(spread, alpha=0.001, beta=0.2).estimate
        assert strict == spread.at(0.001, 0.2)
        pairs = pairwise_estimate([[1, 0.8, 0.9], [0.8, 1, 0.7], [0.9, 0.7, 1]])
        assert Limit("correlation", 0.9).judge(pairs, alpha=0.001, beta=0.2).estimate == pairs.at(0.2, 0.001)

    @pytest.mark.parametrize(("metric", "limit"), [("accuracy_sd", 50), ("disagreement", 100), ("correlation", -1)])
    def test_a_limit_at_the_end_of_the_scale_passes_whatever_there_is(self, metric, limit):
        assert judge(metric, limit, estimate(0.5, -math.inf, math.inf, runs=2)).outcome is Outcome.PASS


class TestSettling:
    """An UNDECIDED limit says at how many runs an interval around the same value would decide it."""

    @pytest.mark.parametrize("relative", [0.6, 0.8, 1.2, 1.5, 1.7])
    def test_an_sd_is_settled_at_the_first_interval_beyond_one_of_the_two(self, relative):
        spread = sd_estimate([0.1, 0.9, 0.4])
        limit = spread.value / relative
        got = judge("accuracy_sd", limit, spread)
        assert got.outcome is Outcome.UNDECIDED
        df = next(df for df in range(3, 1000) if self.settles(df, relative))
        assert got.runs_to_settle == df + 1
        assert got.reason.endswith(f"; about {df + 1} runs would settle it: --stability-runs {df + 1}.")

    @staticmethod
    def settles(df: int, relative: float) -> bool:
        low, high = (math.sqrt(df / scipy.stats.chi2.ppf(level, df)) for level in (0.95, 0.05))
        return relative * low > 1 or relative * high < 2

    def test_a_mean_over_pairs_is_settled_when_its_margin_is_small_enough(self):
        pairs = pairwise_estimate([[0, 10, 12, 9], [10, 0, 11, 10], [12, 11, 0, 13], [9, 10, 13, 0]])
        got = judge("disagreement", 10, pairs)
        error = (pairs.high - pairs.value) / scipy.stats.t.isf(0.05, 3) * 2
        wanted = next(
            runs
            for runs in range(5, 1000)
            if abs(12.5 - pairs.value) > scipy.stats.t.isf(0.05, runs - 1) * error / math.sqrt(runs)
        )
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, wanted)

    def test_one_pair_asks_for_a_third_run(self):
        got = judge("disagreement", 5, pairwise_estimate([[0, 9.0], [9.0, 0]]))
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, 3)
        assert got.reason.endswith("at least 3 runs would settle it: --stability-runs 3.")

    def test_what_would_take_a_thousand_runs_asks_for_another_budget(self):
        spread = sd_estimate(np.linspace(0, 1, 5))
        got = judge("accuracy_sd", spread.value / 1.01, spread, ratio=1.02)
        assert (got.outcome, got.runs_to_settle) == (Outcome.UNDECIDED, None)
        assert got.reason.endswith("; not even 1000 runs would settle it, so move the budget.")

    def test_a_likeness_is_settled_as_its_mirror_image_is(self):
        pairs = np.array([[0, 10, 12, 9], [10, 0, 11, 10], [12, 11, 0, 13], [9, 10, 13, 0]]) / 100
        plain = judge("auc_gap", 0.1, pairwise_estimate(pairs), ratio=1.25)
        mirrored = judge("correlation", 0.9, pairwise_estimate(1 - pairs))
        assert plain.runs_to_settle == mirrored.runs_to_settle > 4


class TestOtherKinds:
    @pytest.mark.parametrize("metric", ["correlation", "pearson"])
    def test_a_likeness_has_a_lower_limit(self, metric):
        got = judge(metric, 0.88, estimate(0.90, 0.86, 0.94))
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            f"{metric} 0.900 [0.860, 0.940] over 10 runs is shown to be above 0.85 (budget at least 0.88, ratio 1.25)."
        )
        assert judge(metric, 0.87, estimate(0.85, 0.82, 0.88)).outcome is Outcome.UNDECIDED
        got = judge(metric, 0.87, estimate(0.81, 0.78, 0.84))
        assert got.outcome is Outcome.FAIL
        assert got.reason == (
            f"{metric} 0.810 [0.780, 0.840] over 10 runs is beyond the budget of at least 0.87, and so is its whole "
            f"interval."
        )

    @pytest.mark.parametrize("metric", ["ensemble_delta", "cross_entropy_ensemble_delta", "f1_ensemble_delta"])
    @pytest.mark.parametrize(
        ("numbers", "outcome"),
        [
            ((0.4, 0.3, 0.6), Outcome.PASS),
            ((0.9, 0.6, 1.2), Outcome.FAIL),
            ((0.6, 0.4, 0.8), Outcome.UNDECIDED),
            ((0.6, -0.7, 1.9), Outcome.UNDECIDED),
            ((0.1, -0.5, 0.6), Outcome.PASS),
            ((0.1, -0.8, 0.6), Outcome.UNDECIDED),
        ],
    )
    def test_an_ensemble_delta_is_judged_by_its_size(self, metric, numbers, outcome):
        value, low, high = numbers
        gain, loss = judge(metric, 0.5, estimate(value, low, high)), judge(metric, 0.5, estimate(-value, -high, -low))
        assert gain.outcome is loss.outcome is outcome
        assert loss.estimate.value == -value

    @pytest.mark.parametrize("metric", ["correlation", "accuracy_sd", "f1_ensemble_delta"])
    def test_what_is_undefined_fails(self, metric):
        got = judge(metric, 0.3, Estimate.undefined(5, "a pair's value is not finite"))
        assert got.outcome is Outcome.FAIL
        assert (
            got.reason
            == f"{metric} is undefined (a pair's value is not finite), and what cannot be measured cannot pass."
        )


class TestNothing:
    """Runs that are equal, and limits that let nothing differ."""

    @pytest.mark.parametrize(("runs", "share"), [(10, "28.3%"), (30, "9.8%")])
    def test_identical_runs_pass_with_what_they_prove(self, runs, share):
        got = judge("accuracy_sd", 0.0, sd_estimate([90.3] * runs))
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            f"accuracy_sd is exactly 0 points: all {runs} runs are equal in it, so P(a run differs) <= {share} "
            "at 95 % confidence."
        )
        assert judge("accuracy_sd", 0.3, sd_estimate([90.3] * runs)).outcome is Outcome.PASS

    def test_identical_runs_correlate_by_exactly_one(self):
        got = judge("correlation", 1.0, Estimate(1, 1, 1, 3, IDENTICAL_RUNS))
        assert got.outcome is Outcome.PASS
        assert got.reason.startswith("correlation is exactly 1: all 3 runs are equal in it")

    def test_a_limit_that_lets_nothing_differ_fails_at_the_first_difference(self):
        pair = pairwise_estimate([[0, 1e-6], [1e-6, 0]])  # one pair, no interval: the difference is there all the same
        got = judge("disagreement", 0, pair)
        assert got.outcome is Outcome.FAIL
        assert got.reason.endswith(" over 2 runs is beyond the budget of 0 %, which allows no difference at all.")
        assert judge("correlation", 1, estimate(0.999, 0.9, 1)).outcome is Outcome.FAIL


class TestFailedRuns:
    @pytest.mark.parametrize(("runs", "share"), [(20, "13.9%"), (5, "45.1%")])
    def test_no_failure_bounds_how_often_runs_fail(self, runs, share):
        got = FailedRuns(0, runs, 0)
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            f"0 of {runs} runs failed, within the 0 that may: P(a run fails) <= {share} at 95 % confidence."
        )
        assert f"{1 - 0.05 ** (1 / runs):.1%}" == share

    def test_some_that_may_fail_bound_it_too(self):
        share = scipy.stats.beta.ppf(0.95, 3, 18)
        assert f"P(a run fails) <= {share:.1%} at" in FailedRuns(2, 20, 2).reason
        assert FailedRuns(2, 20, 2).outcome is Outcome.PASS

    def test_more_than_may_is_a_failure(self):
        assert FailedRuns(2, 20, 1).outcome is Outcome.FAIL
        assert FailedRuns(2, 20, 1).reason == "2 of 20 runs failed, and 1 may."
