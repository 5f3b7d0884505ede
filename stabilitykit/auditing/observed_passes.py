"""One pass of a loader: the order that it gives, its items, and how they are put together."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from ..isolation.callers import caller
from ..isolation.orders import draws
from .digests import digest
from .observation import Kind, Observation, Place
from .observed_batches import ObservedBatch, ObservingCollation


class ObservedPass:
    """One pass of a loader, noted in an observation."""

    def __init__(self, observation: Observation, loader: Any, *, is_intercepted: bool) -> None:
        self._loader, self._is_intercepted = loader, is_intercepted
        self._is_iterable = isinstance(loader.dataset, IterableDataset)
        self._is_in_order = loader.num_workers == 0 or getattr(loader, "in_order", True)
        line, data = caller("")[1], type(loader.dataset).__name__
        self._order = observation.at(
            Place(Kind.ORDER, line, data if self._is_iterable else type(_order_of(loader)).__name__), "pass"
        )
        self._items = observation.at(Place(Kind.ITEMS, line, data), "item")
        self._batches = observation.at(Place(Kind.BATCHES, line, _name_of_collation(loader)), "batch")
        self._number = self._order.passes, self._items.passes
        for found in (self._order, self._items, self._batches):
            found.passes += 1
        self._order.count += 1
        sampler = _order_of(loader)
        self._order.is_random |= isinstance(sampler, _DRAWING) and draws(sampler)
        self._order.may_draw |= draws(sampler)
        self._order.own_seed = self._order.own_seed or _own_seed(loader)
        self._asked: deque[list[str]] = deque()  #: names of the items of the batches that were asked for
        self._asked_batches = self._given = 0
        self._times: Counter[str] = Counter()
        observation.passes += 1
        if self._is_iterable:
            observation.unseen[f"{data} at {line} is an IterableDataset: its order and its items are one"] += 1
        if not self._is_in_order:
            observation.unseen[f"the loader at {line} has in_order=False: items cannot be told from each other"] += 1

    def note_indices(self, index: Any) -> None:
        """Note what the sampler gave for the next batch."""
        self._asked.append([name_of_item(self._loader.dataset, i) for i in (index if type(index) is list else [index])])
        if not self._is_iterable:
            self._order.hashes[self._number[0], self._asked_batches] = digest(index)
            self._order.sizes[self._number[0]] += len(self._asked[-1])
        self._asked_batches += 1

    def note_batch(self, data: ObservedBatch) -> None:
        """Note a batch that was given to the loop: batches come in the order in which they were asked for."""
        order_pass, items_pass = self._number
        names = self._asked.popleft() if self._asked else []
        if self._is_iterable:
            self._order.hashes[order_pass, self._given] = digest(data.items)
            self._order.sizes[order_pass] += len(data.items)
        elif self._is_in_order:
            for name, item in zip(names, data.items, strict=False):  # a list of what one index gave is one item
                self._items.hashes[items_pass, name, self._times[name]] = item
                self._times[name] += 1
        if data.collated:
            self._batches.hashes[items_pass, self._given] = digest(data.collated)
        fetched = {} if self._is_intercepted else data.fetched
        for found, taken in ((self._items, fetched), (self._batches, data.collated)):
            found.generators |= taken.keys()
            found.is_random |= bool(taken)
            if taken:
                found.starts[items_pass, self._given] = taken
        self._items.count += len(data.items)
        self._batches.count += 1
        self._given += 1


#: Samplers of torch's that draw, and what is made of them.
_DRAWING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler, DistributedSampler)


def _order_of(loader: Any) -> Any:
    """Return what draws the order: the sampler, or a batch sampler of the user's."""
    index_sampler = loader._index_sampler
    return index_sampler.sampler if type(index_sampler) is BatchSampler else index_sampler


def name_of_item(dataset: Any, index: Any) -> str:
    """Return the index of an item in the data that a subset is of: another split does not make it another item."""
    while type(dataset) is Subset and not isinstance(index, list | tuple):
        dataset, index = dataset.dataset, dataset.indices[index]
    return str(int(index)) if hasattr(index, "__index__") else repr(index)


def _own_seed(loader: Any) -> str:
    for owner in (loader.sampler, loader.batch_sampler, loader):
        if text := own_seed_of(getattr(owner, "generator", None)):
            return text
        if hasattr(owner, "set_epoch") and isinstance(getattr(owner, "seed", None), int):
            return f"{type(owner).__name__}(seed={owner.seed}, epoch={getattr(owner, 'epoch', '?')})"
    return ""


def own_seed_of(generator: Any) -> str:
    """Return how a generator of the user's was seeded; empty for one that the process shares."""
    if not isinstance(generator, torch.Generator) or generator is torch.default_generator:
        return ""
    return f"a torch.Generator with the seed {generator.initial_seed()}"


def _name_of_collation(loader: Any) -> str:
    given = loader.collate_fn
    return name_of(given.collate if isinstance(given, ObservingCollation) else given)


def name_of(function: Any) -> str:
    """Return the name of a function, or of the class of what is called like one."""
    return str(getattr(function, "__name__", type(function).__name__))
