"""Generators that an object of the user's holds, and those that stand in for them while it draws."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch

from ..protocol import derive_seed

#: One generator: the object that holds it, the name of the attribute, and what stands in for it.
StandIn: TypeAlias = tuple[Any, str, Any]

#: The generators that a whole process shares, which are swapped by streams.
_SHARED = (torch.default_generator, getattr(random, "_inst", None), getattr(np.random.mtrand, "_rand", None))


def torch_generator(seed: int) -> torch.Generator:
    """Return a generator of torch's on the CPU that begins at ``seed``."""
    return torch.Generator().manual_seed(seed)


def stand_ins(owners: Iterable[Any], seed: int) -> list[StandIn]:
    """Return a fresh generator of its kind for each one that ``owners`` hold; it depends on ``seed`` alone.

    >>> class Sampler:
    ...     generator = None
    >>> sampler = Sampler()
    >>> sampler.rng = random.Random(42)
    >>> ((owner, name, ours),) = stand_ins([sampler], 7)
    >>> owner is sampler, name, ours.random() == random.Random(derive_seed(7, 0)).random()
    (True, 'rng', True)
    """
    found = [(owner, name, value) for owner in owners for name, value in _generators_of(owner)]
    return [(owner, name, _like(value, derive_seed(seed, place))) for place, (owner, name, value) in enumerate(found)]


def _generators_of(owner: Any) -> Iterator[tuple[str, Any]]:
    for name, value in getattr(owner, "__dict__", {}).items():
        if not any(value is shared for shared in _SHARED) and _like(value, 0) is not None:
            yield name, value


def _like(generator: object, seed: int) -> Any:
    if isinstance(generator, torch.Generator):
        return torch_generator(seed) if generator.device.type == "cpu" else None
    if isinstance(generator, np.random.Generator):
        return np.random.default_rng(seed)
    if isinstance(generator, np.random.RandomState):
        return np.random.RandomState(seed)
    if isinstance(generator, random.Random) and not isinstance(generator, random.SystemRandom):
        return random.Random(seed)
    return None


def exchange(generators: list[StandIn]) -> list[StandIn]:
    """Put each generator in its place; return those that were there, to be put back by another call."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in generators]
    for owner, name, generator in generators:
        setattr(owner, name, generator)
    return before
