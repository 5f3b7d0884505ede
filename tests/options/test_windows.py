"""A Python without the module ``fcntl``, as on Windows: other tests run, and a stability test says what is missing."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

ERROR = "MissingModuleError: Expected Linux or macOS but got *'fcntl'* in WSL*"


@pytest.fixture
def without_fcntl(project: Project) -> Project:
    project.write("conftest.py", "import sys\n\nsys.modules['fcntl'] = None\n")
    project.python = sys.executable
    return project


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_other_tests_run_and_a_stability_test_fails_by_one_line(without_fcntl: Project, way: str) -> None:
    without_fcntl.write(
        "test_any.py",
        """
        def test_other():
            pass

        def test_stability(stability):
            stability.measure(print)
        """,
    )
    result = without_fcntl.run(way=way)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines([ERROR])
    assert "Traceback" not in result.stdout.str()
    assert "INTERNALERROR" not in result.stdout.str()


@pytest.mark.slow
def test_a_test_file_that_imports_a_recipe_says_what_is_missing(without_fcntl: Project) -> None:
    without_fcntl.write("test_any.py", "from stabilitykit import Recipe\n")
    result = without_fcntl.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"E*{ERROR}"])
