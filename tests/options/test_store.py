"""--stability-store: sessions that share a folder share their runs, and train each once."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

STUDY = """
    def test_study(stability):
        stability.measure(train, labels=Y, vary="init", runs=24)
"""


@pytest.mark.slow
def test_two_sessions_at_once_train_each_run_once(project: Project, wait_for: Callable) -> None:
    project.tests(STUDY)
    project.meet(2)
    store = project.path.parent / f"{project.path.name}-store"
    sessions = [project.start("--stability-store", store, way=way) for way in ("n2", "plain")]
    assert [session.wait(300) for session in sessions] == [0, 0]
    trainings = project.ledger()
    assert sorted(training.index for training in trainings if training.index) == list(range(1, 24))
    assert len({training.pid for training in trainings}) >= 2
    assert not (project.path / ".stabilitykit").exists()
    assert not list((store / "sessions").iterdir())


@pytest.mark.parametrize(("args", "ini"), [(["--stability-store", "mine"], ""), ([], "stability_store = mine")])
def test_the_folder_is_named_on_the_command_line_or_in_the_ini_file(project: Project, args: list, ini: str) -> None:
    project.ini(ini)
    project.tests(STUDY.replace("24", "2"))
    project.run(*args).assert_outcomes(passed=1)
    assert len(list(project.path.glob("mine/v*/*/runs/*.json"))) == 2 + 1  # with the base run


#: Names that the store's own folders and files have, or might have.
RESULTS = ("sessions/2025-11-03/a.txt", "sessions/0123456789abcdef/a.txt", "v1/a.csv", ".notes.1.00aa00ab.tmp")


def test_a_folder_of_the_users_own_is_refused_and_nothing_in_it_is_touched(project: Project) -> None:
    project.tests("def test_it(stability):\n    stability.measure(train, labels=Y, vary='init', runs=2)\n")
    files = [project.path / "results" / name for name in RESULTS]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
        os.utime(file, (1, 1))
        os.utime(file.parent, (1, 1))
    result = project.run("--stability-store=results")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: Expected the run store */results to be a new or an empty folder, or a *"])
    assert sorted(path for path in (project.path / "results").rglob("*") if path.is_file()) == sorted(files)


def test_a_store_whose_sessions_lie_elsewhere_is_refused_and_nothing_there_is_touched(project: Project) -> None:
    project.tests("def test_it(stability):\n    stability.measure(train, labels=Y, vary='init', runs=2)\n")
    project.run().assert_outcomes(passed=1)
    mine = project.path / "elsewhere" / "sessions" / "0123456789abcdef" / "a.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    for path in (mine, mine.parent):
        os.utime(path, (1, 1))
    (project.path / ".stabilitykit" / "sessions").rmdir()
    (project.path / ".stabilitykit" / "sessions").symlink_to(mine.parents[1])
    result = project.run()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*sessions is a symbolic link*"])
    assert mine.read_text() == "mine"


def test_what_killed_sessions_left_goes_when_the_next_one_begins(project: Project) -> None:
    """It may be killed as well, and the one after it."""
    project.tests(
        """
        import os

        def test_dies(stability):
            os._exit(7)
        """
    )
    killed = project.path / ".stabilitykit" / "sessions" / ("0" * 16)
    project.run()
    killed.mkdir(parents=True)
    (killed / "living.lock").touch()
    os.utime(killed / "living.lock", (1, 1))
    os.utime(killed, (1, 1))
    assert project.run().ret == 7
    assert not killed.exists()
