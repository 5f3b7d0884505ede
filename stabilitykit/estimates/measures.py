"""The numbers of a study by name, each computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ..errors import TaskError
from .estimate import Estimate
from .flip_floor import floor_estimate, training_sd_estimate
from .intervals import mean_estimate, pairwise_estimate, sd_estimate
from .metrics import (
    Runs,
    accuracy,
    accuracy_ensemble_delta,
    churn,
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

#: A metric of the user's own: one run's outputs and the labels in, a number out.
Metric: TypeAlias = Callable[[Tensor, Tensor], float]

#: R runs' outputs and the labels in, float64 ``[R]`` out.
Score: TypeAlias = Callable[[Runs, Tensor], Tensor]

_CORRELATIONS: Mapping[str, Callable[[Runs], Tensor]] = {"correlation": spearman, "pearson": pearson}


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
        self._begin(
            outputs, labels, scores | {name: _each_run(name, metric) for name, metric in (metrics or {}).items()}
        )

    def _begin(self, outputs: Runs, labels: Tensor, scores: dict[str, Score]) -> None:
        """Take the labels ``[N]`` of what counts, and how to score outputs against them, the main score first."""
        self._outputs, self._labels, self._scores = outputs, labels, scores
        self._classes = not labels.is_floating_point()
        self._known: dict[str, Estimate] = {}
        self._per_run: dict[str, Tensor] = {}
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
        """Iterate over the names."""
        return iter(self._compute)

    def __len__(self) -> int:
        """Count the names."""
        return len(self._compute)

    def compute(self, names: Iterable[str]) -> None:
        """Compute estimates now, so that what a metric of the user's own raises is raised here."""
        for name in names:
            self[name]

    def of_runs(self, name: str) -> Tensor:
        """Return a score of each run, ``[R]`` float64; raises `TaskError` for what is no score of one run."""
        if name not in self._scores:
            raise TaskError(f"Expected a score of this task but got {name!r}. It has {', '.join(self._scores)}.")
        if name not in self._per_run:
            self._per_run[name] = self._scores[name](self._outputs, self._labels).double()
        return self._per_run[name]

    def pairs(self, name: str) -> Tensor:
        """Return what each two runs score, ``[R, R]`` float64: disagreement, a correlation or an ensemble delta."""
        if name not in self._of_pairs:
            self._of_pairs[name] = self._score_pairs(name).double()
        return self._of_pairs[name]

    @property
    def of_variability(self) -> tuple[str, ...]:
        """The paper's five measures of variability, or those of them that the task has."""
        of_main = f"{next(iter(self._scores))}_sd"
        names = dict.fromkeys((of_main, "cross_entropy_sd", "disagreement", "correlation", self.main_delta))
        return tuple(name for name in names if name in self)

    @property
    def main_delta(self) -> str:
        """The ensemble delta of accuracy, or of RMSE where the task is a regression."""
        return _delta_name(next(iter(self._scores)))

    @property
    def examples(self) -> int:
        """N, the test examples that count: tokens or pixels where each has a label, those labelled -100 left out."""
        return len(self._labels)

    @cached_property
    def predicted(self) -> Tensor:
        """Classes ``[R, N]``, which several measures need, in as few bytes as they fit into."""
        types = (torch.uint8, torch.int16, torch.int32, torch.int64)
        classes = self._outputs[0].shape[-1]
        return predictions(self._outputs, dtype=next(kind for kind in types if classes <= torch.iinfo(kind).max))

    def _computations(self) -> dict[str, Callable[[], Estimate]]:
        compute: dict[str, Callable[[], Estimate]] = {}
        for name in self._scores:
            compute[name] = lambda name=name: mean_estimate(self.of_runs(name).numpy())  # type: ignore[misc]  # mypy cannot see the default
            compute[f"{name}_sd"] = lambda name=name: self._sd(name)  # type: ignore[misc]  # as above
        if self._classes:
            compute["flip_floor"] = self._flip_floor
            compute["training_sd"] = self._training_sd
            compute["disagreement"] = lambda: self._over_pairs(
                "disagreement", percent_of=self.examples, least=0, most=100
            )
        compute["correlation"] = lambda: self._over_pairs("correlation", least=-1, most=1)
        compute["pearson"] = lambda: self._over_pairs("pearson", least=-1, most=1)
        for name in self._scores:
            delta = _delta_name(name)
            compute[delta] = lambda delta=delta: self._over_pairs(delta)  # type: ignore[misc]  # as above
        return compute

    def _over_pairs(self, name: str, **about: Any) -> Estimate:
        return pairwise_estimate(self.pairs(name).numpy(), **about)

    @cached_property
    def _of_pairs(self) -> dict[str, Tensor]:
        return {}

    def _score_pairs(self, name: str) -> Tensor:
        if name == "disagreement":
            return disagreement(self.predicted)
        if name in _CORRELATIONS:
            return self._correlation(_CORRELATIONS[name])
        return self._ensemble_delta({_delta_name(score): score for score in self._scores}[name])

    def _sd(self, name: str) -> Estimate:
        return sd_estimate(self.of_runs(name).numpy(), robust=has_heavy_tails(name))

    def _flip_floor(self) -> Estimate:
        return floor_estimate(churn(correctness(self.predicted, self._labels)).numpy(), self.examples)

    def _training_sd(self) -> Estimate:
        return training_sd_estimate(self["accuracy_sd"], self["flip_floor"], self.examples)

    def _correlation(self, coefficient: Callable[[Runs], Tensor]) -> Tensor:
        return coefficient(self._outputs)

    def _ensemble_delta(self, name: str) -> Tensor:
        if name == "accuracy":
            return accuracy_ensemble_delta(self._outputs, self._labels, self.predicted)
        if name == "cross_entropy":
            return cross_entropy_ensemble_delta(self._outputs)
        return ensemble_delta(self._outputs, self._labels, self._scores[name])


def has_heavy_tails(score: str) -> bool:
    """Whether the SD of a score needs the robust interval.

    Cross-entropy has heavier tails than accuracy, and so may a metric of which nothing is known.
    """
    return score not in ("accuracy", "rmse")


def check_metrics(metrics: Mapping[str, Metric], labels: Tensor) -> None:
    """Raise `TaskError` unless ``metrics`` are named functions whose names are free."""
    if not isinstance(metrics, Mapping):
        raise TaskError(f"Expected metrics= to name each metric, as in metrics={{'f1': f1}}, but got {metrics!r}.")
    # Names of either kind of task: reports tell the two apart by them.
    taken = {name for kind in (torch.zeros(1), torch.zeros(1, dtype=torch.long)) for name in Measures.names(kind)}
    for name, metric in metrics.items():
        if not isinstance(name, str) or not name.isidentifier():
            why = "is no identifier, so no budget could name it"
            raise TaskError(f"Expected each key of metrics= to name a new metric but got {name!r}, which {why}.")
        measures = {name, f"{name}_sd", _delta_name(name)}
        if measures & taken:
            why = f"would measure {', '.join(sorted(measures & taken))} a second time"
            raise TaskError(f"Expected each key of metrics= to name a new metric but got {name!r}, which {why}.")
        taken |= measures
        if not callable(metric):
            raise TaskError(f"Expected metrics[{name!r}] to be a function of logits and labels but got {metric!r}.")


def _delta_name(score: str) -> str:
    return "ensemble_delta" if score == "accuracy" else f"{score}_ensemble_delta"


def _built_in_scores(classes: bool) -> dict[str, Score]:
    return {"accuracy": accuracy, "cross_entropy": cross_entropy} if classes else {"rmse": rmse}


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
