"""Generators of the user's, and what stands in for them."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from stabilitykit.isolation.own_generators import exchange, stand_ins

KINDS = {
    "torch": (lambda: torch.Generator().manual_seed(42), lambda g: float(torch.rand((), generator=g))),
    "numpy": (lambda: np.random.default_rng(42), lambda g: float(g.random())),
    "numpy's first": (lambda: np.random.RandomState(42), lambda g: float(g.rand())),
    "python": (lambda: random.Random(42), lambda g: g.random()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_replaced_by_one_of_the_seed_alone_and_put_back_as_it_was(kind):
    make, draw = KINDS[kind]
    drawn = []
    for seed in (1, 1, 2):
        sampler = SimpleNamespace(generator=make())
        before = exchange(stand_ins([sampler], seed))
        drawn.append(draw(sampler.generator))
        exchange(before)
        assert draw(sampler.generator) == draw(make())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("value", [None, 42, torch.default_generator, random._inst, np.random.mtrand._rand])
def test_what_a_stream_swaps_already_is_left(value):
    assert stand_ins([SimpleNamespace(generator=value), 3], 1) == []


def test_the_systems_entropy_has_no_stand_in():
    assert stand_ins([SimpleNamespace(generator=random.SystemRandom())], 1) == []
