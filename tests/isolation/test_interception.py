"""The interception itself: one alone is in force, and nothing of it is left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from stabilitykit.isolation.interception import Interception
from stabilitykit.isolation.streams import Stream, current_source
from stabilitykit.protocol import Source

DATA = TensorDataset(torch.arange(12))


def places():
    """What an interception replaces, as it is now."""
    from torch.utils.data import dataset, sampler
    from torch.utils.data._utils import fetch
    from torch.utils.data.dataloader import _BaseDataLoaderIter
    from torch.utils.data.distributed import DistributedSampler

    owners = [
        torch.random, torch.cuda, torch.cuda.random, random, np.random, dataset, DataLoader, _BaseDataLoaderIter,
        fetch._MapDatasetFetcher, fetch._IterableDatasetFetcher, DistributedSampler, RandomSampler,
        sampler.SubsetRandomSampler, sampler.WeightedRandomSampler,
    ]  # fmt: skip
    return [dict(vars(owner)) for owner in owners]


def order():
    return [int(x) for (x,) in DataLoader(DATA, shuffle=True)]


def test_an_exception_leaves_nothing_replaced():
    before = places()

    def raising(batch):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), Interception(lambda source: 1).on():
        next(iter(DataLoader(DATA, collate_fn=raising)))
    assert places() == before


def test_within_another_one_it_alone_is_in_force_and_the_other_one_goes_on_after():
    before = places()
    with Interception(lambda source: 1).on():
        alone = [order(), order()]
    with Interception(lambda source: 1).on():
        found = [order()]
        with Interception(lambda source: 2).on():
            other = order()
        found.append(order())
    with Interception(lambda source: 2).on():
        assert order() == other
    assert found == alone
    assert places() == before


@pytest.mark.parametrize("begin", ["a loader", "an optimizer", "nothing"])
def test_init_ends_at_the_first_batch_or_step(begin):
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    seen = []
    interception = Interception({source: place for place, source in enumerate(Source)}.get)
    with Stream(8, source=Source.STOCHASTIC), interception.on():
        with interception.init_first():
            seen.append((current_source(), float(torch.rand(()))))
            if begin == "a loader":
                next(iter(DataLoader(DATA)))
            elif begin == "an optimizer":
                torch.optim.SGD([weight], lr=0.1).step()
            seen.append((current_source(), float(torch.rand(()))))
        assert current_source() is Source.STOCHASTIC
    with Stream(0):
        init = [float(torch.rand(())) for _ in range(2)]
    with Stream(8):
        stochastic = float(torch.rand(()))
    second = (Source.INIT, init[1]) if begin == "nothing" else (Source.STOCHASTIC, stochastic)
    assert seen == [(Source.INIT, init[0]), second]


def test_an_optimizer_after_it_is_not_listened_to():
    interception = Interception(lambda source: 1)
    with interception.on(), interception.init_first():
        pass
    weight = torch.nn.Parameter(torch.ones(1))
    weight.grad = torch.ones(1)
    torch.optim.SGD([weight], lr=0.1).step()
    assert current_source() is None
