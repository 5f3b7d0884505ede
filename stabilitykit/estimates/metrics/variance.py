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


def floor_of_churn(percent: float, examples: int) -> float:
    r"""SD that accuracy would have if each example flipped between right and wrong on its own, percentage points.

    .. math:: \sqrt{\sum_n \operatorname{var}_r(C_{rn})} / N

    Its square is the mean `churn` of a pair, ``percent``, over 2N. So it is known far better than the SD of accuracy
    is: from 5 runs to a few percent, where that is known to a third.

    >>> floor_of_churn(25.0, examples=4)
    17.67766952966369
    """
    return math.sqrt(50 * percent / examples)  # 100^2 * (percent / 100) / (2 * examples)


def excess_of(sd: float, floor: float, runs: int) -> float:
    """Probability of an accuracy SD as large as this one, if examples flipped independently of each other.

    SD and flip floor over R runs in points in, between 0 and 1 out: a chi-square test with R - 1 degrees of freedom of
    one against the other. A small one says that whole models are better or worse. 1 where no example flips at all.

    >>> round(excess_of(sd=0.30, floor=0.20, runs=10), 3)
    0.016
    """
    return 1.0 if sd == 0 else chi2_tail((runs - 1) * (sd / floor) ** 2, runs - 1)
