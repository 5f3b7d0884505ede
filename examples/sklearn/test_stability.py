"""Whether the digits that the pipeline reads depend on the seed that somebody once chose."""

import pytest
from train import load_data, make_model

from stabilitykit import Budget
from stabilitykit.adapters.estimators import EstimatorTask


def test_another_seed_reads_the_same_digits(stability):
    task = EstimatorTask(make_model(), *load_data())
    stability.check(task, vary="all", budget=Budget(disagreement=6.0))  # percent of the test examples


@pytest.mark.parametrize("step", ["reduce", "forest"])
def test_another_seed_of_one_step(stability, step):
    task = EstimatorTask(make_model(), *load_data(), sources={step: "init"})
    stability.check(task, vary="init", budget=Budget(disagreement=6.0))
