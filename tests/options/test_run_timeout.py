"""--stability-run-timeout: a run that hangs fails, alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project


@pytest.mark.slow
@pytest.mark.parametrize(("way", "isolation"), [("plain", "none"), ("n2", "process")])
def test_a_run_that_hangs_is_ended_and_named(project: Project, way: str, isolation: str) -> None:
    project.tests("""
        def test_study(stability):
            stability.measure(train, labels=Y, vary="init", runs=4)
    """)
    project.suffer("hang 2")  # the others take some milliseconds
    result = project.run("--stability-run-timeout", 15, "--stability-isolation", isolation, way=way)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *1 of train *init* failed: run 2.*Run 2 (timeout; seeds *",
            "E *the run had not ended after 15 s, which --stability-run-timeout allows",
            "E *suffer*",
        ]
    )
    if isolation == "process":
        result.stdout.fnmatch_lines(["E *about to hang"])
    assert project.trained() == [0, 1, 3]


def test_a_time_that_is_none_is_refused(project: Project) -> None:
    project.tests("")
    result = project.run("--stability-run-timeout", 0)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: Expected --stability-run-timeout to be above 0 but got 0."])
