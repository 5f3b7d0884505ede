"""Orders of torch's samplers, and of those by hand, within a pass and outside of a loader."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from stabilitykit.isolation.interception import Interception
from stabilitykit.isolation.orders import Order, draws

CPU = torch.device("cpu")
SAMPLERS = {
    "random": lambda: RandomSampler(range(12), generator=torch.Generator().manual_seed(42)),
    "replacement": lambda: RandomSampler(range(12), replacement=True, num_samples=70),
    "subset": lambda: SubsetRandomSampler(range(12)),
    "weighted": lambda: WeightedRandomSampler([1.0] * 12, 12),
    "distributed": lambda: DistributedSampler(range(12), 2, 0),
    "batches": lambda: BatchSampler(RandomSampler(range(12)), 5, False),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_without_a_loader_draws_by_the_seed_and_the_pass(kind):
    def orders(shuffle, draw):
        with Interception(lambda source: shuffle).on():
            sampler, other = SAMPLERS[kind](), SAMPLERS[kind]()
            torch.rand(draw)
            return [[*sampler], [*other], [*sampler]]

    first = orders(1, 5)
    assert first == orders(1, 6)
    assert all(a != b for a, b in zip(first, orders(2, 5), strict=True))
    assert first[0] != first[1]
    assert (first[0] != first[2]) == (kind != "distributed")  # whose passes are those that set_epoch names


def test_torch_draws_the_same_number_of_examples_as_ever():
    with Interception(lambda source: 1).on():
        counts = Counter(RandomSampler(range(5), num_samples=12))
        assert sorted(counts.values()) == [2, 2, 2, 3, 3]
        assert [*RandomSampler(range(1), num_samples=3)] == [0, 0, 0]


def test_which_samplers_draw():
    assert [draws(make()) for make in SAMPLERS.values()] == [True] * len(SAMPLERS)
    assert not draws(SequentialSampler(range(3)))
    assert not draws(BatchSampler(SequentialSampler(range(3)), 2, False))
    assert not draws([[0, 1], [2]])
    assert not draws(DistributedSampler(range(12), 2, 0, shuffle=False))
    assert draws(type("Own", (Sampler,), {"__iter__": lambda self: iter([0])})())


def test_where_an_example_may_come_twice():
    def repeats(sampler):
        return Order(sampler, 1, 1, CPU, []).repeats

    assert not repeats(SAMPLERS["random"]())
    assert not repeats(SAMPLERS["batches"]())
    assert repeats(SAMPLERS["replacement"]())
    assert repeats(SAMPLERS["weighted"]())
    assert repeats(RandomSampler(range(3), num_samples=4))
