"""examples/lightning as its reader runs it: green, and red where the network has hardly learned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.conftest import check_green_without_a_trace, check_red, run

pytest.importorskip("lightning", reason="needs the extra `lightning`")

pytestmark = pytest.mark.slow


def test_the_training_code_runs_without_us(example: Path) -> None:
    train = example / "train.py"
    train.write_text("import sys\n\nsys.modules['stabilitykit'] = None\n" + train.read_text(encoding="utf-8"))
    done = run(example, "train.py", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout


def test_it_is_green_and_leaves_nothing_but_its_store(example: Path) -> None:
    check_green_without_a_trace(example)


def test_one_epoch_is_red(example: Path) -> None:
    test = example / "test_stability.py"
    test.write_text(test.read_text(encoding="utf-8").replace('"max_epochs": 8', '"max_epochs": 1'))
    check_red(example, "-k", "init")
