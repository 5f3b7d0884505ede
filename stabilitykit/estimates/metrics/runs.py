"""The outputs of R models, which need not lie in one tensor: those of a study are mapped from R files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor

#: One tensor ``[R, N, ...]``, or R tensors ``[N, ...]``. Both have a length, and both give a run by its index.
Runs: TypeAlias = Tensor | Sequence[Tensor]

Array: TypeAlias = npt.NDArray[Any]


def class_type(classes: int) -> torch.dtype:
    """Return the integers of the fewest bytes that number ``classes`` classes."""
    types = (torch.uint8, torch.int16, torch.int32, torch.int64)
    return next(kind for kind in types if classes - 1 <= torch.iinfo(kind).max)


class KeptExamples(Sequence[Tensor]):
    """The examples of R runs that a mask keeps: a run, or a block of examples, is copied when it is asked for.

    >>> KeptExamples([torch.tensor([[1.0], [2.0], [3.0]])], torch.tensor([True, False, True]))[0]
    tensor([[1.],
            [3.]])
    """

    def __init__(self, runs: Runs, kept: Tensor) -> None:
        """Take R tensors ``[N, ..., C]`` and a mask ``[N, ...]``."""
        self._runs: list[Tensor]
        self._kept = kept.flatten().nonzero().flatten()
        if isinstance(runs, KeptExamples):
            self._runs, self._kept = runs._runs, runs._kept[self._kept]
        else:
            self._runs = [run.flatten(0, -2) for run in runs]

    def __getitem__(self, index: Any) -> Any:
        """Return the kept examples ``[M, C]`` of a run, or a list of them for a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._runs[index].index_select(0, self._kept)

    def __len__(self) -> int:
        return len(self._runs)

    def block(self, start: int, stop: int) -> Tensor:
        """Return the kept examples from ``start`` to ``stop`` of every run, ``[R, stop - start, C]``."""
        some = self._kept[start:stop]
        return torch.stack([run.index_select(0, some) for run in self._runs])


def blocks(runs: Runs, size: int) -> Iterator[Tensor]:
    """Gather ``size`` examples of every run at a time: ``[R, size, ...]``, and the last ones as they come.

    >>> [block.tolist() for block in blocks([torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])], size=2)]
    [[[1, 2], [4, 5]], [[3], [6]]]
    """
    if isinstance(runs, KeptExamples):
        yield from (runs.block(start, start + size) for start in range(0, len(runs._kept), size))
    else:  # copied where they are one tensor too: then both have the same strides, and give the same bits
        singly = list(runs)
        yield from (
            torch.stack([run[start : start + size] for run in singly]) for start in range(0, len(singly[0]), size)
        )


def first_copies(runs: Runs) -> list[int]:
    """Index of the first run that is equal bit for bit, for each run.

    >>> first_copies(torch.tensor([[1], [2], [1]]))
    [0, 1, 0]
    """
    alike: dict[tuple[float, ...], list[int]] = {}  # only those that start alike are compared to their end
    first: list[int] = []
    for i in range(len(runs)):
        run = runs[i]
        candidates = alike.setdefault(tuple(run.flatten()[:16].tolist()), [])
        first.append(next((j for j in candidates if torch.equal(runs[j], run)), i))
        if first[i] == i:
            candidates.append(i)
    return first


def as_array(outputs: Tensor) -> Array:
    """Return outputs as float32 or float64 for NumPy, without a copy where they are that on the CPU already."""
    if outputs.dtype not in (torch.float32, torch.float64):
        outputs = outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs.double()
    array: Array = outputs.detach().cpu().numpy()
    return array
