"""--stability-save NAME: keep the studies of a session as a baseline."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

KINDS = """
    @pytest.mark.parametrize("vary", ["init", "shuffle"])
    def test_measure(stability, vary):
        stability.measure(train, labels=Y, vary=vary, runs=3)

    def test_check_and_more(stability):
        stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(disagreement=90))
        stability.measure(train, labels=Y, vary="none", runs=2)

    def fails(run):
        raise ValueError("always")

    def test_a_study_that_fails_is_not_kept(stability):
        stability.measure(fails, labels=Y, vary="shuffle", runs=2)
"""


def kept(project: Project, name: str = "main") -> list[tuple[str, int, int]]:
    headers = [json.loads(path.read_text()) for path in project.path.glob(f".stabilitykit/baselines/{name}/*.json")]
    return sorted((header["test"].partition("::")[2], header["call"], header["runs"]) for header in headers)


def test_every_study_is_kept_whichever_worker_made_it(project: Project, way: str) -> None:
    project.tests(KINDS)
    project.run("--stability-save", "main", way=way).assert_outcomes(passed=3, failed=1)
    found = kept(project)
    assert [(test, call) for test, call, _ in found] == [
        ("test_check_and_more", 0),
        ("test_check_and_more", 1),
        ("test_measure[init]", 0),
        ("test_measure[shuffle]", 0),
    ]
    assert [runs for _, _, runs in found][1:] == [2, 3, 3]
    assert len(list(project.path.glob(".stabilitykit/baselines/main/*.npy"))) == 4
    assert not list(project.path.glob(".stabilitykit/baselines/main/.*")), "no drafts are left"


@pytest.mark.slow
def test_a_name_that_is_taken_is_refused_before_anything_trains(project: Project, way: str) -> None:
    project.tests(KINDS)
    project.run("--stability-save", "main", "-k", "measure").assert_outcomes(passed=2)
    project.trained()
    result = project.run("--stability-save", "main", "--stability-seed", "1", way=way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: Expected --stability-save to name a new baseline but *.stabilitykit has 'main'.*--stability-update."]
    )
    assert project.trained() == []
    project.run("--stability-save", "other", "-k", "measure", way=way).assert_outcomes(passed=2)
    assert kept(project, "other") == kept(project)


def test_update_replaces_the_studies_of_this_session_and_leaves_the_others(project: Project) -> None:
    project.tests(KINDS)
    project.run("--stability-save", "main", "-k", "measure").assert_outcomes(passed=2)
    arrays = {path.name for path in project.path.glob(".stabilitykit/baselines/main/*.npy")}
    more = ["--stability-update", "--stability-seed", "1", "-k", "init"]
    project.run("--stability-save", "main", *more).assert_outcomes(passed=1)
    assert [test for test, _, _ in kept(project)] == ["test_measure[init]", "test_measure[shuffle]"]
    now = {path.name for path in project.path.glob(".stabilitykit/baselines/main/*.npy")}
    assert len(now) == 2, "what was replaced is gone"
    assert len(now & arrays) == 1


def test_a_test_that_is_run_again_keeps_its_study_again(project: Project) -> None:
    project.tests("""
        import os

        def test_flaky(stability):
            stability.measure(train, labels=Y, vary="init", runs=2)
            assert os.path.exists("tried") or open("tried", "w").close()
    """)
    result = project.run("-p", "rerunfailures", "--reruns", "1", "--stability-save", "main")
    assert result.ret == pytest.ExitCode.OK
    assert kept(project) == [("test_flaky", 0, 2)]


def test_a_name_that_is_no_folder_is_refused(project: Project) -> None:
    project.tests(KINDS)
    for name in ("../main", ".hidden", "a/b"):
        result = project.run("--stability-save", name)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines(["ERROR: Expected --stability-save to be a name of letters, *"])
