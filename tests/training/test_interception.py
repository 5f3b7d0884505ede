"""Loops that know nothing of stabilitykit: each source moves its own draws, and nothing else, bit for bit."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler

from stabilitykit.isolation.streams import seed_generators
from stabilitykit.protocol import NoiseProtocol, Source
from stabilitykit.training.task import LoopTask
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED

N = 16
Y = torch.arange(N) % 2
SOURCES = ("init", "shuffle", "augment", "stochastic")


class Noisy(Dataset):
    """Items that draw from all three global generators."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        noise = [index, random.random(), float(np.random.rand()), float(torch.rand(()))]
        return torch.tensor(noise, dtype=torch.float64), index % 2


class OneByOne(Noisy):
    """The same, asked for a batch at once."""

    def __getitems__(self, indices):
        return [self[index] for index in indices]


def noisy_collate(batch):
    x = torch.stack([x for x, _ in batch])
    return torch.cat([x, torch.full((len(x), 1), random.random(), dtype=torch.float64)], 1), torch.tensor(
        [y for _, y in batch]
    )


class Model(nn.Module):
    def __init__(self, features=4):
        super().__init__()
        self.layer = nn.Linear(features, 2)

    def forward(self, x):
        return self.layer(nn.functional.dropout(x.float(), 0.5, self.training))


class Seen:
    """What one training drew, by source."""

    def __init__(self):
        self.drawn = {source: [] for source in SOURCES}

    def batch(self, x):
        self.drawn["shuffle"].append(x[:, 0].tolist())
        self.drawn["augment"].append({row[0]: row[1:] for row in x.tolist()})

    def items(self):
        """Items by index and pass, whatever their order."""
        return self.drawn["augment"]


def loop(run, seen, make_loader, epochs=2, before=lambda: None):
    """Train like a script from the web would, and note what is drawn."""
    before()
    with run.stream("init"):
        model = Model()
    seen.drawn["init"].append(model.layer.weight.tolist())
    loader = make_loader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(epochs):
        seen.drawn["augment"].append({})
        for batch in loader:
            x, y = batch
            seen.drawn["shuffle"].append([int(i) for i in x[:, 0]])
            seen.drawn["augment"][-1].update({int(row[0]): row[1:] for row in x.tolist()})
            seen.drawn["stochastic"].append([torch.rand(3).tolist(), random.random(), float(np.random.rand())])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[:, :4]), y).backward()
            optimizer.step()
    return torch.zeros(N, 2)


def plan(moved=None):
    protocol = NoiseProtocol("none", runs=2, seed=BASE_SEED)
    return protocol.plans()[0] if moved is None else protocol.moving_only(Source(moved))


@pytest.fixture
def draws(tmp_path):
    """Train a loop with a loader once, with one source moved, and return what it drew."""

    def draws(make_loader, moved=None, outside=1, function=loop, **options):
        seen = Seen()
        seed_generators(outside, torch.device("cpu"))
        task = LoopTask(functools.partial(function, seen=seen, make_loader=make_loader, **options), Y)
        record = Trainer(task, "cpu", 1, tmp_path).train_once(plan(moved))
        assert record.status == "ok", record.error
        seen.drawn["record"] = record
        return seen.drawn

    return draws


def different(one, other):
    return {source for source in SOURCES if one[source] != other[source]}


def loader_of(data=None, workers=0, **options):
    options = (
        {"batch_size": 4, "shuffle": True, **options} if "sampler" not in options else {"batch_size": 4, **options}
    )
    return DataLoader(Noisy() if data is None else data, num_workers=workers, **options)


class HandWritten(Sampler):
    """Draws from the global generators, one example at a time."""

    def __len__(self):
        return N

    def __iter__(self):
        for _ in range(N):
            yield (random.randrange(4) * 4 + int(torch.randint(2, ())) * 2 + int(np.random.randint(2))) % N


class Eager(Sampler):
    """Draws its order as it is asked for it, from a generator of its own that nobody moves."""

    def __init__(self):
        self.rng = np.random.default_rng(42)

    def __len__(self):
        return N

    def __iter__(self):
        return iter(self.rng.permutation(N).tolist())


class Overriding(RandomSampler):
    """A RandomSampler with an order of its own."""

    def __iter__(self):
        yield from torch.randperm(N, generator=self.generator).tolist()


class Seedable(RandomSampler):
    """As accelerate has it: seeded by its epoch alone."""

    epoch = 0

    def __iter__(self):
        self.generator = self.generator or torch.Generator()
        self.generator.manual_seed(self.epoch)
        yield from super().__iter__()
        self.epoch += 1


def own():
    return torch.Generator().manual_seed(42)


LOADERS = {
    "plain": loader_of,
    "own generator": lambda **o: loader_of(generator=own(), **o),
    "random sampler": lambda **o: loader_of(sampler=RandomSampler(range(N), generator=own()), **o),
    "replacement": lambda **o: loader_of(sampler=RandomSampler(range(N), replacement=True, num_samples=40), **o),
    "subset": lambda **o: loader_of(sampler=SubsetRandomSampler(range(3, N), generator=own()), **o),
    "weighted": lambda **o: loader_of(sampler=WeightedRandomSampler([1.0] * N, N, generator=own()), **o),
    "distributed": lambda **o: loader_of(sampler=DistributedSampler(range(N), 2, 1, seed=42), **o),
    "batch sampler": lambda **o: DataLoader(
        Noisy(), batch_sampler=BatchSampler(RandomSampler(range(N)), 3, False), num_workers=o["workers"]
    ),
    "by hand": lambda **o: loader_of(sampler=HandWritten(), **o),
    "eager": lambda **o: loader_of(sampler=Eager(), **o),
    "overriding": lambda **o: loader_of(sampler=Overriding(range(N), generator=own()), **o),
    "seedable": lambda **o: loader_of(sampler=Seedable(range(N)), **o),
    "at once": lambda **o: loader_of(OneByOne(), **o),
    "collate": lambda **o: loader_of(collate_fn=noisy_collate, **o),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_each_source_moves_its_own_draws_and_nothing_else(draws, kind, workers):
    make = functools.partial(LOADERS[kind], workers=workers)
    base = draws(make)
    assert different(base, draws(make, outside=2)) == set()
    for source in SOURCES if workers == 0 or kind in ("plain", "by hand") else ("shuffle", "augment"):
        moved = draws(make, source)
        found = different(base, moved)
        if source == "shuffle" and kind in ("replacement", "subset", "weighted", "distributed", "by hand", "collate"):
            found -= {"augment"}  # other examples are drawn, or in other company
        assert found == {source}, source


@pytest.mark.parametrize("kind", LOADERS)
def test_loader_processes_change_no_bit(draws, kind):
    made = [draws(functools.partial(LOADERS[kind], workers=workers)) for workers in (0, 1, 2)]
    assert not different(made[0], made[1])
    assert not different(made[0], made[2])


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_however_a_loader_process_is_started(draws, context):
    base = draws(loader_of)
    options = {"workers": 2, "multiprocessing_context": context, "persistent_workers": True, "prefetch_factor": 3}
    assert not different(base, draws(lambda: loader_of(**options)))


def test_an_item_differs_from_pass_to_pass(draws):
    for options in ({}, {"workers": 2, "persistent_workers": True}):
        first, second = draws(lambda options=options: loader_of(**options))["augment"]
        assert first.keys() == second.keys()
        assert all(first[index] != second[index] for index in first)


def test_an_order_differs_from_pass_to_pass(draws):
    drawn = draws(loader_of)["shuffle"]
    assert drawn[:4] != drawn[4:]
