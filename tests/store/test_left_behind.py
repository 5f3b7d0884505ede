"""What trainings leave in memory counts as it was before them; what a test sets, and what a model learned, counts."""

from __future__ import annotations

import collections
import functools
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from stabilitykit.store import left_behind
from stabilitykit.store.fingerprint import fingerprint, read

HERE = Path(__file__).parent
DATA = np.arange(6.0).reshape(3, 2)


def after_training(task, train):
    """Return the prints of a task before a training, and at the next question."""
    before = read(task, HERE)
    train()
    read(task, HERE, before=before.seen).seen.keep()
    return before.digest, fingerprint(task, HERE)


def filled_cache():
    cache = {}

    def task(key="a"):
        return cache.setdefault(key, torch.arange(3))

    return task, task, lambda: cache.update(b=1)


def counter():
    count = 0

    def task():
        nonlocal count
        count += 1

    def other():
        nonlocal count
        count = 100

    return task, task, other


def singleton():
    class Registry:
        only = None
        seen: dict[str, int] = {}  # noqa: RUF012  # shared by all, which is the case

        @classmethod
        def get(cls):
            cls.only = cls.only or cls()
            cls.seen["a"] = 1
            return cls.only

    return Registry, Registry.get, lambda: Registry.seen.update(b=2)


def cached():
    class Settings:
        rate = 1

        @functools.cached_property
        def doubled(self):
            return [self.rate * 2]

    settings = Settings()
    return settings, lambda: settings.doubled, lambda: settings.doubled.append(1)


def scaler():
    scaler = StandardScaler()
    return scaler, lambda: scaler.fit(DATA), lambda: scaler.set_params(with_mean=False)


def log():
    rates = []
    return (lambda: rates), lambda: rates.append(0.1), lambda: rates.append(0.2)


def grouped():
    groups = collections.defaultdict(list)
    return (lambda: groups), lambda: groups["a"].append(1), lambda: groups["b"].append(1)


def namespace():
    state = SimpleNamespace(step=0)
    return (lambda: state), lambda: setattr(state, "step", 1), lambda: setattr(state, "rate", 2)


def known():
    names: set[str] = set()
    return (lambda: names), lambda: names.add("a"), lambda: names.add("b")


KINDS = [filled_cache, counter, singleton, cached, scaler, log, grouped, namespace, known]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_training_leaves_counts_as_it_was_and_what_is_set_counts(kind):
    task, train, set_otherwise = kind()
    before, after = after_training(task, train)
    assert after == before
    set_otherwise()
    assert fingerprint(task, HERE) != before


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_set_before_a_training_counts_after_it(kind):
    task, train, set_otherwise = kind()
    untouched = fingerprint(task, HERE)
    set_otherwise()
    before, after = after_training(task, train)
    assert before == after != untouched


@pytest.mark.parametrize("kind", KINDS)
def test_each_training_may_leave_more(kind):
    task, train, _ = kind()
    prints = {print_ for _ in range(3) for print_ in after_training(task, train)}
    assert len(prints) == 1


def test_what_a_training_leaves_counts_as_it_was_in_another_task():
    cache: dict[str, int] = {}
    tasks = [lambda: cache, lambda: cache or None]
    before = fingerprint(tasks[1], HERE)
    after_training(tasks[0], lambda: cache.update(a=1))
    assert fingerprint(tasks[1], HERE) == before


RATE, STORE = 1, {"a": 1}


def first():
    return RATE, STORE


def second():
    return [RATE, STORE]


def test_a_global_of_another_value_counts_as_it_was(monkeypatch):
    before = fingerprint(second, HERE)

    def train():
        monkeypatch.setitem(globals(), "RATE", 2)
        monkeypatch.setitem(globals(), "STORE", {"a": 2})

    assert len({*after_training(first, train)}) == 1
    assert fingerprint(second, HERE) == before
    monkeypatch.setitem(globals(), "RATE", 3)
    assert fingerprint(second, HERE) != before


def trained(model):
    with torch.no_grad():
        model.weight.add_(1)


@pytest.mark.parametrize(
    ("task", "train"),
    [
        ((model := nn.Linear(2, 2)), functools.partial(trained, model)),
        ((generator := torch.Generator()), functools.partial(torch.rand, 1, generator=generator)),
        ((numbers := np.random.default_rng(0)), numbers.random),
        ((weights := np.zeros(3)), functools.partial(weights.fill, 1)),
        ((best := {}), lambda: best.update(model=nn.Linear(2, 2))),
        ((kept := SimpleNamespace(weight=None)), lambda: setattr(kept, "weight", nn.Parameter(torch.ones(2)))),
    ],
)
def test_a_model_or_generator_that_a_training_leaves_counts_as_it_stands(task, train):
    before, after = after_training([nn.Linear, task], train)
    assert before != after


MODEL = None


def test_a_model_that_a_training_leaves_in_a_global_counts_as_it_stands(monkeypatch):
    def task():
        return MODEL, nn.Linear

    before, after = after_training(task, lambda: monkeypatch.setitem(globals(), "MODEL", nn.Linear(2, 2)))
    assert before != after


def test_what_only_the_notes_hold_is_let_go():
    class Big:
        pass

    def noted():
        big, results = Big(), []
        after_training(lambda: results, lambda: results.append(big))
        assert id(results) in left_behind._left
        return weakref.ref(big), id(results)

    last, key = noted()
    gc.collect()
    read(0, HERE, before=read(0, HERE).seen).seen.keep()
    assert last() is None
    assert key not in left_behind._left
