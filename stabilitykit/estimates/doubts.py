"""Doubts about the meaning of outputs that the numbers themselves raise: a sentence each, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .distributions import normal_quantile
from .metrics import cross_entropy, flatten_examples, percent_right, predictions
from .reading import Reading

#: Error rate of the bound that accuracy at chance stays below, over all runs of a study together.
_ERROR = 0.01

#: Standard deviations by which a reading must be right more often than another, in every run: no chance gives five.
_FAR = 5.0


def chance_doubt(predicted: Tensor, labels: Tensor) -> str:
    """Say that runs are at chance, and ask what that comes from; empty where they are not, or where nothing can tell.

    Classes ``[R, M]`` and ``[M]`` in. A run is at chance if its accuracy is not above that of its own predictions dealt
    out to the examples at random, by a binomial bound. With too few examples that bound tells nothing: it has to be
    nearer to chance than to 100 %.

    >>> labels, draws = torch.arange(300) % 3, torch.Generator().manual_seed(0)
    >>> print(chance_doubt(torch.randint(3, (4, 300), generator=draws), labels))
    accuracy is at chance in all 4 runs: 31 to 36 %, where dealing out the same predictions at random gives 33 % \
(binomial bound, error rate 1 %), and two runs agree no more often than independent guesses. Is the test set the same \
in every run, and in the order of the labels?
    >>> chance_doubt(labels.expand(4, -1), labels)
    ''
    """
    runs, classes = len(predicted), 1 + int(max(predicted.max(), labels.max()))
    shares = [_shares(of_run, classes) for of_run in predicted]
    right, guessed = (percent_right(predicted, labels) / 100).tolist(), _shares(labels, classes)
    chance = [float(share @ guessed) for share in shares]
    at_chance = [run for run in range(runs) if _is_chance(right[run], chance[run], len(labels), runs)]
    if len(at_chance) < min(2, runs):
        return ""
    equal = [(float((predicted[i] == predicted[j]).double().mean()), i, j) for i, j in pairwise(at_chance)]
    independent = all(_is_chance(same, float(shares[i] @ shares[j]), len(labels), runs) for same, i, j in equal)
    if len(at_chance) < runs and not independent:  # single runs that diverged say so in the spread
        return ""
    found = [100 * right[run] for run in at_chance]
    which = f"all {runs} runs" if len(at_chance) == runs else f"{len(at_chance)} of {runs} runs ({_listed(at_chance)})"
    return (
        f"accuracy is at chance in {which}: {min(found):.0f} to {max(found):.0f} %, where dealing out the same "
        f"predictions at random gives {100 * sum(chance[run] for run in at_chance) / len(at_chance):.0f} % (binomial "
        f"bound, error rate {100 * _ERROR:g} %)"
    ) + (_MOVES if independent and len(at_chance) > 1 else _LEARNT_NOTHING)


_MOVES = (
    ", and two runs agree no more often than independent guesses. Is the test set the same in every run, and in the "
    "order of the labels?"
)
_LEARNT_NOTHING = ". Are the labels in the order of the outputs, or has training learnt nothing yet?"


def axis_doubt(reading: Reading) -> str:
    """Say that the classes seem to be on axis 1, where the shape ``[N, C, ..., C]`` cannot tell; empty if they do not.

    They seem to be where more answers are right on axis 1 than on the last one, by five standard deviations, and its
    cross-entropy is lower, in every run.
    """
    whole, labels = reading.whole(), reading.meaning.labels
    found = [(_Answers(run, labels), _Answers(run.movedim(1, -1), labels)) for run in whole]
    if not all(other.is_far_better_than(last) for last, other in found):
        return ""
    last, other = found[0]
    return (
        f"the classes seem to be on axis 1 of the outputs {list(whole[0].shape)}, where torch's losses want them: run "
        f"0 has {other.words} there, and {last.words} on the last axis, which is scored. If so, return "
        f"outputs.movedim(1, -1)"
    )


class _Answers:
    """What one run answers if its classes are on the last axis."""

    def __init__(self, logits: Tensor, labels: Tensor) -> None:
        runs, classes = flatten_examples([logits], labels)
        self.right = predictions(runs)[0] == classes
        self.cross_entropy = float(cross_entropy(runs, classes))

    def is_far_better_than(self, other: _Answers) -> bool:
        alone, others = (int((one & ~two).sum()) for one, two in ((self.right, other.right), (other.right, self.right)))
        return alone - others > _FAR * math.sqrt(alone + others) and self.cross_entropy < other.cross_entropy

    @property
    def words(self) -> str:
        return f"accuracy {100 * float(self.right.double().mean()):.1f} % and cross-entropy {self.cross_entropy:.3g}"


def _shares(classes: Tensor, count: int) -> Tensor:
    return torch.bincount(classes.long(), minlength=count).double() / len(classes)


def _is_chance(share: float, chance: float, examples: int, runs: int) -> bool:
    """Whether a share of equal answers is not above chance, and would be seen to be if it were half way to 100 %."""
    bound = chance + normal_quantile(1 - _ERROR / runs) * math.sqrt(chance * (1 - chance) / examples)
    return share <= bound < (1 + chance) / 2


def _listed(runs: Sequence[int], most: int = 5) -> str:
    return f"run {', '.join(map(str, runs[:most]))}{', ...' if len(runs) > most else ''}"
