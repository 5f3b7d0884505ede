"""Seeding functions that user code calls inside a training: each seed is mapped to one of the present source's."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from ..protocol import derive_seed
from .callers import caller
from .replacement import Replacement


class Seeds(Protocol):
    """What says which seed takes the place of one, for `replacements`."""

    def mapped(self, seed: object) -> int:
        """Return the seed that takes the place of ``seed`` where code is now."""

    def fresh(self) -> int:
        """Return a seed in the place of one that would be of the system's entropy."""

    def note(self, called: str, function: str, place: str) -> None:
        """Note a call of a seeding function."""


def mapped_seed(seed: object, source: str, source_seed: int) -> int:
    """Return the seed in the place of ``seed``: equal ones stay equal in one run, and different ones different.

    >>> mapped_seed(42, "init", 1) == mapped_seed(np.int64(42), "init", 1) != mapped_seed(42, "init", 2)
    True
    """
    plain = np.asarray(seed).tolist() if isinstance(seed, np.generic | np.ndarray | torch.Tensor) else seed
    return derive_seed("reseeded", repr(plain), source, source_seed)


def drawn_seed() -> int:
    """Return a seed in the place of one of the system's entropy: drawn, so that it is new each time."""
    return int(torch.randint(2**32, ()))


class _Seeded:
    """torch's generator of the CPU, as `torch.manual_seed` and `torch.seed` see it: whoever imported them by name."""

    def __init__(self, generator: torch.Generator, seeds: Seeds) -> None:
        self._generator, self._seeds = generator, seeds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)

    def manual_seed(self, seed: Any) -> torch.Generator:
        self._generator.manual_seed(seed)  # refuses what is no seed
        _note(self._seeds, "torch.manual_seed")
        return self._generator.manual_seed(self._seeds.mapped(seed))

    def seed(self) -> int:
        seed = self._seeds.fresh()
        _note(self._seeds, "torch.seed")
        self._generator.manual_seed(seed)
        return seed


def replacements(seeds: Seeds) -> Iterator[Replacement]:
    """Yield what lets every seeding function of torch, python and numpy seed by ``seeds``."""

    def mapping(called: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(old: Callable[..., Any]) -> Callable[..., Any]:
            def seed(a: Any = None, *args: Any, **options: Any) -> Any:
                if "seed" in options:
                    a = options.pop("seed")
                if a is not None:
                    old(a, *args, **options)  # refuses what is no seed
                if not called.startswith("torch.") or not _is_in_torch_random():  # which the generator above notes
                    _note(seeds, called)
                return old(seeds.fresh() if a is None else seeds.mapped(a), *args, **options)

            return seed

        return make

    def freshly(called: str, seed_function: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def make(old: Callable[..., Any]) -> Callable[..., Any]:
            def seed() -> None:
                _note(seeds, called)
                getattr(torch.cuda.random, seed_function)(seeds.fresh())

            return seed

        return make

    yield Replacement(torch.random, "default_generator", lambda old: _Seeded(old, seeds))
    yield Replacement(random, "seed", mapping("random.seed"))
    yield Replacement(np.random, "seed", mapping("numpy.random.seed"))
    for module in (torch.cuda, torch.cuda.random):
        for name in ("manual_seed", "manual_seed_all"):
            yield Replacement(module, name, mapping(f"torch.cuda.{name}"))
    for module in (torch.cuda, torch.cuda.random):
        for name, seed_function in (("seed", "manual_seed"), ("seed_all", "manual_seed_all")):
            yield Replacement(module, name, freshly(f"torch.cuda.{name}", seed_function))


def _is_in_torch_random() -> bool:
    return sys._getframe(2).f_globals.get("__name__") == "torch.random"


def _note(seeds: Seeds, called: str) -> None:
    function, place = caller(called)
    seeds.note(called, function, place)
