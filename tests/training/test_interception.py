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
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
)
from torch.utils.data.distributed import DistributedSampler

from stabilitykit.isolation.streams import seed_generators
from stabilitykit.protocol import NoiseProtocol, Source
from stabilitykit.training.control import prove_isolation
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
        for x, y in loader:
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


class EagerBatches(Eager):
    """Whole batches, drawn as they are asked for."""

    def __iter__(self):
        order = [*super().__iter__()]
        random.shuffle(order)
        return iter([order[:7], order[7:]])


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
    "eager batches": lambda workers: DataLoader(Noisy(), batch_sampler=EagerBatches(), num_workers=workers),
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
        assert len({number for row in (*first.values(), *second.values()) for number in row}) == 6 * len(first)


def test_an_order_differs_from_pass_to_pass(draws):
    drawn = draws(loader_of)["shuffle"]
    assert drawn[:4] != drawn[4:]


class Stream(IterableDataset):
    """A stream of examples that draws as it goes, from its first line on."""

    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        first = random.random()
        return (
            (torch.tensor([i, first, float(torch.rand(())), 0.0], dtype=torch.float64), i % 2)
            for i in range(start, N, step)
        )


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 2, "persistent_workers": True}])
def test_a_stream_of_examples_draws_by_augment_the_pass_and_its_process(draws, options):
    def make():
        return loader_of(Stream(), shuffle=None, **options)

    base = draws(make)
    assert not different(base, draws(make, outside=2))
    assert base["augment"][0] != base["augment"][1]
    for source in SOURCES:
        assert different(base, draws(make, source)) == {source} - {"shuffle"}


def test_one_loader_process_streams_as_none_does(draws):
    made = [draws(lambda workers=workers: loader_of(Stream(), shuffle=None, workers=workers)) for workers in (0, 1)]
    assert not different(*made)


def reseed():
    torch.manual_seed(42)
    random.seed(42)
    np.random.seed(42)


class Reseeding(Noisy):
    def __getitem__(self, index):
        random.seed(index)
        return super().__getitem__(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fixed_seed_inside_kills_no_variation_and_moves_nothing_that_is_held(draws, workers):
    def make():
        reseed()
        return loader_of(Reseeding(), workers, worker_init_fn=lambda worker: reseed())

    base = draws(make, before=reseed)
    assert not different(base, draws(make, before=reseed, outside=2))
    for source in SOURCES:
        assert different(base, draws(make, source, before=reseed)) == {source}
    first = base["record"].intercepted["reseedings"][0]
    assert first["function"] == "torch.manual_seed"
    assert first["place"].startswith("test_interception.py:")


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_seed_that_an_item_sets_is_mapped_in_each_process_alike(draws, context):
    base = draws(lambda: loader_of(Reseeding()))
    assert not different(base, draws(lambda: loader_of(Reseeding(), 2, multiprocessing_context=context)))


class Restoring(Noisy):
    """Items under a seed of their own, after which the generators are as before."""

    def __getitem__(self, index):
        states = random.getstate(), np.random.get_state(), torch.get_rng_state()
        random.seed(index)
        np.random.seed(index)
        torch.manual_seed(index)
        item = super().__getitem__(index)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        return item


class Resampling(Noisy):
    """Items that draw by a sampler, and by a loader."""

    def __getitem__(self, index):
        data = torch.arange(1000)
        drawn = [int(index), *RandomSampler(data, num_samples=1), *next(iter(DataLoader(data, 2, shuffle=True)))]
        return torch.tensor(drawn, dtype=torch.float64), index % 2


@pytest.mark.parametrize("items", [Restoring, Resampling])
@pytest.mark.parametrize("workers", [0, 2])
def test_all_that_an_item_draws_is_of_augment(draws, items, workers):
    base = draws(lambda: loader_of(items()))
    for source in SOURCES:
        assert different(base, draws(lambda: loader_of(items(), workers), source)) == {source}


def test_splits_are_data(draws):
    splits = []

    def make():
        train, test = random_split(Noisy(), [12, 4])
        splits.append((train.indices, test.indices))
        return loader_of(train)

    base = draws(make)
    for source in SOURCES:
        draws(make, source, outside=3)
    assert all(split == splits[0] for split in splits)
    assert base["record"].intercepted["splits"] == 1


def test_a_loader_made_anew_for_each_pass_has_another_order(draws):
    class Anew:
        def __iter__(self):
            return iter(loader_of())

    base = draws(Anew)
    assert base["shuffle"][:4] != base["shuffle"][4:]
    assert not different(base, draws(Anew, outside=2))
    assert different(base, draws(Anew, "shuffle")) == {"shuffle"}


def test_an_explicit_stream_around_a_loader_moves_neither_its_order_nor_its_items(draws):
    def within(run, seen, make_loader):
        with run.stream("augment"):
            return loop(run, seen, make_loader)

    base, explicit = draws(loader_of), draws(loader_of, function=within)
    assert different(base, explicit) == {"stochastic"}


def test_batches_of_the_run_are_as_without_an_interception(tmp_path):
    def train(run, workers):
        model = run.perturb(Model())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in run.epochs(2):
            for x, y in run.batches(Noisy(), 4, num_workers=workers):
                nn.functional.cross_entropy(model(x[:, :4]), y).backward()
                optimizer.step()
        return torch.zeros(N, 2)

    prints = set()
    for workers in (0, 2):
        for intercepts in (True, False):
            task = LoopTask(functools.partial(train, workers=workers), Y, None, intercepts)
            record = Trainer(task, "cpu", 1, tmp_path).train_once(plan())
            assert record.intercepted == {}
            prints.add(record.fingerprint)
    assert len(prints) == 1


def test_a_run_that_raises_leaves_torch_as_it_was(tmp_path):
    before = DataLoader._get_iterator, torch.random.default_generator, random.seed

    def train(run):
        for _ in loader_of():
            raise ZeroDivisionError

    record = Trainer(LoopTask(train, Y), "cpu", 1, tmp_path).train_once(plan())
    assert "ZeroDivisionError" in record.error
    assert (DataLoader._get_iterator, torch.random.default_generator, random.seed) == before


def epochs(run, seen, make_loader):
    """The loop of `loop`, with the epochs of the run."""
    with run.stream("init"):
        model = run.perturb(Model())
    loader, optimizer = make_loader(), torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in run.epochs(3, state=(model, optimizer)):
        for x, y in loader:
            seen.drawn["shuffle"].append([int(i) for i in x[:, 0]])
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[:, :4]), y).backward()
            optimizer.step()
    return model.eval()(torch.ones(N, 4, dtype=torch.float32))


@pytest.mark.parametrize("workers", [0, 2])
def test_orders_begin_to_vary_at_the_onset(tmp_path, workers):
    orders = []
    for protocol in NoiseProtocol("shuffle", runs=2, seed=BASE_SEED, onset=2).plans():
        seen = Seen()
        make = functools.partial(loader_of, workers=workers, persistent_workers=workers > 0)
        task = LoopTask(functools.partial(epochs, seen=seen, make_loader=make), Y)
        assert Trainer(task, "cpu", 1, tmp_path).train_once(protocol).status == "ok"
        orders.append(seen.drawn["shuffle"])
    one, other = orders
    assert one[:8] == other[:8]
    assert one[8:] != other[8:]


def test_epochs_before_an_onset_are_not_shared_where_loaders_go_on(make_session):
    from stabilitykit.execution.session import measure

    task = LoopTask(functools.partial(epochs, seen=Seen(), make_loader=loader_of), Y)
    study = measure(task, NoiseProtocol("shuffle", runs=3, seed=BASE_SEED, onset=2), session=make_session())
    assert study.certificate.proven
    assert len({record.fingerprint for record in study.records}) == 3


@pytest.mark.parametrize("workers", [0, 2])
def test_the_control_is_exact_under_another_state_of_the_process(tmp_path, workers):
    task = LoopTask(functools.partial(epochs, seen=Seen(), make_loader=lambda: loader_of(workers=workers)), Y)
    trainer = Trainer(task, "cpu", 1, tmp_path)
    assert prove_isolation(lambda f, *arguments: f(trainer, *arguments), trainer, plan(), None).proven


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_seed_that_an_item_of_the_runs_own_batches_sets_is_mapped_in_each_process(tmp_path, monkeypatch, context):
    import torch.multiprocessing as processes

    drawn = []

    def train(run, workers):
        drawn.append([x.tolist() for x, _ in run.batches(Reseeding(), 4, num_workers=workers)])
        return torch.zeros(N, 2)

    monkeypatch.setattr("torch.multiprocessing.Process", processes.get_context(context).Process)
    monkeypatch.setattr("torch.multiprocessing.Queue", processes.get_context(context).Queue)
    monkeypatch.setattr("torch.multiprocessing.Event", processes.get_context(context).Event)
    for workers in (0, 2):
        task = LoopTask(functools.partial(train, workers=workers), Y)
        record = Trainer(task, "cpu", 1, tmp_path).train_once(plan())
        assert record.status == "ok", record.error
    assert drawn[0] == drawn[1]


def test_a_loader_that_outlives_its_run_is_as_new_in_the_next_one(draws):
    lasting = loader_of(workers=2, persistent_workers=True)
    made = [draws(lambda: lasting, outside=outside) for outside in (1, 2)]
    assert not different(*made)
    assert different(made[0], draws(lambda: lasting, "augment")) == {"augment"}
    assert not different(made[0], draws(loader_of))


def test_loader_processes_that_were_started_before_are_started_anew(draws):
    lasting = loader_of(workers=2, persistent_workers=True)
    list(lasting)
    assert not different(draws(lambda: lasting), draws(loader_of))
    assert len(list(lasting)) == N // 4
