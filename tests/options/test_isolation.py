"""--stability-isolation and --stability-workers: a child process for each run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: Everything that does not go by name into another process: closures, lambdas, a class in a test module, captured data.
STUDY = """
    import warnings

    class Net(nn.Sequential):
        def __init__(self, width):
            super().__init__(nn.Linear(4, width), nn.Dropout(0.1), nn.Linear(width, 2))

    @pytest.fixture(scope="session")
    def recipe():
        width = 8
        return Recipe(
            model=lambda: Net(width), train=(X, Y), test=(X, Y), epochs=2, batch_size=16,
            optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            augment=lambda x: x + 0.01 * torch.randn_like(x),
        )

    @pytest.mark.parametrize("vary", {sources})
    def test_recipe(stability, recipe, vary):
        stability.measure(recipe, vary=vary, runs={runs})

    def test_loop(stability):
        rate = 0.2

        def at_rate(run):
            print("training", run.index)
            return train(run, rate)

        stability.measure(at_rate, labels=Y, perturb="ulp", runs={runs})
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "args", "runs", "sources"),
    [
        ("n2", ["--stability-isolation", "process"], 3, ["all", "none"]),
        ("plain", ["--stability-isolation", "process"], 3, ["all", "none"]),
        ("n0", ["--stability-workers", "2"], 3, ["all", "none"]),
        ("plain", ["--stability-isolation", "spawn"], 2, ["all"]),  # each run imports torch anew
    ],
)
def test_children_train_the_same_bits(
    project: Project, way: str, args: list[str], runs: int, sources: list[str], wait_for: Callable
) -> None:
    project.tests(STUDY.replace("{runs}", str(runs)).replace("{sources}", str(sources)))
    result, in_process = project.study()
    result.assert_outcomes(passed=len(sources) + 1)
    assert len({training.pid for training in project.ledger()}) == 1
    project.forget()
    result, in_children = project.study(*args, way=way)
    result.assert_outcomes(passed=len(sources) + 1)
    assert project.timeless(in_children) == project.timeless(in_process)
    trainings = project.in_ledger()
    assert {training.index for training in trainings} == {*range(runs)}
    assert len({training.pid for training in trainings}) == len(trainings), "two trainings shared a process"
    (log,) = project.path.glob(f".stabilitykit/v*/*/logs/{runs - 1:04}.log")
    assert log.read_text() == f"training {runs - 1}\n"
    assert f"training {runs - 1}" not in result.stdout.str()
    wait_for(lambda: not project.processes())  # the children's server ends with the worker


@pytest.mark.slow
def test_two_workers_train_two_runs_at_once(project: Project) -> None:
    project.sleep_in_runs(1)
    project.tests("""
        def test_study(stability):
            stability.measure(train, labels=Y, vary="init", runs=4)
    """)
    project.run("--stability-workers", 2).assert_outcomes(passed=1)
    of_study = [training for training in project.ledger() if training.index]  # the base run comes before them
    first, second, *_ = sorted(of_study, key=lambda training: training.started)
    assert second.started < first.ended


def test_what_no_other_process_can_have_trains_here_and_says_so(project: Project) -> None:
    project.tests("""
        import threading

        def test_study(stability):
            lock = threading.Lock()

            def locked(run):
                with lock:
                    return train(run)

            stability.measure(locked, labels=Y, vary="init", runs=2)
    """)
    result = project.run("--stability-isolation", "process")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["note: trained in the test's own process, since the task cannot be sent to another one: TypeError: *lock*"]
    )


def test_workers_and_xdist_exclude_each_other(project: Project) -> None:
    project.tests("")
    result = project.run("--stability-workers", 2, way="n2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: Expected --stability-workers 2 without workers of pytest-xdist: *"])
    result = project.run("--stability-workers", 2, "--stability-isolation", "none")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: Expected --stability-isolation process with --stability-workers 2 but got none*"]
    )
