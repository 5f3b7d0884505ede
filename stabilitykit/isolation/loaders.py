"""Loaders: where torch's DataLoader begins a pass, asks for indices and starts its processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _BaseDataLoaderIter

from .fetched_items import Numbering
from .orders import Order
from .own_generators import exchange, torch_generator
from .replacement import Replacement


class OwnLoader(DataLoader[Any]):
    """A loader of stabilitykit's own, whose order and items are seeded already: no interception touches it."""


class LoaderPass:
    """One pass of a loader: its order, the numbers of its batches, and how its processes begin."""

    def __init__(
        self, order: Order, numbering: Numbering | None, generator_seed: int, start: Callable[..., Any]
    ) -> None:
        self.order = order
        self.numbering = numbering  #: None where neither items nor batches can draw
        self.generator_seed = generator_seed  #: of what the loader draws itself: the seeds of its processes
        self.start = start  #: makes of the user's ``worker_init_fn`` the one that is called in a loader process
        self.count: Callable[[int], None] = lambda items: None

    @contextlib.contextmanager
    def given_to(self, loader: Any) -> Iterator[None]:
        """Let the loader begin with a generator and a start of its processes that are this pass's."""
        theirs = exchange(
            [
                (loader, "generator", torch_generator(self.generator_seed)),
                (loader, "worker_init_fn", self.start(loader.worker_init_fn)),
            ]
        )
        try:
            yield
        finally:
            exchange(theirs)


class Begins(Protocol):
    """What begins a pass, for `replacements`."""

    def begin(self, loader: Any) -> LoaderPass | None:
        """Begin a pass of ``loader``; None for one that is left as it is."""

    def start(self, init: Callable[[int], object] | None) -> Callable[[int], None]:
        """Return what a process of a loader of ours calls as it starts."""


def replacements(interception: Begins) -> Iterator[Replacement]:
    """Yield what lets each pass of a DataLoader be one of ``interception``'s."""
    begun: list[LoaderPass] = []

    def iterate(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def __iter__(loader: Any) -> Any:  # noqa: N807  # named as what it replaces
            lasting = loader._iterator  # of persistent loader processes
            if lasting is not None and "intercepted" not in vars(lasting) and not isinstance(loader, OwnLoader):
                loader._iterator = None  # they were started before, and could not be told what to draw
            return old(loader)

        return __iter__

    def get_iterator(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def _get_iterator(loader: Any) -> Any:
            of_loader = interception.begin(loader)
            if of_loader is None:
                return of_own(old, loader)
            begun.append(of_loader)
            try:
                with of_loader.given_to(loader):
                    return old(loader)
            finally:
                begun.clear()

        return _get_iterator

    def of_own(old: Callable[[Any], Any], loader: Any) -> Any:
        theirs = exchange([(loader, "worker_init_fn", interception.start(loader.worker_init_fn))])
        try:  # its items may set seeds
            return old(loader)
        finally:
            exchange(theirs)

    def begin(old: Callable[..., None]) -> Callable[..., None]:
        def __init__(iterator: Any, loader: Any) -> None:  # noqa: N807  # named as what it replaces
            if not begun:
                return old(iterator, loader)
            iterator.intercepted = begun.pop()
            with iterator.intercepted.order:
                return old(iterator, loader)

        return __init__

    def reset(old: Callable[..., None]) -> Callable[..., None]:
        def _reset(iterator: Any, loader: Any, first_iter: bool = False) -> None:
            of_loader = vars(iterator).get("intercepted")
            if of_loader is None:
                return old(iterator, loader, first_iter)
            if first_iter:  # the pass that its constructor began
                of_loader.order.restart()
            else:
                iterator.intercepted = of_loader = interception.begin(loader)
            with of_loader.given_to(loader), of_loader.order:
                return old(iterator, loader, first_iter)

        return _reset

    def next_index(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def _next_index(iterator: Any) -> Any:
            of_loader = vars(iterator).get("intercepted")
            if of_loader is None:
                return old(iterator)
            with of_loader.order:
                index = old(iterator)
            if of_loader.numbering is None:
                return index
            of_loader.count(len(index) if isinstance(index, list) else 1)
            return of_loader.numbering.number(index)

        return _next_index

    yield Replacement(DataLoader, "__iter__", iterate)
    yield Replacement(DataLoader, "_get_iterator", get_iterator)
    yield Replacement(_BaseDataLoaderIter, "__init__", begin)
    yield Replacement(_BaseDataLoaderIter, "_reset", reset)
    yield Replacement(_BaseDataLoaderIter, "_next_index", next_index)


def is_datapipe(loader: Any) -> bool:
    """Whether a loader shuffles by the seed that it draws itself, as it does an IterDataPipe."""
    pipe: Any = getattr(torch.utils.data, "IterDataPipe", ())
    return isinstance(loader.dataset, pipe)
