"""What an estimate shows of itself, to a person and to JSON."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from stabilitykit.estimates.estimate import IDENTICAL_RUNS, Estimate


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.2213, 0.1672, 0.3241), "0.22 [0.17, 0.32]"),
        ((0.0075, 0.0062, 0.0097), "0.0075 [0.0062, 0.0097]"),
        ((10.713, 10.552, 10.874), "10.71 [10.55, 10.87]"),
        ((0.8711, 0.8683, 0.8739), "0.8711 [0.8683, 0.8739]"),
        ((31.4, 12.0, 88.0), "31 [12, 88]"),
        ((2.13e-8, 1.6e-8, 3.3e-8), "2.13e-08 [1.6e-08, 3.3e-08]"),
        ((-0.512, -0.633, -0.391), "-0.51 [-0.63, -0.39]"),
        ((9.25, -math.inf, math.inf), "9.2 [-inf, inf]"),
        ((0.0, 0.0, 0.0), "0 [0, 0]"),
        ((1.0, 1.0, 1.0), "1.0 [1.0, 1.0]"),
    ],
)
def test_it_is_written_with_as_many_digits_as_its_interval_is_worth(numbers, text):
    assert str(Estimate(*numbers, runs=10, method="chi-square")) == text


def test_a_format_of_ones_own_applies_to_all_three_numbers():
    assert f"{Estimate(0.5, 0.25, 1.0, runs=3, method='chi-square'):.3f}" == "0.500 [0.250, 1.000]"


def test_an_undefined_estimate_says_so():
    estimate = Estimate.undefined(4, "a pair's value is not finite")
    assert str(estimate) == f"{estimate:.2f}" == "undefined"
    assert estimate.is_undefined
    assert estimate.runs == 4


def test_json_has_the_bounds_and_the_sd_of_the_sd_where_there_is_one():
    estimate = Estimate(0.5, 0.25, 1.0, runs=3, method="chi-square")
    assert estimate.to_json() == {"value": 0.5, "low": 0.25, "high": 1.0}
    assert dataclasses.replace(estimate, sd_of_sd=0.1).to_json()["sd_of_sd"] == 0.1


@pytest.mark.parametrize(
    "estimate", [Estimate.undefined(4, "no reason"), Estimate(1.5, -math.inf, math.inf, 2, "one pair, no interval")]
)
def test_json_is_valid_where_numbers_are_not_finite(estimate):
    json.dumps(estimate.to_json(), allow_nan=False)
    assert estimate.to_json()["low"] is None


def test_numpy_scalars_become_plain_floats():
    estimate = Estimate(
        np.float32(0.5), np.float64(0.25), np.int64(1), runs=3, method="chi-square", sd_of_sd=np.float64(1)
    )
    assert [type(number) for number in estimate.to_json().values()] == [float] * 4
    assert "np." not in repr(estimate)


@pytest.mark.parametrize("numbers", [(1, 2, 3), (3, 1, 2), (math.inf, 0, math.inf), (1, math.nan, 2)])
def test_a_value_outside_its_bounds_is_a_mistake_of_ours(numbers):
    with pytest.raises(ValueError, match="Expected a finite value between low and high but got"):
        Estimate(*numbers, runs=3, method="chi-square")


def test_it_is_frozen_and_hashable():
    estimate = Estimate(0.5, 0.25, 1.0, runs=3, method="chi-square")
    with pytest.raises(dataclasses.FrozenInstanceError):
        estimate.value = 0.1
    assert len({estimate, dataclasses.replace(estimate)}) == 1


def test_only_identical_runs_are_exact():
    assert Estimate(0, 0, 0, 3, IDENTICAL_RUNS).is_exact
    assert not Estimate(0, 0, 0, 3, "jackknife over runs").is_exact
