"""The floor under an accuracy SD, the budgets that it makes unreachable, and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.flip_floor import floor_estimate, training_sd_estimate, where_from
from stabilitykit.estimates.intervals import pairwise_estimate, sd_estimate
from stabilitykit.estimates.metrics import churn
from tests.estimates.second_author import distribution_variance, flip_floor

FLOOR = Estimate(0.20, 0.18, 0.22, runs=10, method="jackknife over runs")


def correct(runs: int = 8, examples: int = 200, seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    return torch.from_numpy(draws.random((runs, examples)) < draws.beta(0.5, 0.1, size=examples))


def accuracies(right: torch.Tensor) -> np.ndarray:
    return (100 * right.double().mean(1)).numpy()


def test_the_estimate_is_the_churns_through_the_root():
    right = correct()
    floor, pairs = floor_estimate(churn(right), 200), pairwise_estimate(churn(right), percent_of=200)
    assert floor.value == pytest.approx(flip_floor(right), rel=1e-12)
    assert [floor.low, floor.high] == pytest.approx([100 * math.sqrt(c / 100 / 400) for c in (pairs.low, pairs.high)])
    assert floor.runs == 8


def test_two_runs_give_a_floor_without_bounds():
    floor = floor_estimate(churn(correct(runs=2)), 200)
    assert (floor.low, floor.high) == (-math.inf, math.inf)
    assert floor.value > 0


def test_equal_runs_have_an_exact_floor_of_nothing():
    floor = floor_estimate(churn(correct()[:1].expand(5, -1)), 200)
    assert (floor.value, floor.low, floor.high) == (0, 0, 0)
    assert floor.is_exact


def test_a_bound_of_churn_below_zero_is_a_floor_of_zero():
    floor = floor_estimate([[0, 1, 0], [1, 0, 0], [0, 0, 0]], 200)
    assert floor.low == 0 < floor.value


def test_the_floors_interval_holds_the_truth_as_often_as_it_says():
    draws = np.random.default_rng(0)
    chances = draws.beta(0.5, 0.1, size=400)
    truth = 100 * math.sqrt((chances * (1 - chances)).sum()) / 400
    studies = [torch.from_numpy(draws.random((6, 400)) < chances) for _ in range(600)]
    floors = [floor_estimate(churn(study), 400) for study in studies]
    most = 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)
    assert np.mean([floor.low > truth for floor in floors]) < most
    assert np.mean([floor.high < truth for floor in floors]) < most


@pytest.mark.parametrize("seed", range(5))
def test_what_training_varies_by_is_the_root_of_the_distributions_variance(seed):
    right = correct(seed=seed)
    sd = sd_estimate(accuracies(right))
    training = training_sd_estimate(sd, floor_estimate(churn(right), 200), 200)
    assert training.value == pytest.approx(math.sqrt(max(0, distribution_variance(right))), rel=1e-9, abs=1e-9)
    assert 0 <= training.low <= training.value <= training.high < math.inf


def test_less_spread_than_flips_give_is_shown_as_none():
    training = training_sd_estimate(Estimate(0.1, 0.07, 0.25, runs=10, method="chi-square"), FLOOR, 1000)
    assert (training.low, training.value) == (0, 0)
    assert training.high == pytest.approx(0.15, rel=0.01)


def test_one_example_tells_nothing_of_training():
    assert training_sd_estimate(FLOOR, FLOOR, 1).is_undefined


def test_a_sentence_says_where_an_sd_comes_from():
    text = where_from(Estimate(0.30, 0.22, 0.49, runs=10, method="chi-square"), FLOOR, 1000)
    assert text.startswith("accuracy SD 0.30 points: 1000 test examples that flip independently give 0.20, and")
    assert "as a whole add 0.22 " in text
    assert "probability 0.016" in text
