"""Where runs train: the promise of an executor, and the one that trains in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

from ..errors import ConfigError, setting
from ..protocol import RunPlan
from ..store.record import RunRecord
from ..training.trainer import RunTimeout, Trainer, traceback_of


class Died(NamedTuple):
    """A process that ended before the training in it did."""

    reason: str  #: ``exit code -9 (SIGKILL)``
    pid: int


class Training:
    """One run that is being trained."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.outcome: RunRecord | Died | None = None  #: None until it has ended


class Executor(ABC):
    """Trains plans of one task, ``slots`` of them at a time."""

    slots: int = 1

    @abstractmethod
    def start(self, plan: RunPlan, *, log: str, attempt: int = 1) -> Training:
        """Begin to train; ``log`` is the file for the output of a child process."""

    @abstractmethod
    def wait(self, trainings: Sequence[Training]) -> list[Training]:
        """Wait for one training or more to end; return those that did, each with its outcome."""

    def cancel(self, trainings: Sequence[Training]) -> None:  # noqa: B027  # nothing to do for most
        """End trainings now, without an outcome."""

    @abstractmethod
    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return ``function(trainer, *args)``, called where the runs train. Raises its exception, or `ProcessDied`."""

    def close(self) -> None:  # noqa: B027  # nothing to do for most
        """Free the executor's resources; start no run after."""


class ProcessDied(Exception):
    """The process in which `Executor.call` called something died."""


class InProcess(Executor):
    """Trains in this process, one run after the other: data is shared, closures work, nothing is sent."""

    def __init__(self, trainer: Trainer, time_limit: float | None = None) -> None:
        self.trainer, self.time_limit = trainer, time_limit
        if time_limit is not None:
            import torch._dynamo  # noqa: F401  # making an optimizer imports it: seconds that are no run's own

    def start(self, plan: RunPlan, *, log: str, attempt: int = 1) -> Training:
        return Training(plan)

    def wait(self, trainings: Sequence[Training]) -> list[Training]:
        training = trainings[0]
        started = time.perf_counter()
        try:
            with time_limit(self.time_limit), no_exit():
                training.outcome = self.trainer.train_once(training.plan)
        except RunTimeout as interruption:
            where = f"\n\n{traceback_of(interruption)}"
            training.outcome = timed_out(training.plan, self.time_limit, time.perf_counter() - started, where)
        seconds, outcome = time.perf_counter() - started, training.outcome
        is_late = self.time_limit is not None and seconds > self.time_limit
        if is_late and isinstance(outcome, RunRecord) and outcome.status == "ok":
            where = "; it caught the interruption, as `except BaseException` does, or no line of Python was reached"
            training.outcome = timed_out(training.plan, self.time_limit, seconds, where)
        return [training]

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            with time_limit(self.time_limit), no_exit():
                return function(self.trainer, *args)
        except RunTimeout:
            raise ProcessDied(f"it took longer than {self.time_limit:g} s") from None


def timed_out(plan: RunPlan, limit: float | None, seconds: float, where: str = "") -> RunRecord:
    """Return the record of a run that took longer than ``limit`` seconds; ``where`` is its stack at that time."""
    error = f"the run had not ended after {limit:g} s, which {setting('run_timeout')} allows{where}"
    return RunRecord(index=plan.index, seeds=plan.seeds, status="timeout", seconds=seconds, error=error)


#: What ends or replaces this process without a word to Python.
_EXITS = ("_exit", "execv", "execve")


@contextlib.contextmanager
def no_exit() -> Iterator[None]:
    """Raise RuntimeError for a block that ends this process with success, which would end pytest with success.

    Processes that the block has forked may end as they like.
    """
    before, me = {name: getattr(os, name) for name in _EXITS}, os.getpid()

    def stand_in(name: str) -> Callable[..., Any]:
        def end(*args: Any) -> Any:
            ends_well = name != "_exit" or (args and args[0] % 256 == 0)
            if os.getpid() == me and ends_well:
                raise RuntimeError(f"os.{name} was called while training: it would end pytest, and report success")
            return before[name](*args)

        return end

    for name in _EXITS:
        setattr(os, name, stand_in(name))
    try:
        yield
    finally:
        for name, function in before.items():
            setattr(os, name, function)


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `RunTimeout` in the block after some seconds, between two steps of Python; nothing where None.

    A timer that runs already, such as that of a whole test, goes on, and comes first where it is due first.
    """
    if seconds is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise RunTimeout

    started = time.monotonic()
    outer, interval = signal.getitimer(signal.ITIMER_REAL)
    if 0 < outer < seconds:
        yield
        return
    try:
        handler = signal.signal(signal.SIGALRM, ring)
    except ValueError:
        raise ConfigError(
            f"Expected {setting('run_timeout')} to be used in the main thread, but the training runs in another one, "
            f"which no signal reaches. Train in child processes, which can be ended from anywhere.",
            isolation="process",
        ) from None
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - started), 0.001), interval)
