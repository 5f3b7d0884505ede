"""The flip list: the test examples and classes whose prediction changes most from run to run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..errors import TaskError
from ..estimates.metrics import IGNORED_LABEL
from ..estimates.metrics.runs import Array
from ..render.columns import aligned

Integers: TypeAlias = npt.NDArray[np.int64]

#: Bytes of predictions that are sorted at once.
_BLOCK_BYTES = 8 * 2**20

#: Most examples in the JSON report; also most classes, if there are more than `_ALL_CLASSES`.
_TOP = 20
_ALL_CLASSES = 100


@dataclass(frozen=True)
class FlippedExample:
    """A test example on which runs disagree."""

    index: int | tuple[int, ...]  #: into the labels as the task has them; a tuple where they have several dimensions
    label: int
    predicted: Mapping[int, int]  #: class to the number of runs that predict it, most runs first
    disagreement: float  #: percent of the pairs of runs that disagree on the example

    def to_json(self) -> dict[str, Any]:
        """Return every field in JSON's types: counts as ``[class, runs]``, an index of several numbers as a list."""
        index = list(self.index) if isinstance(self.index, tuple) else self.index
        return vars(self) | {"index": index, "predicted": [list(count) for count in self.predicted.items()]}


@dataclass(frozen=True)
class FlippedClass:
    """The test examples of one label."""

    label: int
    examples: int  #: number of examples with this label
    disagreement: float  #: percent of the pairs of runs that disagree on an example, on average
    confused_with: int | None  #: the other class that runs which differ answer most often; None if they never differ


class Flips:
    """Which test examples, and which classes, two runs disagree on; `print` it.

    Classes ``[R, M]`` of the examples that count, as `Measures.predicted`, and labels ``[N, ...]``, some maybe -100.

    >>> import torch
    >>> predicted = torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2], [0, 1, 2, 0]])
    >>> flips = Flips(predicted, labels=torch.tensor([0, 1, 1, 2]))
    >>> flips.examples(top=1)
    [FlippedExample(index=2, label=1, predicted={2: 2, 1: 1}, disagreement=66.66666666666667)]
    >>> print(flips)
    two of 3 runs disagree on 33.33 % of the predictions; on 2 of 4 examples they ever do
    half of it comes from 25 % of the examples
    example  label  runs disagree  predicted (runs)
    2            1         66.7 %  2 (2), 1 (1)
    3            2         66.7 %  2 (2), 0 (1)
    class  examples  runs disagree  mostly with
    2             1         66.7 %  0
    1             2         33.3 %  2
    """

    def __init__(self, predicted: Tensor, labels: Tensor) -> None:
        """Take predictions and labels, to count in when first asked; only the labels are copied."""
        self._predicted: Array = predicted.detach().cpu().numpy()
        self._shape = tuple(labels.shape)
        flat = labels.detach().cpu().flatten().numpy()
        self._kept: Integers = np.flatnonzero(flat != IGNORED_LABEL)
        self._labels: Integers = flat[self._kept].astype(np.int64)
        self.runs: int = self._predicted.shape[0]  #: R
        self.count: int = self._predicted.shape[1]  #: M
        self._pairs: int = self.runs * (self.runs - 1) // 2

    @property
    def disagreement(self) -> float:
        """Percent of the predictions that differ between two runs, on average: a study's ``disagreement.value``."""
        return self._percent(int(self._flips.sum()), self.count)

    @property
    def flipping(self) -> int:
        """Count the examples on which any two runs disagree."""
        return int(np.count_nonzero(self._flips))

    @property
    def half(self) -> float:
        """The least percent of the examples from which half of the disagreement comes; 0 where runs never disagree."""
        total = int(self._flips.sum())
        if total == 0:
            return 0.0
        from_most = np.cumsum(self._flips[self._order])
        return 100.0 * (int(np.searchsorted(2 * from_most, total)) + 1) / self.count

    def examples(self, top: int = _TOP) -> list[FlippedExample]:
        """Return the ``top`` examples by pairs of runs that disagree on them, the most first; ties by index."""
        return [self._example(i) for i in self._order[:top].tolist() if self._flips[i]]

    def classes(self, top: int | None = None) -> list[FlippedClass]:
        """Return the ``top`` labels, or all, by the mean disagreement on their examples, the most first."""
        labels, place, counts = np.unique(self._labels, return_inverse=True, return_counts=True)
        flips = np.bincount(place, weights=self._flips, minlength=len(labels))  # whole numbers, far below 2^53
        order = np.argsort(-flips / counts, kind="stable")[:top]
        rows = zip(*(column[order].tolist() for column in (labels, counts, flips)), strict=True)
        return [
            FlippedClass(label, count, self._percent(int(flips), count), self._confused.get(label))
            for label, count, flips in rows
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the object of the report: the first 20 examples, and all classes or, beyond 100, the first 20."""
        found, examples = self.classes(), [example.to_json() for example in self.examples()]
        classes = [dict(vars(one)) for one in found[: None if len(found) <= _ALL_CLASSES else _TOP]]
        shares = {"disagreement": self.disagreement, "examples_that_flip": self.flipping}
        return {**shares, "half_from_percent": self.half, "examples": examples, "classes": classes}

    def lines(self, top: int = 5) -> list[str]:
        """Return the text, with ``top`` examples and as many classes."""
        if not self.flipping:
            return [f"{self.runs} runs agree on every one of {self.count} examples"]
        examples = [["example", "label", "runs disagree", "predicted (runs)"]]
        for e in self.examples(top):
            predicted = ", ".join(f"{name} ({runs})" for name, runs in list(e.predicted.items())[:4])
            more = ", ..." if len(e.predicted) > 4 else ""
            examples.append([str(e.index), str(e.label), f"{e.disagreement:.1f} %", predicted + more])
        classes = [["class", "examples", "runs disagree", "mostly with"]]
        classes += [
            [str(c.label), str(c.examples), f"{c.disagreement:.1f} %", str(c.confused_with)]
            for c in self.classes(top)
            if c.confused_with is not None
        ]
        share = f"two of {self.runs} runs disagree on {self.disagreement:.2f} % of the predictions"
        return [
            f"{share}; on {self.flipping} of {self.count} examples they ever do",
            f"half of it comes from {self.half:.2g} % of the examples",
            *aligned(examples, "<>><"),
            *aligned(classes, "<>><"),
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        """Show the sizes alone, since test failures show this text."""
        return f"Flips(runs={self.runs}, examples={self.count})"

    @cached_property
    def _flips(self) -> Integers:
        """Number of pairs of runs that disagree on each example."""
        flips = np.empty(self.count, dtype=np.int64)
        for start, answers in self._sorted_blocks():
            # A run's place among the runs of its answer is the number of pairs that it makes with those before it.
            new = np.ones(answers.shape, dtype=bool)
            new[1:] = answers[1:] != answers[:-1]
            place = np.arange(self.runs)[:, None]
            first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
            agreeing = (place - first).sum(axis=0)
            flips[start : start + answers.shape[1]] = self._pairs - agreeing
        return flips

    @cached_property
    def _order(self) -> Integers:
        return np.argsort(-self._flips, kind="stable")

    @cached_property
    def _confused(self) -> dict[int, int]:
        """By label, the other class that is most often one of two differing answers."""
        classes = int(max(self._predicted.max(), self._labels.max())) + 1
        keys, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
        flipping = np.flatnonzero(self._flips)
        for start, answers in self._sorted_blocks(flipping):
            labels = self._labels[flipping[start : start + answers.shape[1]]]
            here, runs = np.unique((np.arange(len(labels)) * classes + answers).ravel(), return_counts=True)
            example, answer = np.divmod(here, classes)
            keys = np.concatenate([keys, labels[example] * classes + answer])
            counts = np.concatenate([counts, runs * (self.runs - runs)])
            keys, place = np.unique(keys, return_inverse=True)
            counts = np.bincount(place, weights=counts).astype(np.int64)
        label, answer = np.divmod(keys, classes)
        others = np.flatnonzero(label != answer)
        best = others[np.lexsort((answer[others], -counts[others]))]
        # Reversed, so that the first of each label stays.
        return dict(zip(label[best][::-1].tolist(), answer[best][::-1].tolist(), strict=True))

    def _sorted_blocks(self, some: Integers | None = None) -> Iterator[tuple[int, Integers]]:
        """Yield the answers of all runs, sorted within each example, for a block of examples at a time."""
        count = self.count if some is None else len(some)
        size = max(1, _BLOCK_BYTES // (8 * self.runs))
        for start in range(0, count, size):
            chosen = slice(start, start + size) if some is None else some[start : start + size]
            yield start, np.sort(self._predicted[:, chosen], axis=0).astype(np.int64)

    def _example(self, i: int) -> FlippedExample:
        answers, runs = np.unique(self._predicted[:, i], return_counts=True)
        counts = sorted(zip(answers.tolist(), runs.tolist(), strict=True), key=lambda count: (-count[1], count[0]))
        place = tuple(int(n) for n in np.unravel_index(self._kept[i], self._shape))
        index = place if len(place) > 1 else place[0]
        return FlippedExample(index, int(self._labels[i]), dict(counts), self._percent(int(self._flips[i]), 1))

    def _percent(self, flips: int, examples: int) -> float:
        return 100.0 * flips / (self._pairs * examples)


def check_has_flips(labels: Tensor) -> None:
    """Raise `TaskError` for a regression, whose outputs are not classes."""
    if labels.is_floating_point():
        raise TaskError(
            "Expected a classification but this study is a regression: its labels are floating-point targets, and two "
            "outputs are hardly ever equal, so every example would flip. Look at correlation and rmse_sd instead."
        )
