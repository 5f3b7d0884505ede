"""Differences between two samples of runs: against SciPy, and against how often they may be wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stabilitykit.estimates.differences import (
    distribution_difference,
    mean_difference,
    no_ratio,
    pairwise_difference,
    spread_ratio,
    variance_of_test_set,
)

REPLICATES = 3000
#: Three Monte-Carlo errors above the nominal 5 %.
MOST = 5 + 3 * 100 * math.sqrt(0.05 * 0.95 / REPLICATES)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def percent(found: object) -> float:
    return float(100 * np.mean(list(found)))  # type: ignore[call-overload]


class TestMean:
    @pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
    def test_is_welch_as_scipy_has_it(self, alpha):
        x, y = normal(0, 7), 2 * normal(1, 12) + 0.5
        found = mean_difference(x, y, alpha=alpha)
        scipy = stats.ttest_ind(y, x, equal_var=False)
        interval = scipy.confidence_interval(1 - 2 * alpha)
        assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
        assert found.p_more == pytest.approx(stats.ttest_ind(y, x, equal_var=False, alternative="greater").pvalue)
        assert found.p_less == pytest.approx(1 - found.p_more)

    def test_is_the_paired_t_as_scipy_has_it(self):
        x = normal(0, 9)
        y = x + 0.3 * normal(1, 9) + 0.2
        found = mean_difference(x, y, paired=True)
        assert found.p_more == pytest.approx(stats.ttest_rel(y, x, alternative="greater").pvalue)
        assert found.high - found.low < mean_difference(x, y).high - mean_difference(x, y).low, "they go together"

    @pytest.mark.parametrize("paired", [False, True])
    @pytest.mark.parametrize("runs", [3, 10])
    def test_claims_a_difference_that_is_not_in_five_percent(self, paired, runs):
        draws = normal(runs, REPLICATES, 2, runs)
        found = [mean_difference(x, y, paired=paired) for x, y in draws]
        for name in ("is_more", "is_less"):
            assert 3 < percent(getattr(difference, name) for difference in found) < MOST

    @pytest.mark.parametrize(("size", "runs"), [(0.75, 32), (1, 18), (1.5, 9), (2, 6)])
    def test_runs_needed_are_those_of_the_specification_and_have_that_power(self, size, runs):
        x = np.array([-1.0, 1.0]) / math.sqrt(2)  # SD 1
        assert mean_difference(x, x + size).runs_needed == runs
        draws = normal(0, 1500, 2, runs)
        assert 88 < percent(mean_difference(a, b + size).is_more for a, b in draws) < 95

    def test_what_is_shown_needs_no_runs(self):
        assert mean_difference([0, 1, 0, 1], [9, 8, 9, 8]).runs_needed is None
        assert mean_difference([0, 1, 0, 1], [0, 1, 0, 1.0001]).runs_needed is None, "beyond 1000"

    def test_equal_runs(self):
        same = mean_difference([80.1] * 3, [80.1] * 3)
        assert (same.value, same.low, same.high, same.p_more, same.p_less) == (0, 0, 0, 1, 1)
        more = mean_difference([80.1] * 3, [80.2] * 3)
        assert more.is_more, "two models without any randomness"
        assert not more.is_less

    def test_steps_do_no_harm(self):
        draw = np.random.default_rng(0)
        draws = np.round(0.5 * draw.normal(size=(REPLICATES, 2, 3)) + draw.random((REPLICATES, 1, 1)))
        assert percent(mean_difference(x, y).is_more for x, y in draws) < MOST

    def test_a_score_that_is_not_finite_is_no_difference(self):
        found = mean_difference([1.0, math.nan], [1.0, 2.0])
        assert not found.is_more
        assert not found.is_less
        assert found.to_json()["value"] is None
        assert found.method == "undefined: a score is not finite"


class TestDistribution:
    @staticmethod
    def pair(draw: np.random.Generator, runs: int, examples: int) -> tuple[np.ndarray, np.ndarray]:
        """Two models of equal accuracy on the distribution, each with its own strengths."""
        chances = draw.beta(2, 0.3, size=(2, 1, examples))
        right = 100.0 * (draw.random((2, runs, examples)) < chances)
        return right[0], right[1]

    def test_a_difference_on_this_test_set_alone_is_not_one_on_the_distribution(self):
        draw = np.random.default_rng(0)
        here, there = [], []
        for _ in range(1000):
            x, y = self.pair(draw, 10, 400)
            here.append(mean_difference(x.mean(1), y.mean(1)).is_more)
            there.append(distribution_difference(x.mean(1), y.mean(1), (x, y)).is_more)
        assert percent(here) > 15
        assert 3 < percent(there) < 7.1

    def test_three_runs_are_enough_for_its_error_rate(self):
        draw = np.random.default_rng(1)
        there = []
        for _ in range(1500):
            chances = draw.beta(2, 0.3, size=200) + 0.05 * draw.normal(size=(2, 3, 1))  # one model, noise of each run
            x, y = 100.0 * (draw.random((2, 3, 200)) < chances)
            there.append(distribution_difference(x.mean(1), y.mean(1), (x, y)).is_more)
        assert percent(there) < 6.7, "a normal quantile has 9 here"

    @pytest.mark.parametrize("paired", [False, True])
    def test_variance_of_the_test_set_is_without_bias(self, paired):
        """By the formula of the specification where runs are not paired; and what it estimates is known here."""
        draw = np.random.default_rng(2)
        found, truth = [], []
        for _ in range(300):
            chances = draw.beta(2, 1, size=(2, 1, 300))
            luck = draw.random((2, 5, 300))
            if paired:
                luck[1] = luck[0]
            x, y = (luck < chances).astype(float)
            found.append(300 * variance_of_test_set(x, y, paired=paired))
            truth.append((chances[1] - chances[0]).var())
        assert np.mean(found) == pytest.approx(np.mean(truth), rel=0.02)
        p, q, runs = x.mean(0), y.mean(0), 5
        if not paired:
            specified = (q - p).var(ddof=1) - (p * (1 - p) / (runs - 1) + q * (1 - q) / (runs - 1)).mean()
            assert found[-1] == pytest.approx(specified)

    def test_says_when_more_runs_or_only_more_examples_would_show_it(self):
        draw = np.random.default_rng(3)
        x, y = self.pair(draw, 10, 100)
        few = distribution_difference(x.mean(1), x.mean(1) + 0.5, (x, y))
        assert few.runs_needed is None
        assert few.examples_needed > 1000
        noise = draw.normal(size=(2, 3, 1))
        many = distribution_difference(noise[0, :, 0], noise[1, :, 0] + 1, (x[:3] * 0, x[:3] * 0))
        assert many.examples_needed is None
        assert many.runs_needed > 3

    def test_one_example_has_no_variance(self):
        assert variance_of_test_set(np.ones((3, 1)), np.zeros((3, 1)), paired=False) == 0


class TestSpread:
    def test_from_ten_runs_on_it_is_brown_forsythe_as_scipy_has_it(self):
        x, y = normal(0, 12), 1.5 * normal(1, 15)
        deviations = [np.abs(part - np.median(part)) for part in (x, y)]
        found = spread_ratio(x, y)
        expected = stats.ttest_ind(deviations[1], deviations[0], alternative="greater").pvalue
        assert found.p_more == pytest.approx(expected)
        assert found.value == pytest.approx(deviations[1].mean() / deviations[0].mean())
        assert found.method == "Brown-Forsythe"

    def test_with_fewer_it_is_the_f_test(self):
        x, y = normal(0, 9), 1.5 * normal(1, 15)
        found = spread_ratio(x, y)
        assert found.value == pytest.approx(y.std(ddof=1) / x.std(ddof=1))
        assert found.p_more == pytest.approx(stats.f.sf(found.value**2, 14, 8))
        assert found.method == "F, assumes normal"

    @pytest.mark.parametrize("runs", [4, 9, 10, 25])
    def test_a_bound_lies_at_the_ratio_where_the_test_just_rejects(self, runs):
        for seed in range(20):
            x, y = normal(seed, 2, runs) * [[1.0], [2.0]]
            found = spread_ratio(x, y)
            assert found.is_more == (found.low > 1)
            assert found.is_less == (found.high < 1)
            if found.low > 0:
                assert spread_ratio(found.low * x, y).p_more == pytest.approx(0.05)
            if found.high < math.inf:
                assert spread_ratio(found.high * x, y).p_less == pytest.approx(0.05)

    @pytest.mark.parametrize(("runs", "power"), [(5, 30), (10, 44), (30, 93)])
    def test_error_rate_and_power_at_twice_the_spread(self, runs, power):
        draws = normal(runs, REPLICATES, 2, runs)
        assert 3 < percent(spread_ratio(x, y).is_more for x, y in draws) < MOST
        assert power < percent(spread_ratio(x, 2 * y).is_more for x, y in draws) < power + 7

    def test_heavy_tails_do_not_fool_it_from_ten_runs_on(self):
        draws = np.random.default_rng(0).standard_t(5, size=(REPLICATES, 2, 10))
        assert percent(spread_ratio(x, y).is_more for x, y in draws) < MOST

    @pytest.mark.parametrize(("ratio", "runs"), [(1.5, 54), (2, 20), (2.5, 13), (3, 9)])
    def test_runs_needed_are_those_of_the_specification(self, ratio, runs):
        assert spread_ratio([-1.0, 1.0], [-ratio, ratio]).runs_needed == runs

    def test_no_spread(self):
        assert spread_ratio([5.0] * 4, [7.0] * 4) == no_ratio(0.05, "no spread in either")
        assert spread_ratio([5.0] * 4, [7.0, 8.0, 7.0, 9.0]).is_more
        assert spread_ratio([5.0, 6.0, 5.0, 6.0], [7.0] * 4).is_less
        assert spread_ratio([5.0] * 12, [7.0, 8.0, 6.5] * 4).is_more
        both = spread_ratio([5.0, 6.0] * 6, [5.0, 6.0] * 6)
        assert (both.value, both.p_more) == (1, 0.5), "deviations without a variance of their own"

    def test_steps_are_a_spread(self):
        # With an SD of half a step, 4 runs are equal in a fifth of all studies.
        draws = np.round(0.5 * normal(0, REPLICATES, 2, 4))
        floor = 1 / math.sqrt(12)
        found = [spread_ratio(x, y, rounding=(floor, floor)) for x, y in draws]
        assert percent(difference.is_more for difference in found) < MOST
        assert percent(spread_ratio(x, y).is_more for x, y in draws) > 2 * MOST


def kernel(draw: np.random.Generator, of_run: np.ndarray) -> np.ndarray:
    """A matrix over pairs of runs: an effect of each run, and noise of each pair."""
    noise = np.triu(draw.normal(size=(len(of_run), len(of_run))), 1)
    pairs = 10 + of_run[:, None] + of_run + noise + noise.T
    np.fill_diagonal(pairs, 0)
    return pairs


class TestPairs:
    @pytest.mark.slow
    @pytest.mark.parametrize("runs", [3, 5, 10])
    @pytest.mark.parametrize("paired", [False, True])
    def test_claims_a_difference_that_is_not_in_five_percent(self, runs, paired):
        draw = np.random.default_rng(runs)
        found = []
        for _ in range(REPLICATES):
            shared = paired * draw.normal(size=runs)
            x, y = (kernel(draw, shared + 0.3 * draw.normal(size=runs)) for _ in range(2))
            found.append(pairwise_difference(x, y, paired=paired))
        for name in ("is_more", "is_less"):
            assert (
                0.3 < percent(getattr(difference, name) for difference in found) < MOST
            )  # 3 runs err on the safe side

    def test_pairing_shows_what_the_seeds_hide(self):
        draw = np.random.default_rng(0)
        shown = {True: 0, False: 0}
        for _ in range(200):
            shared = draw.normal(size=8)
            x, y = kernel(draw, shared), kernel(draw, shared) + 1
            for paired in shown:
                shown[paired] += pairwise_difference(x, y, paired=paired).is_more
        assert shown[True] > 150 > 60 > shown[False]

    def test_one_pair_says_nothing(self):
        found = pairwise_difference([[0, 9], [9, 0]], [[0, 19], [19, 0]])
        assert found.value == 10
        assert not found.is_more
        assert found.to_json()["p_more"] is None

    def test_models_without_any_randomness_are_as_they_are(self):
        same = pairwise_difference(np.zeros((4, 4)), np.zeros((3, 3)))
        assert (same.value, same.p_more, same.p_less) == (0, 1, 1)
        draw = np.random.default_rng(0)
        assert pairwise_difference(np.zeros((4, 4)), kernel(draw, np.zeros(4)), percent_of=100).is_more

    def test_ties_on_few_examples_prove_little(self):
        tied = 5.0 * (1 - np.eye(3))
        more = 10.0 * (1 - np.eye(3))
        assert pairwise_difference(tied, more).is_more
        assert not pairwise_difference(tied, more, percent_of=20).is_more

    def test_a_pair_without_a_value_is_no_difference(self):
        x = np.full((3, 3), np.nan)
        assert not pairwise_difference(x, np.ones((3, 3))).is_more
