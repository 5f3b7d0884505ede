"""The place where the runs of one question are trained, made when a training first needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import IncompleteStudyError
from ..study.journal import Journal
from .executor import Executor, InProcess
from .question import Prepared
from .runner import Runner, Wanted

if TYPE_CHECKING:
    from .session import Session


class Workplace:
    """The executor of one question, and what trains in it: runs one by one, or a function of the trainer."""

    def __init__(self, session: Session, asked: Prepared, journal: Journal) -> None:
        self._session, self.asked, self._journal = session, asked, journal

    @cached_property
    def executor(self) -> Executor:
        """Where the runs are trained; raises `UsageError` for a task that cannot be trained."""
        asked = self.asked
        asked.check()  # stored runs have passed it
        asked.trainer.stamps = {} if asked.private else asked.ingredients.stamps
        return self._session.executor(asked.trainer, self._journal)

    def runner(self, wanted: Wanted, name: str) -> Runner:
        """Return what trains the missing runs of ``wanted``; ``name`` is told with its progress."""
        executor = InProcess(self.asked.trainer) if wanted.is_finished() else self.executor
        session, study = self._session, f"{self.asked.question.task.name} {name}"
        return Runner(wanted, executor, study=study, stop=session.stop, on_progress=session.on_progress)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return ``function(trainer, *args)``; raise `IncompleteStudyError` if the session stops meanwhile."""
        with self._session.stop.interrupts():
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
