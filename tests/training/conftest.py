"""What the tests of training share."""

from __future__ import annotations

import pytest

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED


@pytest.fixture
def train(tmp_path):
    """Train one run of a protocol, which must leave a model, and return its record."""

    def train(task, vary="none", index=0, **options):
        plan = NoiseProtocol(vary, runs=3, seed=BASE_SEED, **options).plans()[index]
        record = Trainer(task, "cpu", 1, tmp_path).train_once(plan)
        assert record.status == "ok", record.error
        return record

    return train
