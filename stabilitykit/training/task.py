"""Tasks: what is trained, as a `Recipe` (our loop), a function of a `Run` (your loop), or a function of a seed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ProtocolError, TaskError
from ..estimates.meaning import Meaning
from ..estimates.measures import Measures, Metric
from ..estimates.metrics import IGNORED_LABEL
from ..estimates.scores import TaskKind
from ..isolation.interception import VERSION
from ..protocol import NoiseProtocol, Source
from ..store.fingerprint import CannotFingerprint, fingerprint
from ..store.record import RunRecord
from .outputs import as_labels, check_labels, check_outputs, without_labels
from .run import Run
from .scores import scores_alone, scores_of_runs, without_scores


class TrainingError(Exception):
    """A run that trained but left nothing to measure; it becomes a failed run."""


class TrainingTimeout(TrainingError):
    """A run that took longer than its task allows; it becomes a run of status "timeout"."""


class Task(ABC):
    """One thing that can be trained R times and scored on one fixed test set."""

    name: str
    isolates: bool = True  #: whether sources can be varied one by one; a black box has one seed for all
    leak: str = ""  #: where to look if what is held is not, in place of the usual causes
    has_epochs: bool = True  #: whether its first epochs may be trained alone; else each rehearsal is a whole run
    sources: frozenset[Source] = frozenset(Source)  #: those that every task of this kind may have
    intercepts: bool = False  #: whether what its code draws on its own is taken to the source that it belongs to
    keep_weights: bool = False  #: whether a run keeps its final weights
    remarks: tuple[str, ...] = ()  #: notes for the reader of its studies, beside the numbers
    #: Whether a run leaves its outputs. A task with too many keeps weights, from which `measures` predicts anew.
    leaves_outputs: bool = True
    #: What the outputs are, where it is stated: one of `estimates.meaning.Outputs`.
    outputs: str | None = None
    #: Names of the scores that every run returns; None where only the first run shows them.
    score_names: tuple[str, ...] | None = ()

    @property
    @abstractmethod
    def labels(self) -> Tensor | None:
        """Class indices ``[N, ...]`` (integer) or regression targets (floating); None where runs leave scores alone."""

    @property
    def examples(self) -> int:
        """N, the test examples that are scored: tokens or pixels if each has a label, without those labelled -100."""
        return self.meaning.examples

    @property
    def meaning(self) -> Meaning:
        """What the labels ask for, and what the outputs are taken for."""
        return Meaning.of(self.labels, self.outputs)

    @abstractmethod
    def fit(self, run: Run) -> Any:
        """Train once under the run's streams; return logits ``[N, ..., C]``, or outputs shaped like the targets.

        A mapping of names to numbers may follow them, and comes alone where there are no labels: scores.
        """

    def split(self, returned: Any) -> tuple[Any, dict[str, float]]:
        """Return the outputs, None where there are no labels, and the scores that a training returned."""
        return (None, scores_alone(returned)) if self.labels is None else without_scores(returned)

    def outputs_of(self, run: Run, returned: Any) -> Tensor | None:
        """Return what a training whose outputs are ``returned`` predicts for the test set; raises where that is none.

        Of a task that leaves none, it is any tensor that another prediction would change; None for scores alone.
        """
        if self.labels is None:
            return None
        return check_outputs(without_labels(returned, self.labels, run.index), self.labels, self.meaning)

    def weights_of(self, model: nn.Module) -> dict[str, Any]:
        """Return the weights of a trained model that ``keep_weights`` keeps, by name."""
        return model.state_dict()

    @abstractmethod
    def content(self) -> object:
        """Return everything that training depends on, to be fingerprinted."""

    def identity(self) -> dict[str, object]:
        """Return what two versions of a task must share to be compared: data, never the model, settings or source."""
        return {} if self.labels is None else {"labels": content_digest(self.labels)}

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` for each fault that can be known before anything trains."""
        labels = self.labels
        if labels is None:
            return
        check_labels(labels, self.outputs)
        _ = self.meaning  # refuses labels that could be two things
        if (labels == IGNORED_LABEL).all():
            raise TaskError(f"Expected some labels to score but all {labels.numel()} are {IGNORED_LABEL}, left out.")

    @property
    def is_classification(self) -> bool:
        """Whether the labels are classes, and not the targets of a regression."""
        return self.meaning.kind is not TaskKind.REGRESSION

    def measure_names(self, metrics: Mapping[str, Metric] | None = None) -> tuple[str, ...]:
        """Return the names of the measures that `measures` will have, as far as they are known before a training."""
        return Measures.names(self.labels, metrics, self.outputs, self.score_names or ())

    def measures(self, runs: Sequence[RunRecord], metrics: Mapping[str, Metric] | None = None) -> Measures:
        """Return the measures of ``runs``, runs of this task."""
        outputs, scores = [run.logits for run in runs if run.logits is not None], scores_of_runs(runs)
        return Measures(outputs, self.labels, metrics, self.outputs, scores)


@dataclass(frozen=True, eq=False)
class LoopTask(Task):
    """A train function of a `Run`: the user owns the loop, and names the source of what no loader or dataset draws."""

    function: Callable[[Run], Any]
    targets: Tensor | None  #: the labels; None where the function returns scores alone
    outputs: str | None = None
    intercepts: bool = True

    score_names = None

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the function."""
        return _name_of(self.function)

    @property
    def labels(self) -> Tensor | None:
        return self.targets

    def content(self) -> object:
        """Return the function with all values that it captures, and the labels that its outputs are checked against."""
        stated: dict[str, object] = {"outputs": self.outputs} if self.outputs else {}
        stated |= {"interception": VERSION} if self.intercepts else {}
        return {"kind": type(self).__name__, "function": self.function, "labels": self.targets, **stated}

    def fit(self, run: Run) -> Any:
        return self.function(run)


@dataclass(frozen=True, eq=False)
class BlackBoxTask(LoopTask):
    """A train function of one seed, in any framework: everything varies at once, nothing is isolated."""

    function: Callable[[int], Any]  # type: ignore[assignment]  # takes a seed in place of a Run
    intercepts: bool = False

    isolates = False

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also for a protocol that needs more than one seed."""
        super().check(protocol, device)
        _check_no_onset(self.name, protocol)
        if protocol.vary != frozenset(Source) or protocol.perturb is not None:
            raise ProtocolError(
                f"Expected vary='all' for {self.name}(seed) but got {protocol.name!r}: one seed moves every source at "
                f"once. Leave out intercept=False if it is PyTorch, or write {self.name}(run), to vary sources one by "
                f"one."
            )

    def fit(self, run: Run) -> Any:
        return self.function(run.plan.init)


def _check_no_onset(name: str, protocol: NoiseProtocol) -> None:
    """Raise `ProtocolError` for an onset in a function of a seed."""
    if protocol.onset:
        raise ProtocolError(
            f"Expected {name}(seed) without an onset but got onset={protocol.onset}: its epochs are its own. "
            f"Write {name}(run) and take them from run.epochs(n)."
        )


#: The seed that every run gives to a function whose sources are told apart.
_CONSTANT_SEED = 0


@dataclass(frozen=True, eq=False)
class InterceptedSeedTask(LoopTask):
    """A train function of one seed, in PyTorch: the seed is the same in every run, and each source is intercepted.

    What it draws before its first batch is ``init``, what is left after that ``stochastic``.
    """

    function: Callable[[int], Any]  # type: ignore[assignment]  # takes a seed in place of a Run

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also for what only a function of a `Run` can do."""
        super().check(protocol, device)
        _check_no_onset(self.name, protocol)
        if protocol.perturb is not None:
            raise ProtocolError(
                f"Expected {self.name}(seed) without perturb= but got {protocol.perturb.kind!r}: it names no model "
                f"whose weight could be moved. Write {self.name}(run) and call run.perturb(model)."
            )

    def fit(self, run: Run) -> Any:
        with run.interception.init_first():
            return self.function(_CONSTANT_SEED)


def with_interception(task: Task, protocol: NoiseProtocol, intercept: bool | None) -> Task:
    """Return the task that ``intercept=`` asks for: by default all functions of a run, and one of a seed if need be.

    A function of a seed has to be intercepted where less than everything varies.
    """
    if not isinstance(task, LoopTask):
        if intercept is None:
            return task
        raise TaskError(
            f"Expected intercept= only beside a train function but got intercept={intercept!r} beside {task.name}, "
            f"which draws nothing on its own. Leave it out."
        )
    if intercept is not None and not isinstance(intercept, bool):
        raise TaskError(f"Expected intercept=True, False or None but got intercept={intercept!r}.")
    if isinstance(task, BlackBoxTask):
        if intercept is None:
            intercept = protocol.vary != frozenset(Source) or protocol.perturb is not None
        return InterceptedSeedTask(task.function, task.targets, task.outputs) if intercept else task
    if isinstance(task, InterceptedSeedTask) and intercept is False:
        return BlackBoxTask(task.function, task.targets, task.outputs)
    return task if intercept in (None, task.intercepts) else replace(task, intercepts=intercept)


def as_task(task: object, labels: Any = None, outputs: str | None = None) -> Task:
    """Return a `Recipe` as it is, and a function as the task that its one parameter names: ``run`` or ``seed``."""
    if isinstance(task, Task):
        if labels is not None:
            raise TaskError("Expected labels= only beside a train function; a Recipe has them in test=.")
        if outputs is not None:
            raise TaskError(
                f"Expected outputs= only beside a train function; a Recipe has its own: Recipe(..., "
                f"outputs={outputs!r})."
            )
        return task
    if not callable(task):
        raise TaskError(f"Expected a Recipe, train(run) or train(seed) but got {type(task).__name__}.")
    kinds: dict[str, type[LoopTask]] = {"run": LoopTask, "seed": BlackBoxTask}
    parameters = [p.name for p in inspect.signature(task).parameters.values() if p.default is p.empty]
    if len(parameters) != 1 or parameters[0] not in kinds:
        raise TaskError(
            f"Expected {_name_of(task)} to take one parameter, 'run' (isolated streams) or 'seed' (a black box), but "
            f"it takes ({', '.join(parameters)}). Bind the others with functools.partial(..., name=value) or defaults."
        )
    made = kinds[parameters[0]](task, None if labels is None else as_labels(labels), outputs)
    _ = made.meaning  # refuses outputs= without labels, and labels that could be two things
    return made


def _name_of(function: object) -> str:
    inner = getattr(function, "func", function)  # the function in a partial
    return str(getattr(inner, "__name__", type(inner).__name__))


def content_digest(value: object) -> str | None:
    """Return a hash of a value that does not depend on source files; None if the value cannot be read."""
    try:
        return fingerprint(value, None)
    except CannotFingerprint:
        return None
