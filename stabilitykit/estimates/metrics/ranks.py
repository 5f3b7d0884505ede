"""The ranks of a model's outputs, in integers: what is summed over them is exact."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .runs import Array, Runs, as_array

#: More outputs than this have ranks beyond 32 bits, and places that do not fit into the lower half of an int64.
_MOST_IN_32_BITS = 2**31 - 1

#: Threads beyond this would rank faster, and take more memory for it than the outputs of a small study.
_MOST_THREADS = 4


def doubled_ranks(runs: Runs, which: range) -> list[Tensor]:
    """Rank the outputs of some of the runs, as many runs at a time as torch has threads; ``[M]`` each.

    >>> doubled_ranks(torch.tensor([[0.5, 7.0, 0.5, 9.0], [4.0, 3.0, 2.0, 1.0]]), range(2))
    [tensor([-2,  1, -2,  3], dtype=torch.int32), tensor([ 3,  1, -1, -3], dtype=torch.int32)]
    """
    outputs = runs[0].numel()
    # Row by row, since the allocator then has room for them where smaller things were; and not in another thread's.
    ranks = [np.empty(outputs, _rank_type(outputs)) for _ in which]
    threads = min(torch.get_num_threads(), _MOST_THREADS, len(which))

    def every(first: int) -> None:
        ranker = Ranker(outputs)
        for row in range(first, len(which), threads):
            ranker.doubled(runs[which[row]].flatten(), out=ranks[row])

    if threads == 1:  # a thread of its own would have memory of its own
        every(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(every, range(threads)))
    return [torch.from_numpy(row) for row in ranks]


def _rank_type(outputs: int) -> type[np.signedinteger[Any]]:
    return np.int32 if outputs <= _MOST_IN_32_BITS else np.int64


class Ranker:
    """Ranks the outputs of one model after another, in memory that is taken once.

    >>> ranks = np.empty(4, np.int32)
    >>> Ranker(4).doubled(torch.tensor([0.5, 7.0, 0.5, 9.0]), out=ranks)  # ranks 1.5, 3, 1.5, 4; their mean is 2.5
    >>> ranks.tolist()
    [-2, 1, -2, 3]
    """

    def __init__(self, outputs: int) -> None:
        """Take the number of outputs of a model, M."""
        self._small = outputs <= _MOST_IN_32_BITS
        self._untied = np.arange(1 - outputs, outputs, 2, dtype=_rank_type(outputs))
        self._ranks = np.empty_like(self._untied)
        self._both = np.empty(outputs, np.int64)
        self._place = np.arange(outputs, dtype=self._untied.dtype)
        self._level = np.zeros(outputs + 1, bool)  # with the one before; the first and the one after the last are not

    def doubled(self, row: Tensor, out: Array) -> None:
        """Write twice the distance of each rank from the mean rank; equal outputs share their mean rank.

        Outputs ``[M]`` in; integers ``[M]`` between 1 - M and M - 1 out, whose sum is 0. Twice, because a mean rank
        may end on a half. A row with a NaN has no order: it gets zeros, as a constant one does.
        """
        values = as_array(row)
        if np.isnan(values.max()):
            out[:] = 0
            return
        if self._small and values.dtype == np.float32:
            order, ascending = self._sort_bits(values)
        else:
            order = np.argsort(values)
            ascending = values[order]
        np.equal(ascending[1:], ascending[:-1], out=self._level[1:-1])
        np.copyto(self._ranks, self._untied)
        self._share_ranks()
        out[order] = self._ranks

    def _share_ranks(self) -> None:
        before, after = self._level[:-1], self._level[1:]
        if after.any():
            first, last = np.flatnonzero(after & ~before), np.flatnonzero(before & ~after)
            self._ranks[before | after] = np.repeat(first + last + 1 - len(self._ranks), last - first + 1)

    def _sort_bits(self, values: Array) -> tuple[Array, Array]:
        """Where each value stood, and the values in order as integers, in half the time of an argsort.

        The bits of a float32, read as an integer, are in the order of the floats once those of negative numbers are
        turned round. They become the upper half of an int64 and the place its lower half; NumPy sorts integers fast.
        """
        bits = (values + np.float32(0)).view(np.int32)  # -0.0 + 0 is 0.0, which it is equal to
        turn = np.right_shift(bits, 31, out=self._ranks)
        turn &= 0x7FFFFFFF
        bits ^= turn
        np.left_shift(bits, 32, out=self._both, dtype=np.int64)
        self._both |= self._place
        self._both.sort()
        ascending = np.right_shift(self._both, 32, out=self._ranks, casting="same_kind")
        self._both &= 0xFFFFFFFF
        return self._both, ascending
