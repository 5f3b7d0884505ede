"""What is known before anything trains: against the design's tables, and against a second author who draws the runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stabilitykit.estimates.intervals import pairwise_estimate
from stabilitykit.verdicts.power import REPLICATES, cv_of, most_runs_needed, prospects, resolution, runs_needed
from stabilitykit.verdicts.sequential_levels import levels, looks

RATIOS = (1.25, 1.5, 1.75, 2, 2.5, 3)


@pytest.mark.parametrize(
    ("alpha", "beta", "runs"),
    [
        (0.05, 0.05, (111, 35, 20, 14, 9, 7)),
        (0.05, 0.10, (87, 27, 15, 11, 7, 5)),
        (0.01, 0.05, (157, 48, 26, 18, 11, 8)),
    ],
)
def test_fixed_runs_of_an_sd_are_those_of_the_design(alpha, beta, runs):
    assert tuple(runs_needed(ratio, alpha, beta) for ratio in RATIOS) == runs


@pytest.mark.parametrize(
    ("cv", "runs"), [(0.05, (14, 6, 3, 3)), (0.1, (50, 16, 5, 4)), (0.2, (193, 55, 13, 6)), (0.4, (766, 212, 46, 18))]
)
def test_fixed_runs_of_a_mean_over_pairs_are_those_of_the_design(cv, runs):
    assert tuple(runs_needed(ratio, cv=cv) for ratio in (1.05, 1.1, 1.25, 1.5)) == runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("alpha", "beta", "runs"),
    [(0.05, 0.05, (55, 20, 10)), (0.05, 0.10, (44, 17, 8)), (0.01, 0.05, (70, 25, 11))],
)
def test_most_runs_without_a_gap_are_those_of_the_design(alpha, beta, runs):
    assert tuple(most_runs_needed(ratio, alpha, beta) for ratio in (1.5, 2, 3)) == runs


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "cv"), [(1.817, None), (1.25, 0.1)])
def test_no_schedule_of_fewer_runs_resolves_as_much(ratio, cv):
    """1.817: 25 runs, right at a look, resolve what 26 do not."""

    def resolved(runs: int) -> float:
        last = levels(looks(runs), 0.05)[-1]
        return float(resolution(runs, last, last, cv))

    found = most_runs_needed(ratio, cv=cv)
    assert found is not None
    assert [runs for runs in range(3, found + 1) if resolved(runs) <= ratio] == [found]


def test_what_nobody_trains_is_not_searched_for():
    assert runs_needed(1.01) is None
    assert most_runs_needed(1.05) is None
    assert runs_needed(1.25, cv=20.0) is None


@settings(max_examples=20)
@given(st.sampled_from(RATIOS), st.floats(0.001, 0.4), st.floats(0.001, 0.4))
def test_smaller_errors_take_more_runs(ratio, alpha, beta):
    runs = runs_needed(ratio, alpha, beta)
    assert runs is not None
    assert runs <= (runs_needed(ratio, alpha / 2, beta) or math.inf)
    assert runs <= (runs_needed(ratio, alpha, beta / 2) or math.inf)


@pytest.mark.parametrize(
    ("ratio", "most", "alpha", "expected_runs"),
    [
        (2, 20, 0.05, {0.3: 4.3, 0.5: 5.8, 0.7: 7.5, 0.8: 8.5, 1: 11.1, 1.2: 12.8, 1.5: 11.3, 2: 7.1, 3: 4.3}),
        (2, 25, 0.01, {0.5: 6.1, 1: 12.0, 2: 9.2}),
        (1.5, 55, 0.05, {0.5: 8.6, 1: 26.5, 1.5: 19.3}),
        (3, 10, 0.05, {0.5: 4.0, 1: 6.0, 3: 3.9}),
    ],
)
def test_expected_runs_are_those_of_the_design(ratio, most, alpha, expected_runs):
    found = prospects(tuple(expected_runs), looks(most), ratio, alpha)
    assert [p.runs for p in found] == pytest.approx(list(expected_runs.values()), abs=0.015 * most)


def test_probabilities_are_those_of_the_design_and_add_up():
    below, at, between, beyond = prospects((0.9, 1, 1.2, 2), looks(20), 2)
    assert below.fails == pytest.approx(0.006, abs=0.002)
    assert at.fails == pytest.approx(0.032, abs=0.004)
    assert between.fails == pytest.approx(0.24, abs=0.01)
    assert beyond.passes == pytest.approx(0.043, abs=0.005)
    (short,) = prospects((1,), looks(30), 1.5)
    assert short.undecided == pytest.approx(0.13, abs=0.008)
    for one in (below, at, between, beyond, short):
        assert one.passes + one.fails + one.undecided == pytest.approx(1)


def test_one_look_of_an_sd_is_known_exactly():
    truths = (0.5, 1.0, 1.5, 2.0)
    for truth, found in zip(truths, prospects(truths, (10,), 2), strict=True):
        fails = stats.chi2.sf(stats.chi2.isf(0.05, 9) / truth**2, 9)
        passes = stats.chi2.cdf(stats.chi2.ppf(0.05, 9) * (2 / truth) ** 2, 9)
        error = 4 * 0.5 / math.sqrt(REPLICATES)
        assert found.fails == pytest.approx(fails, abs=error)
        assert found.passes == pytest.approx(passes, abs=error)
        assert found.runs == 10


@pytest.mark.parametrize("truth", [0.8, 1.25])
def test_a_mean_over_pairs_is_judged_as_often_as_by_a_second_author_who_draws_the_pairs(truth):
    cv, most, studies = 0.3, 12, 1500
    schedule = looks(most)
    error_rates = levels(schedule, 0.05)
    draw = np.random.default_rng(3)
    verdicts = []
    for _ in range(studies):
        share = draw.normal(0, cv / 2, most)  # h = 1 + a_i + a_j has a mean whose SE is 2 sd(a) / sqrt(R)
        pairs = truth * (1 + share[:, None] + share[None, :])
        np.fill_diagonal(pairs, 0)
        verdicts.append(one_by_one(pairs, schedule, error_rates))
    (found,) = prospects((truth,), schedule, 1.25, cv=cv)
    error = 4 * 0.5 / math.sqrt(studies)
    assert found.fails == pytest.approx(np.mean([verdict == "fail" for verdict, _ in verdicts]), abs=error)
    assert found.passes == pytest.approx(np.mean([verdict == "pass" for verdict, _ in verdicts]), abs=error)
    assert found.runs == pytest.approx(np.mean([runs for _, runs in verdicts]), abs=0.5)


def one_by_one(pairs: np.ndarray, schedule: tuple[int, ...], error_rates: tuple[float, ...]) -> tuple[str, int]:
    for runs, level in zip(schedule, error_rates, strict=True):
        some = pairs[:runs, :runs]
        off = some[~np.eye(runs, dtype=bool)].reshape(runs, runs - 1).mean(axis=1)
        mean = off.mean()
        se = 2 / (runs - 2) * math.sqrt((runs - 1) / runs * ((off - mean) ** 2).sum())
        if mean - stats.t.isf(level, runs - 1) * se > 1:
            return "fail", runs
        if mean + stats.t.isf(level, runs - 1) * se < 1.25:
            return "pass", runs
    return "undecided", schedule[-1]


def test_cv_comes_back_from_the_interval_of_a_pilot():
    share = np.random.default_rng(0).normal(0, 0.1, 400)
    pilot = pairwise_estimate(10 * (1 + share[:, None] + share[None, :]))
    assert cv_of(pilot.value, pilot.low, pilot.high, pilot.runs) == pytest.approx(0.2, rel=0.1)
    assert cv_of(10.0, -math.inf, math.inf, runs=2) is None
    assert cv_of(-0.1, -0.3, 0.1, runs=5) is None
