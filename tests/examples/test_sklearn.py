"""examples/sklearn as its reader runs it: green, answered from the store, and red with a smaller forest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.conftest import check_red, run

pytestmark = pytest.mark.slow


def stored(example: Path) -> dict[Path, int]:
    """When each run in the store was written."""
    return {file: file.stat().st_mtime_ns for file in example.glob(".stabilitykit/v*/*/runs/*.json")}


def edit(example: Path, old: str, new: str) -> None:
    file = example / "train.py"
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def test_the_training_code_runs_without_us(example: Path) -> None:
    edit(example, "from sklearn.datasets", "import sys\n\nsys.modules['stabilitykit'] = None\nfrom sklearn.datasets")
    done = run(example, "train.py", "--trees", "5", "--report")
    assert done.returncode == 0, done.stderr
    assert "test: 0." in done.stdout
    assert "precision" in done.stdout


def test_two_workers_are_green_and_the_next_session_fits_nothing(example: Path) -> None:
    first = run(example, "-m", "pytest", "-n", "2")
    assert "3 passed" in first.stdout, first.stdout + first.stderr
    assert first.stdout.count(" PASS") == 3
    kept = stored(example)
    assert len(kept) >= 9
    second = run(example, "-m", "pytest", "-n", "0", "-p", "no:cacheprovider")
    assert "3 passed" in second.stdout, second.stdout + second.stderr
    assert stored(example) == kept


def test_a_small_forest_is_red(example: Path) -> None:
    edit(example, "trees=50", "trees=5")
    check_red(example, "-n", "0", "-k", "same_digits")
