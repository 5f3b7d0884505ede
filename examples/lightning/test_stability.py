"""Whether the digits that the network reads depend on the seed that somebody once chose."""

import pytest
from train import Digits, Reader

from stabilitykit import Budget
from stabilitykit.adapters.lightning import LightningTask


def examples_to_score():
    """Return the loader of the test set."""
    data = Digits()
    data.setup("test")
    return data.test_dataloader()


@pytest.mark.parametrize("vary", ["init", "all"])
def test_another_seed_reads_the_same_digits(stability, vary):
    task = LightningTask(Reader, Digits, {"max_epochs": 8}, test=examples_to_score())
    stability.check(task, vary=vary, budget=Budget(disagreement=15.0))  # percent of the test examples
