"""What the tests of training share."""

from __future__ import annotations

import sys

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


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A project with a package, whose files are older than what is read of them."""
    (tmp_path / "acme_traced").mkdir()
    (tmp_path / "acme_traced" / "__init__.py").write_text("")
    (tmp_path / "acme_traced" / "layers.py").write_text("WIDTH = 4\n")
    (tmp_path / "acme_traced" / "sizes.json").write_text("[4]")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("acme_traced")]:
        del sys.modules[name]
