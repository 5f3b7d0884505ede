"""The ranks of one model's outputs, in integers: what is summed over them is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from .runs import Array, as_array

#: More outputs than this cannot be told apart by the lower half of a 64-bit integer, nor ranked in 32 bits.
_MOST_IN_32_BITS = 2**31 - 1


def rank_type(outputs: int) -> type[np.signedinteger[Any]]:
    """Return the smallest integer type that holds the doubled ranks of so many outputs."""
    return np.int32 if outputs <= _MOST_IN_32_BITS else np.int64


def doubled_ranks(row: Tensor) -> Array:
    """Twice the distance of each output's rank from the mean rank; equal outputs share their mean rank.

    Outputs ``[M]`` in; integers ``[M]`` between 1 - M and M - 1 out, whose sum is 0. Twice, because a mean rank may
    end on a half. A row that has no order, because a NaN is in it, gets zeros as a constant one does.

    >>> import torch
    >>> doubled_ranks(torch.tensor([0.5, 7.0, 0.5, 9.0])).tolist()  # ranks 1.5, 3, 1.5, 4, and their mean is 2.5
    [-2, 1, -2, 3]
    """
    values = as_array(row)
    ranks = np.zeros(len(values), rank_type(len(values)))
    if np.isnan(values).any():
        return ranks
    fits = values.dtype == np.float32 and len(values) <= _MOST_IN_32_BITS
    order, ascending = _sort_with_place(values) if fits else _argsort(values)
    starts = np.flatnonzero(np.concatenate([[True], ascending[1:] != ascending[:-1]]))  # of those equal
    ends = np.append(starts[1:], len(values))
    ranks[order] = np.repeat((starts + ends - len(values)).astype(ranks.dtype), ends - starts)
    return ranks


def _sort_with_place(values: Array) -> tuple[Array, Array]:
    """Where each value stood, and the values in order as integers; half the time of an argsort.

    The bits of a float32, as an integer, are in the order of the floats once those of negative numbers are turned
    round. They become the upper half of an int64 and the place its lower half, and NumPy sorts plain integers fast.
    """
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 + 0 is 0.0, which it is equal to
    both = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64)
    both <<= 32
    both |= np.arange(len(values))
    both.sort()
    return both & 0xFFFFFFFF, both >> 32


def _argsort(values: Array) -> tuple[Array, Array]:
    order = np.argsort(values)
    return order, values[order]
