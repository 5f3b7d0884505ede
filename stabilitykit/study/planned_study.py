"""The study of a plan: its budgets are noted, and its numbers do not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from torch import Tensor

from ..estimates.measure_kinds import PAPER, task_kind
from ..protocol import NoiseProtocol
from ..verdicts.budgets import Budget
from .study import Study, check_has_outputs

#: The attributes that are known before anything trains.
_KNOWN = frozenset({"task", "protocol", "labels", "names", "main_delta", "note", "_on_budget", "_end"})


class PlannedStudy(Study):
    """A study that was not trained: its budgets are noted, and asking for anything that only runs have ends the test.

    A test goes on with it to its next question.
    """

    names: tuple[str, ...]  #: measures of its task
    _on_budget: Callable[[Budget], None]
    _end: Callable[[str], NoReturn]

    def __init__(
        self,
        task: str,
        protocol: NoiseProtocol,
        labels: Tensor | None,
        names: tuple[str, ...],
        on_budget: Callable[[Budget], None],
        end: Callable[[str], NoReturn],
    ) -> None:
        """Tell ``on_budget`` of each asserted budget, and ``end``, which raises, of the number that the test wants."""
        vars(self).update(task=task, protocol=protocol, labels=labels, names=names, _on_budget=on_budget, _end=end)

    def __repr__(self) -> str:
        return f"PlannedStudy({self.task!r}, vary={self.protocol.name!r}, runs={self.protocol.runs})"

    def __getattribute__(self, name: str) -> Any:
        """End the test for an attribute that only runs give."""
        if name in _KNOWN or name.startswith("__"):
            return super().__getattribute__(name)
        return self._end(f"study.{name}")

    def __getitem__(self, name: str) -> NoReturn:
        self._end(f"study[{name!r}]")

    @property
    def main_delta(self) -> str:
        check_has_outputs(self)
        return PAPER[task_kind(self.names)][-1]

    def note(self, budget: Budget) -> None:
        """Note a budget that a test asserts on the study; raise `BudgetError` for one that could not be judged."""
        self._on_budget(budget)
