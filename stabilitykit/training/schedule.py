"""Learning-rate schedules: a factor on the optimizer's own rate, set before every step, or a scheduler of torch's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

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


#: Makes a scheduler of torch's for an optimizer, such as ``lambda optimizer: OneCycleLR(optimizer, ...)``.
SchedulerFactory: TypeAlias = Callable[[Optimizer], LRScheduler]

#: How often a scheduler of torch's makes its step: after each batch or after each epoch.
Every: TypeAlias = Literal["batch", "epoch"]


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


class Rates:
    """The learning rates of one optimizer during one training, by a `Schedule` or by a scheduler of torch's."""

    def __init__(
        self,
        schedule: Schedule | SchedulerFactory | None,
        every: Every | None,
        optimizer: Optimizer,
        *,
        epochs: int,
        steps: int,
    ) -> None:
        """Begin a training of ``epochs`` epochs with ``steps`` steps each."""
        self._optimizer, self._epochs = optimizer, epochs
        self._factor: Any = None if makes_scheduler(schedule) else schedule
        self._scheduler: Any = None
        if makes_scheduler(schedule):
            self._scheduler = _scheduler_of(schedule, optimizer)
            self._every = every or _usual_turn(self._scheduler)
            _check_length(self._scheduler, epochs * steps if self._every == "batch" else epochs, self._every)

    @property
    def keeps_state(self) -> bool:
        """Whether the rates depend on more than the epoch, as those of torch's schedulers do."""
        return self._scheduler is not None

    def check(self) -> None:
        """Raise `TaskError` unless the first step gets a number for its rate."""
        if self._factor is None:
            return
        self.before_step(1.0)
        for group in self._optimizer.param_groups:
            if not math.isfinite(float(group["lr"])):
                raise TaskError(
                    f"Expected schedule(epoch, epochs) to return a number, a factor on the learning rate, but it "
                    f"made the rate {group['lr']!r}."
                )

    def before_step(self, epoch: float) -> None:
        """Set the rates of the step that ends at ``epoch``."""
        if self._factor is not None:
            set_rate(self._optimizer, self._factor(epoch, self._epochs))

    def after_step(self) -> None:
        """Let a scheduler count a batch, after the optimizer's step, as torch asks for."""
        if self._scheduler is not None and self._every == "batch":
            self._scheduler.step()

    def after_epoch(self) -> None:
        """Let a scheduler count an epoch."""
        if self._scheduler is not None and self._every == "epoch":
            self._scheduler.step()


def set_rate(optimizer: Optimizer, factor: float) -> None:
    """Set each group's learning rate to ``factor`` times its first one."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * factor


def check_schedule(schedule: object, every: object = None) -> None:
    """Raise `TaskError` unless ``schedule`` is None, a function of the progress, or one that makes a scheduler."""
    made = "schedule=lambda optimizer: {}(optimizer, ...)"
    if isinstance(schedule, LRScheduler) or (isinstance(schedule, type) and issubclass(schedule, LRScheduler)):
        kind = schedule if isinstance(schedule, type) else type(schedule)
        raise TaskError(
            f"Expected schedule= to be a function that makes a scheduler for each run's optimizer but got "
            f"{'the class ' * isinstance(schedule, type)}{kind.__name__}. Write {made.format(kind.__name__)}."
        )
    if schedule is not None and not (callable(schedule) and (makes_scheduler(schedule) or _takes(schedule, 2))):
        raise TaskError(
            f"Expected schedule= to be a function of (epoch, epochs), which returns the factor on the learning rate, "
            f"or a function of the optimizer, which returns a scheduler of torch's, but got {_signature(schedule)}. "
            f"Write schedule=lambda epoch, epochs: ..., or {made.format('OneCycleLR')}."
        )
    if every not in (None, *get_args(Every)):
        raise TaskError(f"Expected schedule_every='batch' or 'epoch' but got schedule_every={every!r}.")
    if every is not None and not makes_scheduler(schedule):
        raise TaskError(
            f"Expected schedule_every= beside a scheduler of torch's but got schedule_every={every!r} beside "
            f"schedule={schedule!r}, which is asked before every step. Leave schedule_every= out."
        )


def makes_scheduler(schedule: object) -> bool:
    """Whether a function makes a scheduler: it takes the optimizer alone, where a `Schedule` takes two numbers.

    >>> makes_scheduler(lambda optimizer: None), makes_scheduler(lambda epoch, epochs: 1.0)
    (True, False)
    """
    if schedule is None or not _takes(schedule, 1):
        return False
    first = next(iter(inspect.signature(schedule).parameters))  # type: ignore[arg-type]  # callable, as `_takes` saw
    return not _takes(schedule, 2) or first.startswith("opt")  # lambda optimizer, steps=500: ...


def _takes(function: object, arguments: int) -> bool:
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind(*range(arguments))
    except ValueError:  # a builtin without a signature
        return arguments == 2
    except TypeError:
        return False
    return True


def _signature(schedule: object) -> str:
    name = getattr(schedule, "__name__", None) or repr(schedule)
    return f"{name}{inspect.signature(schedule)}" if callable(schedule) else name


def _scheduler_of(make: Any, optimizer: Optimizer) -> LRScheduler:
    scheduler = make(optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TaskError(
            "Expected a scheduler that needs the optimizer alone but schedule(optimizer) returned ReduceLROnPlateau, "
            "which needs the value of a metric after each epoch. A recipe computes none while it trains: write "
            "train(run), whose loop is your own."
        )
    if not isinstance(scheduler, LRScheduler):
        raise TaskError(
            f"Expected schedule(optimizer) to return a scheduler of torch's (an LRScheduler) but it returned "
            f"{type(scheduler).__name__}. A factor on the learning rate takes two numbers: "
            f"schedule=lambda epoch, epochs: ..."
        )
    if scheduler.optimizer is not optimizer:
        raise TaskError(
            f"Expected schedule(optimizer) to return a scheduler of this optimizer but its {type(scheduler).__name__} "
            f"sets the rates of another one. Make it for the optimizer that the function is called with."
        )
    return scheduler


def _usual_turn(scheduler: LRScheduler) -> Every:
    if isinstance(scheduler, (OneCycleLR, CyclicLR)):  # torch documents one way for these two
        return "batch"
    name = type(scheduler).__name__
    raise TaskError(
        f"Expected schedule_every= beside a {name}: torch counts calls of its step(), and does not say whether they "
        f"are batches or epochs. Add schedule_every='epoch' or schedule_every='batch', as the {name} is meant."
    )


def _check_length(scheduler: LRScheduler, calls: int, every: str) -> None:
    total = getattr(scheduler, "total_steps", calls)
    if isinstance(total, int) and total < calls:
        raise TaskError(
            f"Expected total_steps >= {calls} in {type(scheduler).__name__}, which makes a step each {every}, but got "
            f"total_steps={total}: it would end before the training does. Make it for {calls} steps."
        )
