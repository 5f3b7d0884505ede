"""Ratios of two spreads: by a second author, their laws, and how often their bounds miss the truth."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.estimates.ratios import Ratio, fieller, spread_of, welch

#: Numbers that are not so far apart that their squares lose each other.
SIZES = st.floats(0.01, 100)


@pytest.fixture(autouse=True)
def no_bootstrap(monkeypatch):
    monkeypatch.setattr(intervals, "_RESAMPLES", 2)  # of the "±", which is slow and not asked for


def pairs_of(draw, runs, mean=1.0, cv=0.3):
    of_run, noise = draw.normal(size=runs), draw.normal(size=(runs, runs))
    found = mean * (1 + cv / 2 * (of_run[:, None] + of_run[None]) + cv / 4 * (noise + noise.T))
    return np.where(np.eye(runs, dtype=bool), 0, found)


def test_the_bounds_of_two_sds_are_those_at_which_an_f_test_just_rejects():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=12), 2 * draw.normal(size=7)
    ratio = Ratio(sd_estimate(y), sd_estimate(x))
    for error in (0.001, 0.05, 0.2):
        squared = np.array(
            [(y.std(ddof=1) / bound / x.std(ddof=1)) ** 2 for bound in (ratio.low(error), ratio.high(error))]
        )
        assert stats.f.sf(squared[0], 6, 11) == pytest.approx(error)
        assert stats.f.cdf(squared[1], 6, 11) == pytest.approx(error)


def test_heavy_tails_widen_it():
    draw = np.random.default_rng(0)
    x, y = draw.standard_t(2, size=(2, 20))
    plain, robust = (Ratio(*(sd_estimate(s, robust=robust) for s in (x, y))) for robust in (False, True))
    assert robust.value == plain.value
    assert robust.low(0.05) < plain.low(0.05)
    assert robust.high(0.05) > plain.high(0.05)


def test_the_bounds_of_two_means_are_those_at_which_a_t_test_just_rejects():
    draw = np.random.default_rng(0)
    x, y = pairwise_estimate(pairs_of(draw, 8, cv=0.1)), pairwise_estimate(pairs_of(draw, 5, 1.5, cv=0.1))
    ratio = Ratio(y, x)
    (below, e), (above, f) = ((one.value, one.pivot.error) for one in (x, y))
    df = ((f / above) ** 2 + (e / below) ** 2) ** 2 / ((f / above) ** 4 / 4 + (e / below) ** 4 / 7)
    for error in (0.001, 0.05, 0.2):
        for bound, sign in ((ratio.low(error), 1), (ratio.high(error), -1)):
            statistic = sign * (above - bound * below) / math.hypot(f, bound * e)
            assert stats.t.sf(statistic, df) == pytest.approx(error)


@given(below=SIZES, above=SIZES, below_error=SIZES, above_error=SIZES)
@example(below=0.1, above=1.25, below_error=0.1, above_error=1.0)
@example(below=0.1, above=1.25, below_error=math.nextafter(0.1, 0), above_error=1.0)
@example(below=0.1, above=1.25, below_error=math.nextafter(0.1, 1), above_error=1.0)
@example(below=0.1, above=1.25, below_error=0.01, above_error=math.nextafter(1.25, 0))
def test_fieller_gives_the_ends_of_what_would_not_be_rejected(below, above, below_error, above_error):
    low, high = fieller(below, above, below_error, above_error)

    def is_kept(ratio):  # exactly: where `below` is hardly more than its error, the squares differ by their rounding
        r, b, a, e, f = map(Fraction, (float(ratio), below, above, below_error, above_error))
        return (a - r * b) ** 2 <= f**2 + (r * e) ** 2

    assert 0 <= low <= above / below <= high
    for inside in np.linspace(low * 1.0001 + 1e-9, min(high * 0.9999, 1e6), 7) if high > 1.001 * low else ():
        assert is_kept(inside)
    assert low == 0 or not is_kept(low * 0.999)
    assert math.isinf(high) or not is_kept(high * 1.001)


@pytest.mark.parametrize("below", [0.0, 1.0])
def test_nothing_that_may_be_something_by_what_may_be_nothing_is_anything(below):
    assert fieller(below, 0.0, below_error=2.0, above_error=1.0) == (0.0, math.inf)


def test_what_is_exactly_nothing_bounds_nothing():
    assert fieller(0.0, 2.0, below_error=0.0, above_error=1.0) == (math.inf, math.inf)
    assert fieller(1.0, 0.0, below_error=0.5, above_error=0.0) == (0.0, 0.0)


def test_satterthwaite_counts_between_the_fewer_and_all():
    assert welch(1.0, 1.0, 5, 5) == (2.0, 8.0)
    assert welch(1.0, 0.0, 5, 9) == (1.0, 4.0)
    assert welch(0.0, 0.0, 5, 9) == (0.0, 1.0)


@given(st.integers(0, 1000), st.integers(3, 12), st.integers(3, 12), st.floats(1e-6, 1e6))
def test_its_laws(seed, runs, others, scale):
    draw = np.random.default_rng(seed)
    for make, x, y in (
        (sd_estimate, draw.normal(size=runs), draw.normal(size=others)),
        (pairwise_estimate, pairs_of(draw, runs), pairs_of(draw, others)),
    ):
        ratio, turned, scaled = (
            Ratio(make(y), make(x)),
            Ratio(make(x), make(y)),
            Ratio(make(scale * y), make(scale * x)),
        )
        for error in (0.01, 0.05):
            low, high = ratio.low(error), ratio.high(error)
            assert low <= ratio.value <= high
            assert (scaled.low(error), scaled.high(error)) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
            other_way = 1 / turned.high(error), 1 / turned.low(error) if turned.low(error) else math.inf
            assert other_way == pytest.approx((low, high), rel=1e-6, abs=1e-9)
        assert ratio.low(0.01) <= ratio.low(0.05)
        assert ratio.after(100).low(0.05) >= ratio.low(0.05)


def test_nothing_by_nothing_is_one_and_something_by_nothing_infinite():
    still, moving = sd_estimate([1.0, 1.0, 1.0]), sd_estimate([1.0, 2.0, 4.0])
    for above, below, value in ((still, still, 1), (moving, still, math.inf), (still, moving, 0)):
        ratio = Ratio(above, below)
        assert ratio.is_exact
        assert ratio.value == ratio.low(0.05) == ratio.high(0.05) == value


def test_two_runs_are_one_pair_and_leave_everything_open():
    ratio = Ratio(pairwise_estimate([[0, 2], [2, 0]]), pairwise_estimate([[0, 1], [1, 0]]))
    assert (ratio.value, ratio.low(0.05), ratio.high(0.05), ratio.has_interval) == (2, 0, math.inf, False)
    assert math.isfinite(Ratio(sd_estimate([1.0, 2.0]), sd_estimate([1.0, 3.0])).high(0.05))


def test_means_that_may_be_nothing_have_open_bounds():
    draw = np.random.default_rng(0)
    sure, unsure = pairwise_estimate(pairs_of(draw, 6)), pairwise_estimate(pairs_of(draw, 4, cv=3))
    assert unsure.low < 0 < unsure.high
    assert Ratio(sure, unsure).high(0.05) == math.inf
    assert Ratio(unsure, sure).low(0.05) == 0
    nothing = pairwise_estimate([[0, 1, -1], [1, 0, 0], [-1, 0, 0]])
    assert nothing.value == 0
    assert (Ratio(nothing, nothing).low(0.05), Ratio(nothing, nothing).high(0.05)) == (0, math.inf)


def test_what_is_undefined_has_no_ratio():
    ratio = Ratio(Estimate.undefined(4, "constant"), sd_estimate([1.0, 2.0, 3.0]))
    assert ratio.is_undefined
    assert math.isnan(ratio.value)
    assert math.isnan(ratio.low(0.05))


def test_likeness_and_gains_are_turned_to_what_spreads():
    likeness = pairwise_estimate([[1, 0.9, 0.8], [0.9, 1, 0.85], [0.8, 0.85, 1]], least=-1, most=1)
    spread = spread_of("correlation", likeness)
    assert (spread.value, spread.low, spread.high) == pytest.approx((0.15, 1 - likeness.high, 1 - likeness.low))
    assert spread.at(0.01, 0.05).low == pytest.approx(1 - likeness.at(0.05, 0.01).high)
    loss = pairwise_estimate([[0, -2, -3], [-2, 0, -4], [-3, -4, 0]])
    assert spread_of("rmse_ensemble_delta", loss).value == 3
    assert spread_of("disagreement", likeness) is likeness


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sds", "means"])
def test_each_bound_misses_the_truth_in_a_twentieth_of_cases(kind):
    cases, draw, low, high = 1500, np.random.default_rng(1), 0, 0
    for _ in itertools.repeat(None, cases):
        if kind == "sds":
            ratio = Ratio(sd_estimate(3 * draw.normal(size=8)), sd_estimate(2 * draw.normal(size=12)))
        else:
            ratio = Ratio(pairwise_estimate(pairs_of(draw, 8, 1.5)), pairwise_estimate(pairs_of(draw, 12)))
        low += ratio.low(0.05) > 1.5
        high += ratio.high(0.05) < 1.5
    assert 0.035 < low / cases < 0.065
    assert 0.035 < high / cases < 0.065
