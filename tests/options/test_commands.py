"""Commands in a user's tests: a task as any other, in this process, in workers and in child processes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

SCRIPT = """
    import random, sys
    from spread import SPREAD

    open("runs", "a").write(f"{sys.argv[1:]}\\n")
    print(f"loss={0.5 + sum(random.Random(int(seed)).gauss(0, SPREAD) for seed in sys.argv[1:]):.6f}")
"""

TESTS = """
    SCORES = {"loss": r"loss=([0-9.]+)"}

    def command(*flags):
        return Command([PYTHON, "train.py", *flags], scores=SCORESMORE)

    def test_all(stability):
        study = stability.measure(command("{seed}"), vary="all", runs=4)
        assert study["loss_sd"].value > 0

    def test_init(stability):
        study = stability.measure(command("{init}", "{shuffle}"), vary="init", runs=4)
        assert study.certificate.proven and study.certificate.alive == {"init": "in the first epoch"}
        assert_within(study, Budget(loss_sd=10))

    def test_beyond(stability):
        stability.check(command("{seed}"), runs=4, budget=Budget(loss_sd=1e-9))
"""


def a_script(project: Project, more: str = "") -> None:
    project.write("train.py", SCRIPT)
    project.write("spread.py", "SPREAD = 0.01\n")
    project.tests(TESTS.replace("PYTHON", repr(sys.executable)).replace("MORE", more))


def runs(project: Project) -> int:
    file = project.path / "runs"
    count = len(file.read_text().splitlines()) if file.exists() else 0
    file.unlink(missing_ok=True)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_command_is_a_task_whichever_process_trains(project: Project, way: str, isolation: str) -> None:
    a_script(project, ", copy=False")
    result = project.run("--stability-isolation", isolation, way=way)
    result.assert_outcomes(passed=2, failed=1)
    assert runs(project) >= 9
    assert "loss_sd" in result.stdout.str()
    again = project.run("--stability-isolation", isolation, way=way)
    again.assert_outcomes(passed=2, failed=1)
    assert runs(project) == 0
    project.write("spread.py", "SPREAD = 0.02\n")
    project.run("--stability-isolation", isolation, way=way).assert_outcomes(passed=2, failed=1)
    assert runs(project) >= 9


def test_workers_take_turns_in_one_folder(project: Project) -> None:
    a_script(project)
    project.write(
        "train.py",
        """
        import os, sys, time

        assert not os.path.exists("busy"), "another run is in the folder"
        open("busy", "w").close()
        time.sleep(0.2)
        os.remove("busy")
        print(f"loss={sum(map(int, sys.argv[1:]))}")
        """,
    )
    project.run("-k", "not beyond", way="n2").assert_outcomes(passed=2)
