"""The levels of a gate that looks again and again: against docs/statistics.md's source, quadrature and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from stabilitykit.verdicts.sequential_levels import crossing, levels, looks


@pytest.mark.parametrize(
    ("runs", "schedule"),
    [
        (3, (3,)),
        (7, (3, 4, 5, 6, 7)),
        (20, (3, 4, 5, 6, 8, 10, 12, 15, 20)),
        (100, (3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100)),
        (150, (3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 65, 80, 100, 125, 150)),
    ],
)
def test_the_schedule_is_cut_at_the_most_runs_and_ends_there(runs, schedule):
    assert looks(runs) == schedule


@given(st.integers(3, 2000))
def test_a_larger_study_has_the_looks_of_a_smaller_one(runs):
    assert set(looks(runs)[:-1]) <= set(looks(runs + 1))
    assert list(looks(runs)) == sorted(set(looks(runs)))


@pytest.mark.parametrize(
    ("runs", "error", "published"),
    [
        (20, 0.05, (0.00526, 0.00358, 0.00385, 0.00436, 0.00715, 0.00885, 0.01052, 0.0145, 0.02242)),
        (20, 0.01, (0.00105, 0.00064, 0.00067, 0.00074, 0.00126, 0.0015, 0.00173, 0.00239, 0.00372)),
        (
            30,
            0.05,
            (0.00345, 0.00226, 0.00241, 0.00272, 0.00449, 0.00551, 0.00649, 0.00894, 0.01385, 0.01731, 0.02072),
        ),
    ],
)
def test_levels_are_those_of_the_design(runs, error, published):
    assert levels(looks(runs), error) == pytest.approx(published, rel=3e-3, abs=5e-6)  # printed to five places


def test_two_looks_are_exact_by_quadrature():
    first, second = 4, 9  # degrees of freedom at 5 and 10 runs
    bounds = [stats.chi2.ppf(level, df) for level, df in zip(levels((5, 10), 0.05), (first, second), strict=True)]
    assert stats.chi2.cdf(bounds[0], first) == pytest.approx(0.05 * first / second)

    def late(sum_so_far: float) -> float:
        return stats.chi2.pdf(sum_so_far, first) * stats.chi2.cdf(bounds[1] - sum_so_far, second - first)

    assert integrate.quad(late, *bounds)[0] == pytest.approx(0.05 * (second - first) / second, abs=1e-6)


def test_each_look_spends_its_share_in_simulation():
    schedule, replicates = looks(30), 200_000
    df = np.array(schedule) - 1
    bounds = stats.chi2.ppf(levels(schedule, 0.05), df)
    draw = np.random.default_rng(0)
    sums = np.cumsum([draw.chisquare(step, replicates) for step in np.diff(df, prepend=0)], axis=0)
    errs = sums < bounds[:, None]
    first = errs & (np.cumsum(errs, axis=0) == 1)
    expected = 0.05 * np.diff(df, prepend=0) / df[-1]
    error = np.sqrt(expected / replicates)
    assert (np.abs(first.mean(axis=1) - expected) < 3.5 * error).all()


def test_a_schedule_that_was_changed_tells_what_it_spends():
    short, long = looks(10), looks(20)
    later = [(look, level) for look, level in zip(long, levels(long, 0.05), strict=True) if look > 10]
    mixed = crossing((*short, *(look for look, _ in later)), (*levels(short, 0.05), *(level for _, level in later)))
    assert 0.05 < mixed < 0.05 + 0.05 * 10 / 19  # what the longer schedule spends after its 10th run
    assert crossing(short, levels(short, 0.05)) == pytest.approx(0.05, abs=1e-6)
    assert crossing((10,), (0.05,)) == pytest.approx(0.05)


def test_looking_at_5_percent_each_time_errs_as_often_as_the_design_says():
    assert crossing(tuple(range(5, 31, 5)), (0.05,) * 6) == pytest.approx(0.156, abs=1e-3)
