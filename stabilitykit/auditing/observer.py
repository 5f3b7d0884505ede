"""An observer: it records what a training draws, and alters no bit of it."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.utils.data.dataset as datasets
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import (
    DataLoader,
)
from torch.utils.data.dataloader import (
    _BaseDataLoaderIter,
    _MultiProcessingDataLoaderIter,
    _SingleProcessDataLoaderIter,
)

from ..isolation import reseedings
from ..isolation.callers import caller
from ..isolation.own_generators import exchange
from ..isolation.replacement import Replacement, Replacements
from ..training.run import Run
from .digests import digest, drawn, states
from .observation import Kind, Observation, Place, Reseeding
from .observed_batches import ObservedBatch, ObservedStart, ObservingCollation
from .observed_passes import ObservedPass, name_of, own_seed_of


class EnoughSteps(BaseException):
    """Ends a training that has made the steps that were asked for; ``except Exception`` lets it pass."""


class Observer:
    """Records one training in `observation` while it is on.

    >>> observer = Observer()
    >>> with observer.on():
    ...     _ = torch.manual_seed(3)
    >>> [called.seed for called in observer.observation.reseedings]
    ['3']
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
                own_seed = own_seed_of(generator)
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
        found = self.observation.at(Place(Kind.ITEMS, caller("")[1], name_of(augment)), "batch")
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
