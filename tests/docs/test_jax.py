"""The example of docs/jax.md gives what the page shows."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jax.md"

EXAMPLE = """
import doctest, sys
failed, tried = doctest.testfile(sys.argv[1], module_relative=False, encoding="utf-8")
sys.exit(failed or tried < 10)
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs the extra `frameworks`")
def test_the_example_gives_what_is_shown(tmp_path: Path) -> None:
    # In a process of its own: JAX warns of each fork after its import, as loaders of other tests make them.
    # The store of a script is in the current folder.
    command = [sys.executable, "-c", EXAMPLE, str(PAGE)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
