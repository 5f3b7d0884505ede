"""Tasks: what is trained, as a `Recipe` (our loop), a function of a `Run` (your loop), or a function of a seed."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ProtocolError, TaskError
from ..estimates.measures import Measures, Metric
from ..estimates.metrics import IGNORED_LABEL
from ..protocol import NoiseProtocol, Source
from ..store.fingerprint import CannotFingerprint, fingerprint
from ..store.record import RunRecord
from .run import Run


class TrainingError(Exception):
    """A run that trained but left nothing to measure; it becomes a failed run."""


class Task(ABC):
    """One thing that can be trained R times and scored on one fixed test set."""

    name: str
    isolates: bool = True  #: whether sources can be varied one by one; a black box has one seed for all
    keep_weights: bool = False  #: whether a run keeps its final weights
    remarks: tuple[str, ...] = ()  #: notes for the reader of its studies, beside the numbers
    #: Whether a run leaves its outputs. A task with too many keeps weights, from which `measures` predicts anew.
    leaves_outputs: bool = True

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """Class indices ``[N, ...]`` (integer), or regression targets (floating)."""

    @property
    def examples(self) -> int:
        """N, the test examples that are scored: tokens or pixels if each has a label, without those labelled -100."""
        whole = self.labels.is_floating_point()
        return self.labels.numel() if whole else int((self.labels != IGNORED_LABEL).sum())

    @abstractmethod
    def fit(self, run: Run) -> Any:
        """Train once under the run's streams; return logits ``[N, ..., C]``, or outputs shaped like the targets."""

    @abstractmethod
    def content(self) -> object:
        """Return everything that training depends on, to be fingerprinted."""

    def identity(self) -> dict[str, object]:
        """Return what two versions of a task must share to be compared: data, never the model, settings or source."""
        return {"labels": content_digest(self.labels)}

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` for each fault that can be known before anything trains."""
        labels = self.labels
        if labels.numel() == 0:
            raise TaskError("Expected labels of the test examples but got none; nothing could be scored.")
        if labels.is_floating_point() and not torch.isfinite(labels).all():
            raise TaskError("Expected finite regression targets but the labels hold NaN or infinity.")
        if not labels.is_floating_point() and ((labels < 0) & (labels != IGNORED_LABEL)).any():
            raise TaskError(
                f"Expected class labels from 0, or {IGNORED_LABEL} for examples to leave out, but the smallest is "
                f"{int(labels.min())}."
            )
        if (labels == IGNORED_LABEL).all():
            raise TaskError(f"Expected some labels to score but all {labels.numel()} are {IGNORED_LABEL}, left out.")

    @property
    def is_classification(self) -> bool:
        """Whether the labels are classes; floating-point labels are regression targets."""
        return not self.labels.is_floating_point()

    def measure_names(self, metrics: Mapping[str, Metric] | None = None) -> tuple[str, ...]:
        """Return the names of the measures that `measures` will have, before anything is trained."""
        return Measures.names(self.labels, metrics)

    def measures(self, runs: Sequence[RunRecord], metrics: Mapping[str, Metric] | None = None) -> Measures:
        """Return the measures of ``runs``, runs of this task."""
        return Measures([run.logits for run in runs if run.logits is not None], self.labels, metrics)


@dataclass(frozen=True, eq=False)
class LoopTask(Task):
    """A train function of a `Run`: the user owns the loop and takes each source from its stream."""

    function: Callable[[Run], Any]
    targets: Tensor

    @property
    def name(self) -> str:  # type: ignore[override]  # read-only here, a field in Recipe
        """The name of the function."""
        return _name_of(self.function)

    @property
    def labels(self) -> Tensor:
        return self.targets

    def content(self) -> object:
        """Return the function with all values that it captures, and the labels that its outputs are checked against."""
        return {"kind": type(self).__name__, "function": self.function, "labels": self.targets}

    def fit(self, run: Run) -> Any:
        return self.function(run)


@dataclass(frozen=True, eq=False)
class BlackBoxTask(LoopTask):
    """A train function of one seed, in any framework: everything varies at once, nothing is isolated."""

    function: Callable[[int], Any]  # type: ignore[assignment]  # takes a seed in place of a Run

    isolates = False

    def check(self, protocol: NoiseProtocol, device: torch.device) -> None:
        """Raise `UsageError` also for a protocol that needs more than one seed."""
        super().check(protocol, device)
        if protocol.onset:
            raise ProtocolError(
                f"Expected {self.name}(seed) without an onset but got onset={protocol.onset}: its epochs are its own. "
                f"Write {self.name}(run) and take them from run.epochs(n)."
            )
        if protocol.vary != frozenset(Source) or protocol.perturb is not None:
            raise ProtocolError(
                f"Expected vary='all' for {self.name}(seed) but got {protocol.name!r}: one seed moves every source at "
                f"once. Write {self.name}(run) and take each source from run.stream(...) to vary them one by one."
            )

    def fit(self, run: Run) -> Any:
        return self.function(run.plan.init)


def as_task(task: object, labels: Any = None) -> Task:
    """Return a `Recipe` as it is, and a function as the task that its one parameter names: ``run`` or ``seed``."""
    if isinstance(task, Task):
        if labels is not None:
            raise TaskError("Expected labels= only beside a train function; a Recipe has them in test=.")
        return task
    if not callable(task):
        raise TaskError(f"Expected a Recipe, train(run) or train(seed) but got {type(task).__name__}.")
    if labels is None:
        raise TaskError(f"Expected labels= beside {_name_of(task)}: without the test labels nothing can be scored.")
    kinds: dict[str, type[LoopTask]] = {"run": LoopTask, "seed": BlackBoxTask}
    parameters = [p.name for p in inspect.signature(task).parameters.values() if p.default is p.empty]
    if len(parameters) != 1 or parameters[0] not in kinds:
        raise TaskError(
            f"Expected {_name_of(task)} to take one parameter, 'run' (isolated streams) or 'seed' (a black box), but "
            f"it takes ({', '.join(parameters)}). Bind the others with functools.partial(..., name=value) or defaults."
        )
    return kinds[parameters[0]](task, as_labels(labels))


def check_outputs(outputs: object, labels: Tensor, all_labels: Tensor) -> Tensor:
    """Return outputs as a CPU tensor; raise `TaskError` if they do not fit the labels ``[N, ...]``."""
    if not isinstance(outputs, Tensor):
        try:
            outputs = torch.from_numpy(np.array(outputs, dtype=None))
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"Expected training to return a tensor or array of logits but got {type(outputs).__name__}."
            ) from error
    outputs = outputs.detach().cpu()
    outputs = outputs.float() if outputs.element_size() < 4 or not outputs.is_floating_point() else outputs
    shape, wanted = tuple(outputs.shape), tuple(labels.shape)
    if labels.is_floating_point():
        if shape not in (wanted, (*wanted, 1)):
            raise TaskError(f"Expected regression outputs of the targets' shape {wanted} but got {shape}.")
        return outputs.reshape(wanted)
    if shape[:-1] != wanted or shape[-1] < 2:
        raise TaskError(
            f"Expected logits of shape [{', '.join(map(str, wanted))}, C] with C >= 2 classes, one row a test label, "
            f"but got {list(shape)}. Classes come last; a single output a row needs a second logit, or float labels."
        )
    if int(all_labels.max()) >= shape[-1]:
        raise TaskError(
            f"Expected class labels below {shape[-1]}, the number of logits, but got {int(all_labels.max())}."
        )
    return outputs


def as_labels(labels: Any) -> Tensor:
    """Return labels as a tensor on the CPU, classes as int64; raise `TaskError` for anything but numbers."""
    try:
        tensor = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    except (TypeError, ValueError, RuntimeError) as error:
        raise TaskError(f"Expected labels= to be a tensor or array but got {type(labels).__name__}.") from error
    tensor = tensor.detach().cpu()
    return tensor if tensor.is_floating_point() else tensor.long()  # in uint8, 156 would equal -100


def _name_of(function: object) -> str:
    inner = getattr(function, "func", function)  # the function in a partial
    return str(getattr(inner, "__name__", type(inner).__name__))


def content_digest(value: object) -> str | None:
    """Return a hash of a value that does not depend on source files; None if the value cannot be read."""
    try:
        return fingerprint(value, None)
    except CannotFingerprint:
        return None
