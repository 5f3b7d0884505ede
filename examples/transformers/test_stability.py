"""Whether the topics that the model finds depend on the seed that somebody once chose."""

import pytest
from train import TEST, make_trainer

from stabilitykit import Budget
from stabilitykit.adapters.transformers import TrainerTask


@pytest.mark.parametrize("vary", ["init", "all"])
def test_another_seed_finds_the_same_topics(stability, vary):
    task = TrainerTask(make_trainer, test=TEST)
    stability.check(task, vary=vary, budget=Budget(disagreement=8.0))  # percent of the test examples
