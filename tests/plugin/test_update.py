"""--stability-update beside --stability-calibrate: without it, no entry is ever replaced."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

FILE = "stability-budgets.toml"

CHECKS = """
    def test_one(stability):
        stability.check(train, labels=Y, vary="init")

    def test_two(stability):
        stability.check(train, labels=Y, vary="shuffle")
"""


@pytest.fixture
def calibrated(project: Project) -> str:
    """The text of a file that has an entry for the second test, with a line that its reviewer deleted."""
    project.tests(CHECKS)
    project.run("--stability-calibrate", "--stability-runs", 3, "-k", "two")
    path = project.path / FILE
    text = re.sub(r"^disagreement = .*$", "# no disagreement", path.read_text(), flags=re.MULTILINE)
    path.write_text(text)
    project.ledger()
    return text


def test_an_entry_is_an_error_before_its_study_trains_and_others_are_added(
    project: Project, calibrated: str, way: str
) -> None:
    result = project.run("--stability-calibrate", "--stability-runs", 4, way=way)
    result.assert_outcomes(passed=1, failed=1)
    command = "pytest --stability-calibrate --stability-update test_toy.py::test_two"
    result.stdout.fnmatch_lines(
        [
            f"E *BudgetError: Expected to calibrate a check that has no budget yet, but it has an entry *: {command}",
            "written: stability-budgets.toml (1 new); review it, and commit it",
            f"not written: test_toy.py::test_two: it has an entry in stability-budgets.toml, *: {command}",
        ]
    )
    assert project.trained() == [0, 1, 2, 3]
    text = (project.path / FILE).read_text()
    entry = calibrated[calibrated.index("[[study]]") :]
    assert text.endswith(f"\n\n{entry}")
    assert text.index("::test_one") < text.index("::test_two")


def test_an_update_renews_the_lines_that_are_there(project: Project, calibrated: str, way: str) -> None:
    result = project.run("--stability-calibrate", "--stability-update", "--stability-runs", 4, way=way)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["written: stability-budgets.toml (1 new, 1 updated); review it, and commit it"])
    text = (project.path / FILE).read_text()
    entry = text[text.index("::test_two") :]
    assert "runs = 4" in entry
    assert "in 4 runs" in entry
    assert "# no disagreement" in entry
    assert "disagreement =" not in entry


def test_update_alone_is_refused(project: Project) -> None:
    project.tests(CHECKS)
    result = project.run("--stability-update")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*Expected --stability-update beside --stability-calibrate or --stability-save.*"])
