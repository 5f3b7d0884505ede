"""Doubts about the meaning of outputs that the numbers themselves raise: a sentence each, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from .distributions import normal_quantile
from .metrics import Runs, cross_entropy, flatten_examples, percent_right, predictions
from .reading import FIRST_ROWS, Reading

#: Error rate of the bound that accuracy at chance stays below, over all runs of a study together.
_ERROR = 0.01

#: Standard deviations by which a reading must be right more often than another, in every run: no chance gives five.
_FAR = 5.0

#: How far the sum of a row may be from 1, or from 100, for its numbers to be taken for what was meant as shares.
_NEARLY = 0.02

#: The fewest runs with equal outputs that are asked about.
_SEVERAL = 3


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
    right, guessed = (percent_right(predicted, labels) / 100).tolist(), _shares(labels, classes)
    most = float(guessed.max()) + normal_quantile(1 - _ERROR / runs) * 0.5 / math.sqrt(len(labels))
    if sum(share <= most for share in right) < min(2, runs):  # above any chance, whatever they predict
        return ""
    shares = [_shares(of_run, classes) for of_run in predicted]
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


def mean_doubt(rmse: Tensor, targets: Tensor) -> str:
    """Say that no run predicts better than the mean of the targets; empty where one does, or where nothing can tell.

    Errors ``[R]`` and targets ``[N, ...]`` in. A run is better if it leaves less of the variance than the best multiple
    of a prediction that has nothing to do with the targets would, by a normal bound. With too few examples that
    bound tells nothing.

    >>> targets = torch.tensor([1.0, 2.0]).repeat(100)
    >>> print(mean_doubt(torch.tensor([0.5, 0.501]), targets))
    no run predicts better than the mean of the labels: RMSE 0.5 to 0.501, where the mean gives 0.5 (error rate 1 %). \
Does the loss compare each output with its own label (shapes [N, 1] and [N] compare each with every label), or has \
training learnt nothing yet?
    >>> mean_doubt(torch.tensor([0.1, 0.501]), targets)
    ''
    """
    targets = targets.double()
    of_mean = (targets - targets.mean(0)).square().mean().sqrt()
    explained = normal_quantile(1 - _ERROR / len(rmse)) ** 2 / len(targets)
    if of_mean == 0 or explained >= 0.5 or bool((rmse.square() < (1 - explained) * of_mean.square()).any()):
        return ""
    return (
        f"no run predicts better than the mean of the labels: RMSE {float(rmse.min()):.3g} to {float(rmse.max()):.3g}, "
        f"where the mean gives {float(of_mean):.3g} (error rate {100 * _ERROR:g} %). Does the loss compare each output "
        f"with its own label (shapes [N, 1] and [N] compare each with every label), or has training learnt nothing yet?"
    )


def scale_doubt(reading: Reading) -> str:
    """Say that outputs of classes were taken for logits though they look like probabilities; empty if they do not.

    They do if all are in [0, 1], or if none is negative and every row sums to nearly 1, or to 100 as percentages do.

    >>> from stabilitykit.estimates.meaning import Meaning
    >>> outputs = torch.tensor([[0.2, 0.7], [0.5, 0.501]])
    >>> print(scale_doubt(Reading([outputs], Meaning.of(torch.tensor([1, 0])))))
    the outputs are from 0.2 to 0.7, with row sums from 0.9 to 1.001: taken for logits, since probabilities sum to 1. \
If they are probabilities, divide each row by its sum and say outputs='probabilities'; outputs='logits' says that they \
are logits
    """
    meaning = reading.meaning
    if not meaning.is_classes or meaning.stated is not None or reading.has_one_output or reading.scale != "logits":
        return ""
    if not _are_nearly_shares(*_ranges([run[:FIRST_ROWS] for run in reading.logits])):  # most logits show it here
        return ""
    numbers, sums = _ranges(reading.logits)
    if not _are_nearly_shares(numbers, sums):
        return ""
    return (
        f"the outputs are from {numbers[0]:.4g} to {numbers[1]:.4g}, with row sums from {sums[0]:.7g} to "
        f"{sums[1]:.7g}: taken for logits, since probabilities sum to 1. If they are probabilities, divide each row by "
        f"its sum and say outputs='probabilities'; outputs='logits' says that they are logits"
    )


def _ranges(runs: Runs) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the least and the largest number ``[M, C]`` of all runs, and the same of the sums of their rows."""
    sums = [run.sum(-1, dtype=torch.float64) for run in runs]
    return _range_of(runs), _range_of(sums)


def _range_of(runs: Runs) -> tuple[float, float]:
    return min(float(run.min()) for run in runs), max(float(run.max()) for run in runs)


def _are_nearly_shares(numbers: tuple[float, float], sums: tuple[float, float]) -> bool:
    if numbers[0] < 0 or sums[1] == 0:  # where all are 0 the model says nothing, on any scale
        return False
    return numbers[1] <= 1 or any(
        whole * (1 - _NEARLY) <= sums[0] and sums[1] <= whole * (1 + _NEARLY) for whole in (1, 100)
    )


def one_answer_doubt(predicted: Tensor, reading: Reading) -> str:
    """Say that all runs answer every yes or no alike; empty where they do not, and where all labels are so.

    Answers of 0 and 1 in, of any shape.

    >>> from stabilitykit.estimates.meaning import Meaning
    >>> outputs, labels = torch.tensor([[-0.1, -3.0]]), torch.tensor([[True, False]])
    >>> print(one_answer_doubt(torch.zeros(2, 2), Reading([outputs, outputs], Meaning.of(labels))))
    no example gets a label in any of 2 runs: the outputs are from -3 to -0.1, and a logit above 0 is a yes. Numbers \
that are never above 0 may be log-probabilities: return logits, or say outputs='log_probabilities'
    """
    answer = int(predicted.flatten()[0])
    if bool((predicted != answer).any()) or bool((reading.labels == answer).all()):
        return ""
    meaning, (given, _) = reading.meaning, reading.given
    if meaning.is_classes:
        found = f"every example gets class {answer} in all {len(given)} runs"
    elif answer:
        found = f"every example gets every label in all {len(given)} runs"
    else:
        found = f"no example gets a label in any of {len(given)} runs"
    least, most = _range_of(given)
    yes = "a probability above 0.5" if reading.scale == "probabilities" else "a logit above 0"
    cause = ""
    if most <= 0 and reading.scale == "logits" and meaning.stated != "logits":
        labels = "give labels.bool() and " * (meaning.stated == "multi_label")
        cause = (
            f". Numbers that are never above 0 may be log-probabilities: return logits, or {labels}say "
            f"outputs='log_probabilities'"
        )
    return f"{found}: the outputs are from {least:.3g} to {most:.3g}, and {yes} is a yes{cause}"


def shared_outputs_doubt(outputs: Runs, trained: Sequence[object]) -> str:
    """Say that three runs or more gave equal outputs though what they trained differs; empty where none did.

    What each run trained is compared for equality. Whole numbers raise no doubt: models may well agree on all classes.

    >>> shared_outputs_doubt([torch.tensor([0.1, 0.7])] * 3, ["one", "one", "one"])
    ''
    >>> print(shared_outputs_doubt([torch.tensor([0.1, 0.7])] * 3, ["one", "two", "three"]))
    all 3 runs gave the same outputs bit for bit, though they trained other weights: does the function return the \
outputs of another run's model, kept in a global or a file, or do the weights that differ reach no output?
    """
    groups: list[list[int]] = []
    for run, given in enumerate(outputs):
        same = next((group for group in groups if torch.equal(outputs[group[0]], given)), None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    group = max(groups, key=len, default=[])
    if len(group) < _SEVERAL or len({trained[run] for run in group}) == 1 or _are_whole(outputs[group[0]]):
        return ""
    which = f"all {len(outputs)} runs" if len(group) == len(outputs) else f"{len(group)} of {len(outputs)} runs"
    which += "" if len(group) == len(outputs) else f" ({_listed(group)})"
    return (
        f"{which} gave the same outputs bit for bit, though they trained other weights: does the function return the "
        f"outputs of another run's model, kept in a global or a file, or do the weights that differ reach no output?"
    )


def _are_whole(numbers: Tensor) -> bool:
    return bool((numbers == numbers.round()).all())


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
