"""Batches of a loader with hashes of their items, made where they are fetched: in this process, or in a loader's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .digests import States, digest, drawn, states


class ObservedBatch(NamedTuple):
    """A batch, and what was seen of it; a tuple, so that torch pins its memory as it would the batch's."""

    batch: Any
    items: tuple[str, ...]  #: a hash of each item, before they were put together
    fetched: States  #: the generators that the items drew from, before they did
    collated: States  #: those that putting them together drew from


class ObservingCollation:
    """What a loader collates by while it is observed: the user's function, on what it is given."""

    def __init__(self, collate: Callable[[Any], Any], *, several: bool) -> None:
        self.collate, self._several = collate, several
        self.before: States = {}  #: the generators as the items of the next batch find them

    def __call__(self, data: Any) -> ObservedBatch:
        """Put items together, and tell what was drawn before and meanwhile."""
        fetched = states()
        items = tuple(map(digest, data)) if self._several else (digest(data),)
        batch = self.collate(data)
        collated = states()
        before, self.before = self.before, collated
        return ObservedBatch(batch, items, drawn(before, fetched), drawn(fetched, collated))


class ObservedStart:
    """What a loader process calls as it starts: the user's ``worker_init_fn``, then it notes the generators."""

    def __init__(self, then: Callable[[int], object] | None, collation: ObservingCollation) -> None:
        self._then, self._collation = then, collation

    def __call__(self, worker: int) -> None:
        """Begin in loader process ``worker``."""
        if self._then is not None:
            self._then(worker)
        self._collation.before = states()
