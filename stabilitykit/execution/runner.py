"""From plans to records: skip the runs that the store has, train the free ones, wait for those of other processes."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..errors import IncompleteStudyError
from ..protocol import RunPlan
from ..store.claims import MOST_DEATHS, Claim, Running
from ..store.record import RunRecord
from ..store.run_store import Experiment
from .executor import Died, Executor, Training
from .stop import Stop
from .tally import Tally
from .unheard_writes import UnheardWrites

#: A block in which another thread reports progress.
_Beats: TypeAlias = "Callable[[], AbstractContextManager[None]]"

#: Seconds between two looks at the runs that other processes train.
FIRST_WAIT, LONGEST_WAIT = 0.01, 0.25
#: Seconds between two reports of a study in which no run has ended.
_HEARTBEAT = 60.0


@dataclass(frozen=True)
class Progress:
    """How far one study is, whichever processes train its runs."""

    study: str
    total: int  #: R
    finished: int
    failed: int
    new: int  #: finished since this study was asked for, and not answered from the store
    elapsed: float  #: seconds since it was asked for
    may_stop_early: bool = False  #: R is the most that it trains
    running: tuple[Running, ...] = ()  #: being trained now, by any process
    held: tuple[int, ...] = ()  #: locked for a minute by a process that does not say what it does
    by_worker: Mapping[str, int] = field(default_factory=dict)  #: new runs by the worker that trained them

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last run at the pace so far; None before the first new run."""
        return (self.total - self.finished) * self.elapsed / self.new if self.new else None


@dataclass(frozen=True)
class Wanted:
    """The runs that a study needs, and what the store has of them."""

    experiment: Experiment
    plans: Sequence[RunPlan]
    settled: Callable[[], int | None] | None = None  #: how many runs are enough, once a gate knows; None: all plans

    def is_settled(self) -> bool:
        """Whether the runs so far are enough, and no further one is wanted."""
        return self.settled is not None and self.settled() is not None

    def is_finished(self) -> bool:
        """Whether every run that is wanted has a result."""
        return self.is_settled() or not self.missing()

    def missing(self) -> list[int]:
        """Return the indices of the plans that have no result."""
        return [plan.index for plan in self.plans if not self.experiment.is_finished(plan.index)]

    def now(self) -> Sequence[RunPlan]:
        """Return all plans, or the first ones where these are enough."""
        return self.plans if self.settled is None else self.plans[: self.settled()]


class Runner:
    """Works through the runs of one study, beside any number of other processes that do the same."""

    def __init__(
        self,
        wanted: Wanted,
        executor: Executor,
        *,
        study: str = "",
        stop: Stop | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        unheard: UnheardWrites | None = None,
    ) -> None:
        self.wanted, self._experiment, self._executor = wanted, wanted.experiment, executor
        self._claims, self._unheard = wanted.experiment.claims, unheard or UnheardWrites()
        self._study, self._stop, self._on_progress = study, stop or Stop(), on_progress
        self._started = time.monotonic()
        self._tally = Tally(self._experiment, (plan.index for plan in wanted.plans))
        self._longest: float = self._tally.longest
        self._first_open = 0  #: position of the first plan that is not known to be finished
        self._reported: tuple[object, ...] | None = None
        self._last_report = self._started

    def train_free(self, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Train every wanted run that no process has trained or trains, the lowest index first; return their number.

        A run that is in training when the verdict stands is given up. ``is_wanted`` is asked before each run: whether
        the study is still waited for.
        """
        trained = self._first_open = 0
        running: dict[Training, Claim] = {}
        with self._experiment.in_use(), self._heartbeat() as beats:
            try:
                while True:
                    self._begin(running, is_wanted)
                    self.report_progress()
                    if not running or self.wanted.is_settled():
                        return trained
                    for training in self._wait(running, beats):
                        trained += self._publish(running, training)
            finally:
                self._executor.cancel(list(running))
                for claim in running.values():
                    self._experiment.release(claim)

    def gather(self) -> list[RunRecord]:
        """Return the record of every plan that is wanted, in order, training and waiting as needed."""
        wait = FIRST_WAIT
        with self._experiment.in_use():
            while not self.wanted.is_finished():
                if self.train_free():
                    wait = FIRST_WAIT
                elif not self.wanted.is_finished():  # other processes train the rest; if one dies, its run is free
                    self.check_not_stopped()
                    time.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
                    self.report_progress()
            self._tally.look()
            self.report_progress()
            wanted = self.wanted.now()
            records = [self._experiment.load(plan.index) for plan in wanted]
        # The record of a crashed run has no seeds; its plan has them.
        return [replace(r, seeds=r.seeds or plan.seeds) for r, plan in zip(records, wanted, strict=True)]

    def reason_to_stop(self) -> str | None:
        """Return why no further run of this study may begin here; None if it may."""
        return self._stop.reason_against(self._longest)

    def check_not_stopped(self) -> None:
        """Raise `IncompleteStudyError` if runs are missing that no process will train."""
        reason = self.reason_to_stop()
        if reason is None or self.wanted.is_finished() or (self._stop.reason is None and self._claims.running()):
            return
        missing = self.wanted.missing()
        done = len(self.wanted.plans) - len(missing)
        raise IncompleteStudyError(
            f"{self._study}: cancelled after {done} of {len(self.wanted.plans)} runs, since {reason}. Missing: "
            f"run {_ranges(missing)}. The finished runs are kept, and the next session trains the rest."
        )

    def report_progress(self) -> None:
        """Report progress if it has changed, or if the last report is old."""
        wanted, tally = self.wanted.now(), self._tally
        if len(wanted) < len(self.wanted.plans):
            tally = tally.of_first(len(wanted))
        tally.look_if_due()
        finished = len(tally)
        running = tuple(self._claims.running().values()) if finished < len(wanted) else ()
        now, state = time.monotonic(), (finished, *(run.index for run in running))
        if state == self._reported and now - self._last_report < _HEARTBEAT:
            return
        is_silent = self._reported is not None and now - self._last_report >= _HEARTBEAT and not running
        held = [index for index in self.wanted.missing() if self._claims.is_held(index)] if is_silent else ()
        self._reported, self._last_report = state, now
        self._on_progress(
            Progress(
                self._study,
                total=len(wanted),
                finished=finished,
                failed=tally.failed,
                new=tally.new,
                elapsed=now - self._started,
                may_stop_early=self.wanted.settled is not None,
                running=running,
                held=tuple(held),
                by_worker=Counter(tally.by_worker),
            )
        )

    def _begin(self, running: dict[Training, Claim], is_wanted: Callable[[], bool]) -> None:
        """Fill the executor's slots with the lowest free runs."""
        plans = self.wanted.now()
        while self._first_open < len(plans) and self._experiment.is_finished(plans[self._first_open].index):
            self._first_open += 1
        for plan in itertools.islice(plans, self._first_open, None):
            if self._experiment.is_finished(plan.index):
                continue
            is_full = len(running) >= self._executor.slots
            if is_full or not is_wanted() or self.reason_to_stop() or self.wanted.is_settled():
                return
            claim = self._experiment.claim(plan.index)
            if claim is not None:
                running[self._start(plan, claim)] = claim

    def _start(self, plan: RunPlan, claim: Claim) -> Training:
        try:
            return self._executor.start(plan, log=str(self._experiment.log_file(plan.index)), attempt=claim.attempt)
        except BaseException:
            self._experiment.release(claim)
            raise

    def _wait(self, running: dict[Training, Claim], beats: _Beats) -> list[Training]:
        ended: list[Training] = []
        with self._stop.interrupts(), beats():
            ended = self._executor.wait(list(running))
        if self._stop.reason is not None:  # it may have come after the end of one, too
            self._executor.cancel([training for training in running if training not in ended])
            for training in set(running).difference(ended):
                self._experiment.release(running.pop(training))
        return ended

    def _publish(self, running: dict[Training, Claim], training: Training) -> bool:
        """Publish the outcome of a training; return whether it has a result.

        It is started again if its process died, or if a file that it read changed meanwhile, and why is not known.
        """
        outcome, plan, claim = training.outcome, training.plan, running[training]
        if isinstance(outcome, Died):
            claim = self._claims.note_death(claim.index, outcome.reason, outcome.pid)
            if claim.attempt <= MOST_DEATHS:
                del running[training]
                running[self._start(plan, claim)] = claim
                return False
            self._experiment.publish_crash(claim, plan.seeds, self._claims.recorded_deaths(claim.index))
        else:
            assert outcome is not None, "executors return a training when it has ended"
            self._longest = max(self._longest, outcome.seconds)
            settled = self._unheard.settled(outcome)
            if settled is None:
                del running[training]
                running[self._start(plan, claim)] = claim
                return False
            self._experiment.publish(claim, settled)
        self._tally.note(plan.index)
        self._experiment.release(running.pop(training))
        return True

    @contextlib.contextmanager
    def _heartbeat(self) -> Iterator[_Beats]:
        """Report progress from another thread while this one is in the block that is yielded: runs may take long."""
        done, lock = threading.Event(), threading.Lock()
        training = False

        def beat() -> None:
            while not done.wait(_HEARTBEAT):
                with lock:
                    if training:
                        self.report_progress()

        @contextlib.contextmanager
        def beats() -> Iterator[None]:
            nonlocal training
            training = True
            try:
                yield
            finally:
                with lock:  # wait for a report under way: it uses the store, as this thread is about to
                    training = False

        thread = threading.Thread(target=beat, name="stabilitykit-heartbeat", daemon=True)
        thread.start()
        try:
            yield beats
        finally:
            done.set()
            thread.join()


def _ranges(numbers: Sequence[int]) -> str:
    """Write ascending numbers as ranges.

    >>> _ranges([1, 2, 3, 7, 9, 10])
    '1-3, 7, 9-10'
    """
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][-1] + 1:
            ends[-1] = [ends[-1][0], number]
        else:
            ends.append([number])
    return ", ".join("-".join(map(str, end)) for end in ends)
