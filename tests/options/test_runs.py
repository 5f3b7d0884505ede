"""--stability-runs, its ini key, the marker's runs= and the argument runs=."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

ONE_RUN_IS_NO_SPREAD = (
    "ERROR: Expected --stability-runs >= 2 but got 1. A spread is between runs, so it needs two; ten is a usual start."
)
COUNTS = """
    def test_default(stability):
        print("default", len(stability.measure(train, labels=Y, vary="init").records))

    @pytest.mark.stability(runs=5)
    def test_marker(stability):
        print("marker", len(stability.measure(train, labels=Y, vary="init").records))

    @pytest.mark.stability(runs=5)
    def test_argument(stability):
        print("argument", len(stability.measure(train, labels=Y, runs=6, vary="init").records))
"""


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_argument_goes_before_marker_before_command_line_before_ini(project: Project, way: str) -> None:
    project.tests(COUNTS)
    project.ini("stability_runs = 3")
    result = project.run("--stability-runs", 4, "-rP", way=way)
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines_random(["stability: runs 4, *", "default 4", "marker 5", "argument 6"])


@pytest.mark.slow
def test_ini_key_goes_before_the_default_of_ten(project: Project) -> None:
    project.tests(COUNTS)
    project.run("-rP", "-k", "test_default").stdout.fnmatch_lines(["stability: runs 10, *", "default 10"])
    project.ini("stability_runs = 3")
    project.run("-rP", "-k", "test_default").stdout.fnmatch_lines(["stability: runs 3, *", "default 3"])
    assert project.trained() == list(range(10)), "three runs are the first of ten"


def test_one_run_is_refused_before_anything_starts(project: Project, way: str) -> None:
    project.write("test_any.py", "def test_any(stability):\n    pass\n")
    result = project.run("--stability-runs", 1, way=way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == ONE_RUN_IS_NO_SPREAD
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stderr.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("value", "message"),
    [("1", ONE_RUN_IS_NO_SPREAD), ("ten", "ERROR: Expected stability_runs to be a whole number but got 'ten'.")],
)
def test_a_wrong_ini_key_is_refused(project: Project, value: str, message: str) -> None:
    project.ini(f"stability_runs = {value}")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == message


def test_a_word_on_the_command_line_is_refused(project: Project) -> None:
    result = project.run("--stability-runs", "ten")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --stability-runs: invalid int value: 'ten'"])


def test_one_run_asked_for_by_a_test_fails_that_test(project: Project) -> None:
    project.tests("""
        def test_one(stability):
            stability.measure(train, labels=Y, runs=1)
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["> * stability.measure(train, labels=Y, runs=1)", "E *ProtocolError: Expected runs >= 2 but got runs=1.*"]
    )
    result.stdout.no_fnmatch_line("*stabilitykit/*.py*")
