"""The observer: it alters no bit of what it sees, and leaves nothing behind."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, Subset, TensorDataset

from stabilitykit.auditing.observation import Kind
from stabilitykit.auditing.observed_passes import name_of_item
from stabilitykit.auditing.observer import Observer
from tests.auditing.test_audit import Noisy, fit, model, right


def everything(workers: int) -> list[torch.Tensor]:
    """All kinds of draws, and where each generator stands after them."""
    random.seed(3)
    np.random.seed(np.int64(3))
    net = right(torch.tensor(3).item(), workers)  # type: ignore[arg-type]  # torch takes any number
    numbers = [torch.randperm(5), torch.from_numpy(np.random.permutation(5))]
    mixed = list(range(9))
    random.shuffle(mixed)
    halves = torch.utils.data.random_split(TensorDataset(torch.arange(8)), [4, 4])
    split = torch.tensor([list(half.indices) for half in halves])
    ends = [torch.rand(3), torch.tensor(random.random()), torch.tensor(np.random.rand())]
    return [*net.state_dict().values(), *numbers, torch.tensor(mixed), split, *ends]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_alters_no_bit(workers: int) -> None:
    plain = everything(workers)
    with Observer().on():
        seen = everything(workers)
    assert all(map(torch.equal, plain, seen))


def test_nothing_is_left_behind_by_a_training_that_raises() -> None:
    owners = DataLoader._get_iterator, DataLoader.__iter__, torch.randperm, np.random.shuffle, random.seed
    with pytest.raises(RuntimeError, match="on purpose"), Observer().on():
        raise RuntimeError("on purpose")
    assert owners == (DataLoader._get_iterator, DataLoader.__iter__, torch.randperm, np.random.shuffle, random.seed)
    observer = Observer()
    right()
    assert not observer.observation.places
    assert not observer.observation.steps


def count_of(observer: Observer, kind: Kind) -> list[int]:
    return [drawn.count for place, drawn in observer.observation.places.items() if place.kind is kind]


def test_each_draw_is_counted_once() -> None:
    with (observer := Observer()).on():
        right(workers=2)
    counts = {kind: count_of(observer, kind) for kind in (Kind.ORDER, Kind.ITEMS, Kind.LOOP, Kind.PARAMETERS)}
    assert counts == {Kind.ORDER: [2], Kind.ITEMS: [24], Kind.LOOP: [6], Kind.PARAMETERS: [4]}
    assert observer.observation.steps == 6


def test_a_pass_that_is_left_and_a_loader_within_a_loader() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(12, 3), torch.arange(12) % 2), 4, shuffle=True)

    def pairs() -> Any:
        for x, y in loader:
            next(iter(loader))
            yield x, y

    with (observer := Observer()).on():
        fit(model(dropout=False), pairs(), epochs=1)
    assert sorted(count_of(observer, Kind.ORDER)) == [1, 3], "one for each line"
    assert count_of(observer, Kind.LOOP) == []


def test_an_optimizer_that_is_made_anew_has_no_new_parameters() -> None:
    loader = DataLoader(TensorDataset(torch.zeros(4, 3), torch.arange(4) % 2), 4)
    net = model()
    with (observer := Observer()).on():
        fit(net, loader, 1)
        fit(net, loader, 1)
        fit(nn.Sequential(net, nn.Linear(2, 2)), loader, 1)
    assert count_of(observer, Kind.PARAMETERS) == [4 + 2]


def test_a_sampler_that_is_gone_through_by_hand_is_an_order() -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with (observer := Observer()).on():
        for _ in RandomSampler(range(4)):
            net(torch.zeros(1, 3)).sum().backward()
            optimizer.step()
    ((place, drawn),) = [found for found in observer.observation.places.items() if found[0].kind is Kind.ORDER]
    assert place.what == "torch.randperm"
    assert drawn.count in (1, 2), "torch draws another one for what is left over, which is nothing"


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_processes_however_they_begin(context: str) -> None:
    with (observer := Observer()).on():
        for _ in DataLoader(Noisy(draw), 4, num_workers=1, multiprocessing_context=context):
            pass
    (drawn,) = (drawn for place, drawn in observer.observation.places.items() if place.kind is Kind.ITEMS)
    assert drawn.generators == {"numpy"}
    assert len(drawn.starts) == 3, "the first batch of a process draws too"
    assert len(drawn.hashes) == 12


def draw() -> float:
    return float(np.random.rand())


def test_a_seed_of_the_systems_entropy_is_no_seed() -> None:
    with (observer := Observer()).on():
        np.random.seed()
        one = np.random.rand()
        np.random.seed()
        assert one != np.random.rand()
    ((seeding, counts),) = {
        (s._replace(line=""), tuple(c)): c for s, c in observer.observation.reseedings.items()
    }.items()
    assert seeding[0][:2] == ("numpy.random.seed", "")
    assert counts == Counter({"numpy.random.seed": 1})


def test_an_item_of_a_subset_has_the_name_that_it_has_in_the_whole() -> None:
    whole = TensorDataset(torch.arange(12))
    part = Subset(Subset(whole, [7, 5, 3]), [2, 0])
    assert [name_of_item(part, index) for index in (0, torch.tensor(1))] == ["3", "7"]
    assert name_of_item(whole, (1, "a")) == "(1, 'a')"
