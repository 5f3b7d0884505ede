"""A second author of the flip floor, and of what is left above it: from the correctness of single examples.

Jordan, *On the Variance of Neural Network Training with respect to Test Sets and Distributions* (ICLR 2024). Booleans
``[R, N]`` in, or R times ``[N]``; SDs are in percentage points, variances in points squared. The package computes the
same from the churn of pairs (`stabilitykit.estimates.flip_floor`).
"""

from __future__ import annotations

import math

import torch

from stabilitykit.estimates.metrics import Runs, excess_of


def flip_floor(correct: Runs) -> float:
    r"""SD that accuracy would have if each example flipped between right and wrong on its own, percentage points.

    .. math:: \sqrt{\sum_n \operatorname{var}_r(C_{rn})} / N

    Booleans ``[R, N]`` in, 0 or more out. Its square is the mean `churn` of a pair over 2N, so it is known far better
    than the SD of accuracy is: from 5 runs to a few percent, where that is known to a third.

    """
    return math.sqrt(_floor_variance(correct))


def distribution_variance(correct: Runs) -> float:
    r"""Variance of accuracy between trainings on test data without end, points squared, without bias.

    .. math:: (s^2 - \text{floor}^2) \frac{N}{N - 1}

    Booleans ``[R, N]`` in; s is the SD of the R accuracies. It is the mean covariance of two examples' correctness, and
    may come out negative where that is near 0. Its error is that of s squared: a diagnosis, nothing to judge by.

    """
    examples = len(correct[0])
    if examples < 2:
        return math.nan
    return (_accuracy_variance(correct) - _floor_variance(correct)) * examples / (examples - 1)


def excess_probability(correct: Runs) -> float:
    """Probability of an accuracy SD as large as this one, if examples flipped independently of each other.

    Booleans ``[R, N]`` in, between 0 and 1 out: a chi-square test with R - 1 degrees of freedom of the SD against
    `flip_floor`. A small one says that whole models are better or worse. 1 where no example flips at all.

    """
    return excess_of(math.sqrt(_accuracy_variance(correct)), flip_floor(correct), len(correct))


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
