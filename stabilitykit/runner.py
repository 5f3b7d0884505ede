"""Plans to records: skip what the store has, train what is free, wait for what others train."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .protocol import RunPlan
from .record import RunRecord
from .store import Experiment

#: Seconds between two looks at the runs that others train.
_FIRST_WAIT, _LONGEST_WAIT = 0.01, 0.25


@dataclass(frozen=True)
class Progress:
    """How far one study is, whoever trains its runs."""

    study: str
    total: int  #: R
    finished: int
    failed: int
    new: int  #: finished since this study was asked for, and not answered from the store
    elapsed: float  #: seconds since it was asked for

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the last run at the pace so far; None before the first new run."""
        return (self.total - self.finished) * self.elapsed / self.new if self.new else None


class Runner:
    """Works through the runs of one experiment, beside any number of others that do the same."""

    def __init__(
        self,
        experiment: Experiment,
        plans: Sequence[RunPlan],
        train: Callable[[RunPlan], RunRecord],
        *,
        study: str = "",
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self.experiment, self.plans, self.train = experiment, plans, train
        self._study, self._on_progress = study, on_progress
        self._started = time.monotonic()
        self._known = sum(experiment.is_finished(plan.index) for plan in plans)
        self._reported = -1

    def train_free(self, is_wanted: Callable[[], bool] = lambda: True) -> int:
        """Train every run that nobody has trained or trains, the lowest index first; return how many that were.

        ``is_wanted`` is asked before each run: whether anybody still waits for this study.
        """
        trained = 0
        for plan in self.plans:
            if not is_wanted():
                break
            with self.experiment.claimed(plan.index) as claim:
                if claim is not None:
                    self.experiment.publish(claim, self.train(plan))
                    trained += 1
            self.report_progress()
        return trained

    def gather(self) -> list[RunRecord]:
        """Return the record of every plan, in order, training and waiting as needed."""
        wait = _FIRST_WAIT
        while not self.is_finished():
            if self.train_free():
                wait = _FIRST_WAIT
            elif not self.is_finished():  # others train the rest; a run whose trainer dies becomes free again
                time.sleep(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
        self.report_progress()
        # A crashed run has no plan of its own any more: its seeds are known here.
        records = [self.experiment.load(plan.index) for plan in self.plans]
        return [replace(r, seeds=r.seeds or plan.seeds) for r, plan in zip(records, self.plans, strict=True)]

    def is_finished(self) -> bool:
        """Whether every run has a result."""
        return all(self.experiment.is_finished(plan.index) for plan in self.plans)

    def report_progress(self) -> None:
        """Tell how far the study is, if that has changed."""
        statuses = [self.experiment.status(plan.index) for plan in self.plans]
        finished = sum(status is not None for status in statuses)
        if finished == self._reported:
            return
        self._reported = finished
        failed = sum(status not in (None, "ok") for status in statuses)
        elapsed = time.monotonic() - self._started
        self._on_progress(Progress(self._study, len(self.plans), finished, failed, finished - self._known, elapsed))
