"""What goes to a child comes back the same, and a child that dies or hangs is told from one that raises."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from stabilitykit.errors import StabilityError, TaskError
from stabilitykit.execution.child_processes import ChildProcesses
from stabilitykit.execution.executor import Died, ProcessDied, Training
from stabilitykit.execution.variables import VariableChanges
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.run_store import RunStore
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.task import LoopTask
from stabilitykit.training.trainer import Trainer
from tests.store_names import key_of, session_id

PLAN, SECOND = NoiseProtocol("init", runs=2).plans()
ROOT = Path(__file__).parents[2]


def trainer_of(function: Callable, tmp_path: Path) -> Trainer:
    return Trainer(LoopTask(function, torch.arange(6) % 3), "cpu", 1, tmp_path)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Callable[..., ChildProcesses]]:
    made: list[ChildProcesses] = []

    def make(task: Callable | Trainer, **options: object) -> ChildProcesses:
        trainer = task if isinstance(task, Trainer) else trainer_of(task, tmp_path)
        devices = options.pop("devices", ["cpu"])
        store = RunStore(tmp_path / "store", session_id("one"))
        made.append(ChildProcesses(trainer, ROOT, store.session_folder / "tasks", devices=devices, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def log_in(tmp_path: Path, index: int = 0) -> Path:
    """Return the place of a run's log in the store of the fixture ``children``."""
    return RunStore(tmp_path / "store", session_id("one")).experiment(key_of("key"), {}).log_file(index)


class Noisy(Dataset):
    """Draws from all generators of the process that reads an item."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.rand(4) + np.random.rand() + random.random(), index % 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "usual", "by_name"),
    [
        ("forkserver", "fork", False),
        ("spawn", "fork", True),
        ("forkserver", "forkserver", False),
    ],
)
def test_a_child_has_loader_processes_of_its_own(children, tmp_path, method, usual, by_name):
    """With the bits of a training in this process, however this process starts others."""
    kind = Noisy if by_name else type("Unnamed", (Noisy,), {})
    records = []
    with start_method(usual):
        for num_workers in (0, 2):
            recipe = Recipe(
                lambda: nn.Linear(4, 2),
                kind(),
                (torch.ones(6, 4), torch.arange(6) % 2),
                epochs=1,
                batch_size=8,
                optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
                num_workers=num_workers,
            )
            executor = children(Trainer(recipe, "cpu", 1, tmp_path), method=method)
            if num_workers == 0:
                records.append(Trainer(recipe, "cpu", 1, tmp_path).train_once(PLAN))
            (training,) = executor.wait([executor.start(PLAN, log=str(log_in(tmp_path)))])
            records.append(training.outcome)
    assert [record.error for record in records] == [""] * 3
    assert len({record.fingerprint for record in records}) == 1


@contextlib.contextmanager
def start_method(name: str) -> Iterator[None]:
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(name, force=True)
    try:
        yield
    finally:
        multiprocessing.set_start_method(before, force=True)


def train_both(executor: ChildProcesses, tmp_path: Path) -> list[Training]:
    trainings = [executor.start(plan, log=str(log_in(tmp_path, plan.index))) for plan in (PLAN, SECOND)]
    waiting = list(trainings)
    while waiting:
        for ended in executor.wait(waiting):
            waiting.remove(ended)
    return trainings


def test_a_child_trains_the_bits_of_its_parent(dropout_net: Recipe, children: Callable, tmp_path: Path) -> None:
    trainer = Trainer(dropout_net, "cpu", 1, tmp_path)
    executor = children(trainer, devices=["cpu", "cpu"])
    trainings = train_both(executor, tmp_path)
    for training in trainings:
        here, there = trainer.train_once(training.plan), training.outcome
        assert there.fingerprint == here.fingerprint
        assert torch.equal(there.logits, here.logits)
        assert there.environment == here.environment
    assert not list(tmp_path.rglob("*.log")), "they printed nothing"


def test_a_child_has_the_parents_environment_filters_and_default_dtype(
    children: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(run: object) -> Tensor:
        import warnings

        warnings.warn("an error, as everywhere in these tests", stacklevel=1)
        return torch.zeros(6, 3)

    def weigh(run: object) -> Tensor:
        return torch.full((6, 3), float(os.environ["WEIGHT"])) + torch.zeros(1).element_size()

    monkeypatch.setenv("WEIGHT", "0.5")
    torch.set_default_dtype(torch.float64)
    try:
        weighed = children(weigh)
    finally:
        torch.set_default_dtype(torch.float32)
    assert outcome(weighed, tmp_path).logits[0, 0] == 8.5
    warned = outcome(children(look), tmp_path)
    assert warned.status == "failed"
    assert "UserWarning: an error, as everywhere" in warned.error


def outcome(executor: ChildProcesses, tmp_path: Path) -> object:
    training = executor.start(PLAN, log=str(log_in(tmp_path)))
    assert executor.wait([training]) == [training]
    return training.outcome


def test_what_a_failed_run_printed_follows_its_traceback(children: Callable, tmp_path: Path) -> None:
    def fails(run: object) -> Tensor:
        sys.stdout.write("one line\n" * 40 + "last words")
        raise ValueError("no")

    record = outcome(children(fails), tmp_path)
    assert record.status == "failed"
    assert f'File "{__file__}"' in record.error, "the user's file, by which tracebacks show lines"
    assert 'raise ValueError("no")' in record.error
    assert f"the end of {log_in(tmp_path)}:\n" in record.error
    assert record.error.endswith("last words")
    assert record.error.count("one line\n") == 29


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (lambda: os._exit(3), "exit code 3"),
        (lambda: os._exit(0), "exit code 0"),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), "exit code -11 (SIGSEGV)"),
    ],
)
def test_a_child_that_dies_says_how(end: Callable[[], None], said: str, children: Callable, tmp_path: Path) -> None:
    def dies(run: object) -> Tensor:
        sys.stderr.write("still here\n")
        end()
        raise AssertionError

    died = outcome(children(dies), tmp_path)
    assert isinstance(died, Died)
    assert died.reason.startswith(said)
    assert "still here" in died.reason


def test_a_death_is_seen_at_once_and_a_child_that_hangs_is_ended_with_all_it_started(
    children: Callable, tmp_path: Path
) -> None:
    def hangs(run: object) -> Tensor:
        import subprocess

        sleeper = subprocess.Popen(["sleep", "1000"])
        (tmp_path / "pid").write_text(str(sleeper.pid))
        time.sleep(1000)
        raise AssertionError

    executor = children(hangs, time_limit=5)  # some of them for the child to get that far, which takes a tenth of one
    record = outcome(executor, tmp_path)
    assert (record.status, record.seconds >= 5) == ("timeout", True)
    assert "had not ended after 5 s" in record.error
    assert "in hangs" in record.error, "where it stood"
    assert is_gone(int((tmp_path / "pid").read_text()))
    (tmp_path / "pid").unlink()
    executor = children(hangs)
    training = executor.start(PLAN, log=str(log_in(tmp_path)))
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    child = training.process._pid
    threading.Timer(0.3, os.kill, [child, signal.SIGKILL]).start()
    assert executor.wait([training]) == [training]
    assert training.outcome.reason.startswith("exit code -9 (SIGKILL)")


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True  # dead, and not yet reaped by whoever adopted it
        time.sleep(0.05)
    return False


def test_waiting_for_the_server_is_no_time_of_the_run(
    children: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = BaseProcess.start

    def slowly(process: BaseProcess) -> None:
        time.sleep(1)
        start(process)

    monkeypatch.setattr(BaseProcess, "start", slowly)
    executor = children(lambda run: time.sleep(1000))
    began = time.monotonic()
    training = executor.start(PLAN, log=str(log_in(tmp_path)))
    assert training.process.seconds <= time.monotonic() - began - 1
    executor.cancel([training])


def test_a_cancelled_child_is_gone(children: Callable, tmp_path: Path) -> None:
    executor = children(lambda run: time.sleep(1000))
    training = executor.start(PLAN, log=str(log_in(tmp_path)))
    executor.cancel([training])
    assert is_gone(training.process._pid)


def test_a_call_returns_raises_or_dies(children: Callable) -> None:
    executor = children(lambda run: torch.zeros(6, 3), time_limit=20)
    assert executor.call(threads_of, 7) == (1, 7)
    with pytest.raises(TaskError, match="as it was raised there"):
        executor.call(raises)
    with pytest.raises(ProcessDied, match="exit code 4"):
        executor.call(leaves)


def threads_of(trainer: Trainer, number: int) -> tuple[int, int]:
    return trainer.threads, number


def raises(trainer: Trainer) -> None:
    raise TaskError("as it was raised there")


def leaves(trainer: Trainer) -> None:
    os._exit(4)


def test_each_child_has_a_device_of_its_own(children: Callable, tmp_path: Path) -> None:
    def waits(run: object) -> Tensor:
        until = time.monotonic() + (120 if run.index == 0 else 0)
        while not (tmp_path / "second").exists() and time.monotonic() < until:
            time.sleep(0.01)
        if run.index:
            (tmp_path / "second").touch()
        return torch.zeros(6, 3) + run.device.index

    executor = children(waits, devices=["cpu:0", "cpu:1"])
    trainings = train_both(executor, tmp_path)
    assert [training.outcome.logits[0, 0].item() for training in trainings] == [0, 1]
    assert sorted(executor._free) == ["cpu:0", "cpu:1"]


class TestVariables:
    """A child begins with the environment of its server, which may have started long before."""

    @pytest.mark.slow
    def test_what_was_set_changed_and_removed_since_the_server_started(
        self, children: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def look(run: object) -> Tensor:
            words = [os.environ.get(f"SK_{name}", "-") for name in ("NEW", "CHANGED", "REMOVED")]
            raise ValueError(" ".join(words))

        monkeypatch.setenv("SK_CHANGED", "before")
        monkeypatch.setenv("SK_REMOVED", "before")
        forkserver._forkserver._stop()  # the next child starts a new one, with this environment
        assert "ValueError: - before before" in outcome(children(look), tmp_path).error
        monkeypatch.setenv("SK_NEW", "now")
        monkeypatch.setenv("SK_CHANGED", "now")
        monkeypatch.delenv("SK_REMOVED")
        assert "ValueError: now now -" in outcome(children(look), tmp_path).error

    def test_only_the_difference_is_sent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        before = dict(os.environ)
        monkeypatch.setenv("SK_NEW", "now")
        assert VariableChanges.since(before) == VariableChanges({"SK_NEW": "now"})

    @pytest.mark.slow
    def test_of_a_server_that_other_code_began_a_child_keeps_nothing(
        self, children: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A variable that was removed since was still there, so that a run trained otherwise than in this process."""

        def look(run: object) -> Tensor:
            raise ValueError(" ".join(os.environ.get(f"SK_{name}", "-") for name in ("SINCE", "BEFORE")))

        monkeypatch.setenv("SK_BEFORE", "before")
        forkserver._forkserver._stop()
        forkserver.ensure_running()  # as the user's own code would
        monkeypatch.setenv("SK_SINCE", "since")
        monkeypatch.delenv("SK_BEFORE")
        assert "ValueError: since -" in outcome(children(look), tmp_path).error


def test_a_record_keeps_its_fields_on_the_way(children: Callable, tmp_path: Path) -> None:
    def perturbed(run: object) -> Tensor:
        run.perturb(torch.nn.Linear(2, 3))
        return torch.zeros(6, 3)

    plan = NoiseProtocol("none", "ulp", runs=2).plans()[0]
    trainer = trainer_of(perturbed, tmp_path)
    executor = children(trainer)
    training = executor.start(plan, log=str(log_in(tmp_path)))
    executor.wait([training])
    there, here = (dataclasses.replace(r, logits=None, seconds=0) for r in (training.outcome, trainer.train_once(plan)))
    assert there.to_json() == here.to_json()


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError("gone"), OSError(24, "Too many open files")])
def test_a_server_that_dies_while_it_starts_is_one_error(
    children: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    def die() -> None:
        raise error

    executor = children(lambda run: torch.zeros(2, 2))
    monkeypatch.setattr(forkserver, "ensure_running", die)
    with pytest.raises(StabilityError, match="Expected to start a child process but got"):
        executor.start(PLAN, log=str(tmp_path / "log"))
