"""Counts that show a small chance: against SciPy for one look, and against every course of runs for several."""

from __future__ import annotations

import itertools

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.verdicts.binomial_looks import most_shown

CHANCES = st.floats(0.02, 0.98)


@given(st.integers(1, 40), CHANCES, st.sampled_from([0.01, 0.05, 0.1]))
def test_one_look_is_the_binomial_test(runs, chance, error):
    count = most_shown([(runs, 1.0)], chance, error)
    assert count == -1 or scipy.stats.binomtest(count, runs, chance, alternative="less").pvalue <= error + 1e-12
    assert scipy.stats.binomtest(count + 1, runs, chance, alternative="less").pvalue > error - 1e-12


@given(CHANCES, st.sampled_from([0.05, 0.2]))
def test_all_looks_together_err_no_more_than_they_may(chance, error):
    looks = [(3, 0.3), (5, 0.2), (8, 0.2), (11, 0.3)]
    counts = [most_shown(looks[: k + 1], chance, error) for k in range(len(looks))]
    erred = 0.0
    for course in itertools.product((0, 1), repeat=11):
        shown = any(sum(course[:runs]) <= count for (runs, _), count in zip(looks, counts, strict=True))
        erred += shown * chance ** sum(course) * (1 - chance) ** (11 - sum(course))
    assert erred <= error + 1e-12


def test_each_look_takes_the_most_that_is_left():
    """A study that has shown it already shows nothing more, so it leaves the next look its share."""
    looks, chance, error = [(2, 0.5), (4, 0.5)], 0.5, 0.5
    # Of two runs none, in 1/4 of studies. Of four: one, 1 + 4 of 16 courses, of which 1 + 2 began with none of two.
    assert [most_shown(looks[:k], chance, error) for k in (1, 2)] == [0, 1]
    assert most_shown([(2, 0.5), (4, 0.25)], chance, error) == 1  # 1/4 and 2/16 are 3/8


def test_a_look_may_spend_what_the_one_before_left():
    alone = most_shown([(3, 0.0), (6, 0.3)], 0.5, 0.05)  # 0.5^6 is 0.0156, and 0.3 of 0.05 is 0.015
    assert alone == -1
    assert most_shown([(3, 0.1), (6, 0.3)], 0.5, 0.05) == 0


def test_a_look_without_a_share_shows_nothing():
    assert most_shown([(100, 0.0)], 0.5, 0.05) == -1


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_many_runs_neither_overflow_nor_take_long(share):
    count = most_shown([(1000, 1.0)], share, 0.05)
    assert count == pytest.approx(1000 * share, abs=60)
