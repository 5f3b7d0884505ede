"""R runs' outputs on one scale: logits of the examples that count, whatever the runs returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from .meaning import Meaning
from .metrics import Runs, flatten_examples
from .scores import TaskKind

#: Rows that are looked at before all others: most outputs that are no probabilities show it at once.
FIRST_ROWS = 256

#: What is said of a scale that was found and not stated.
_FOUND = {
    "probabilities": "the outputs are probabilities, {why}: scored by their logarithms; outputs='logits' would take "
    "them for logits",
    "log_probabilities": "the outputs are log-probabilities, whose exponentials sum to 1: logits as they are",
}


class Reading:
    """The outputs of R runs, and the one scale on which all of them are read.

    Probabilities become log-probabilities, which are logits. A single output z of two classes becomes the two logits
    0 and z. Several labels an example keep one logit each.

    >>> runs = [torch.tensor([[0.25, 0.75]]), torch.tensor([[0.5, 0.5]])]
    >>> reading = Reading(runs, Meaning.of(torch.tensor([1])))
    >>> reading.scale, [run.exp().tolist() for run in reading.logits]
    ('probabilities', [[[0.25, 0.75]], [[0.5, 0.5]]])
    """

    def __init__(self, outputs: Sequence[Tensor], meaning: Meaning) -> None:
        """Take R times ``[N, ..., C]``, or as many numbers as there are labels; nothing is copied or read yet."""
        self.meaning = meaning
        self._whole = [self._in_shape(run) for run in outputs]
        self.labels = meaning.labels  #: of the examples that count, ``[M]``; ``[N, L]`` or ``[N, ...]`` of other tasks
        self._kept: Runs = self._whole
        if meaning.is_classes:
            self._kept, self.labels = flatten_examples(self._whole, meaning.labels)

    @cached_property
    def scale(self) -> str:
        """What the outputs of classes are: as stated, or as every run's outputs show."""
        stated = self.meaning.stated
        if stated in _FOUND or stated == "logits" or self.meaning.kind is TaskKind.REGRESSION:
            return stated if stated in _FOUND else "logits"
        rows = [run.unsqueeze(-1) for run in self._whole] if self.is_yes_or_no else self._kept
        if len(rows) and all(are_probabilities(run) for run in rows):
            return "probabilities"
        return "log_probabilities" if len(rows) and all(are_log_probabilities(run) for run in rows) else "logits"

    @property
    def said(self) -> str:
        """How the outputs were taken, where nobody said what they are; empty for logits."""
        if self.meaning.stated in (self.scale, "values") or self.scale not in _FOUND:
            return ""
        why = "all of them in [0, 1]" if self.is_yes_or_no else "each row in [0, 1] with the sum 1"
        return _FOUND[self.scale].format(why=why)

    @property
    def word(self) -> str | None:
        """What may be stated of the outputs now that they are read; None for logits, which need no word."""
        return self.scale if self.scale in _FOUND else None

    @cached_property
    def logits(self) -> Runs:
        """The logits ``[M, C]`` of each run, of the examples that count; of other tasks their outputs ``[N, ...]``."""
        if self.scale == "logits" and not self.has_one_output:
            return self._kept
        return [self._logits_of(run) for run in self._kept]

    def whole(self) -> list[Tensor]:
        """Return the logits ``[N, ..., C]`` of each run, of all examples."""
        return [self._logits_of(run) for run in self._whole]

    @property
    def given(self) -> tuple[Runs, Tensor]:
        """Outputs and labels as the task has them, without the examples that do not count."""
        labels = self.meaning.given
        if self.meaning.is_classes and labels.is_floating_point() and self.has_one_output:
            return [run.reshape(labels.shape) for run in self._whole], labels
        if self.meaning.is_classes and not labels.is_floating_point():
            return [run.squeeze(-1) for run in self._kept] if self.has_one_output else self._kept, self.labels
        return self._whole, labels

    @property
    def may_have_other_axis(self) -> bool:
        """Whether the shape cannot tell classes last from classes second, ``[N, C, ...]`` as torch's losses want it."""
        return self.meaning.is_classes and self.meaning.labels.dim() > 1 and len({*self._whole[0].shape[1:]}) == 1

    def additive(self) -> list[Tensor]:
        """Return the outputs of each run, in the shape in which they came, on a scale on which a mean has a meaning."""
        return [self._additive(run) for run in self._whole]

    def back(self, additive: Tensor) -> Tensor:
        """Return what `additive` gave, or a mean of it, on the scale on which the outputs came."""
        if self.scale == "probabilities":
            additive = additive.sigmoid() if self.is_yes_or_no else additive.softmax(-1)
        elif self.scale == "log_probabilities":
            logsigmoid = torch.nn.functional.logsigmoid
            additive = logsigmoid(additive) if self.is_yes_or_no else additive.log_softmax(-1)
        return additive.squeeze(-1) if self.has_one_output else additive

    def _in_shape(self, run: Tensor) -> Tensor:
        """Give a run with one output for each of two classes an axis of its own for it, ``[N, ..., 1]``."""
        labels = self.meaning.labels
        if not self.meaning.is_classes or run.numel() != labels.numel() or int(labels.max()) > 1:
            return run
        return run.reshape(*labels.shape, 1)

    @property
    def has_one_output(self) -> bool:
        """Whether a single output tells two classes apart."""
        return self.meaning.is_classes and bool(self._whole) and self._whole[0].shape[-1] == 1

    @property
    def is_yes_or_no(self) -> bool:
        """Whether each output answers a question of its own."""
        return self.has_one_output or self.meaning.kind is TaskKind.MULTI_LABEL

    def _additive(self, run: Tensor) -> Tensor:
        if self.scale == "logits":
            return run
        exact = run.double()  # where two probabilities near 1 differ, a float32 could not tell their logarithms apart
        if not self.is_yes_or_no:
            return exact.log() if self.scale == "probabilities" else run
        return exact.logit() if self.scale == "probabilities" else exact - (-exact.expm1()).log()

    def _logits_of(self, run: Tensor) -> Tensor:
        if not self.has_one_output:
            return self._additive(run)
        if self.scale == "probabilities":  # not by way of z, which has no size where a class is certain
            exact = run.double()
            return torch.cat([(-exact).log1p(), exact.log()], dim=-1)
        return torch.nn.functional.pad(self._additive(run), (1, 0))


def mean_outputs(outputs: Sequence[Tensor], meaning: Meaning) -> Tensor:
    """Return the mean of several models' outputs, taken of their logits and given back on the scale that they have.

    >>> one, other = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.5, 0.5]])
    >>> mean_outputs([one, other], Meaning.of(torch.tensor([0])))  # odds of 9 and of 1: their geometric mean is 3
    tensor([[0.7500, 0.2500]])
    """
    reading = Reading(outputs, meaning)
    return reading.back(torch.stack(reading.additive()).mean(0)).to(outputs[0].dtype)


def are_probabilities(run: Tensor) -> bool:
    """Whether outputs ``[..., C]`` are in [0, 1], with rows that sum to 1 where there are several in a row.

    >>> are_probabilities(torch.tensor([[0.2, 0.8], [1.0, 0.0]])), are_probabilities(torch.tensor([[0.2, 0.9]]))
    (True, False)
    """
    return _all_rows(run, _are_shares)


def are_log_probabilities(run: Tensor) -> bool:
    """Whether outputs ``[..., C]``, with C of 2 or more, are at most 0, and their exponentials sum to 1 in each row.

    >>> are_log_probabilities(torch.randn(5, 3).log_softmax(-1)), are_log_probabilities(-torch.ones(5, 3))
    (True, False)
    """
    return run.shape[-1] > 1 and _all_rows(run, _are_logs_of_shares)


def _all_rows(run: Tensor, are: Callable[[Tensor], bool]) -> bool:
    rows = run.reshape(-1, run.shape[-1])
    return are(rows[:FIRST_ROWS]) and are(rows)


def _are_shares(rows: Tensor) -> bool:
    if not bool(((rows >= 0) & (rows <= 1)).all()):  # not so of NaN either
        return False
    return rows.shape[-1] == 1 or _sum_to_one(rows, _rounding(rows))


def _are_logs_of_shares(rows: Tensor) -> bool:
    slack = _rounding(rows)  # the logarithm of a sum that is rounded up may be above 0
    return bool((rows <= slack).all()) and _sum_to_one(rows.double().exp(), slack)


def _sum_to_one(rows: Tensor, rounding: float) -> bool:
    return bool(((rows.double().sum(-1) - 1).abs() <= rounding).all())


def _rounding(rows: Tensor) -> float:
    """How far the sum of a row of probabilities may be from 1, by the type that they were computed in.

    Half precision is stored as float32: it is known by what it can hold.
    """
    for coarse, rounding in ((torch.bfloat16, 2**-7), (torch.float16, 2**-9)):
        if torch.equal(rows.to(coarse).to(rows.dtype), rows):
            return rounding
    return min(2**-9, max(64, rows.shape[-1]) * 2**-23)
