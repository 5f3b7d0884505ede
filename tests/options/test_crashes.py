"""A process that dies costs the run in it: never the others, never a green that should be red."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

STUDY = """
    def test_study(stability):
        stability.measure(train, labels=Y, vary="init", runs=8)
"""


@pytest.mark.parametrize(
    ("way", "isolation"), [("plain", "none"), pytest.param("n2", "process", marks=pytest.mark.slow)]
)
def test_a_run_that_raises_or_leaves_fails_its_study_and_the_others_are_kept(
    project: Project, way: str, isolation: str
) -> None:
    project.tests("""
        def leaves(run):
            if run.index == 2 and os.environ["TOY_FAULT"] == "raise 3":
                raise SystemExit(7)
            return train(run)

        def test_raises(stability):
            stability.measure(train, labels=Y, vary="init", runs=5)

        def test_leaves(stability):
            stability.measure(leaves, labels=Y, vary="shuffle", runs=5)
    """)
    project.suffer("raise 3")
    result = project.run("--stability-isolation", isolation, way=way)
    result.assert_outcomes(failed=2)
    raised = "E *Expected 5 trained models but 1 of train *init* failed: run 3.*"
    left = "E *Expected 5 trained models but 2 of leaves *shuffle* failed: run 2, 3.*"
    result.stdout.fnmatch_lines([raised, "E * in suffer", "E *ValueError: in the user's code"])
    result.stdout.fnmatch_lines([left, "E * in leaves", "E *raise SystemExit(7)", "E *SystemExit: 7"])
    assert project.trained() == [0, 0, 1, 1, 2, 4, 4]
    assert len(project.stored()) == 10
    project.suffer("none -1")
    project.run("--stability-isolation", isolation, way=way).assert_outcomes(passed=2)
    assert project.trained() == [2, 3, 3], "the next session tries what failed again, and only that"


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_child_that_dies_is_tried_twice_and_only_its_run_is_lost(project: Project, way: str) -> None:
    project.tests("""
        def dies_once(run):
            if run.index == 1 and not os.path.exists("died"):
                open("died", "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return train(run)

        def test_dies_always(stability):
            stability.measure(train, labels=Y, vary="init", runs=5)

        def test_dies_once(stability):
            stability.measure(dies_once, labels=Y, vary="init", runs=3)
    """)
    project.suffer("exit 3")
    result, report = project.study("--stability-isolation", "process", way=way)
    result.assert_outcomes(failed=1, passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["E *1 of train *init* failed: run 3.*", "E *2 processes died*exit code 7*"])
    result.stdout.no_fnmatch_line("*crashed while running*")
    assert project.trained() == [0, 0, 1, 1, 2, 2, 4]
    assert [record["status"] for record in report["studies"][1]["records"]] == ["ok"] * 3
    assert project.claims() == []


@pytest.mark.slow
@pytest.mark.parametrize("dist", ["load", "loadscope", "loadfile", "loadgroup", "worksteal"])
def test_a_worker_that_dies_in_a_run_is_replaced_and_the_test_passes(project: Project, dist: str) -> None:
    project.tests(STUDY)
    project.sleep_in_runs(0.1)
    project.suffer("exit 2 once")
    result, report = project.study("--dist", dist, way="n2")
    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert result.parseoutcomes()["passed"] == 1
    assert project.trained() == list(range(8)), "each finished run once"
    assert {record["status"] for record in report["studies"][0]["records"]} == {"ok"}
    assert project.claims() == []


@pytest.mark.slow
def test_a_run_that_kills_every_worker_fails_its_test(project: Project) -> None:
    # Under loadscope and its kin xdist itself may end with an internal error when two workers die within seconds.
    project.tests(STUDY)
    project.suffer("exit 3")
    result = project.run(way="n2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
    result.stdout.fnmatch_lines(["E *1 of train *init* failed: run 3.*", "E *2 processes died*"])
    assert project.trained() == [0, 1, 2, 4, 5, 6, 7]


def test_a_crash_that_nobody_makes_good_is_a_failure(project: Project) -> None:
    """No worker is left to run the test again: it must not be forgotten."""
    project.tests(STUDY)
    project.suffer("exit 3")
    result = project.run("--max-worker-restart=0", way="n2")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running*"])
    assert result.parseoutcomes().get("failed") == 1


@pytest.mark.slow
def test_a_crash_under_dist_each_fails_the_test_in_that_worker(project: Project) -> None:
    project.tests(STUDY)
    project.suffer("exit 3")
    result = project.run("--dist", "each", way="n2")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*crashed while running*"])


@pytest.mark.slow
def test_a_crash_outside_of_runs_ends_after_some_workers(project: Project) -> None:
    project.tests("""
        def test_dies(stability):
            os._exit(7)
    """)
    result = project.run(way="n2")
    if "in add_node_collection" in result.stdout.str():
        assert result.ret == pytest.ExitCode.INTERNAL_ERROR, "never green"
        pytest.skip("pytest-xdist lost a worker's replacement, as it may where the last two workers end at once")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*crashed while running 'test_toy.py::test_dies'*"])
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["rerun"]) == (1, 3)


@pytest.mark.slow
def test_a_run_that_kills_pytest_itself_is_named_by_the_fourth_session(project: Project) -> None:
    project.tests(STUDY)
    project.suffer("exit 3")
    for _ in range(3):
        assert project.run().ret == 7, "nobody is left to say anything"
    result = project.run("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *1 of train *init* failed: run 3.*", "E *3 processes died while training *"])
    assert project.trained() == [0, 1, 2, 4, 5, 6, 7]


@pytest.mark.slow
def test_an_outcome_of_pytest_in_a_run_is_a_failed_run(project: Project) -> None:
    project.tests("""
        def skips(run):
            if run.index:
                pytest.skip("not this one")
            return train(run)

        def test_skips(stability):
            stability.measure(skips, labels=Y, vary="init", runs=2)
    """)
    for isolation in ("none", "process"):
        result = project.run("--stability-isolation", isolation)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["E *failed: run 1.*(failed; seeds *", "E * in skips", "E *Skipped: not this one"])


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["worker", "controller"])
def test_kill_9_of_one_process_loses_only_the_runs_in_flight(project: Project, whom: str, wait_for: Callable) -> None:
    project.tests(STUDY)
    project.suffer("wait 7")  # so that it is never too late to kill one
    process = project.start(way="n2")
    wait_for(lambda: len(project.stored()) > 1)  # the base run is in the study as well
    first = project.in_ledger()[0].pid
    os.kill(process.pid if whom == "controller" else first, signal.SIGKILL)
    project.write("go", "")
    assert (process.wait(300) == 0) == (whom == "worker")
    if whom == "controller":  # its workers are told by the end of their pipes, and leave within some seconds
        wait_for(lambda: not project.processes())
    kept = project.stored()
    assert len(kept) == len(set(project.trained()))
    project.run(way="n2").assert_outcomes(passed=1)
    assert project.went_on(kept, 8)


@pytest.mark.slow
def test_no_child_outlives_its_worker(project: Project, wait_for: Callable) -> None:
    project.tests(STUDY)
    project.suffer("hang 3")
    process = project.start("--stability-isolation", "process")
    wait_for((project.path / "suffered").exists)
    process.kill()  # not its group: the children are told by nobody
    process.wait(300)
    wait_for(lambda: not project.processes())
