"""What stands for a study in a plan: its budgets are noted, and its numbers do not exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from torch import Tensor

from ..estimates.measure_kinds import PAPER, task_kind
from ..protocol import NoiseProtocol
from ..verdicts.budgets import Budget, check_is_budget


class PlannedStudy:
    """Stands for a study that was not trained: its budgets are noted, and its numbers do not exist.

    A test goes on with it to its next question. Where it asks for a number, its pass ends.
    """

    def __init__(
        self,
        task: str,
        protocol: NoiseProtocol,
        labels: Tensor,
        names: tuple[str, ...],
        on_budget: Callable[[Budget], None],
        end: Callable[[str], NoReturn],
    ) -> None:
        self.task, self.protocol, self.labels = task, protocol, labels
        self.names = names  #: measures of the task
        self.on_budget, self.end = on_budget, end

    @property
    def main_delta(self) -> str:
        """The ensemble delta of accuracy, of RMSE in a regression, of perplexity in a language model."""
        return PAPER[task_kind(self.names)][-1]

    def note(self, budget: Budget) -> None:
        """Note what a test asserts on the study."""
        check_is_budget(budget)
        budget.check_names(self.names)
        self.on_budget(budget)

    def __getattr__(self, name: str) -> NoReturn:
        """Whatever else a study has comes from its runs."""
        if name.startswith("__"):
            raise AttributeError(name)
        self.end(f"study.{name}")

    def __getitem__(self, name: str) -> NoReturn:
        """Asking for a number ends the planning pass."""
        self.end(f"study[{name!r}]")
