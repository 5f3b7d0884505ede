"""Where the spread of accuracy comes from: examples that flip on their own, or models that are better or worse.

Jordan, *On the Variance of Neural Network Training with respect to Test Sets and Distributions* (ICLR 2024, arXiv
2304.01910). Correctness ``[R, N]`` of R models on N test examples goes in, as booleans, or R times ``[N]``. SDs are
in percentage points, variances in points squared.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..distributions import chi2_tail
from .pairwise import disagreement
from .runs import Runs


def correctness(predictions: Tensor, labels: Tensor) -> Tensor:
    """Whether each model is right about each example: classes ``[R, N]`` and ``[N]`` in, booleans ``[R, N]`` out.

    >>> correctness(torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 1]))
    tensor([[ True,  True],
            [False,  True]])
    """
    return predictions == labels


def churn(correct: Runs) -> Tensor:
    """Percentage of examples that one of two models gets right and the other does not.

    Booleans ``[R, N]`` in, float64 ``[R, R]`` in percent out, between 0 and 100; the diagonal is 0. It is at most the
    `disagreement`, which also counts two wrong answers that differ.

    >>> churn(torch.tensor([[True, True, False, False], [True, False, False, False]]))
    tensor([[ 0., 25.],
            [25.,  0.]], dtype=torch.float64)
    """
    return disagreement([run.to(torch.uint8) for run in correct])


def flip_floor(correct: Runs) -> float:
    r"""SD that accuracy would have if each example flipped between right and wrong on its own, percentage points.

    .. math:: \sqrt{\sum_n \operatorname{var}_r(C_{rn})} / N

    Booleans ``[R, N]`` in, 0 or more out. Its square is the mean `churn` of a pair over 2N, so it is known far better
    than the SD of accuracy is: from 5 runs to a few percent, where that is known to a third.

    >>> flip_floor(torch.tensor([[True, True, False, False], [True, False, False, False]]))
    17.67766952966369
    """
    return math.sqrt(_floor_variance(correct))


def floor_of_churn(percent: float, examples: int) -> float:
    """`flip_floor` of N test examples of which ``percent`` differ in correctness between two models: points.

    >>> floor_of_churn(25.0, examples=4)
    17.67766952966369
    """
    return math.sqrt(50 * percent / examples)  # 100^2 * (percent / 100) / (2 * examples)


def distribution_variance(correct: Runs) -> float:
    r"""Variance of accuracy between trainings on test data without end, points squared, without bias.

    .. math:: (s^2 - \text{floor}^2) \frac{N}{N - 1}

    Booleans ``[R, N]`` in; s is the SD of the R accuracies. It is the mean covariance of two examples' correctness, and
    may come out negative where that is near 0. Its error is that of s squared: a diagnosis, nothing to judge by.

    >>> correct = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    >>> round(distribution_variance(correct), 2)
    555.56
    """
    examples = len(correct[0])
    if examples < 2:
        return math.nan
    return (_accuracy_variance(correct) - _floor_variance(correct)) * examples / (examples - 1)


def excess_probability(correct: Runs) -> float:
    """Probability of an accuracy SD as large as this one, if examples flipped independently of each other.

    Booleans ``[R, N]`` in, between 0 and 1 out: a chi-square test with R - 1 degrees of freedom of the SD against
    `flip_floor`. A small one says that whole models are better or worse. 1 where no example flips at all.

    >>> together = torch.tensor([[True] * 20, [False] * 20, [True] * 20])  # all flip at once
    >>> round(excess_probability(together), 12)
    2.061e-09
    """
    return excess_of(math.sqrt(_accuracy_variance(correct)), flip_floor(correct), len(correct))


def excess_of(sd: float, floor: float, runs: int) -> float:
    """`excess_probability` of an accuracy SD over R runs against a flip floor, both in points.

    >>> round(excess_of(sd=0.30, floor=0.20, runs=10), 3)
    0.016
    """
    return 1.0 if sd == 0 else chi2_tail((runs - 1) * (sd / floor) ** 2, runs - 1)


def _accuracy_variance(correct: Runs) -> float:
    counts = [int(run.sum()) for run in correct]  # integers, so that equal accuracies have no variance at all
    runs, examples = len(counts), len(correct[0])
    squares = runs * sum(count * count for count in counts) - sum(counts) ** 2
    return 1e4 * squares / (runs * (runs - 1)) / examples**2


def _floor_variance(correct: Runs) -> float:
    right = torch.zeros(len(correct[0]), dtype=torch.int64)
    for run in correct:
        right += run.cpu()
    runs, examples = len(correct), len(right)
    flips = int((right * (runs - right)).sum())  # pairs of runs that differ, over all examples
    return 1e4 * flips / (runs * (runs - 1)) / examples**2
