"""An observer: it records what a training draws, and alters no bit of it."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.utils.data.dataset as datasets
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)

from ..isolation import reseedings
from ..isolation.callers import caller
from ..isolation.orders import draws
from ..isolation.own_generators import exchange
from ..isolation.replacement import Replacement, Replacements
from ..training.run import Run
from .digests import digest, drawn, states
from .observation import Kind, Observation, Place, Reseeding
from .observed_batches import ObservedBatch, ObservedStart, ObservingCollation


class EnoughSteps(BaseException):
    """Ends a training that has made the steps that were asked for; ``except Exception`` lets it pass."""


class Observer:
    """Records one training in `observation` while it is on.

    >>> observer = Observer()
    >>> with observer.on():
    ...     _ = torch.manual_seed(3)
    >>> [(called.function, called.seed) for called in observer.observation.reseedings]
    [('torch.manual_seed', '3')]
    """

    def __init__(self, steps: int | None = None, *, is_intercepted: bool = False) -> None:
        """Observe all of a training, or up to its first ``steps`` optimizer steps.

        A training that ``is_intercepted`` has the generators seeded for each item, whether or not the item draws.
        """
        self.observation = Observation()
        self._most_steps, self._is_intercepted = steps, is_intercepted
        self._depth = 0  #: blocks whose draws are not the loop's: a loader's, or a seeding function's
        self._last = states()
        self._loop_begun = False
        self._parameters: dict[int, Tensor] = {}  #: those that were stepped, kept so that no id is taken again
        self._optimizers: dict[int, Optimizer] = {}
        self._loop_place = ""
        self._draws: Counter[int] = Counter()  #: of the loop, since each step
        self._permutations: Counter[Place] = Counter()
        self._pending: tuple[str, str, str] | None = None  #: the seeding call whose seed is told next
        self._replacements = Replacements([*self._loaders(), *self._functions(), *self._seeds()])

    @contextlib.contextmanager
    def on(self) -> Iterator[Observer]:
        """Observe in a block."""
        handle = register_optimizer_step_pre_hook(lambda optimizer, *_: self._step(optimizer))
        self._last = states()
        try:
            self._replacements.put()
            yield self
            if not self._is_intercepted:  # else it has left its stream
                self._fence()
        except EnoughSteps:
            self.observation.is_cut = True
        finally:
            self._replacements.put_back()
            handle.remove()
            self._finish()

    def _finish(self) -> None:
        if self._parameters:
            self.observation.final = digest([*self._parameters.values()])
        for place, calls in self._permutations.items():
            if calls >= self.observation.steps > 0:  # one for each step is no order: it mixes the examples of a batch
                self.observation.places[place._replace(kind=Kind.LOOP)] = self.observation.places.pop(place)
        self._parameters.clear()
        self._optimizers.clear()

    # What the loop draws: whatever is drawn between the blocks in which something else does

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """Run a block whose draws are not the loop's."""
        if self._depth == 0:
            self._fence()
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._last = states()

    def _fence(self) -> None:
        now = states()
        taken, self._last = drawn(self._last, now), now
        if not taken or not self._loop_begun:
            return
        self._loop_place = self._loop_place or caller("")[1]
        found = self.observation.at(Place(Kind.LOOP, self._loop_place, "between batches"), "draw")
        found.is_random = True
        found.generators |= taken.keys()
        found.hashes[self.observation.steps, self._draws[self.observation.steps]] = digest(taken)
        self._draws[self.observation.steps] += 1
        found.count += 1

    # Parameters

    def _step(self, optimizer: Optimizer) -> None:
        self._fence()
        self._loop_begun = True
        self._last = states()
        if id(optimizer) not in self._optimizers:
            self._optimizers[id(optimizer)] = optimizer
            self._note_parameters(optimizer)
        self.observation.steps += 1
        if self._most_steps is not None and self.observation.steps > self._most_steps:
            self.observation.steps = self._most_steps
            raise EnoughSteps

    def _note_parameters(self, optimizer: Optimizer) -> None:
        held = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in self._parameters]
        if not held:  # an optimizer made anew for parameters that were stepped before
            return
        line = caller("")[1]
        self._loop_place = self._loop_place or line
        found = self.observation.at(Place(Kind.PARAMETERS, line, type(optimizer).__name__), "tensor")
        for parameter in held:
            self._parameters[id(parameter)] = parameter
            found.hashes[found.count] = digest(parameter)
            found.count += 1

    # Loaders

    def _loaders(self) -> Iterator[Replacement]:
        def get_iterator(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def _get_iterator(loader: Any) -> Any:
                collation = ObservingCollation(loader.collate_fn, several=loader._auto_collation)
                ours = [
                    (loader, "collate_fn", collation),
                    (loader, "worker_init_fn", ObservedStart(loader.worker_init_fn, collation)),
                ]
                with self._apart():
                    theirs = exchange(ours)
                    try:
                        return old(loader)
                    finally:
                        exchange(theirs)

            return _get_iterator

        def begin(old: Callable[..., None]) -> Callable[..., None]:
            def __init__(iterator: Any, loader: Any) -> None:  # noqa: N807  # named as what it replaces
                self._loop_begun = True
                iterator.observed = ObservedPass(self.observation, loader, is_intercepted=self._is_intercepted)
                old(iterator, loader)

            return __init__

        def reset(old: Callable[..., None]) -> Callable[..., None]:
            def _reset(iterator: Any, loader: Any, first_iter: bool = False) -> None:
                if not first_iter:
                    iterator.observed = ObservedPass(self.observation, loader, is_intercepted=self._is_intercepted)
                with self._apart():
                    old(iterator, loader, first_iter)

            return _reset

        def next_index(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def _next_index(iterator: Any) -> Any:
                with self._apart():
                    index = old(iterator)
                if "observed" in vars(iterator):
                    iterator.observed.note_indices(index)
                    if isinstance(iterator._collate_fn, ObservingCollation):
                        iterator._collate_fn.before = states()
                return index

            return _next_index

        def next_data(old: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def _next_data(iterator: Any) -> Any:
                with self._apart():
                    data = old(iterator)
                if not isinstance(data, ObservedBatch):
                    return data
                iterator.observed.note_batch(data)
                return data.batch

            return _next_data

        yield Replacement(DataLoader, "_get_iterator", get_iterator)
        yield Replacement(_BaseDataLoaderIter, "__init__", begin)
        yield Replacement(_BaseDataLoaderIter, "_reset", reset)
        yield Replacement(_BaseDataLoaderIter, "_next_index", next_index)
        yield Replacement(_SingleProcessDataLoaderIter, "_next_data", next_data)
        yield Replacement(_MultiProcessingDataLoaderIter, "_next_data", next_data)

    # Orders that are drawn without a loader, splits, and generators that cannot be followed

    def _functions(self) -> Iterator[Replacement]:
        def permutation(name: str, *, in_place: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
            def make(old: Callable[..., Any]) -> Callable[..., Any]:
                def draw(*args: Any, **options: Any) -> Any:
                    if self._depth:  # of a loader's, whose orders are seen as they come out of it
                        return old(*args, **options)
                    function, line = caller(name)
                    if function != name:  # a library's own, not a line of the user's
                        return old(*args, **options)
                    with self._apart():
                        result = old(*args, **options)
                    self._note_permutation(Place(Kind.ORDER, line, name), args[0] if in_place and args else result)
                    return result

                return draw

            return make

        def split(old: Callable[..., Any]) -> Callable[..., Any]:
            def randperm(count: int, *, generator: Any = None, **options: Any) -> Any:
                own_seed = _own_seed_of(generator)
                with self._apart():
                    result = old(count, generator=generator, **options)
                found = self.observation.at(Place(Kind.SPLIT, caller("")[1], "random_split"), "split")
                found.is_random, found.own_seed = True, own_seed
                found.hashes[found.count] = digest(result)
                found.count += 1
                return result

            return randperm

        def private(old: Callable[..., Any]) -> Callable[..., Any]:
            def default_rng(*args: Any, **options: Any) -> Any:
                function, line = caller("numpy.random.default_rng")
                if function == "numpy.random.default_rng":  # and not a library's own
                    seeded = "with" if args or options else "without"
                    self.observation.unseen[f"{function}, {seeded} a seed, at {line}"] += 1
                return old(*args, **options)

            return default_rng

        def batches(old: Callable[..., Any]) -> Callable[..., Any]:
            def batches(run: Any, *args: Any, augment: Any = None, **options: Any) -> Any:
                if augment is not None:
                    augment = self._augmenting(augment)
                return old(run, *args, augment=augment, **options)

            return batches

        yield Replacement(Run, "batches", batches)
        yield Replacement(torch, "randperm", permutation("torch.randperm"))
        yield Replacement(np.random, "permutation", permutation("numpy.random.permutation"))
        yield Replacement(np.random, "shuffle", permutation("numpy.random.shuffle", in_place=True))
        yield Replacement(random, "shuffle", permutation("random.shuffle", in_place=True))
        yield Replacement(np.random, "default_rng", private)
        yield Replacement(datasets, "randperm", split)

    def _note_permutation(self, place: Place, result: Any) -> None:
        found = self.observation.at(place, "permutation")
        found.is_random = True
        found.hashes[found.count] = digest(result)
        found.sizes[found.count] = len(result) if hasattr(result, "__len__") else 0
        found.count += 1
        self._permutations[place] += 1

    def _augmenting(self, augment: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """Return ``augment`` of one pass of `Run.batches`: it draws batch by batch, whatever the order."""
        found = self.observation.at(Place(Kind.ITEMS, caller("")[1], _name_of(augment)), "batch")
        number, found.passes = found.passes, found.passes + 1
        place = itertools.count()

        def augment_observed(x: Tensor) -> Tensor:
            before = states()
            result = augment(x)
            taken = drawn(before, states())
            if taken:
                batch = next(place)
                found.starts[number, batch], found.hashes[number, batch] = taken, digest(taken)
                found.generators |= taken.keys()
                found.is_random = True
            found.count += 1
            return result

        return augment_observed

    # Seeds that are set inside

    def _seeds(self) -> Iterator[Replacement]:
        def apart(old: Callable[..., Any]) -> Callable[..., Any]:
            def seed(*args: Any, **options: Any) -> Any:
                with self._apart():
                    return old(*args, **options)

            return seed

        yield Replacement(torch.random, "default_generator", lambda old: _Apart(old, apart))
        yield Replacement(random, "seed", apart)
        yield Replacement(np.random, "seed", apart)
        if not self._is_intercepted:  # which notes them itself, and seeds by others
            yield from reseedings.replacements(self)

    def note(self, called: str, function: str, place: str) -> None:
        """Note a call of a seeding function; its seed is asked for next."""
        self._pending = called, function, place

    def mapped(self, seed: Any) -> Any:
        """Return the seed itself."""
        self._note_seed(repr(seed))
        return seed

    def fresh(self) -> int:
        """Return a seed of the system's entropy, as the function would have taken."""
        self._note_seed("")
        return random.SystemRandom().getrandbits(32)

    def _note_seed(self, seed: str) -> None:
        if self._pending is not None:
            called, function, line = self._pending
            self.observation.reseedings.setdefault(Reseeding(function, seed, line), Counter())[called] += 1
            self._pending = None


class _Apart:
    """torch's generator of the CPU, whose seeding is not a draw of the loop's."""

    def __init__(self, generator: torch.Generator, apart: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self._generator = generator
        self.manual_seed, self.seed = apart(generator.manual_seed), apart(generator.seed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


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
        if text := _own_seed_of(getattr(owner, "generator", None)):
            return text
        if hasattr(owner, "set_epoch") and isinstance(getattr(owner, "seed", None), int):
            return f"{type(owner).__name__}(seed={owner.seed}, epoch={getattr(owner, 'epoch', '?')})"
    return ""


def _own_seed_of(generator: Any) -> str:
    if not isinstance(generator, torch.Generator) or generator is torch.default_generator:
        return ""
    return f"a torch.Generator with the seed {generator.initial_seed()}"


def _name_of_collation(loader: Any) -> str:
    given = loader.collate_fn
    return _name_of(given.collate if isinstance(given, ObservingCollation) else given)


def _name_of(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
