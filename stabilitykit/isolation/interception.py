"""Interception: while a training runs, code that knows nothing of us draws from the stream of each source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..protocol import Source, derive_seed
from . import fetched_items, loaders, orders, reseedings, splits
from .fetched_items import Numbered, Numbering, borrowing, may_draw
from .intercepted import Intercepted
from .loaders import LoaderPass, OwnLoader, is_datapipe
from .orders import Order, draws
from .passes import Passes
from .replacement import Replacements
from .reseedings import drawn_seed, mapped_seed
from .streams import Stream, current_source, is_fetching, seed_generators

#: Counts up when an interception draws other bits than before: it is part of the content of a task that is intercepted.
VERSION = 1

#: The interceptions that this process is in, the innermost last: it alone is in force.
_active: list[Interception | _InLoaderProcess] = []


class Interception:
    """What one training draws, taken to its source.

    The order of a pass depends on the seed of ``shuffle`` and the pass alone, an item on that of ``augment``, the pass
    and its index; a seed that the code sets becomes one of the source that it is set in.

    >>> data = torch.utils.data.TensorDataset(torch.arange(6))
    >>> loader = torch.utils.data.DataLoader(data, shuffle=True, generator=torch.Generator().manual_seed(42))
    >>> def order(shuffle, draw):
    ...     with Interception(lambda source: shuffle).on():
    ...         _ = torch.rand(draw), torch.manual_seed(42)
    ...         return [int(x) for (x,) in loader]
    >>> order(shuffle=1, draw=5) == order(shuffle=1, draw=7) != order(shuffle=2, draw=5)
    True
    """

    def __init__(self, seed_of: Callable[[Source], int], device: torch.device | str = "cpu") -> None:
        """Take the seed of each source from ``seed_of`` when it is needed: an onset changes it."""
        self._seed_of, self._device = seed_of, torch.device(device)
        self.counts = Intercepted()
        self._shuffling, self._augmenting, self._samplers = Passes(), Passes(), Passes()
        self._orders: list[Order] = []
        self._at_first_batch: Callable[[], object] | None = None
        #: What it replaces in other modules while it is on.
        self.replacements = Replacements(
            chain(
                orders.replacements(self._seed_of_sampler, self._lasting_seed_of_sampler),
                loaders.replacements(self),
                fetched_items.replacements(self._device, borrowing(self._device)),
                splits.replacements(self.counts),
                reseedings.replacements(self),
            )
        )

    @contextlib.contextmanager
    def on(self) -> Iterator[Interception]:
        """Intercept in a block; inside another interception, that one is off meanwhile."""
        outer = _active[-1] if _active else None
        if outer is not None:
            outer.replacements.put_back()
        _active.append(self)
        try:
            self.replacements.put()
            yield self
        finally:
            self.replacements.put_back()
            _active.remove(self)
            if outer is not None:
                outer.replacements.put()

    @contextlib.contextmanager
    def init_first(self) -> Iterator[None]:
        """Draw from ``init`` in a block, up to the first batch of a loader or the first step of an optimizer.

        From there on the block draws from the stream that is around it.
        """
        stream = Stream(self._seed_of(Source.INIT), self._device, Source.INIT)
        handle = register_optimizer_step_pre_hook(lambda *_: self._begin_training())
        parameters = register_module_parameter_registration_hook(lambda *_: self._note_parameter())
        with contextlib.ExitStack() as stack:
            stack.enter_context(stream)
            self._at_first_batch = stack.close
            try:
                yield
            finally:
                self._at_first_batch = None
                handle.remove()
                parameters.remove()

    def _note_parameter(self) -> None:
        self.counts.late_parameters += self._at_first_batch is None

    def _begin_training(self) -> None:
        begin, self._at_first_batch = self._at_first_batch, None
        if begin is not None:
            begin()

    # Orders and items

    def begin(self, loader: Any) -> LoaderPass | None:
        """Begin a pass of a loader; None for one of ours, and for one that an item of another goes through."""
        if is_fetching():
            return None
        self._begin_training()
        if isinstance(loader, OwnLoader):
            return None
        shuffle, augment = self._seed_of(Source.SHUFFLE), self._seed_of(Source.AUGMENT)
        number, position = 0, 0
        if draws(loader._index_sampler):
            number, position = self._shuffling.begin(loader)
            self.counts.orders += 1
        seeds = derive_seed("order", shuffle, number, position), derive_seed("orders", shuffle, number)
        order = Order(loader._index_sampler, *seeds, self._device, self._orders)
        numbering, item_seed = None, derive_seed("items", augment)
        if may_draw(loader):
            item_seed = derive_seed("items", augment, *self._augmenting.begin(loader))
            numbering = Numbering(augment, item_seed, repeats=order.repeats, batches=loader._auto_collation)
        generator_seed = derive_seed("loader", seeds[0] if is_datapipe(loader) else item_seed)
        begun = LoaderPass(order, numbering, generator_seed, lambda init: ProcessStart(init, augment, item_seed))
        begun.count = self._count
        return begun

    def start(self, init: Callable[[int], object] | None) -> ProcessStart:
        """Return what a process of a loader of ours calls as it starts; its items are seeded already."""
        return ProcessStart(init, self._seed_of(Source.AUGMENT), 0)

    def _count(self, items: int) -> None:
        self.counts.items += items

    def _seed_of_sampler(self, sampler: Any) -> int:
        """Return the seed by which a sampler of torch's draws the pass that it begins."""
        if self._orders:
            order = self._orders[-1]
            order.begun += 1
            return derive_seed(order.seed, order.begun)
        self.counts.orders += 1
        return derive_seed("sampler", self._seed_of(Source.SHUFFLE), *self._samplers.begin(sampler))

    def _lasting_seed_of_sampler(self, sampler: Any) -> int:
        if self._orders:
            return self._orders[-1].loader_seed
        self.counts.orders += 1
        return derive_seed("samplers", self._seed_of(Source.SHUFFLE), self._samplers.begin(sampler)[0])

    # Re-seedings

    def mapped(self, seed: object) -> int:
        """Return the seed in the place of ``seed``, for the source that is drawn from now."""
        source = current_source() or Source.STOCHASTIC
        return mapped_seed(seed, source.value, self._seed_of(source))

    def fresh(self) -> int:
        """Return a seed that the present source draws."""
        return drawn_seed()

    def note(self, called: str, function: str, place: str) -> None:
        """Note a call of a seeding function."""
        self.counts.note_reseeding(called, function, place)


class ProcessStart:
    """What a loader process calls as it starts: the replacements that it needs, then the user's ``worker_init_fn``."""

    def __init__(self, then: Callable[[int], object] | None, augment: int, seed: int) -> None:
        self._then, self._augment, self._seed = then, augment, seed

    def __call__(self, worker: int) -> None:
        """Begin in loader process ``worker``."""
        for inherited in _active:  # of a process that was forked
            inherited.replacements.put_back()
        _active[:] = [_InLoaderProcess(self._augment)]
        _active[0].replacements.put()
        seed_generators(derive_seed(self._seed, "worker", worker), torch.device("cpu"))
        if self._then is not None:
            self._then(worker)


class _InLoaderProcess:
    """An interception in a loader process, where all that is drawn is of ``augment``; it stays on."""

    def __init__(self, augment: int) -> None:
        self.augment = augment
        items = fetched_items.replacements(torch.device("cpu"), self._block)
        self.replacements = Replacements(chain(items, reseedings.replacements(self)))

    def _block(self, numbered: Numbered) -> contextlib.AbstractContextManager[None]:
        self.augment = numbered.augment  # a process that goes on past an onset gets another
        return contextlib.nullcontext()  # its generators serve nothing else

    def mapped(self, seed: object) -> int:
        return mapped_seed(seed, Source.AUGMENT.value, self.augment)

    def fresh(self) -> int:
        return drawn_seed()

    def note(self, called: str, function: str, place: str) -> None:
        """Note nothing: the counts are of the process that trains."""
