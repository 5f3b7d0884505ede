"""--stability-cache: auto, refresh, off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: The second test asks what the first one did.
TWICE = """
    @pytest.mark.parametrize("time", ["first", "second"])
    def test_twice(stability, time):
        stability.measure(train, labels=Y, vary="init", runs=3)
"""


def run_and_count(project: Project, *args: object, way: str) -> list[int]:
    result = project.run(*args, way=way)
    result.assert_outcomes(passed=2)
    trained = project.trained()
    if way == "n2" and trained[:2] == [0, 0]:
        # Two workers that meet a new task at once each train its base run: what it reads is not known before.
        trained.remove(0)
    return trained


def test_runs_are_kept_and_trained_again_only_where_the_cache_is_refreshed(project: Project) -> None:
    project.tests(TWICE)
    assert run_and_count(project, way="plain") == [0, 1, 2]
    assert project.stored() == [0, 1, 2]
    assert run_and_count(project, "--stability-cache", "refresh", way="plain") == [0, 1, 2]
    assert project.stored() == [0, 1, 2]
    assert run_and_count(project, "--cache-clear", way="plain") == [], "our cache is not pytest's"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_nothing_is_kept_beyond_the_session_where_the_cache_is_off(project: Project, way: str) -> None:
    project.tests(TWICE)
    project.ini("stability_cache = off")
    assert run_and_count(project, way=way) == [0, 1, 2]
    assert project.stored() == []
    assert not list((project.path / ".stabilitykit" / "sessions").iterdir())


@pytest.mark.slow
def test_two_workers_refresh_each_run_once(project: Project) -> None:
    project.tests(TWICE)
    assert run_and_count(project, way="n2") == [0, 1, 2]
    assert run_and_count(project, "--stability-cache", "refresh", way="n2") == [0, 1, 2]


def test_an_unknown_mode_is_refused(project: Project) -> None:
    result = project.run("--stability-cache", "on")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --stability-cache: invalid choice: 'on' (choose from *auto*refresh*off*"])
    project.ini("stability_cache = on")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == "ERROR: Expected --stability-cache to be one of auto, refresh, off but got 'on'."
