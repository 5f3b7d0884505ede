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
        stability.check(train, labels=Y, vary="shuffle")

    def test_two(stability):
        stability.check(train, labels=Y, vary="init")
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


@pytest.mark.slow
@pytest.mark.trains
def test_what_has_an_entry_is_judged_by_it_and_others_are_added(project: Project, calibrated: str, way: str) -> None:
    result = project.run("--stability-calibrate", "--stability-runs", 4, "--stability-undecided", "pass", way=way)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "note: judged by its entry in stability-budgets.toml, which --stability-update would renew (test_two)",
            "written: stability-budgets.toml (1 new); review it, and commit it",
        ]
    )
    assert {training.index for training in project.ledger()} == {1, 2, 3}  # the base run is there
    text = (project.path / FILE).read_text()
    entry = calibrated[calibrated.index("[[study]]") :]
    assert entry.strip() in text
    assert "::test_one" in text


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
