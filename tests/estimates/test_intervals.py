"""The intervals against known quantiles, explicit formulas, and the error rates of docs/statistics.md by simulation."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from stabilitykit.errors import ProtocolError
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import IDENTICAL_RUNS, Estimate
from stabilitykit.estimates.intervals import (
    mean_estimate,
    p_above,
    pairwise_estimate,
    sd_estimate,
)

#: Studies a simulated rate rests on. The rates of docs/statistics.md rest on 3,000 or more.
STUDIES = 2000


def rate_tolerance(rate: float) -> float:
    """Three Monte-Carlo errors of the difference between a rate of ours and one of docs/statistics.md."""
    return 3 * math.sqrt(rate * (1 - rate) * (1 / STUDIES + 1 / 3000))


def misses(estimates: list[Estimate], truth: float) -> tuple[float, float]:
    """How often the lower bound lies above the truth, and the upper bound below it."""
    return float(np.mean([e.low > truth for e in estimates])), float(np.mean([e.high < truth for e in estimates]))


def symmetric(runs: int, seed: int = 0) -> np.ndarray:
    own, noise = np.random.default_rng(seed).normal(size=(2, runs, runs))
    pairs = 10 + own[:, :1] + own[:, :1].T + noise + noise.T
    np.fill_diagonal(pairs, 0)
    return pairs


values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20)


class TestMean:
    def test_is_the_t_interval_of_scipy(self):
        sample = [90.1, 90.4, 89.9, 90.0, 90.3]
        estimate = mean_estimate(sample)
        expected = scipy.stats.ttest_1samp(sample, 0).confidence_interval(0.90)
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), rel=1e-12)
        assert estimate.value == pytest.approx(statistics.fmean(sample), rel=1e-14)

    @pytest.mark.parametrize("number", [0.1, 90.3, 1e300, -7e-300])
    def test_of_equal_numbers_is_that_number(self, number):
        estimate = mean_estimate([number] * 7)
        assert estimate.low == estimate.value == estimate.high == number
        assert estimate.is_exact


class TestSD:
    @given(values)
    @settings(deadline=None, max_examples=20)
    def test_agrees_with_the_standard_library(self, sample):
        assert sd_estimate(sample).value == pytest.approx(statistics.stdev(sample), rel=1e-9, abs=1e-9)

    @pytest.mark.parametrize("runs", range(2, 13))
    def test_agrees_with_plain_loops_far_from_zero(self, runs):
        sample = [90 + k * k / 64 for k in range(runs)]
        mean = math.fsum(sample) / runs
        expected = math.sqrt(math.fsum((value - mean) ** 2 for value in sample) / (runs - 1))
        assert sd_estimate(sample).value == pytest.approx(expected, rel=1e-10)

    @given(st.floats(-1e12, 1e12), st.integers(2, 40), st.booleans())
    @settings(deadline=None, max_examples=50)
    def test_of_equal_numbers_is_exactly_zero(self, number, runs, robust):
        estimate = sd_estimate([number] * runs, robust=robust)
        assert (estimate.value, estimate.low, estimate.high, estimate.sd_of_sd) == (0, 0, 0, 0)
        assert estimate.method == IDENTICAL_RUNS

    # The factors of docs/statistics.md.
    @pytest.mark.parametrize(("runs", "upper"), [(5, 2.37), (10, 1.65), (20, 1.37), (30, 1.28), (50, 1.20)])
    def test_the_upper_bound_has_the_known_factor(self, runs, upper):
        estimate = sd_estimate(np.arange(runs))
        assert estimate.high / estimate.value == pytest.approx(upper, abs=0.005)

    def test_ten_runs_have_the_interval_of_the_chi_square_table(self):
        estimate = sd_estimate([0.1, 0.5, 0.2, 0.9, 0.4, 0.3, 0.8, 0.7, 0.6, 0.2])
        assert estimate.low == pytest.approx(estimate.value * math.sqrt(9 / 16.919), rel=1e-4)
        assert estimate.high == pytest.approx(estimate.value * math.sqrt(9 / 3.3251), rel=1e-4)
        assert estimate.method == "chi-square"

    def test_fewer_resamples_set_from_outside_are_heeded(self, monkeypatch):
        sample = [90.1, 90.4, 89.9, 90.0, 90.3]
        few, many = sd_estimate(sample, resamples=2), sd_estimate(sample)
        monkeypatch.setattr(intervals, "_RESAMPLES", 2)
        assert sd_estimate(sample) == few != many

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "runs", "robust", "low", "high"),
        [
            ("normal", 5, False, 0.055, 0.051),
            ("normal", 10, False, 0.050, 0.051),
            ("skewed", 10, False, 0.079, 0.087),
            ("t5", 10, False, 0.094, 0.113),
            ("normal", 5, True, 0.037, 0.035),
            ("normal", 10, True, 0.043, 0.042),
            ("skewed", 10, True, 0.054, 0.073),
            ("t5", 10, True, 0.064, 0.086),
        ],
    )
    def test_misses_as_often_as_statistics_md_measured(self, monkeypatch, name, runs, robust, low, high):
        monkeypatch.setattr(intervals, "_RESAMPLES", 2)  # the bootstrap is not under test, and takes the time
        random, size = np.random.default_rng(1), (STUDIES, runs)
        sample, truth = {
            "normal": lambda: (random.normal(size=size), 1.0),
            "skewed": lambda: (-random.gamma(4, size=size), 2.0),  # skewness -1
            "t5": lambda: (random.standard_t(5, size=size), math.sqrt(5 / 3)),
        }[name]()
        measured = misses([sd_estimate(study, robust=robust) for study in sample], truth)
        assert measured[0] == pytest.approx(low, abs=rate_tolerance(low))
        assert measured[1] == pytest.approx(high, abs=rate_tolerance(high))

    def test_heavy_tails_widen_the_robust_interval_by_the_kurtosis(self):
        sample = [0.30, 0.31, 0.29, 0.30, 0.32, 0.28, 0.31, 0.45]
        plain, robust = sd_estimate(sample), sd_estimate(sample, robust=True)
        df = 7 / (1 + scipy.stats.kurtosis(sample, bias=False) / 2)
        assert robust.method == "chi-square, kurtosis df"
        assert robust.low == pytest.approx(robust.value * math.sqrt(df / scipy.stats.chi2.isf(0.05, df)), rel=1e-9)
        assert robust.low < plain.low < plain.high < robust.high

    def test_light_tails_do_not_narrow_the_robust_interval(self):
        sample = [0, 1, 2, 3, 4, 5]
        assert sd_estimate(sample, robust=True).low == sd_estimate(sample).low

    def test_three_runs_have_no_kurtosis(self):
        assert sd_estimate([1, 2, 9], robust=True).method == "chi-square"

    @pytest.mark.parametrize("scale", [1e-90, 1e-8, 1.0, 1e60])
    def test_the_robust_interval_does_not_depend_on_the_unit(self, scale):
        sample = np.array([0.30, 0.31, 0.29, 0.30, 0.45])
        estimate = sd_estimate(scale * sample, robust=True)
        assert estimate.high / scale == pytest.approx(sd_estimate(sample, robust=True).high, rel=1e-9)

    @pytest.mark.parametrize("sample", [[1, 2, 4], [0.3, 0.1, 0.15, 0.9], [90.1, 90.4, 89.9, 90.0, 90.3]])
    def test_the_sd_of_the_sd_is_that_over_all_possible_resamples(self, sample):
        every = [statistics.stdev(resample) for resample in itertools.product(sample, repeat=len(sample))]
        expected = statistics.pstdev(every)
        error = expected / math.sqrt(2 * 10_000)  # of an SD over 10,000 resamples
        assert sd_estimate(sample).sd_of_sd == pytest.approx(expected, abs=4 * error)

    # Bootstrap "SD of the SD" as a share of the true standard error.
    @pytest.mark.parametrize(("runs", "share"), [(5, 0.78), (10, 0.83), (20, 0.89), (30, 0.93)])
    def test_the_sd_of_the_sd_is_as_much_too_small_as_statistics_md_says(self, monkeypatch, runs, share):
        resamples, studies = 4000, 300
        monkeypatch.setattr(intervals, "_RESAMPLES", resamples)
        unbiased = math.sqrt(2 / (runs - 1)) * math.exp(math.lgamma(runs / 2) - math.lgamma((runs - 1) / 2))
        true_error = math.sqrt(1 - unbiased**2)
        samples = np.random.default_rng(2).normal(size=(studies, runs))
        shares = [sd_estimate(sample).sd_of_sd / true_error for sample in samples]
        # The seed of the bootstrap is fixed: all studies draw alike, and the error of the draws does not average out.
        error = math.sqrt(np.var(shares) / studies + share**2 / (2 * resamples))
        assert np.mean(shares) == pytest.approx(share, abs=3 * error + 0.005)  # the table has two digits

    def test_the_order_of_runs_does_not_matter(self):
        sample = [0.25, 0.5, 1.0, 0.125]
        assert sd_estimate(sample).sd_of_sd == pytest.approx(sd_estimate(sample[::-1]).sd_of_sd, rel=1e-12)

    def test_the_sd_of_the_sd_is_the_same_every_time(self):
        assert sd_estimate([1, 2, 4]) == sd_estimate([1, 2, 4])


class TestPairwise:
    @pytest.mark.parametrize("runs", range(3, 13))
    def test_is_the_explicit_jackknife_over_runs(self, runs):
        pairs = symmetric(runs)

        def mean_over_pairs(kept):
            return statistics.fmean(pairs[i, j] for i, j in itertools.combinations(kept, 2))

        estimate = pairwise_estimate(pairs)
        assert estimate.value == pytest.approx(mean_over_pairs(range(runs)), rel=1e-12)
        left = [mean_over_pairs([k for k in range(runs) if k != out]) for out in range(runs)]
        error = math.sqrt((runs - 1) / runs * sum((value - statistics.fmean(left)) ** 2 for value in left))
        t = scipy.stats.t.isf(0.05, runs - 1)
        assert (estimate.high - estimate.value) / t == pytest.approx(error, rel=1e-9)
        assert (estimate.value - estimate.low) / t == pytest.approx(error, rel=1e-9)

    @pytest.mark.parametrize("runs", [5, 10])
    def test_the_expected_variance_is_that_of_statistics_md(self, runs):
        random = np.random.default_rng(3)
        own, noise = random.normal(size=(STUDIES, runs, 1)), random.normal(size=(STUDIES, runs, runs))
        upper = np.triu(noise, 1)
        pairs = own + own.transpose(0, 2, 1) + 2 * (upper + upper.transpose(0, 2, 1))  # s_a = 1, s_e = 2
        t = scipy.stats.t.isf(0.05, runs - 1)
        variances = [((e.high - e.value) / t) ** 2 for e in map(pairwise_estimate, pairs)]
        expected = 4 / runs * (1 + 4 / (runs - 2))
        assert np.mean(variances) == pytest.approx(expected, abs=3 * np.std(variances) / math.sqrt(STUDIES))

    @pytest.mark.parametrize(("runs", "low", "high"), [(5, 0.032, 0.035), (10, 0.040, 0.042)])
    def test_disagreement_misses_as_often_as_statistics_md_measured(self, runs, low, high):
        # The "homog" model: independent noise. Example n is of class 1 in a share chance[n] of runs.
        random, examples = np.random.default_rng(4), 300
        chance = random.beta(0.3, 2, size=examples)
        classes = (random.random((STUDIES, runs, examples)) < chance).astype(np.float64)
        ones = classes @ (1 - classes).transpose(0, 2, 1)
        pairs = 100 * (ones + ones.transpose(0, 2, 1)) / examples
        measured = misses(
            [pairwise_estimate(study, percent_of=examples) for study in pairs], 200 * np.mean(chance * (1 - chance))
        )
        assert measured[0] == pytest.approx(low, abs=rate_tolerance(low))
        assert measured[1] == pytest.approx(high, abs=rate_tolerance(high))

    @pytest.mark.parametrize(("same", "runs"), [(0.0, 2), (0.0, 9), (1.0, 5)])
    def test_runs_that_all_score_as_with_themselves_are_identical(self, same, runs):
        estimate = pairwise_estimate(np.full((runs, runs), same), percent_of=100)
        assert (estimate.low, estimate.value, estimate.high) == (same, same, same)
        assert estimate.is_exact

    def test_pairs_that_tie_by_chance_keep_an_error_of_the_size_of_the_test_set(self):
        pairs = np.full((4, 4), 10.0)
        np.fill_diagonal(pairs, 0)
        estimate = pairwise_estimate(pairs, percent_of=20)
        floor = 100 * math.sqrt(0.1 * 0.9 / 20) / 4
        assert estimate.high - 10 == pytest.approx(scipy.stats.t.isf(0.05, 3) * floor, rel=1e-12)
        assert not estimate.is_exact

    def test_the_floor_of_a_rare_disagreement_is_that_of_one_example(self):
        pairs = np.zeros((3, 3))
        pairs[0, 1] = pairs[1, 0] = 1e-9
        estimate = pairwise_estimate(pairs, percent_of=50)
        assert estimate.high == pytest.approx(scipy.stats.t.isf(0.05, 2) * 100 / 50 / 3, rel=1e-6)

    def test_the_floor_never_narrows_an_interval(self):
        pairs = symmetric(6)
        assert pairwise_estimate(pairs, percent_of=10**9) == pairwise_estimate(pairs)

    def test_two_runs_are_one_pair_without_an_interval(self):
        estimate = pairwise_estimate([[1, 0.8], [0.8, 1]])
        assert (estimate.low, estimate.value, estimate.high) == (-math.inf, 0.8, math.inf)
        assert estimate.method == "one pair, no interval"

    @given(st.integers(2, 9), st.integers(0, 99), st.randoms(use_true_random=False))
    @settings(deadline=None, max_examples=25)
    def test_the_order_of_runs_does_not_matter(self, runs, seed, random):
        pairs, order = symmetric(runs, seed), random.sample(range(runs), runs)
        one, two = pairwise_estimate(pairs), pairwise_estimate(pairs[order][:, order])
        assert (one.value, one.low, one.high) == pytest.approx((two.value, two.low, two.high), rel=1e-9)


class TestBoundsOfOtherRates:
    """`Estimate.at`, and what the same value would have after more runs: against scipy.stats."""

    @given(st.integers(3, 40), st.floats(0.001, 0.49), st.floats(0.001, 0.49), st.integers(0, 99))
    @settings(deadline=None, max_examples=50)
    def test_an_sd_has_chi_square_bounds_of_any_rate(self, runs, lower, upper, seed):
        sample = np.random.default_rng(seed).normal(size=runs)
        estimate, df = sd_estimate(sample).at(lower, upper), runs - 1
        sd = sample.std(ddof=1)
        assert estimate.low == pytest.approx(sd * min(1, math.sqrt(df / scipy.stats.chi2.isf(lower, df))))
        assert estimate.high == pytest.approx(sd * max(1, math.sqrt(df / scipy.stats.chi2.ppf(upper, df))))
        assert estimate.confidence == pytest.approx(1 - lower - upper)

    def test_a_robust_sd_keeps_its_degrees_of_freedom(self):
        sample = [0.30, 0.31, 0.29, 0.30, 0.32, 0.28, 0.31, 0.45]
        df = 7 / (1 + scipy.stats.kurtosis(sample, bias=False) / 2)
        estimate = sd_estimate(sample, robust=True).at(0.01, 0.2)
        assert estimate.low == pytest.approx(estimate.value * math.sqrt(df / scipy.stats.chi2.isf(0.01, df)))
        later = estimate.pivot.after(15)
        assert later.low(0.01) == pytest.approx(estimate.value * math.sqrt(2 * df / scipy.stats.chi2.isf(0.01, 2 * df)))

    def test_a_mean_over_pairs_has_student_bounds_of_any_rate_within_its_range(self):
        estimate = pairwise_estimate(symmetric(5))
        error = (estimate.high - estimate.value) / scipy.stats.t.isf(0.05, 4)
        other = estimate.at(0.01, 0.2)
        assert other.low == pytest.approx(estimate.value - scipy.stats.t.isf(0.01, 4) * error)
        assert other.high == pytest.approx(estimate.value + scipy.stats.t.isf(0.2, 4) * error)
        later = estimate.pivot.after(20)
        assert later.high(0.2) == pytest.approx(estimate.value + scipy.stats.t.isf(0.2, 19) * error / 2)
        cut = pairwise_estimate(symmetric(5), least=estimate.value - 1e-3, most=estimate.value + 1e-3).at(0.01, 0.01)
        assert (cut.low, cut.high) == (estimate.value - 1e-3, estimate.value + 1e-3)

    @pytest.mark.parametrize("sample", [[1, 1, 1], [1, math.nan, 2]])
    def test_what_has_no_interval_stays_as_it_is(self, sample):
        estimate = sd_estimate(sample)
        assert estimate.at(0.01, 0.01) is estimate
        pair = pairwise_estimate([[0, 9.0], [9.0, 0]])
        assert pair.at(0.01, 0.01) is pair


@pytest.mark.parametrize("estimate", [mean_estimate, sd_estimate])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_leaves_the_statistic_undefined(estimate, bad):
    assert estimate([1.0, bad, 2.0]).is_undefined
    assert estimate([bad, bad]).is_undefined


def test_an_undefined_pair_leaves_the_mean_undefined():
    pairs = np.full((3, 3), 1.0)
    pairs[0, 1] = pairs[1, 0] = math.nan
    assert pairwise_estimate(pairs).is_undefined
    assert "constant outputs" in pairwise_estimate(pairs).method
    assert pairwise_estimate(np.full((2, 2), math.nan)).is_undefined


@pytest.mark.parametrize(("estimate", "one"), [(mean_estimate, [1.0]), (sd_estimate, []), (pairwise_estimate, [[0.0]])])
def test_a_single_run_has_no_spread(estimate, one):
    with pytest.raises(ProtocolError, match=r"Expected runs >= 2 but got runs=[01]\. A spread is between runs"):
        estimate(one)


class TestMeansAbove:
    """`p_above`: Student's and Johnson's p-value against a mean of 0 or less, the larger one."""

    def test_of_a_sample_without_skewness_it_is_students(self):
        values = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
        wanted = scipy.stats.ttest_1samp(values, 0, alternative="greater").pvalue
        assert p_above(values) == pytest.approx(wanted)

    def test_of_a_skewed_one_it_is_johnsons_where_that_is_larger(self):
        values = np.array([0.2, 0.5, -0.1, 0.3, 0.4])
        n, mean, sd = len(values), values.mean(), values.std(ddof=1)
        third = scipy.stats.skew(values, bias=False) * sd**3  # G1 s^3 is the unbiased third moment
        shifted = mean + third / (6 * sd**2 * n) + third * mean**2 / (3 * sd**4)
        wanted = scipy.stats.t.sf(shifted / sd * np.sqrt(n), n - 1)
        assert wanted > scipy.stats.ttest_1samp(values, 0, alternative="greater").pvalue
        assert p_above(values) == pytest.approx(wanted)

    def test_equal_values_are_their_mean(self):
        assert (p_above([0.1] * 4), p_above([-0.1] * 4), p_above([0.0] * 4)) == (0.0, 1.0, 1.0)

    def test_it_halves_the_error_of_students_for_skewed_scores(self):
        samples = 1 - np.random.default_rng(0).exponential(size=(3000, 5))  # of mean 0, with a long tail below
        students = scipy.stats.ttest_1samp(samples, 0, axis=1, alternative="greater").pvalue
        assert (students < 0.05).mean() > 0.13
        assert np.mean([p_above(sample) < 0.05 for sample in samples]) < 0.10
