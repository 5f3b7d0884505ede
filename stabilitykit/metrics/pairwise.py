"""How far R models are from each other: one symmetric ``[R, R]`` float64 matrix a measure."""

from __future__ import annotations

import torch
from torch import Tensor


def disagreement(predictions: Tensor) -> Tensor:
    """Percentage of examples on which two models predict different classes.

    Integer classes ``[R, N]`` in, float64 ``[R, R]`` in percent out, between 0 and 100; the diagonal is 0.

    >>> disagreement(torch.tensor([[0, 1, 1, 2], [0, 1, 2, 2]]))
    tensor([[ 0., 25.],
            [25.,  0.]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("average disagreement between pairs of models").
    """
    # A row against all rows, because all pairs at once would need R * R * N booleans.
    differing = torch.stack([(predictions != row).sum(dim=-1) for row in predictions])
    return differing.double() * 100.0 / predictions.shape[-1]


def spearman(outputs: Tensor) -> Tensor:
    """Spearman's rank correlation of the outputs of two models; equal outputs share their mean rank.

    Outputs ``[R, M]`` in, all numbers of a model in one row (``logits.flatten(1)``). Float64 ``[R, R]`` out, between
    -1 and 1; the diagonal is 1. A constant model has no correlation: its entries are NaN.

    >>> spearman(torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 30.0, 20.0, 40.0]]))
    tensor([[1.0000, 0.8000],
            [0.8000, 1.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("correlation of predictions, calculated across examples and
    classes").
    """
    return _correlation(torch.stack([_centred(_midranks(row)) for row in outputs]))


def pearson(outputs: Tensor) -> Tensor:
    """Pearson's linear correlation of the outputs of two models.

    Outputs ``[R, M]`` in, all numbers of a model in one row (``logits.flatten(1)``). Float64 ``[R, R]`` out, between
    -1 and 1; the diagonal is 1. A constant model has no correlation: its entries are NaN.

    >>> pearson(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 9.0]]))
    tensor([[1.0000, 0.9177],
            [0.9177, 1.0000]], dtype=torch.float64)

    Source: Summers & Dinneen, ICML 2021, section 3.1 ("others such as Pearson's r are possible").
    """
    return _correlation(torch.stack([_centred(row.double()) for row in outputs]))


def _midranks(row: Tensor) -> Tensor:
    _, place, count = torch.unique(row, return_inverse=True, return_counts=True)
    last = count.cumsum(dim=0)  # rank of the last of those equal; the first has last - count + 1
    midranks: Tensor = (2 * last - count + 1).double() / 2
    return midranks[place]


def _centred(row: Tensor) -> Tensor:
    # From the first value, so that a constant row becomes exactly 0: its mean alone may be rounded.
    shifted = row - row[0]
    return shifted - shifted.mean()


def _correlation(centred: Tensor) -> Tensor:
    gram = centred @ centred.T
    norms = gram.diagonal().sqrt()
    upper = (gram / torch.outer(norms, norms)).clamp(-1.0, 1.0).triu(diagonal=1)
    matrix = upper + upper.T + torch.diag(norms / norms)  # 1, and NaN for a constant row
    # A matrix product rounds differently from block to block; models with the same bits must correlate by exactly 1.
    same = first_copies(centred)
    return matrix[same][:, same]


def first_copies(rows: Tensor) -> list[int]:
    """Index of the first row that is equal bit for bit, for each row.

    >>> first_copies(torch.tensor([[1], [2], [1]]))
    [0, 1, 0]
    """
    singly = rows.unbind()
    return [next((j for j in range(i) if torch.equal(singly[j], row)), i) for i, row in enumerate(singly)]
