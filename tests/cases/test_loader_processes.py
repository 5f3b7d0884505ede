"""Loader processes draw what one process draws, in a child too; a generator that no source reaches is refused.

After public threads on DataLoader's worker processes, each with its link and its right outcome.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from stabilitykit import Recipe
from stabilitykit.errors import IsolationError
from tests.conftest import recipe_of

pytestmark = pytest.mark.trains


class Noisy(Dataset):
    """48 points with noise from numpy's global generator, or from one of its own as several libraries have it."""

    def __init__(self, blobs, *, owns: bool = False, noise: float = 0.1) -> None:
        self.x, self.y, self.noise = blobs[0].numpy(), blobs[1].numpy(), noise
        self.draws = np.random.RandomState(0) if owns else np.random

    def __getstate__(self):
        return vars(self) | {"draws": None if self.draws is np.random else self.draws}

    def __setstate__(self, state):
        vars(self).update(state, draws=state["draws"] or np.random)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int):
        drawn = self.noise * self.draws.standard_normal(6)
        return (self.x[i] + drawn).astype(np.float32), int(self.y[i])


def task(blobs, workers: int, **options) -> Recipe:
    plain = recipe_of(lambda: nn.Linear(6, 3), blobs, lr=0.1)
    data = {"train": Noisy(blobs, **options), "test": Noisy(blobs, noise=0.0)}
    return Recipe(**{**vars(plain), **data, "num_workers": workers, "epochs": 2, "_prepared": {}})


def bits(study) -> list[str]:
    return [record.fingerprint for record in study.records]


def answer(make_session, recipe: Recipe, name: str, **where):
    from stabilitykit.execution.session import measure
    from stabilitykit.protocol import NoiseProtocol
    from tests.seeds import BASE_SEED

    protocol = NoiseProtocol("augment", runs=2, seed=BASE_SEED)
    return measure(recipe, protocol, session=make_session(name, folder=name, **where))


def test_draws_are_those_of_augment_whatever_the_number_of_processes(make_session, blobs):
    """No case of its own, but what all of them rest on; the number is no part of the key then."""
    alone, two = (answer(make_session, task(blobs, workers), f"{workers}") for workers in (0, 2))
    assert bits(alone) == bits(two)
    assert len(set(bits(alone))) == 2


@pytest.mark.slow
def test_a_child_may_have_loader_processes(make_session, blobs):
    """https://github.com/open-edge-platform/anomalib/pull/3016: daemonic processes may not have children."""
    here = answer(make_session, task(blobs, 0), "here")
    child = answer(make_session, task(blobs, 2), "child", isolation="process")
    assert bits(here) == bits(child)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_with_a_generator_of_its_own_is_refused(make_session, blobs, workers):
    """https://github.com/Project-MONAI/MONAI/issues/1068: the same numbers in every loader process and epoch.

    Each process has a copy of the generator, so that bits depend on their number, and `augment` cannot reach it.
    """
    with pytest.raises(IsolationError, match="of its own"):
        answer(make_session, task(blobs, workers, owns=True), f"{workers}")


def test_persistent_workers_of_a_loader_that_runs_share(ask, blobs):
    """https://github.com/albumentations-team/albumentations/issues/2559: a run draws where the last one stopped."""
    loader = DataLoader(Noisy(blobs), batch_size=16, shuffle=True, num_workers=1, persistent_workers=True)

    def train(run):
        with run.stream("init"):
            model = nn.Linear(6, 3)
        run.perturb(model)
        for _ in run.epochs(2):
            for x, y in loader:
                nn.functional.cross_entropy(model(x), y).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
        return model(blobs[0])

    with pytest.raises(IsolationError):
        ask(train, "init", labels=blobs[1], intercept=False)
    study = ask(train, "init", labels=blobs[1])  # each pass is told to the process that goes on
    assert study.certificate.proven
    assert len(set(bits(study))) == 3


# Siblings


def test_workers_that_draw_from_torch(make_session, blobs):
    class Torch(Noisy):
        def __getitem__(self, i):
            return torch.from_numpy(self.x[i]) + 0.1 * torch.randn(6), int(self.y[i])

    def of(workers):
        return Recipe(**{**vars(task(blobs, workers)), "train": Torch(blobs), "_prepared": {}})

    alone, two = (answer(make_session, of(workers), f"{workers}") for workers in (0, 2))
    assert bits(alone) == bits(two)
    assert len(set(bits(alone))) == 2


def test_a_cache_that_a_dataset_fills_changes_no_item(make_session, blobs):
    class Cached(Noisy):
        def __getitem__(self, i):
            self.kept = {**getattr(self, "kept", {}), i: self.x[i]}
            return self.kept[i], int(self.y[i])

    recipe = Recipe(**{**vars(task(blobs, 0)), "train": Cached(blobs), "_prepared": {}})
    study = answer(make_session, recipe, "cached")
    assert study.certificate.dead == ("augment",)


def test_items_that_depend_on_those_read_before_are_refused(make_session, blobs):
    """As mixing with the last item does: the first of each loader process has none before it."""

    class Mixed(Noisy):
        last = 0.0

        def __getitem__(self, i):
            mixed, self.last = self.x[i] + 0.1 * self.last, self.x[i]
            return mixed.astype(np.float32), int(self.y[i])

    recipe = Recipe(**{**vars(task(blobs, 0)), "train": Mixed(blobs), "_prepared": {}})
    with pytest.raises(IsolationError, match="to be the same whenever it is read under one seed"):
        answer(make_session, recipe, "mixed")
