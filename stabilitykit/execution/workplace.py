"""The place where the runs of one question are trained, made when a training first needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

from ..errors import IncompleteStudyError
from .executor import Executor, InProcess
from .question import Prepared
from .runner import Progress, Runner, Wanted
from .stop import Stop
from .unheard_writes import UnheardWrites


class Workplace:
    """The executor of one question, and what trains in it: runs one by one, or a function of the trainer."""

    def __init__(
        self,
        asked: Prepared,
        make_executor: Callable[[], Executor],
        stop: Stop,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Train for ``asked`` in what ``make_executor`` returns, until ``stop`` says so."""
        self.asked, self._make_executor, self._stop, self._on_progress = asked, make_executor, stop, on_progress
        self._unheard = UnheardWrites()

    @cached_property
    def executor(self) -> Executor:
        """Where the runs are trained; raises `UsageError` for a task that cannot be trained."""
        asked = self.asked
        asked.check()  # stored runs have passed it
        asked.trainer.stamps = {} if asked.private else asked.ingredients.stamps
        return self._make_executor()

    @property
    def is_open(self) -> bool:
        """Whether a training has needed the executor."""
        return "executor" in vars(self)

    def runner(self, wanted: Wanted, name: str) -> Runner:
        """Return what trains the missing runs of ``wanted``; ``name`` is told with its progress."""
        executor = InProcess(self.asked.trainer) if wanted.is_finished() else self.executor
        study = f"{self.asked.question.task.name} {name}"
        if self.asked.inputs is not None:
            self._unheard.known.update(self.asked.inputs.written)
        return Runner(
            wanted, executor, study=study, stop=self._stop, on_progress=self._on_progress, unheard=self._unheard
        )

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return ``function(trainer, *args)``; raise `IncompleteStudyError` if the session stops meanwhile."""
        with self._stop.interrupts():
            return self.executor.call(function, *args)
        raise IncompleteStudyError(f"{self.asked.question.task.name}: cancelled while its certificate was made.")

    def move_to(self, asked: Prepared) -> None:
        """Train for the question as it is known now; children with an onset must learn where epochs are kept."""
        self.asked = asked
        if asked.question.protocol.onset:
            self._close()

    def _close(self) -> None:
        executor = vars(self).pop("executor", None)
        if executor is not None:
            executor.close()

    @contextlib.contextmanager
    def closing(self) -> Iterator[Workplace]:
        """Free the executor, if there is one, after a block."""
        try:
            yield self
        finally:
            self._close()
