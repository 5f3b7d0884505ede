"""A study that is asked for: one value, refused at once where it is wrong, and handed to whatever answers it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..estimates.measures import Measures, Metric, check_metrics
from ..protocol import NoiseProtocol
from ..store.key import Ingredients, ingredients, key_of, protocol_ingredients
from ..store.record import RunRecord
from ..store.traced_inputs import Inputs, entries_of, later_of, matching, renew_stamps
from ..training.control import ControlMode, check_mode
from ..training.environment import Environment
from ..training.run import Run
from ..training.task import Task, as_task, with_interception
from ..training.trainer import Trainer
from ..verdicts.budgets import Budget, check_is_budget
from ..verdicts.gate import Gate
from .where import Where


@dataclass(frozen=True, eq=False)
class Question:
    """One study that is asked for: made once, and handed to `Session.train`, a plan, a calibration and baselines.

    Raises `UsageError` when it is made: metrics that are none, a budget for measures that the task does not have, a
    check with fewer runs than its first look needs.
    """

    task: Task
    protocol: NoiseProtocol
    metrics: Mapping[str, Metric] = field(default_factory=dict)  #: the user's own, by name
    budget: Budget | None = None  #: may let some runs fail; judged here where the study stops early
    control: ControlMode = "auto"
    stops_early: bool = False  #: whether training ends once the verdict on `budget` stands

    def __post_init__(self) -> None:
        check_metrics(self.metrics, self.task.labels, self.task.outputs)
        check_mode(self.control)
        _ = self.names  # refuses metrics that the task cannot have
        if self.budget is None:
            return
        self.check_budget(self.budget)
        if self.stops_early:
            Gate(self.budget, self.protocol.runs)

    @classmethod
    def of(
        cls,
        task: Task | Callable[..., Any],
        protocol: NoiseProtocol,
        *,
        labels: Any = None,
        metrics: Mapping[str, Metric] | None = None,
        budget: Budget | None = None,
        control: ControlMode = "auto",
        stops_early: bool = False,
        outputs: str | None = None,
        intercept: bool | None = None,
    ) -> Question:
        """Ask about a `Recipe`, or about a train function with the test ``labels`` beside it."""
        asked = with_interception(as_task(task, labels, outputs), protocol, intercept)
        return cls(asked, protocol, metrics or {}, budget, control, stops_early)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the measures that the study will have, as far as they are known before a training."""
        return self.task.measure_names(self.metrics)

    def check_budget(self, budget: Budget) -> None:
        """Raise `BudgetError` for a limit on a measure that the study will not have, as far as that is known."""
        check_is_budget(budget)
        budget.check_names(self.names, may_have_more=self.task.score_names is None)

    def check_first(self, run: RunRecord | None) -> None:
        """Raise `BudgetError` for a limit on a measure that the first run shows not to be there."""
        if self.budget is not None and run is not None and run.status == "ok":
            self.budget.check_names(self.measures([run]))

    def measures(self, runs: Sequence[RunRecord]) -> Measures:
        """Return the measures over some runs of the study."""
        return self.task.measures(runs, self.metrics)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A question at the place where it is trained, of which environment and key can be known before anything trains."""

    question: Question
    where: Where
    rootdir: Path  #: code below it counts for the key
    also: tuple[Path, ...]  #: further files that count for the key
    folder_of: Callable[[str], Path]  #: the folder in the store of a key
    unshared: str  #: stands for the content of a task that has no hash

    @cached_property
    def trainer(self) -> Trainer:
        """The trainer of this worker's device; raises `ConfigError` for one that is not there."""
        return Trainer(self.question.task, self.where.device_for(), self.where.threads, self.rootdir)

    @cached_property
    def ingredients(self) -> Ingredients:
        """What the key is made of, read from the task when it is first asked for."""
        task, protocol, environment = self.question.task, self.question.protocol, self.environment.must_match
        return ingredients(task.content, protocol, environment, self.rootdir, self.also, type(task).__name__)

    @property
    def about(self) -> Mapping[str, Any]:
        """The ingredients of the key, as the store keeps them."""
        return self._about(self.inputs)

    def _about(self, inputs: Inputs | None) -> Mapping[str, Any]:
        read = {} if inputs is None or inputs.are_none else {"inputs": inputs.digest}
        return {**self._before_training, **read}

    @property
    def _before_training(self) -> Mapping[str, Any]:
        """The ingredients that can be known without a training."""
        named = {"task": self.question.task.name, **self.ingredients.about}
        return {**named, "fingerprint": self.unshared} if self.private else named

    @property
    def entries(self) -> tuple[Inputs, ...]:
        """What trainings of this task have read, the latest first, as the store has it now."""
        return () if self.private else entries_of(self.folder_of(key_of(self.about_base)))

    @property
    def about_base(self) -> Mapping[str, Any]:
        """The ingredients of the base run's key that can be known without a training: its folder has the entries."""
        return {**self._before_training, "protocol": protocol_ingredients(self.question.protocol.base)}

    @property
    def inputs(self) -> Inputs | None:
        """What a training reads, as it is now; None where that is not known before one is trained."""
        return self._read[0]

    @property
    def edited(self) -> tuple[str, ...]:
        """In words, what only later runs have read and is not as these have found it."""
        return self._read[1]

    @property
    def stored_later(self) -> tuple[Inputs, ...]:
        """What only later runs have read that were stored when the question was asked."""
        return self._read[2]

    @cached_property
    def _read(self) -> tuple[Inputs | None, tuple[str, ...], tuple[Inputs, ...]]:
        found = self.matching()
        if found is None:
            return None, (), ()
        renew_stamps(self.folder_of(key_of(self.about_base)), found, self.rootdir)
        return self._with_later(found)

    def _with_later(self, inputs: Inputs) -> tuple[Inputs, tuple[str, ...], tuple[Inputs, ...]]:
        """Return inputs of run 0 with what later runs have read, where that is not as these have found it."""
        edited: dict[str, None] = {}
        later: tuple[Inputs, ...] = ()
        known = None
        while inputs.digest != known:
            known, later = inputs.digest, self.later(inputs)
            written = _written(later)
            compared = [one.without(written) for one in later]
            changed = [word for one in compared for word in one.changed(self.rootdir)]
            edited |= dict.fromkeys(changed)
            for one in compared if changed else ():
                inputs = inputs.merged(one.now(self.rootdir))
        return inputs, tuple(edited), later

    def matching(self) -> Inputs | None:
        """Return the entry whose inputs are as they are now, but for files that its later runs write; None without."""
        return matching(self.entries, self.rootdir, lambda entry: _written(self.later(entry)))

    def later(self, inputs: Inputs) -> tuple[Inputs, ...]:
        """Return what only later runs of this study, and of its base run, have read beside ``inputs``."""
        about = self._about(inputs)
        of_base = {**about, "protocol": protocol_ingredients(self.question.protocol.base)}
        keys = sorted({key_of(about), key_of(of_base)})
        return tuple(one for key in keys for one in later_of(self.folder_of(key)))

    def with_inputs(self, inputs: Inputs) -> Prepared:
        """Return this question with what a training of it was seen to read."""
        found = replace(self)
        vars(found).update(trainer=self.trainer, ingredients=self.ingredients)
        vars(found).update(_read=found._with_later(inputs))
        return found

    @property
    def private(self) -> str:
        """The reason why the runs are not kept; empty if they are."""
        return self.ingredients.private

    @property
    def key(self) -> str:
        """Name of the experiment in the store that keeps the runs."""
        return key_of(self.about)

    @property
    def environment(self) -> Environment:
        """The platform that the runs are trained on."""
        return self.trainer.environment

    def check(self) -> None:
        """Raise `UsageError` for a task that cannot be trained; a recipe rehearses a step, as its runs will make it."""
        plan = replace(self.question.protocol.plans()[0], low_level=None)
        with self.trainer.under(Run(plan, self.trainer.device)):
            self.question.task.check(self.question.protocol, self.trainer.device)


def _written(inputs: Iterable[Inputs]) -> frozenset[str]:
    return frozenset(name for one in inputs for name in one.written)
