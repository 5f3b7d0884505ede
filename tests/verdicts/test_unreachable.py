"""Budgets that no training can keep are named, with the test set that would do."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.flip_floor import floor_estimate
from stabilitykit.estimates.metrics import churn
from stabilitykit.verdicts.unreachable import objections, unreachable

FLOOR = Estimate(0.20, 0.18, 0.22, runs=10, method="jackknife over runs")


def correct(runs: int = 8, examples: int = 200, seed: int = 0) -> torch.Tensor:
    draws = np.random.default_rng(seed)
    return torch.from_numpy(draws.random((runs, examples)) < draws.beta(0.5, 0.1, size=examples))


@pytest.mark.parametrize(("budget", "needed"), [(0.10, 4000), (0.05, 16_000), (0.1799, 1236)])
def test_a_budget_below_the_floors_lower_bound_is_unreachable(budget, needed):
    found = unreachable(budget, FLOOR, 1000)
    assert found.needed == needed
    assert 0.20 * math.sqrt(1000 / needed) <= budget < 0.20 * math.sqrt(1000 / (needed - 1))
    assert str(found).startswith(f"the budget of {budget:g} points is unreachable on 1000 examples unless errors are")
    assert f"N >= {needed} would make it reachable" in str(found)


@pytest.mark.parametrize("budget", [0.18, 0.19, 0.20, 1.0])
def test_a_budget_within_the_floors_error_may_be_reached(budget):
    assert unreachable(budget, FLOOR, 1000) is None


def test_two_runs_show_no_budget_to_be_unreachable():
    assert unreachable(0.01, floor_estimate(churn(correct(runs=2)), 200), 200) is None


def test_no_test_set_makes_a_budget_of_zero_reachable():
    found = unreachable(0.0, FLOOR, 1000)
    assert found.needed is None
    assert "no larger test set would make it reachable" in str(found)
    assert unreachable(0.0, Estimate(0, 0, 0, 5, "identical runs"), 1000) is None


def test_a_budget_under_two_examples_is_objected_to():
    (said,) = objections({"accuracy_sd": 0.1}, examples=1999)
    assert "0.1 points" in said
    assert "2 of 1999 test examples" in said or "2.0 of 1999" in said
    assert "2000 test examples or more" in said
    assert objections({"accuracy_sd": 0.1}, examples=2000) == ()
    assert objections({"accuracy_sd": 0.0}, examples=10) == (), "a budget of 0 is about bits"
    assert objections({"cross_entropy_sd": 0.001}, examples=10) == ()


def test_a_budget_under_the_flip_floor_is_objected_to_with_the_size_that_would_do():
    limits = {"accuracy_sd": 0.25, "disagreement": 11.0}
    (said,) = objections(limits, examples=2000)
    assert "accuracy_sd=0.25" in said
    assert "unreachable on 2000 test examples unless errors are negatively correlated" in said
    assert "disagreement at its own budget of 11 %" in said
    assert "N >= 8800 test examples" in said  # 50 * 11 / 0.25^2
    shown = Estimate(0.24, 0.2, 0.28, runs=5, method="jackknife over runs")
    assert objections(limits, examples=2000, floor=shown) == (), "what runs showed goes before what the budget allows"
    shown = Estimate(0.35, 0.3, 0.4, runs=5, method="jackknife over runs")
    (said,) = objections({"accuracy_sd": 0.25}, examples=2000, floor=shown)
    assert "flips of single examples alone give 0.35 [0.30, 0.40] points" in said
    assert "N >= 3920 " in said
