"""The numbers of a study by name, each computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import TaskError
from .estimate import Estimate
from .flip_floor import floor_estimate, training_sd_estimate
from .intervals import mean_estimate, pairwise_estimate, sd_estimate
from .measure_kinds import PAPER, delta_name, kind_of, sd_name, task_kind
from .metrics import (
    Runs,
    accuracy,
    accuracy_ensemble_delta,
    churn,
    class_type,
    correctness,
    cross_entropy,
    cross_entropy_ensemble_delta,
    disagreement,
    ensemble_delta,
    flatten_examples,
    pearson,
    percent_right,
    predictions,
    rmse,
    spearman,
)
from .scores import Metric as Metric  # noqa: PLC0414  # the type of an argument of `Measures`
from .scores import TaskKind, further_scores, score_kind

#: R runs' outputs and the labels in, float64 ``[R]`` out.
Score: TypeAlias = Callable[[Runs, Tensor], Tensor]


class Measures(Mapping[str, Estimate]):
    """Estimates by name over R runs of one task.

    ``accuracy`` is a mean over runs, ``accuracy_sd`` an SD, ``disagreement`` a mean over pairs of runs. The ensemble
    delta of accuracy is ``ensemble_delta``, that of any other score has its name: a metric of the user's own, ``f1``
    say, gives ``f1``, ``f1_sd`` and ``f1_ensemble_delta``.

    >>> logits = torch.tensor([[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    >>> measures = Measures(logits, torch.tensor([0, 1]))
    >>> measures["accuracy"].value, measures["disagreement"].value
    (75.0, 50.0)
    """

    def __init__(self, outputs: Runs, labels: Tensor, metrics: Mapping[str, Metric] | None = None) -> None:
        """Take R times ``[N, ..., C]`` logits and ``[N, ...]`` classes, or ``[N, ...]`` outputs and float targets."""
        classes = not labels.is_floating_point()
        # R tensors, so that no measure needs a second copy of all outputs.
        outputs = list(outputs)
        outputs, labels = flatten_examples(outputs, labels) if classes else (outputs, labels)
        scores = _built_in_scores(classes)
        if classes:
            scores["accuracy"] = lambda outputs, labels: percent_right(self.predicted, labels)
        own = {name: _each_run(name, metric) for name, metric in (metrics or {}).items()}
        self._begin(outputs, labels, scores | own)

    def _begin(self, outputs: Runs, labels: Tensor, scores: dict[str, Score]) -> None:
        """Take the labels ``[N]`` of the examples that count, and the task's scores by name, the main score first."""
        self._outputs, self._labels, self._scores = outputs, labels, scores
        self._classes = not labels.is_floating_point()
        self._known: dict[str, Estimate] = {}
        self._per_run: dict[str, Tensor] = {}
        self._of_pairs: dict[str, Tensor] = {}
        self._compute = self._computations()

    @classmethod
    def names(cls, labels: Tensor, metrics: Mapping[str, Metric] | None = None) -> tuple[str, ...]:
        """Return the names that a task with such labels will have, before anything is trained."""
        outputs = torch.zeros((1, *labels.shape, 2) if not labels.is_floating_point() else (1, *labels.shape))
        return tuple(cls(outputs, labels, metrics))

    def __getitem__(self, name: str) -> Estimate:
        """Return an estimate, computing it the first time."""
        if name not in self._known:
            self._known[name] = self._compute[name]()
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        """Whether there is such a measure, without computing it."""
        return name in self._compute

    def __iter__(self) -> Iterator[str]:
        return iter(self._compute)

    def __len__(self) -> int:
        return len(self._compute)

    def compute(self, names: Iterable[str]) -> None:
        """Compute estimates now, so that an error in a metric of the user's own is raised here."""
        for name in names:
            self[name]

    def of_runs(self, name: str) -> Tensor:
        """Return a score of each run, ``[R]`` float64; raises `TaskError` for a measure that is no score of one run."""
        if name not in self._scores:
            raise TaskError(f"Expected a score of this task but got {name!r}. It has {', '.join(self._scores)}.")
        if name not in self._per_run:
            self._per_run[name] = self._scores[name](self._outputs, self._labels).double()
        return self._per_run[name]

    def pairs(self, name: str) -> Tensor:
        """Return a measure of each pair of runs, ``[R, R]`` float64: disagreement, correlation or ensemble delta."""
        if name not in self._of_pairs:
            self._of_pairs[name] = self._score_pairs(name).double()
        return self._of_pairs[name]

    @property
    def of_variability(self) -> tuple[str, ...]:
        """The paper's five measures of variability, or those of them that the task has."""
        return tuple(name for name in PAPER[task_kind(self)] if kind_of(name).is_spread)

    @property
    def main_sd(self) -> str:
        """The SD of accuracy, or of RMSE where the task is a regression."""
        return sd_name(self._main_score)

    @property
    def main_delta(self) -> str:
        """The ensemble delta of accuracy, or of RMSE where the task is a regression."""
        return delta_name(self._main_score)

    @property
    def _main_score(self) -> str:
        return next(iter(self._scores))

    @property
    def examples(self) -> int:
        """N, the test examples with a label: tokens or pixels where each has one; the label -100 counts as none."""
        return len(self._labels)

    @cached_property
    def predicted(self) -> Tensor:
        """Classes ``[R, N]``, which several measures need, in as few bytes as they fit into."""
        return predictions(self._outputs, dtype=class_type(self._outputs[0].shape[-1]))

    def _computations(self) -> dict[str, Callable[[], Estimate]]:
        compute: dict[str, Callable[[], Estimate]] = {}
        for name in self._scores:
            compute[name] = lambda name=name: mean_estimate(self.of_runs(name).numpy())  # type: ignore[misc]  # mypy cannot see the default
            compute[sd_name(name)] = lambda name=name: self._sd(name)  # type: ignore[misc]  # as above
        if self._classes:
            compute["flip_floor"] = self._flip_floor
            compute["training_sd"] = self._training_sd
            compute["disagreement"] = lambda: self._over_pairs("disagreement")
        compute["correlation"] = lambda: self._over_pairs("correlation")
        compute["pearson"] = lambda: self._over_pairs("pearson")
        for delta in self._deltas:
            compute[delta] = lambda delta=delta: self._over_pairs(delta)  # type: ignore[misc]  # as above
        return compute

    @property
    def _deltas(self) -> dict[str, str]:
        """The score that each ensemble delta is of."""
        return {delta_name(name): name for name in self._scores if score_kind(name).of_run is None}

    def _over_pairs(self, name: str) -> Estimate:
        kind, pairs = kind_of(name), self.pairs(name).numpy()
        if kind.is_delta:  # whose size alone is known to end somewhere
            return pairwise_estimate(pairs)
        percent_of = self.examples if kind.counts_examples else None
        return pairwise_estimate(pairs, percent_of=percent_of, least=kind.least, most=kind.most)

    def _score_pairs(self, name: str) -> Tensor:
        if name == "disagreement":
            return disagreement(self.predicted)
        if name == "correlation":
            return spearman(self._numbers)
        if name == "pearson":
            return pearson(self._numbers)
        return self._ensemble_delta(self._deltas[name])

    def _sd(self, name: str) -> Estimate:
        return sd_estimate(self.of_runs(name).numpy(), robust=score_kind(name).has_heavy_tails)

    def _flip_floor(self) -> Estimate:
        return floor_estimate(churn(correctness(self.predicted, self._labels)).numpy(), self.examples)

    def _training_sd(self) -> Estimate:
        return training_sd_estimate(self["accuracy_sd"], self["flip_floor"], self.examples)

    @property
    def _numbers(self) -> Runs:
        """The numbers of each run that are correlated."""
        return self._outputs

    def _ensemble_delta(self, name: str) -> Tensor:
        if name == "accuracy":
            return accuracy_ensemble_delta(self._outputs, self._labels, self.predicted)
        if name == "cross_entropy":
            return cross_entropy_ensemble_delta(self._outputs)
        return ensemble_delta(self._outputs, self._labels, self._scores[name])


def check_metrics(metrics: Mapping[str, Metric], labels: Tensor) -> None:
    """Raise `TaskError` unless ``metrics`` are named functions whose names are free."""
    if not isinstance(metrics, Mapping):
        raise TaskError(f"Expected metrics= to name each metric, as in metrics={{'f1': f1}}, but got {metrics!r}.")
    # Names of either kind of task: reports tell the two apart by them.
    taken = {name for kind in (torch.zeros(1), torch.zeros(1, dtype=torch.long)) for name in Measures.names(kind)}
    for name, metric in metrics.items():
        measures = {name, sd_name(name), delta_name(name)}
        why = f"would measure {', '.join(sorted(measures & taken))} a second time" if measures & taken else ""
        if not isinstance(name, str) or not name.isidentifier():
            why = "is no identifier, so no budget could name it"
        if why:
            raise TaskError(f"Expected each key of metrics= to name a new metric but got {name!r}, which {why}.")
        taken |= measures
        if not callable(metric):
            raise TaskError(f"Expected metrics[{name!r}] to be a function of logits and labels but got {metric!r}.")


def _built_in_scores(classes: bool) -> dict[str, Score]:
    paper: dict[str, Score] = {"accuracy": accuracy, "cross_entropy": cross_entropy} if classes else {"rmse": rmse}
    further = further_scores(TaskKind.CLASSES if classes else TaskKind.REGRESSION)
    return paper | {name: _of_each_run(of_run) for name, of_run in further.items()}


def _of_each_run(of_run: Metric) -> Score:
    return lambda outputs, labels: torch.tensor([float(of_run(run, labels)) for run in outputs], dtype=torch.float64)


def _each_run(name: str, metric: Metric) -> Score:
    def scores(outputs: Runs, labels: Tensor) -> Tensor:
        values = [_number(name, metric(run, labels)) for run in outputs]
        if not all(map(math.isfinite, values)):
            raise TaskError(f"Expected the metric {name!r} to return finite numbers but got {values}.")
        return torch.tensor(values, dtype=torch.float64)

    return scores


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # a tensor of one element among others
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        got = type(value).__name__ if shape is None else f"{type(value).__name__} of shape {list(shape)}"
        raise TaskError(
            f"Expected the metric {name!r} to return one number for a run but got a {got}. Take its mean, say."
        ) from None
