"""What the tests of examples share: a copy of one, and ways to run it as its reader does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def example(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the example that the test's file is named after."""
    name = request.path.stem.removeprefix("test_")
    original = Path(__file__).resolve().parents[2] / "examples" / name
    return Path(shutil.copytree(original, tmp_path / "example", ignore=shutil.ignore_patterns(".*", "__pycache__")))


def run(example: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=example, env=variables, capture_output=True, text=True, check=False, timeout=400)


def check_green_without_a_trace(example: Path) -> None:
    """Train what varies by ``init``: green, and nothing is left beside the store."""
    before = {path.name for path in example.iterdir()}
    done = run(example, "-m", "pytest", "-p", "no:cacheprovider", "-k", "init")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert {path.name for path in example.iterdir()} - before - {"__pycache__"} == {".stabilitykit"}


def check_red(example: Path, *arguments: str) -> None:
    done = run(example, "-m", "pytest", *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAIL       disagreement" in done.stdout
