"""A session that was interrupted, or that asks for more or fewer runs, trains only what is missing."""

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
        stability.measure(train, labels=Y, vary="init+shuffle")
"""


def fingerprints(report: dict) -> list[str]:
    (study,) = report["studies"]
    return [record["fingerprint"] for record in study["records"]]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_after_kill_9_only_the_missing_runs_are_trained_to_the_same_bits(
    project: Project, way: str, wait_for: Callable
) -> None:
    project.tests(STUDY)
    project.suffer("hang 5")  # so that it is never too late to kill it
    process = project.start("--stability-runs", 10, way=way)
    wait_for(lambda: len(project.stored()) >= 3 and project.has_suffered())
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(300)
    project.ledger()
    kept = project.stored()
    assert 3 <= len(kept) < 10
    assert project.claims(), "a process that is killed cannot tidy up"
    project.suffer("none -1")
    result, resumed = project.study("--stability-runs", 10, way=way)
    result.assert_outcomes(passed=1)
    assert project.went_on(kept, 10)
    # It may have been killed between a run's last two steps: the claim of a run that is kept means nothing.
    assert not set(project.claims()) - {f"{index:04d}.json" for index in kept}
    project.forget()
    _, whole = project.study("--stability-runs", 10)
    assert fingerprints(resumed) == fingerprints(whole)
    assert len(set(fingerprints(whole))) == 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "tell", "isolation"),
    [("plain", os.killpg, "none"), ("n2", os.killpg, "process"), ("n2", os.kill, "none")],
    ids=["plain", "group", "controller alone"],
)
def test_ctrl_c_gives_the_claims_back_and_the_next_session_goes_on(
    project: Project, way: str, tell: Callable, isolation: str, wait_for: Callable
) -> None:
    project.tests(STUDY)
    project.suffer("hang 5")
    process = project.start("--stability-runs", 10, "--stability-isolation", isolation, way=way)
    wait_for(lambda: len(project.stored()) >= 3 and project.has_suffered())
    tell(process.pid, signal.SIGINT)
    assert process.wait(300) == pytest.ExitCode.INTERRUPTED
    wait_for(lambda: not project.processes())
    kept = project.stored()
    assert len(kept) < 10
    assert project.claims() == []
    assert not list((project.path / ".stabilitykit" / "sessions").iterdir())
    project.ledger()
    project.suffer("none -1")
    project.run("--stability-runs", 10, way=way).assert_outcomes(passed=1)
    assert project.went_on(kept, 10)


def test_more_runs_train_the_new_ones_and_fewer_none(project: Project) -> None:
    project.tests(STUDY)
    _, three = project.study("--stability-runs", 3)
    assert project.trained() == [0, 1, 2]
    _, five = project.study("--stability-runs", 5)
    assert project.trained() == [3, 4]
    _, two = project.study("--stability-runs", 2)
    assert project.trained() == []
    assert fingerprints(five)[:3] == fingerprints(three)
    assert fingerprints(five)[:2] == fingerprints(two)
