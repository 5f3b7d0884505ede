"""examples/transformers as its reader runs it: green, and red where the model has hardly learned."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="needs the extra `transformers`")

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "transformers"

pytestmark = pytest.mark.slow


@pytest.fixture
def example(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns(".*", "__pycache__")))


def run(example: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=example, env=variables, capture_output=True, text=True, check=False, timeout=400)


def test_the_training_code_runs_without_us(example: Path) -> None:
    train = example / "train.py"
    train.write_text(f"{train.read_text(encoding='utf-8')}\nassert 'stabilitykit' not in __import__('sys').modules\n")
    done = run(example, "train.py", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "eval_accuracy" in done.stdout


def test_it_is_green_and_leaves_nothing_but_its_store(example: Path) -> None:
    before = {path.name for path in example.iterdir()}
    done = run(example, "-m", "pytest", "-p", "no:cacheprovider", "-k", "init")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in example.iterdir()} - before - {"__pycache__"} == {".stabilitykit"}


def test_one_epoch_is_red(example: Path) -> None:
    train = example / "train.py"
    train.write_text(train.read_text(encoding="utf-8").replace("epochs=8", "epochs=1"))
    done = run(example, "-m", "pytest", "-k", "init")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL       disagreement" in done.stdout
