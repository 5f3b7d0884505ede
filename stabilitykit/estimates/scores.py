"""Scores of a single run: what each is, and the formulas of the scores that are not in the paper.

To add a score, write its formula here, under `further_score`: its mean and its SD over runs are then measures of every
task of its kind, and a budget can limit the SD. Nothing else has to know about it.

Nothing here imports torch: tables are written by processes that need none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

#: The score of one run: its outputs and the labels in, a number out. A metric of the user's own is one.
Metric: TypeAlias = "Callable[[Tensor, Tensor], float]"


class TaskKind(Enum):
    """What a task predicts, which decides its scores."""

    CLASSES = "classes"
    MULTI_LABEL = "multi_label"
    REGRESSION = "regression"
    LANGUAGE = "language"
    SCORES = "scores"  #: nothing: its runs leave scores alone


@dataclass(frozen=True)
class ScoreKind:
    """What a score of one run is, whatever it is measured on."""

    name: str
    tasks: frozenset[TaskKind] = frozenset()  #: kinds of tasks that have it; none for a metric of the user's own
    noun: str = ""  #: its name in a sentence
    unit: str = ""  #: unit of a difference, as written after a number
    width: float = math.inf  #: highest possible value less the lowest
    more_is_better: bool = False
    has_heavy_tails: bool = True  #: whether its SD over runs needs the robust interval
    of_run: Metric | None = None  #: its formula, for a score of this module


_CLASSES = frozenset({TaskKind.CLASSES, TaskKind.LANGUAGE})
_NOT_NUMBERS = _CLASSES | {TaskKind.MULTI_LABEL}

#: Every built-in score by name, in the order of reports.
SCORES = {
    kind.name: kind
    for kind in (
        ScoreKind("perplexity", frozenset({TaskKind.LANGUAGE})),
        ScoreKind(
            "subset_accuracy",
            frozenset({TaskKind.MULTI_LABEL}),
            "subset accuracy",
            " points",
            100,
            more_is_better=True,
            has_heavy_tails=False,
        ),
        ScoreKind("accuracy", _CLASSES, "accuracy", " points", 100, more_is_better=True, has_heavy_tails=False),
        ScoreKind("cross_entropy", _NOT_NUMBERS, unit=" nats"),
        ScoreKind("rmse", frozenset({TaskKind.REGRESSION}), "RMSE", has_heavy_tails=False),
    )
}


def score_kind(name: str) -> ScoreKind:
    """Return the kind of a score; a metric of the user's own has no unit and no range."""
    return SCORES.get(name) or ScoreKind(name)


def further_scores(task: TaskKind) -> dict[str, Metric]:
    """Return the formulas of the scores beyond the paper's that such a task has, by name."""
    return {name: kind.of_run for name, kind in SCORES.items() if kind.of_run is not None and task in kind.tasks}


def further_score(*tasks: TaskKind, unit: str = "", width: float = math.inf) -> Callable[[Metric], Metric]:
    """Make a function of one run's outputs and the labels a score of every such task, under its own name.

    Logits ``[N, C]`` and classes ``[N]`` go in; in a regression outputs and targets of one shape, and where examples
    have several labels logits ``[N, L]`` and labels ``[N, L]`` of 0 and 1.
    """

    def add(of_run: Metric) -> Metric:
        SCORES[of_run.__name__] = ScoreKind(of_run.__name__, frozenset(tasks), unit=unit, width=width, of_run=of_run)
        return of_run

    return add


#: Numbers whose probabilities are held at once.
_BLOCK = 2**20


@further_score(TaskKind.CLASSES, width=2.0)
def brier(logits: Tensor, labels: Tensor) -> float:
    r"""Mean squared distance between the probabilities that a model gives the classes and the right answer.

    .. math:: \frac{1}{N} \sum_n \sum_c (p_{nc} - [c = y_n])^2

    Logits ``[N, C]`` and classes ``[N]`` in, between 0 (sure and right) and 2 (sure and wrong) out.

    >>> import torch
    >>> brier(torch.tensor([[0.0, 0.0], [200.0, 0.0]]), torch.tensor([0, 1]))  # (0.5 + 2) / 2
    1.25

    Source: Brier, *Verification of forecasts expressed in terms of probability* (1950), equation (2).
    """
    size, total = max(1, _BLOCK // logits.shape[-1]), 0.0
    for start in range(0, len(labels), size):
        label = labels[None, start : start + size].long()
        # Class by class: ten classes are too few to run through in a row.
        distance = logits[start : start + size].double().T.contiguous().softmax(dim=0)
        distance.scatter_(0, label, distance.gather(0, label) - 1)
        total += float(distance.square_().sum())
    return total / len(labels)


@further_score(TaskKind.MULTI_LABEL)
def f1_micro(logits: Tensor, labels: Tensor) -> float:
    """F1 of all labels of all examples together: twice those found, by those found, missed and wrongly given.

    Logits ``[N, L]``, above 0 for a label that is given, and labels ``[N, L]`` of 0 and 1 in; from 0 to 1 out.

    >>> import torch
    >>> f1_micro(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 1], [1, 0]]))  # 2 * 2 / (3 + 3)
    0.6666666666666666

    Source: van Rijsbergen, *Information Retrieval* (1979), chapter 7.
    """
    found, either = _found_and_either(logits, labels)
    return float(_f1(found.sum(), either.sum()))


@further_score(TaskKind.MULTI_LABEL)
def f1_macro(logits: Tensor, labels: Tensor) -> float:
    """Mean over labels of the F1 of each; 0 for a label that no example has and no answer gives, as in scikit-learn.

    Logits ``[N, L]``, above 0 for a label that is given, and labels ``[N, L]`` of 0 and 1 in; from 0 to 1 out.

    >>> import torch
    >>> f1_macro(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 1], [1, 0]]))  # 1 and 0
    0.5

    Source: van Rijsbergen, *Information Retrieval* (1979), chapter 7.
    """
    return float(_f1(*_found_and_either(logits, labels)).mean())


def _found_and_either(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """How often each label is given rightly, and how often it is given and is right, added up: ``[L]`` each."""
    given, right = logits > 0, labels > 0
    return (given & right).sum(0).double(), (given.sum(0) + right.sum(0)).double()


def _f1(found: Tensor, either: Tensor) -> Tensor:
    return 2 * found / either.clamp(min=1)
