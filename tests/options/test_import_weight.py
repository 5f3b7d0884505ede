"""What the plugin costs those who do not use it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

HEAVY = ("torch", "numpy", "scipy")
#: In each process of the session, the workers too.
WITNESS = f"""
    import os
    import sys

    def pytest_sessionfinish():
        loaded = [name for name in {HEAVY} if name in sys.modules]
        with open("processes.txt", "a") as file:
            file.write(f"{{os.getpid()}} {{loaded}} {{'stabilitykit.plugin.hooks' in sys.modules}}\\n")
"""


def test_help_loads_nothing_heavy(project: Project) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pytest", "-p", "no:randomly", "--help"]
    result = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "stabilitykit.plugin.options" in loaded
    assert not loaded & {*HEAVY}


@pytest.mark.parametrize(("way", "processes"), [("plain", 1), ("n2", 3)])
def test_a_session_without_stability_tests_loads_nothing_heavy_and_leaves_no_folder(
    project: Project, way: str, processes: int
) -> None:
    project.write("conftest.py", WITNESS)
    project.write("test_any.py", "def test_any():\n    pass\n\ndef test_other():\n    pass\n")
    project.python = sys.executable
    project.run(way=way).assert_outcomes(passed=2)
    lines = (project.path / "processes.txt").read_text().splitlines()
    assert len(lines) == processes
    assert all(line.endswith(" [] True") for line in lines)
    assert not (project.path / ".stabilitykit").exists()
