"""The search for the fewest runs: by trying each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.estimates.search import MOST_RUNS, fewest


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 80))
def test_it_finds_what_trying_each_number_finds(low, high, least):
    expected = next((number for number in range(low, high + 1) if number >= least), None)
    assert fewest(lambda number: number >= least, low, high) == expected


def test_it_gives_up_at_a_thousand_runs():
    assert fewest(lambda runs: runs >= MOST_RUNS, 2) == MOST_RUNS
    assert fewest(lambda runs: runs > MOST_RUNS, 2) is None
