"""What the tests of training share."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3


def sgd(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def recipe_of(**options):
    """Return a recipe of a linear model on 20 examples of 3 classes, two epochs of it, with other options."""
    settings = {
        "model": lambda: nn.Linear(4, 3),
        "train": (X, Y),
        "test": (X, Y),
        "epochs": 2,
        "batch_size": 8,
        "optimizer": sgd,
    }
    return Recipe(**(settings | options))


@pytest.fixture
def train(tmp_path):
    """Train one run of a protocol, which must leave a model, and return its record."""

    def train(task, vary="none", index=0, **options):
        plan = NoiseProtocol(vary, runs=3, seed=BASE_SEED, **options).plans()[index]
        record = Trainer(task, "cpu", 1, tmp_path).train_once(plan)
        assert record.status == "ok", record.error
        return record

    return train
