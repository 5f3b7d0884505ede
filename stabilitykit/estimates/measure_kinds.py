"""What each measure is: its unit and range, its title, whether more of it is more spread, and how a budget limits it.

A measure is known by its name: ``accuracy`` is the mean of a score over runs, ``accuracy_sd`` its SD, ``disagreement``
a mean over pairs of runs. Whatever differs between measures is asked of `kind_of`; only the code that computes a
measure has to know its name too. Nothing here imports torch: tables are written by processes that need none.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from ..errors import TaskError
from .scores import SCORES, ScoreKind, TaskKind, score_kind


class Form(Enum):
    """How a measure comes from R runs."""

    MEAN = "mean of a score over runs"
    SD = "SD of a score over runs"
    DISTANCE = "mean over pairs of runs, of how far two differ"
    LIKENESS = "mean over pairs of runs, of how alike two are"
    DELTA = "mean over pairs of runs, of what averaging two gains"
    FLOOR = "part of an SD that the test examples give by flipping on their own"
    REST = "part of an SD that is left above its floor"


@dataclass(frozen=True)
class MeasureKind:
    """What a measure is."""

    name: str
    form: Form
    score: str = ""  #: the score of single runs that it is about; empty where there is none
    unit: str = ""  #: as it follows a number
    least: float = 0.0  #: lowest possible value; of an ensemble delta, of its size
    most: float = math.inf  #: highest possible value
    why: str = "It limits a spread, and no spread is negative"  #: of the range, in an error
    example: str = "0.30"  #: of a limit, in an error
    title: str = ""  #: of its column
    decimals: int = 2  #: in a table
    counts_examples: bool = False  #: whether one test example more or less is a step of it
    is_of_flips: bool = False  #: whether predictions that change between runs explain it
    assumed_cv: float = 0.4  #: of a mean over pairs where no run tells: the largest that was seen (docs/statistics.md)

    @property
    def is_sd(self) -> bool:
        """Whether it is an SD over runs, which has a chi-square interval."""
        return self.form is Form.SD

    @property
    def is_likeness(self) -> bool:
        """Whether it says how alike runs are: its spread is 1 minus the value, and its limit is a minimum."""
        return self.form is Form.LIKENESS

    @property
    def is_delta(self) -> bool:
        """Whether it has a sign: its spread is the absolute value."""
        return self.form is Form.DELTA

    @property
    def is_spread(self) -> bool:
        """Whether it says how far runs differ; neither of the two parts of a spread does, its floor and the rest."""
        return self.form in (Form.SD, Form.DISTANCE, Form.LIKENESS, Form.DELTA)

    @property
    def is_diagnosis(self) -> bool:
        """Whether it only explains a spread: few runs leave it too uncertain to be limited."""
        return self.form is Form.REST

    @property
    def ratio(self) -> float:
        """The usual ratio of the spread that a PASS excludes to the limit; an SD is known less well than the others."""
        return 2.0 if self.is_sd else 1.25

    @property
    def spread_name(self) -> str:
        """The name of its spread."""
        return f"1 - {self.name}" if self.is_likeness else self.name

    @property
    def most_spread(self) -> float:
        """The largest possible spread."""
        return 1 - self.least if self.is_likeness else self.most

    def spread(self, value: float) -> float:
        """Turn a value or a limit so that more is more spread; `value_of` turns it back.

        >>> kind_of("correlation").spread(0.75), kind_of("ensemble_delta").spread(-2.0)
        (0.25, 2.0)
        """
        return 1 - value if self.is_likeness else abs(value) if self.is_delta else value

    def value_of(self, spread: float) -> float:
        """Return the value, or the limit, that has this spread."""
        return 1 - spread if self.is_likeness else spread


def sd_name(score: str) -> str:
    """Return the name of a score's SD over runs."""
    return f"{score}_sd"


def _mean(score: str, title: str = "") -> MeasureKind:
    return MeasureKind(score, Form.MEAN, score, title=title)


def _sd(score: str, **words: Any) -> MeasureKind:
    kind = score_kind(score)
    # Half of the values at either end of the range have the largest SD.
    return MeasureKind(sd_name(score), Form.SD, score, unit=kind.unit, most=kind.width / 2, **words)


def _delta(name: str, score: str, **words: Any) -> MeasureKind:
    kind = score_kind(score)
    return MeasureKind(name, Form.DELTA, score, unit=kind.unit, most=kind.width, **words)


_POINTS = "It is in percentage points, and the SD of numbers from 0 to 100 is 50 at most"
_SHARE = "It is in percent of the test examples, from 0 to 100"
_GAIN = "It is in percentage points of accuracy, and its size is limited, whichever its sign"
_CORRELATION = "It is a correlation coefficient, without a unit, and the limit is the least that is accepted"
_LABEL_SHARE = "It is in percent of the labels of all test examples, from 0 to 100"
_NATS, _NATS_GAIN = "It is in nats, and no SD is negative", "It is in nats, and its size is limited"
_ENSEMBLE = "ens. delta"

# A row a measure; the formatter would give each word a line.
# fmt: off
_LIST = (
    _mean("accuracy", "accuracy %"),
    _sd("accuracy", why=_POINTS, title="acc. SD", counts_examples=True, is_of_flips=True),
    MeasureKind("flip_floor", Form.FLOOR, unit=" points", most=50, why=_POINTS, title="floor", is_of_flips=True),
    MeasureKind("training_sd", Form.REST),
    _sd("cross_entropy", why=_NATS, example="0.008", title="CE SD"),
    _mean("subset_accuracy", "subset acc. %"),
    _sd("subset_accuracy", why=_POINTS, title="SD", counts_examples=True),
    _mean("f1_micro", "F1 micro"),
    _sd("f1_micro", example="0.005", title="F1 SD"),
    _mean("f1_macro", "F1 macro"),
    _sd("f1_macro", example="0.005", title="F1 macro SD"),
    _mean("rmse", "RMSE"),
    _sd("rmse", title="RMSE SD"),
    _mean("perplexity", "PPL"),
    _sd("perplexity", title="PPL SD"),
    MeasureKind("disagreement", Form.DISTANCE, unit=" %", most=100, why=_SHARE, example="11.0", title="disagree %",
                counts_examples=True, is_of_flips=True, assumed_cv=0.2),
    MeasureKind("label_disagreement", Form.DISTANCE, unit=" %", most=100, why=_LABEL_SHARE, example="3.0",
                title="per label %", counts_examples=True, is_of_flips=True, assumed_cv=0.2),
    *(MeasureKind(name, Form.LIKENESS, least=-1, most=1, why=_CORRELATION, example="0.87", title="corr.", decimals=3,
                  assumed_cv=0.25) for name in ("correlation", "pearson")),
    _delta("ensemble_delta", "accuracy", why=_GAIN, example="2.0", title=_ENSEMBLE, counts_examples=True),
    _delta("cross_entropy_ensemble_delta", "cross_entropy", why=_NATS_GAIN, example="0.05"),
    _delta("subset_accuracy_ensemble_delta", "subset_accuracy", why=_GAIN, example="2.0", title=_ENSEMBLE,
           counts_examples=True),
    _delta("rmse_ensemble_delta", "rmse", title=_ENSEMBLE),
    _delta("perplexity_ensemble_delta", "perplexity", title=_ENSEMBLE),
)

#: The columns of the paper's tables: the main score first, then its SD; the main ensemble delta last.
PAPER: Mapping[TaskKind, tuple[str, ...]] = {
    TaskKind.CLASSES: ("accuracy", "accuracy_sd", "flip_floor", "cross_entropy_sd", "disagreement", "correlation",
                       "ensemble_delta"),
    TaskKind.MULTI_LABEL: ("subset_accuracy", "subset_accuracy_sd", "f1_micro", "f1_micro_sd", "cross_entropy_sd",
                           "disagreement", "correlation", "subset_accuracy_ensemble_delta"),
    TaskKind.REGRESSION: ("rmse", "rmse_sd", "correlation", "rmse_ensemble_delta"),
    TaskKind.LANGUAGE: ("perplexity", "perplexity_sd", "cross_entropy_sd", "disagreement", "correlation",
                        "perplexity_ensemble_delta"),
    TaskKind.SCORES: (),
}

#: The measures that a calibration proposes limits for, in its order; the SDs of the user's own metrics come after.
PROPOSED = ("accuracy_sd", "subset_accuracy_sd", "f1_micro_sd", "cross_entropy_sd", "rmse_sd", "disagreement",
            "correlation", "ensemble_delta", "subset_accuracy_ensemble_delta", "rmse_ensemble_delta", "perplexity_sd")
# fmt: on

#: The paper's measures, and what explains them, by name.
_KINDS = {kind.name: kind for kind in _LIST}

#: The measures that no report shows unless a test asks for them.
ON_REQUEST = frozenset({"pearson"})

#: The SD that has a floor, given by flips of single test examples, and the floor.
FLOORED, FLOOR = "accuracy_sd", "flip_floor"

#: The share of test examples that two runs predict differently.
DISAGREEMENT = "disagreement"


@functools.cache
def kind_of(name: str) -> MeasureKind:
    """Return what a measure is; one of the user's own metrics is known by the end of its name.

    >>> kind_of("accuracy_sd").unit, kind_of("f1_sd").form, kind_of("f1_ensemble_delta").score
    (' points', <Form.SD: 'SD of a score over runs'>, 'f1')
    """
    if name in _KINDS:
        return _KINDS[name]
    if name.endswith("ensemble_delta"):
        return _delta(name, name.removesuffix("_ensemble_delta"))
    return _sd(name.removesuffix("_sd")) if name.endswith("_sd") else _mean(name)


def is_built_in(name: str) -> bool:
    """Whether a measure is one of those that every task of some kind has; no returned score has such a name."""
    return name in _KINDS or name in SCORES or name.removesuffix("_sd") in SCORES


def delta_name(score: str) -> str:
    """Return the name of a score's ensemble delta: the paper's, of accuracy, is plain ``ensemble_delta``."""
    return "ensemble_delta" if score == "accuracy" else f"{score}_ensemble_delta"


def task_kind(measures: Collection[str]) -> TaskKind:
    """Tell what a task predicts by the names of its measures.

    A classification may have a perplexity too, as a metric of the user's own. Scores alone have none of the names.
    """
    return next((task for task, columns in PAPER.items() if columns[-1:] and columns[-1] in measures), TaskKind.SCORES)


#: Why a task has not the measures of another kind of task, by its kind, and how it would have them.
_WHY_MISSING = {
    TaskKind.CLASSES: "Its labels are classes; outputs='values' makes it a regression.",
    TaskKind.MULTI_LABEL: "It is a multi-label task, with several labels an example: subset_accuracy is in the place "
    "of accuracy, and metrics= adds a score of your own.",
    TaskKind.REGRESSION: "It is a regression, since its labels are floats; classes are integers, labels.long().",
    TaskKind.SCORES: "Its runs return scores alone, without predictions: outputs are measured by labels=.",
}


def why_missing(name: str, measures: Collection[str]) -> str:
    """Say why a task with these measures has not that of another kind of task; empty for a measure of no other kind.

    >>> why_missing("rmse_sd", PAPER[TaskKind.CLASSES])
    " Its labels are classes; outputs='values' makes it a regression."
    """
    task = task_kind(measures)
    is_known = name in _KINDS
    return f" {_WHY_MISSING[task]}" if is_known and task in _WHY_MISSING else ""


def check_score_name(name: object) -> None:
    """Raise `TaskError` for a name that a returned score cannot have: it would be taken for another measure."""
    why = ""
    if not isinstance(name, str) or not name.isidentifier():
        why = "is no identifier, so no budget could name it"
    elif name.endswith(("_sd", "ensemble_delta")):
        why = "ends as the names of spreads over runs do"
    elif any(map(is_built_in, (name, sd_name(name), delta_name(name)))):
        why = "is a measure of stabilitykit's own, with a unit of its own"
    if why:
        raise TaskError(
            f"Expected the name of a score, such as 'val_loss' or 'reward', but got {name!r}, which {why}. Return it "
            f"under another name."
        )


def is_own_sd(name: str, measures: Collection[str]) -> bool:
    """Whether a measure is the SD of a metric of the user's own, among the names of a task's measures."""
    kind = kind_of(name)
    return kind.is_sd and kind.score in measures and task_kind(measures) not in score_kind(kind.score).tasks


def most_beside_disagreement(percent: float) -> dict[str, float]:
    """Return the most that measures can be where two runs disagree on ``percent`` of the examples.

    Two runs' accuracies differ by no more than the share d of examples that they disagree on, and d is at most 100 %:
    the variance, half the mean square difference, is at most 50 d. Where two runs agree, so does their ensemble.

    >>> most_beside_disagreement(2.0)
    {'accuracy_sd': 10.0, 'ensemble_delta': 2.0}
    """
    return {"accuracy_sd": math.sqrt(50 * percent), "ensemble_delta": percent}


def main_score(task: TaskKind) -> ScoreKind:
    """Return the score that a task is compared by."""
    return score_kind(PAPER[task][0])
