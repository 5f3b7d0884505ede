"""How far R models are from each other: one symmetric ``[R, R]`` float64 matrix a measure."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .ranks import doubled_ranks
from .runs import Array, Runs, blocks, first_copies

#: Bytes of the float64 block that a matrix product takes at once.
_BLOCK_BYTES = 2**20

#: Bytes of ranks that are kept until all pairs are done; where the models have more, half of the models' are kept.
_RANKS_BYTES = 16 * 2**20


def disagreement(predictions: Runs) -> Tensor:
    """Percentage of examples on which two models predict different classes.

    Integer classes ``[R, N]`` in, or R times ``[N]``; float64 ``[R, R]`` from 0 to 100 percent out; the diagonal is 0.

    >>> disagreement(torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2]]))
    tensor([[ 0., 25.],
            [25.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("average disagreement between pairs of models").
    """
    runs = [_compact(run) for run in predictions]
    differing = np.zeros((len(runs), len(runs)))
    for i, one in enumerate(runs):
        differing[i, i + 1 :] = [np.count_nonzero(one != other) for other in runs[i + 1 :]]
    return torch.from_numpy((differing + differing.T) * 100.0 / len(runs[0])).to(predictions[0].device)


def spearman(outputs: Runs) -> Tensor:
    """Spearman's rank correlation of the outputs of two models; equal outputs share their mean rank.

    Outputs ``[R, M]`` in, or R tensors of any one shape: all numbers of a model count. Float64 ``[R, R]`` out, between
    -1 and 1; the diagonal is 1. A model that is constant or has a NaN has no correlation: its entries are NaN.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0, 40.0]]))
    tensor([[1.0000, 0.8000],
            [0.8000, 1.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("calculated across examples and classes").
    """
    runs = len(outputs)
    gram = torch.zeros(runs, runs, dtype=torch.float64)
    kept = runs if 4 * runs * outputs[0].numel() <= _RANKS_BYTES else (runs + 1) // 2
    for start in range(0, runs, kept):
        some = range(start, min(start + kept, runs))
        ranks = doubled_ranks(outputs, some)
        gram[start : some.stop, start : some.stop] = _products(ranks, ranks)
        for first in range(some.stop, runs, 4):  # of those that there was no room for, a few at a time
            others = range(first, min(first + 4, runs))
            gram[start : some.stop, first : others.stop] = _products(ranks, doubled_ranks(outputs, others))
        del ranks  # before the next are made
    variances = gram.diagonal()
    # The root of a product and not the product of roots: where ranks are equal it is the variance itself, to the bit.
    return correlation(gram, torch.outer(variances, variances).sqrt(), first_copies(outputs)).to(outputs[0].device)


def pearson(outputs: Runs) -> Tensor:
    """Pearson's linear correlation of the outputs of two models.

    Outputs ``[R, M]`` in, or R tensors of any one shape: all numbers of a model count. Float64 ``[R, R]`` out, between
    -1 and 1; the diagonal is 1. A constant model has no correlation: its entries are NaN.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 9.0]]))
    tensor([[1.0000, 0.9177],
            [0.9177, 1.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("others such as Pearson's r are possible").
    """
    runs = len(outputs)
    # From the first value, so that a constant row becomes exactly 0: its mean alone may be rounded.
    first = torch.stack([run.flatten()[0].double() for run in outputs])
    mean = torch.stack([(run.double() - origin).mean() for run, origin in zip(outputs, first, strict=True)])
    gram = first.new_zeros(runs, runs)
    for block in blocks(outputs, max(1, _numbers_a_block(runs) // outputs[0][0].numel())):
        centred = block.flatten(1).double().sub_(first[:, None]).sub_(mean[:, None])
        gram.addmm_(centred, centred.T)
    norms = gram.diagonal().sqrt()
    return correlation(gram, torch.outer(norms, norms), first_copies(outputs))


def _compact(classes: Tensor) -> Array:
    """Integers in the fewest bytes: it is mostly memory that counting differences waits for."""
    numbers = classes.detach().cpu().numpy()
    return numbers.astype(np.promote_types(*(np.min_scalar_type(end) for end in (numbers.min(), numbers.max()))))


def _numbers_a_block(runs: int) -> int:
    return max(1, _BLOCK_BYTES // (8 * runs))


def _products(some: list[Tensor], others: list[Tensor]) -> Tensor:
    """Sum of the products of two models' ranks, for each of some and each of others."""
    total = torch.zeros(len(some), len(others), dtype=torch.float64)
    numbers = _numbers_a_block(max(len(some), len(others)))
    if some is others:
        for block in blocks(some, numbers):
            exact = block.double()
            total.addmm_(exact, exact.T)
    else:
        for one, other in zip(blocks(some, numbers), blocks(others, numbers), strict=True):
            total.addmm_(one.double(), other.double().T)
    return total


def correlation(gram: Tensor, scale: Tensor, same: list[int]) -> Tensor:
    """Divide inner products of models by ``scale``, both ``[R, R]``; ``same`` is the first run with each run's bits."""
    upper = (gram / scale).clamp(-1.0, 1.0).triu(diagonal=1)
    matrix = upper + upper.T + torch.diag(scale.diagonal() / scale.diagonal())  # 1, and NaN for a constant row
    # A matrix product rounds differently from block to block; models with the same bits must correlate by exactly 1.
    return matrix[same][:, same]
