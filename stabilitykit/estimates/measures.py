"""The numbers of a study by name, each computed when it is first asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import TaskError
from .doubts import axis_doubt, chance_doubt, mean_doubt, one_answer_doubt, scale_doubt
from .estimate import Estimate
from .flip_floor import floor_estimate, training_sd_estimate
from .intervals import mean_estimate, pairwise_estimate, sd_estimate
from .meaning import Meaning
from .measure_kinds import PAPER, delta_name, kind_of, sd_name, task_kind
from .metrics import (
    Runs,
    accuracy,
    accuracy_ensemble_delta,
    binary_cross_entropy,
    churn,
    class_type,
    correctness,
    cross_entropy,
    cross_entropy_ensemble_delta,
    disagreement,
    ensemble_delta,
    pearson,
    percent_right,
    predictions,
    rmse,
    spearman,
    subset_accuracy,
)
from .reading import Reading
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

    _returned: frozenset[str] = frozenset()  #: names of the scores that runs return

    def __init__(
        self,
        outputs: Runs,
        labels: Tensor | None,
        metrics: Mapping[str, Metric] | None = None,
        stated: str | None = None,
        returned: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        """Take R times ``[N, ..., C]`` outputs and ``[N, ...]`` classes, or ``[N, ...]`` outputs and float targets.

        ``stated`` is the user's word for the outputs, as in `Meaning`. ``returned`` are further scores of each run, by
        name, which come alone where ``labels`` is None.
        """
        meaning = Meaning.of(labels, stated)
        # R tensors, so that no measure needs a second copy of all outputs.
        self.reading: Reading | None = None  #: None where outputs are not there at once, or not at all
        if labels is not None:
            self.reading = Reading(list(outputs), meaning)
        self._own = frozenset(metrics or {})
        scores = _built_in_scores(meaning.kind)
        if meaning.is_classes:
            scores["accuracy"] = lambda outputs, labels: percent_right(self.predicted, labels)
        own = {name: _each_run(name, metric) for name, metric in (metrics or {}).items()}
        further = {name: _as_returned(of_runs) for name, of_runs in (returned or {}).items()}
        self._returned = frozenset(further)
        if taken := self._returned & (scores | own).keys():
            raise TaskError(
                f"Expected scores of other names than the task's own but runs return {', '.join(sorted(taken))}, which "
                f"is measured already. Return it under another name, or leave it out of metrics=."
            )
        counted = meaning.labels if self.reading is None else self.reading.labels
        self._begin(meaning.kind, counted, scores | own | further)

    def _begin(self, kind: TaskKind, labels: Tensor, scores: dict[str, Score]) -> None:
        """Take the labels ``[N]`` of the examples that count, and the task's scores by name, the main score first."""
        self._kind, self._labels, self._scores = kind, labels, scores
        self._known: dict[str, Estimate] = {}
        self._per_run: dict[str, Tensor] = {}
        self._of_pairs: dict[str, Tensor] = {}
        self._compute = self._computations()

    @classmethod
    def names(
        cls,
        labels: Tensor | None,
        metrics: Mapping[str, Metric] | None = None,
        stated: str | None = None,
        returned: Iterable[str] = (),
    ) -> tuple[str, ...]:
        """Return the names that a task with such labels will have, before anything is trained."""
        meaning = Meaning.of(labels, stated)
        outputs = torch.zeros(1, *meaning.labels.shape, *([2] if meaning.is_classes else []))
        return tuple(cls(outputs, labels, metrics, stated, {name: [0.0] for name in returned}))

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
            outputs, labels = self._data(name)
            self._per_run[name] = self._scores[name](outputs, labels).double()
            if name in self._own:
                _check_repeats(name, float(self._per_run[name][0]), self._scores[name](outputs[:1], labels))
        return self._per_run[name]

    def pairs(self, name: str) -> Tensor:
        """Return a measure of each pair of runs, ``[R, R]`` float64: disagreement, correlation or ensemble delta."""
        if name not in self._of_pairs:
            self._of_pairs[name] = self._score_pairs(name).double()
        return self._of_pairs[name]

    @property
    def remarks(self) -> Iterator[str]:
        """What a reader should know of the meaning of the outputs: how they were taken, and what speaks against it."""
        if self.reading is None:
            return
        yield from filter(None, (self.reading.meaning.said, self.reading.said, scale_doubt(self.reading)))
        if self._kind is TaskKind.REGRESSION:
            yield from filter(None, [mean_doubt(self.of_runs("rmse"), self._labels)])
        else:
            yield from filter(None, [self._infinite()])
        if self.reading.is_yes_or_no:
            yield from filter(None, [one_answer_doubt(self.predicted, self.reading)])
        if self._kind is TaskKind.CLASSES:
            axis = axis_doubt(self.reading) if self.reading.may_have_other_axis else ""
            yield from filter(None, (axis, self._chance()))

    def _infinite(self) -> str:
        if not any(run.isinf().any() for run in self._outputs):  # a look costs less than the scores of all runs
            return ""
        infinite = self.of_runs("cross_entropy").isinf().nonzero().flatten().tolist()
        if not infinite:
            return ""
        return (
            f"cross-entropy is infinite in {len(infinite)} of {len(self._outputs)} runs, run {infinite[0]} the first: "
            f"the right answer to some example has probability 0 (a logit of -inf), so it has no mean and no SD"
        )

    def _chance(self) -> str:
        return chance_doubt(self.predicted, self._labels)

    @property
    def of_variability(self) -> tuple[str, ...]:
        """The paper's five measures of variability, or those of them that the task has; the SDs of scores alone."""
        names = self if self._kind is TaskKind.SCORES else PAPER[task_kind(self)]
        return tuple(name for name in names if kind_of(name).is_spread)

    @property
    def main_sd(self) -> str:
        """The SD of accuracy, of RMSE where the task is a regression, of subset accuracy with several labels."""
        return sd_name(self._main_score)

    @property
    def main_delta(self) -> str:
        """The ensemble delta of the same score as `main_sd`."""
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
        """Classes ``[R, M]``, which several measures need, in as few bytes as they fit into.

        Where examples have several labels, whether each is given: M is N times L then.
        """
        if self._kind is TaskKind.MULTI_LABEL:
            return torch.stack([(run > 0).flatten().to(torch.uint8) for run in self._outputs])
        return predictions(self._outputs, dtype=class_type(self._outputs[0].shape[-1]))

    @property
    def _sets(self) -> Tensor:
        """The set of labels that is given to each example, ``[R, N]``: equal numbers are equal sets."""
        rows = self.predicted.reshape(-1, self._labels.shape[-1])
        places: Tensor = torch.unique(rows, dim=0, return_inverse=True)[1]
        return places.reshape(len(self.predicted), -1)

    @property
    def _outputs(self) -> Runs:
        """The outputs of the examples that count: logits ``[M, C]``, or outputs like the labels."""
        return self.reading.logits if self.reading is not None else []

    def _data(self, name: str) -> tuple[Runs, Tensor]:
        """Return what a score takes: a metric of the user's own, outputs and labels as the task has them."""
        if name in self._own and self.reading is not None:
            return self.reading.given
        return self._outputs, self._labels

    def _computations(self) -> dict[str, Callable[[], Estimate]]:
        compute: dict[str, Callable[[], Estimate]] = {}
        for name in self._scores:
            compute[name] = lambda name=name: mean_estimate(self.of_runs(name).numpy())  # type: ignore[misc]  # mypy cannot see the default
            compute[sd_name(name)] = lambda name=name: self._sd(name)  # type: ignore[misc]  # as above
        if "accuracy" in self._scores.keys() - self._own:
            compute["flip_floor"] = self._flip_floor
            compute["training_sd"] = self._training_sd
        if self._kind is TaskKind.SCORES:
            return compute
        if self._kind is not TaskKind.REGRESSION:
            compute["disagreement"] = lambda: self._over_pairs("disagreement")
        if self._kind is TaskKind.MULTI_LABEL:
            compute["label_disagreement"] = lambda: self._over_pairs("label_disagreement")
        compute["correlation"] = lambda: self._over_pairs("correlation")
        compute["pearson"] = lambda: self._over_pairs("pearson")
        for delta in self._deltas:
            compute[delta] = lambda delta=delta: self._over_pairs(delta)  # type: ignore[misc]  # as above
        return compute

    @property
    def _deltas(self) -> dict[str, str]:
        """The score that each ensemble delta is of."""
        of_outputs = (name for name in self._scores if name not in self._returned)
        return {delta_name(name): name for name in of_outputs if name in self._own or score_kind(name).of_run is None}

    def _over_pairs(self, name: str) -> Estimate:
        kind, pairs = kind_of(name), self.pairs(name).numpy()
        if kind.is_delta:  # whose size alone is known to end somewhere
            return pairwise_estimate(pairs)
        percent_of = self.examples if kind.counts_examples else None
        if name == "label_disagreement":
            percent_of = self._labels.numel()
        return pairwise_estimate(pairs, percent_of=percent_of, least=kind.least, most=kind.most)

    def _score_pairs(self, name: str) -> Tensor:
        if name == "disagreement":
            return disagreement(self._sets if self._kind is TaskKind.MULTI_LABEL else self.predicted)
        if name == "label_disagreement":
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
        if name == "cross_entropy" and self._kind is TaskKind.CLASSES:
            return cross_entropy_ensemble_delta(self._outputs)
        return ensemble_delta(*self._data(name), self._scores[name])


def check_metrics(metrics: Mapping[str, Metric], labels: Tensor | None, stated: str | None = None) -> None:
    """Raise `TaskError` unless ``metrics`` are named functions whose names are free."""
    if not isinstance(metrics, Mapping):
        raise TaskError(f"Expected metrics= to name each metric, as in metrics={{'f1': f1}}, but got {metrics!r}.")
    if not metrics:
        return
    if labels is None:
        raise TaskError(
            f"Expected labels= beside metrics= but got {', '.join(map(str, metrics))} alone: a metric scores outputs "
            f"by the labels. Without labels, return the numbers from the train function."
        )
    # Names of a classification and a regression as well: reports tell the kinds of tasks apart by them.
    kinds = (Measures.names(torch.zeros(1)), Measures.names(torch.zeros(1, dtype=torch.long)))
    taken = {name for names in (*kinds, Measures.names(labels, stated=stated)) for name in names}
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


#: The paper's scores of each kind of task, the main score first.
_BUILT_IN: Mapping[TaskKind, Mapping[str, Score]] = {
    TaskKind.CLASSES: {"accuracy": accuracy, "cross_entropy": cross_entropy},
    TaskKind.MULTI_LABEL: {"subset_accuracy": subset_accuracy, "cross_entropy": binary_cross_entropy},
    TaskKind.REGRESSION: {"rmse": rmse},
    TaskKind.SCORES: {},
}


def _as_returned(of_runs: Sequence[float]) -> Score:
    return lambda outputs, labels: torch.tensor(of_runs, dtype=torch.float64)


def _built_in_scores(kind: TaskKind) -> dict[str, Score]:
    return {**_BUILT_IN[kind], **{name: _of_each_run(of_run) for name, of_run in further_scores(kind).items()}}


def _of_each_run(of_run: Metric) -> Score:
    return lambda outputs, labels: torch.tensor([float(of_run(run, labels)) for run in outputs], dtype=torch.float64)


def _each_run(name: str, metric: Metric) -> Score:
    def scores(outputs: Runs, labels: Tensor) -> Tensor:
        values = [_number(name, metric(run, labels)) for run in outputs]
        if not all(map(math.isfinite, values)):
            raise TaskError(f"Expected the metric {name!r} to return finite numbers but got {values}.")
        return torch.tensor(values, dtype=torch.float64)

    return scores


def _check_repeats(name: str, once: float, again: Tensor) -> None:
    """Raise `TaskError` for a metric that gives another number for the same outputs: its SD would be its own."""
    if float(again) != once:
        raise TaskError(
            f"Expected the metric {name!r} to give the same number twice for the same outputs but of run 0 it gave "
            f"{once!r} and, after the last run, {float(again)!r}. Its spread would not be that of the runs. Seed what "
            f"it draws anew in each call, keep no state between calls, and change no outputs in place."
        )


def _number(name: str, value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # a tensor of one element among others
    except (TypeError, ValueError, RuntimeError):
        shape = getattr(value, "shape", None)
        got = type(value).__name__ if shape is None else f"{type(value).__name__} of shape {list(shape)}"
        raise TaskError(
            f"Expected the metric {name!r} to return one number for a run but got a {got}. Take its mean, say."
        ) from None
