"""--stability-store: sessions that share a folder share their runs, and train each once."""

from __future__ import annotations

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
    assert sorted(training.index for training in trainings) == list(range(24))
    assert len({training.pid for training in trainings}) >= 2
    assert not (project.path / ".stabilitykit").exists()
    assert not list((store / "sessions").iterdir())


@pytest.mark.parametrize(("args", "ini"), [(["--stability-store", "mine"], ""), ([], "stability_store = mine")])
def test_the_folder_is_named_on_the_command_line_or_in_the_ini_file(project: Project, args: list, ini: str) -> None:
    project.ini(ini)
    project.tests(STUDY.replace("24", "2"))
    project.run(*args).assert_outcomes(passed=1)
    assert len(list(project.path.glob("mine/v*/*/runs/*.json"))) == 2
