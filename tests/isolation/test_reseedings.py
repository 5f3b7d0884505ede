"""Seeding functions within a training: what they are given is mapped, what they refuse is refused."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import manual_seed  # bound before anything is replaced, as user code may have it

from stabilitykit.isolation.interception import Interception
from stabilitykit.isolation.reseedings import mapped_seed
from stabilitykit.isolation.streams import Stream, seed_generators
from stabilitykit.protocol import Source

DRAWS = {
    "random.seed": (lambda: random.seed, random.random),
    "numpy.random.seed": (lambda: np.random.seed, np.random.rand),
    "torch.manual_seed": (lambda: torch.manual_seed, lambda: float(torch.rand(()))),
    "torch.random.manual_seed": (lambda: torch.random.manual_seed, lambda: float(torch.rand(()))),
    "imported by name": (lambda: manual_seed, lambda: float(torch.rand(()))),
}


@pytest.mark.parametrize("name", DRAWS)
def test_equal_seeds_stay_equal_different_ones_different_and_the_source_decides(name):
    function, draw = DRAWS[name]

    def drawn(seed, stochastic=1, source=Source.STOCHASTIC):
        seeds = {Source.STOCHASTIC: stochastic, Source.INIT: 9}
        with Interception(seeds.get).on(), Stream(0, source=source):
            function()(seed)
            return draw()

    assert drawn(42) == drawn(42)
    assert len({drawn(42), drawn(43), drawn(42, stochastic=2), drawn(42, source=Source.INIT)}) == 4
    assert drawn(42, source=Source.INIT) == drawn(42, stochastic=2, source=Source.INIT)


@pytest.mark.parametrize("module", [torch, random, np.random])
def test_a_seed_of_the_systems_entropy_is_drawn(module):
    def drawn(seed):
        seed_generators(seed, torch.device("cpu"))
        with Interception(lambda source: 1).on():
            seen = []
            for _ in range(2):
                module.seed()
                seen.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
        return seen

    first, second = drawn(7)
    assert first != second
    assert drawn(7) == [first, second] != drawn(8)


def test_what_is_no_seed_is_refused_as_ever():
    with Interception(lambda source: 1).on():
        with pytest.raises(ValueError, match="Seed must be between"):
            np.random.seed(-1)
        with pytest.raises(ValueError, match="invalid literal"):
            torch.manual_seed("a")


def test_seeds_that_are_equal_numbers_are_equal():
    assert len({mapped_seed(seed, "init", 1) for seed in (42, np.int64(42), torch.tensor(42), np.array(42))}) == 1
    assert mapped_seed("a", "init", 1) != mapped_seed("b", "init", 1)


def test_the_report_names_the_function_and_the_users_line():
    interception = Interception(lambda source: 1)
    with interception.on():
        torch.manual_seed(42)
        torch.manual_seed(42)
    first, second = interception.counts.to_json()["reseedings"]
    assert first["function"] == "torch.manual_seed"
    name, line = first["place"].split(":")
    assert (name, second["place"]) == ("test_reseedings.py", f"{name}:{int(line) + 1}")
