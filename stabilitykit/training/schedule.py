"""Learning-rate schedules: a factor on the optimizer's own rate, set before every step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from ..errors import TaskError, check_count
from ..public import public


class Schedule(Protocol):
    """Any function of the progress of training; a plain ``lambda epoch, epochs: 0.1 ** (epoch // 30)`` will do."""

    def __call__(self, epoch: float, epochs: int, /) -> float:
        """Return the factor on the learning rate.

        ``epoch`` counts the epochs trained after this step, in (0, epochs]: 1.5 is the middle of the second epoch, and
        the last step has ``epoch == epochs``.
        """
        ...


@public
@dataclass(frozen=True)
class CosineCycles:
    """Linear warm-up and cosine decay to exactly 0, once or in several equal cycles.

    One cycle is the paper's schedule (section 3.2); several are the cyclic schedule of snapshot ensembles (section 5;
    Huang et al., 2017), with the warm-up in every cycle.

    >>> schedule = CosineCycles(cycles=2, warmup_epochs=1)
    >>> [round(schedule(epoch, 8), 2) for epoch in (0.5, 1, 2.5, 4, 4.5, 5, 8)]
    [0.5, 1.0, 0.5, 0.0, 0.5, 1.0, 0.0]
    """

    cycles: int = 1
    warmup_epochs: float = 0  #: epochs of warm-up in each cycle

    def __post_init__(self) -> None:
        check_count(TaskError, "cycles", self.cycles, 1)
        if not self.warmup_epochs >= 0:
            raise TaskError(f"Expected warmup_epochs >= 0 but got warmup_epochs={self.warmup_epochs!r}.")

    def check(self, epochs: int) -> None:
        """Raise `TaskError` unless ``epochs`` fall into whole cycles that are longer than their warm-up."""
        if epochs % self.cycles:
            below, above = epochs // self.cycles * self.cycles, -(-epochs // self.cycles) * self.cycles
            raise TaskError(
                f"Expected epochs to be a multiple of cycles but got epochs={epochs} and cycles={self.cycles}: "
                f"the last cycle would stop before its rate is 0. Train {f'{below} or ' * bool(below)}{above} epochs."
            )
        if epochs // self.cycles <= self.warmup_epochs:
            raise TaskError(
                f"Expected every cycle to be longer than its warm-up but got {epochs // self.cycles} epochs a cycle "
                f"and warmup_epochs={self.warmup_epochs}. Train longer, or use fewer cycles or less warm-up."
            )

    def __call__(self, epoch: float, epochs: int, /) -> float:
        """Return the factor in [0, 1] after ``epoch`` of ``epochs``."""
        length = epochs / self.cycles
        within = epoch - (math.ceil(epoch / length) - 1) * length if epoch > 0 else 0.0
        if within <= self.warmup_epochs and self.warmup_epochs:
            return within / self.warmup_epochs
        return 0.5 * (1 + math.cos(math.pi * (within - self.warmup_epochs) / (length - self.warmup_epochs)))


@public
def warmup_cosine(warmup_epochs: float = 0) -> CosineCycles:
    """Return the paper's schedule: linear warm-up, then one cosine decay to 0 (Summers & Dinneen, section 3.2)."""
    return CosineCycles(cycles=1, warmup_epochs=warmup_epochs)
