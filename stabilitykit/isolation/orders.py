"""Orders: what torch's samplers, and those of the user's, draw in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler
from torch.utils.data.dataloader import _InfiniteConstantSampler
from torch.utils.data.distributed import DistributedSampler

from ..protocol import Source
from .own_generators import exchange, stand_ins, torch_generator
from .replacement import Replacement
from .streams import Stream, is_fetching

#: Samplers that draw from their attribute ``generator``, all in the first step of a pass or from one seed drawn there.
_DRAWING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)

#: Classes that draw nothing by themselves.
_DRAWS_NOTHING = frozenset({SequentialSampler, _InfiniteConstantSampler, BatchSampler, list, tuple, range})

#: Classes whose draws are all taken by the replacements below.
_TORCHS = frozenset({*_DRAWING, DistributedSampler})


class Order:
    """The order of one pass of a loader: a block in which its sampler is asked for the next indices.

    What a sampler of torch's draws, the replacements of `replacements` take from here. Any other one is run in a stream
    of the pass, with fresh generators in the place of those that it holds.
    """

    def __init__(self, sampler: Any, seed: int, loader_seed: int, device: torch.device, orders: list[Order]) -> None:
        """Begin a pass under ``seed``; ``loader_seed`` is the same in all passes of the loader.

        ``orders`` are those that are drawn from now, the innermost last.
        """
        self.seed, self.loader_seed = seed, loader_seed
        self._device, self._orders = device, orders
        parts = [*_parts(sampler)]
        self._is_torchs = all(type(part) in _TORCHS or type(part) in _DRAWS_NOTHING for part in parts)
        self._others = [] if self._is_torchs else [part for part in parts if type(part) not in _TORCHS]
        self.repeats = not all(map(_never_repeats, parts))  #: whether an example may come twice
        self.restart()

    def restart(self) -> None:
        """Begin the same pass again: torch asks for its sampler twice where loader processes begin."""
        self.begun = 0  #: torch's samplers that were begun in this pass
        self._stream = None if self._is_torchs else Stream(self.seed, self._device, Source.SHUFFLE)
        self._generators = stand_ins(self._others, self.seed)

    def __enter__(self) -> Order:
        self._orders.append(self)
        if self._stream is not None:
            self._generators = exchange(self._generators)
            self._stream.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.__exit__()
            self._generators = exchange(self._generators)
        self._orders.pop()


def draws(sampler: Any) -> bool:
    """Whether a sampler may draw: all may but those of torch's that are known not to."""
    return any(type(part) not in _DRAWS_NOTHING and getattr(part, "shuffle", True) for part in _parts(sampler))


def _parts(sampler: Any) -> Iterator[Any]:
    """Yield a sampler, and those within it."""
    pending, seen = [sampler], set[int]()
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        within = getattr(part, "__dict__", {})
        pending += [value for name, value in within.items() if "sampler" in name and hasattr(value, "__iter__")]


def _never_repeats(sampler: Any) -> bool:
    if type(sampler) is RandomSampler:
        return not sampler.replacement and sampler.num_samples <= len(sampler.data_source)
    return type(sampler) in (SequentialSampler, BatchSampler, _InfiniteConstantSampler, DistributedSampler, range)


def replacements(seed_of: Callable[[Any], int], lasting_seed_of: Callable[[Any], int]) -> Iterator[Replacement]:
    """Yield what lets torch's samplers draw by ``seed_of(sampler)``, whatever generator they were given.

    A DistributedSampler counts its passes itself, in ``epoch``: it draws by ``lasting_seed_of(sampler)`` and that.
    """

    def drawn(old: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
        def __iter__(sampler: Any) -> Iterator[Any]:  # noqa: N807  # named as what it replaces
            if is_fetching():  # an item draws by it, as in a loader process
                return old(sampler)
            theirs = getattr(sampler, "generator", None)
            order = old(sampler)
            sampler.generator = torch_generator(seed_of(sampler))
            try:
                first = [*itertools.islice(order, 1)]  # in which it takes its generator, or draws all
            finally:
                sampler.generator = theirs
            return itertools.chain(first, order)

        return __iter__

    def distributed(old: Callable[[Any], Iterator[Any]]) -> Callable[[Any], Iterator[Any]]:
        def __iter__(sampler: Any) -> Iterator[Any]:  # noqa: N807  # as above
            if is_fetching():
                return old(sampler)
            before, sampler.seed = sampler.seed, lasting_seed_of(sampler)
            try:
                return old(sampler)
            finally:
                sampler.seed = before

        return __iter__

    for kind in _DRAWING:
        yield Replacement(kind, "__iter__", drawn)
    yield Replacement(DistributedSampler, "__iter__", distributed)
