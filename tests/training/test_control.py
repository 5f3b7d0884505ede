"""The control: each planted leak is caught and placed, and what is held by design is not mistaken for one."""

from __future__ import annotations

import functools
import itertools
import os
import random
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.errors import IsolationError, TaskError
from stabilitykit.execution.executor import InProcess
from stabilitykit.isolation.streams import seed_generators
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.training.control import difference, prove_isolation
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import TRACED_EPOCHS
from stabilitykit.training.task import as_task
from stabilitykit.training.trainer import Trainer
from tests.ledger import LEDGER, keep_ledger

pytestmark = pytest.mark.trains

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
INIT = NoiseProtocol("init", runs=2)


@pytest.fixture
def prove(tmp_path):
    def prove(task, protocol=INIT, epochs=TRACED_EPOCHS):
        trainer = Trainer(task, "cpu", 1, tmp_path)
        return prove_isolation(InProcess(trainer).call, trainer, protocol.plans()[0], epochs)

    return prove


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def recipe_of(model=None, train=(X, Y), **options):
    settings = {"epochs": 3, "batch_size": 8, "optimizer": sgd, "test": (X, Y)} | options
    return Recipe(model=model or (lambda: nn.Linear(4, 3)), train=train, **settings)


class Noisy(nn.Module):
    """Adds noise to its hidden layer while it trains, wherever the noise comes from."""

    def __init__(self, noise):
        super().__init__()
        self.first, self.last, self.noise = nn.Linear(4, 5), nn.Linear(5, 3), noise

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden + self.noise(hidden.shape) if self.training else hidden)


class NoisyData(Dataset):
    def __init__(self, noise):
        self.noise = noise

    def __len__(self):
        return len(Y)

    def __getitem__(self, index):
        return X[index] + self.noise(), Y[index]


own_generator = torch.Generator().manual_seed(0)
own_numpy = np.random.default_rng(0)
own_python = random.Random(0)
counter = itertools.count()


def from_the_clock(shape):
    torch.default_generator.seed()  # torch.seed() itself is intercepted in a train function
    return torch.randn(shape)


LEAKS = {
    "a generator beside the model": lambda shape: torch.randn(shape, generator=own_generator),
    "numpy's new generators": lambda shape: torch.from_numpy(own_numpy.standard_normal(shape)).float(),
    "an unseeded generator of numpy": lambda shape: torch.tensor(
        np.random.default_rng().standard_normal(shape)
    ).float(),
    "python's own generator": lambda shape: torch.full(shape, own_python.random()),
    "a seed from the clock": from_the_clock,
    "a counter": lambda shape: torch.full(shape, float(next(counter))),
    "the time": lambda shape: torch.full(shape, time.perf_counter_ns() % 1000 / 1000),
    "the system's entropy": lambda shape: torch.full(shape, random.SystemRandom().random()),
}


def test_a_leak_names_the_variables_that_the_training_sets(prove, monkeypatch):
    def noise(shape):
        os.environ["ACME_STEPS"] = str(int(os.environ.get("ACME_STEPS", "0")) + 1)
        return torch.full(shape, float(os.environ["ACME_STEPS"]))

    monkeypatch.delenv("ACME_STEPS", raising=False)
    with pytest.raises(IsolationError, match=r"that is put back after each training: ACME_STEPS\.$"):
        prove(recipe_of(lambda: Noisy(noise)), INIT)
    assert "ACME_STEPS" not in os.environ


@pytest.mark.parametrize("noise", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize("protocol", [INIT, NoiseProtocol("all", runs=2), NoiseProtocol(perturb="ulp", runs=2)])
def test_a_leak_in_the_model_is_caught_at_its_first_tensor_and_epoch(prove, noise, protocol):
    with pytest.raises(IsolationError) as leak:
        prove(recipe_of(lambda: Noisy(noise)), protocol)
    assert str(leak.value).startswith(
        "Expected two trainings under one plan to be bit-identical, but they differ in 'first.weight' after epoch 0 "
        "(from 0) and 3 more tensors."
    )
    assert "Take its seed from run.stream(...)" in str(leak.value)


@pytest.mark.parametrize("noise", LEAKS.values(), ids=LEAKS)
def test_a_leak_in_the_dataset_is_caught(prove, noise):
    with pytest.raises(IsolationError, match=r"differ in 'weight' after epoch 0 \(from 0\) and 1 more tensors\."):
        prove(recipe_of(train=NoisyData(lambda: noise((4,)))))


@pytest.mark.parametrize("noise", LEAKS.values(), ids=LEAKS)
def test_a_leak_in_the_augmentation_is_caught(prove, noise):
    with pytest.raises(IsolationError, match=r"'weight' after epoch 0"):
        prove(recipe_of(augment=lambda x: x + noise(x.shape)))


@pytest.mark.parametrize(
    "noise",
    [
        torch.randn,
        lambda shape: torch.full(shape, random.random()),
        lambda shape: torch.from_numpy(np.random.standard_normal(shape)).float(),
    ],
    ids=["torch", "random", "numpy"],
)
class TestGlobalGenerators:
    """Draws from the three global generators are held wherever they happen: that is what the streams are for."""

    def test_they_are_held_in_the_model_and_in_a_dataset(self, prove, ask, noise):
        recipe = recipe_of(lambda: Noisy(noise), NoisyData(lambda: noise((4,))), augment=lambda x: x + noise(x.shape))
        assert prove(recipe).proven
        study = ask(recipe, "none", runs=3)
        assert len({record.fingerprint for record in study.records}) == 1

    def test_they_are_held_in_a_loop(self, prove, noise):
        assert prove(as_task(loop_with(lambda run: noise((8, 4))), Y)).proven


def test_a_leak_of_one_buffer_in_the_second_epoch_is_named_with_its_epoch(prove):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            if self.training:
                self.calls += 1 if self.calls < 3 else next(counter) % 7 + next(counter)  # three batches an epoch
            return self.fc(x)

    with pytest.raises(IsolationError, match=r"they differ in 'calls' after epoch 1 \(from 0\)\. Something"):
        prove(recipe_of(Counting))


def test_a_model_that_is_made_once_is_caught(prove):
    model = nn.Linear(4, 3)
    with pytest.raises(IsolationError, match=r"differ in 'weight' after epoch 0 .* state kept between runs"):
        prove(recipe_of(lambda: model))


def test_state_kept_in_the_optimizer_factory_is_caught(prove):
    rates = iter([0.1, 0.2])
    with pytest.raises(IsolationError, match="state kept between runs"):
        prove(recipe_of(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=next(rates))))


# Loops of the user's own


def loop_with(noise, *, epochs=3, perturb=True, use_epochs=True):
    def train(run):
        with run.stream("init"):
            model = nn.Linear(4, 3)
        if perturb:
            run.perturb(model)
        optimizer = sgd(model)
        for _ in run.epochs(epochs) if use_epochs else range(epochs):
            LEDGER.info("%d", run.index)
            for x, y in run.batches((X, Y), 8):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x + noise(run)), y).backward()
                optimizer.step()
        return model(X)

    return train


trained: list[int] = []


@pytest.fixture(autouse=True)
def nothing_trained():
    trained.clear()
    keep_ledger(trained)


@pytest.mark.parametrize(
    ("options", "scope", "epochs"),
    [
        ({}, "the first 2 epochs twice, bit-identical", 4),
        ({"epochs": 1}, "the first 1 epoch twice, bit-identical", 2),
        ({"perturb": False}, "the first 2 epochs twice, bit-identical", 4),
        ({"use_epochs": False}, "one run twice, bit-identical", 6),
        ({"use_epochs": False, "perturb": False}, "one run twice, bit-identical", 6),
    ],
)
def test_a_loop_is_repeated_for_its_first_epochs_or_else_in_full(prove, options, scope, epochs):
    control = prove(as_task(loop_with(lambda run: 0.0, **options), Y))
    assert control.proven
    assert control.scope == scope
    assert len(trained) == epochs


@pytest.mark.parametrize("options", [{}, {"epochs": 1}])
def test_a_full_control_repeats_one_whole_run(prove, options):
    control = prove(as_task(loop_with(lambda run: 0.0, **options), Y), epochs=None)
    assert control.scope == "one run twice, bit-identical"
    assert len(trained) == 2 * options.get("epochs", 3)


@pytest.mark.parametrize("noise", LEAKS.values(), ids=LEAKS)
@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({}, "in 'weight' after epoch 0 (from 0)"),
        ({"perturb": False}, "in the test outputs"),
        ({"use_epochs": False}, "in the test outputs"),
    ],
)
def test_a_leak_in_a_loop_is_caught(prove, noise, options, place):
    with pytest.raises(IsolationError) as leak:
        prove(as_task(loop_with(lambda run: noise((8, 4)), **options), Y))
    assert f"they differ {place}" in str(leak.value)


def test_a_late_leak_is_only_seen_by_a_full_control(prove):
    def train(run):
        with run.stream("init"):
            model = nn.Linear(4, 3)
        run.perturb(model)
        for epoch in run.epochs(4):
            if epoch == 3:
                with torch.no_grad():
                    model.weight += own_numpy.standard_normal()
        return model(X)

    assert prove(as_task(train, Y)).proven
    with pytest.raises(IsolationError, match="in the test outputs"):
        prove(as_task(train, Y), epochs=None)


def in_loops(*counts, noise=lambda member: 0.0):
    def train(run):
        with run.stream("init"):
            models = nn.ModuleList(nn.Linear(4, 3) for _ in counts)
        run.perturb(models)
        for member, (model, count) in enumerate(zip(models, counts, strict=True)):
            optimizer = sgd(model)
            for _ in run.epochs(count):
                trained.append(0)
                for x, y in run.batches((X, Y), 8):
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(model(x) + noise(member), y).backward()
                    optimizer.step()
        return sum(model(X) for model in models)

    return train


@pytest.mark.parametrize(
    ("counts", "planned", "is_cut"),
    [
        ((3, 3, 3), 9, True),
        ((5, 4), 9, True),
        ((2, 2), 4, True),
        ((1, 2), 3, True),
        ((1, 1), 2, False),
        ((2,), 2, False),
    ],
)
def test_several_loops_are_rehearsed_as_one_training(prove, tmp_path, counts, planned, is_cut):
    task = as_task(in_loops(*counts), Y)
    control = prove(task)
    assert control.scope == "the first 2 epochs twice, bit-identical"
    assert (control.planned_epochs, control.is_cut) == (planned, is_cut)
    assert len(trained) == 4
    whole = Trainer(task, "cpu", 1, tmp_path).train_once(INIT.plans()[0])
    assert whole.status == "ok"
    assert whole.trace == control.trace


@pytest.mark.parametrize("counts", [(3, 3), (1, 1, 4), (2, 2)])
def test_several_loops_are_certified_whole(ask, counts):
    study = ask(as_task(in_loops(*counts), Y), "init")
    assert study.certificate.line().startswith("held: the whole run twice, bit-identical; alive: init")


def test_the_first_epochs_of_several_loops_are_said_to_be_only_those(ask):
    study = ask(as_task(in_loops(5, 4), Y), "init", control="first")
    assert study.certificate.scope == "only the first 2 epochs twice, bit-identical, of 9 epochs"


def test_a_leak_in_a_later_loop_is_placed_in_the_whole_training(prove):
    with pytest.raises(IsolationError, match=r"after epoch 1 \(from 0\)"):
        prove(as_task(in_loops(1, 4, noise=lambda member: member * float(own_numpy.random()) * torch.arange(3)), Y))


def test_trainings_of_another_length_are_told_apart(prove):
    lengths = iter([2, 1] * 4)

    def train(run):
        with run.stream("init"):
            model = nn.Linear(4, 3)
        run.perturb(model)
        last = next(lengths)
        for epoch in run.epochs(5):
            if epoch == last:  # as a coin or the clock may decide
                break
        return model(X)

    expected = (
        r"but one completed 2 epochs, the other 1 \(does the function return .*\)\. Something that is held is not: "
    )
    with pytest.raises(IsolationError, match=expected):
        prove(as_task(train, Y))


def fitted(seed, noise):
    torch.manual_seed(seed)
    model = nn.Linear(4, 3)
    optimizer = sgd(model)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X + noise), Y).backward()
        optimizer.step()
    return model


@pytest.mark.slow
@pytest.mark.parametrize("counts_epochs", [False, True])
@pytest.mark.parametrize("epochs", [TRACED_EPOCHS, None])
def test_a_model_from_a_cache_is_no_second_training(prove, counts_epochs, epochs):
    kept = {}

    def train(run):
        seed = run.seeds["init"]
        if seed not in kept:
            if counts_epochs:
                list(run.epochs(3))
            kept[seed] = fitted(seed, float(own_numpy.standard_normal()))
        return run.perturb(kept[seed])(X)

    found = "one completed [23] epochs, the other 0" if counts_epochs else "an optimizer made steps in one"
    with pytest.raises(
        IsolationError, match=rf"{found}.*\(does the function return something that an earlier training"
    ):
        prove(as_task(train, Y), epochs=epochs)


def test_a_training_without_an_optimizer_of_torchs_is_proven(prove):
    def train(run):
        with run.stream("init"):
            model = nn.Linear(4, 3)
        return run.perturb(model)(X)

    assert prove(as_task(train, Y)).proven


@pytest.mark.slow
def test_a_cache_that_an_earlier_session_left_is_seen_beside_runs_that_train(ask, make_session):
    kept = {}

    def train(run):
        seed = run.seeds["init"]
        if seed not in kept:
            kept[seed] = fitted(seed, float(own_numpy.standard_normal()))
        return run.perturb(kept[seed])(X)

    with pytest.raises(IsolationError, match="an optimizer made steps in one, and none in the other"):
        ask(as_task(train, Y), "init")
    with pytest.raises(IsolationError, match="run 0, 1 completed no epoch and no step of an optimizer, and the others"):
        ask(as_task(train, Y), "init", session=make_session(folder="other"))


def test_the_repeat_is_trained_over_other_global_generators_which_are_put_back(prove, monkeypatch):
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    def drawing(*args, **options):
        drawn.append(draw())
        return rehearse(*args, **options)

    seed_generators(3, torch.device("cpu"))
    expected = [draw(), draw(), draw()]
    seed_generators(3, torch.device("cpu"))
    drawn, rehearse = [], Trainer.rehearse
    monkeypatch.setattr(Trainer, "rehearse", drawing)
    for _ in range(2):
        assert prove(recipe_of()).proven
    assert [draw(), draw(), draw()] == expected
    assert len({*expected, *drawn}) == 3 + 3  # the second is trained over numbers that no plan has
    assert drawn[0] == drawn[2]


# Black boxes


def test_a_black_box_can_be_proven(prove):
    def seeded(seed):
        return np.random.default_rng(seed).standard_normal((24, 3))

    control = prove(as_task(seeded, Y), NoiseProtocol("all", runs=2), epochs=None)
    assert control.proven
    assert control.scope == "one run twice, bit-identical"


@pytest.mark.parametrize("noise", LEAKS.values(), ids=LEAKS)
def test_a_leak_in_a_black_box_is_caught_on_request(prove, ask, noise):
    def leaking(seed):
        return np.random.default_rng(seed).standard_normal((24, 3)) + noise((24, 3)).numpy()

    assert not ask(leaking, "all", runs=2, labels=Y).control.proven
    with pytest.raises(IsolationError, match="they differ in the test outputs"):
        ask(leaking, "all", runs=2, labels=Y, control="full")


# As part of a study


def test_a_leak_stops_a_study_before_its_runs_are_trained(ask):
    with pytest.raises(IsolationError):
        ask(as_task(loop_with(lambda run: own_numpy.standard_normal()), Y), "init")
    assert trained == [0, 0, 0, 0]


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(2)])
def test_a_training_that_raises_leaves_the_control_unproven_and_its_runs_to_say_why(prove, error):
    def train(run):
        raise error

    control = prove(as_task(train, Y))
    assert not control.proven
    assert control.scope == f"not proven: the training raised {type(error).__name__}"


def test_a_misuse_of_the_run_is_raised_by_the_control(prove):
    with pytest.raises(TaskError, match=r"Expected count >= 1 but got count=0.* run\.epochs\(count\)"):
        prove(as_task(lambda run: list(run.epochs(0)), Y))


def test_interrupting_the_control_goes_through(prove):
    def train(run):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prove(as_task(train, Y))


def test_partials_are_controlled_as_the_functions_they_bind(prove):
    def train(run, noise):
        return loop_with(noise)(run)

    assert prove(as_task(functools.partial(train, noise=lambda run: 0.0), Y)).proven


def record_of(*trace, **fields):
    return RunRecord(0, {}, "ok", 1.0, trace=trace, fingerprint="f", **fields)


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (record_of("a", "b"), record_of("a", "b"), ""),
        (record_of("a", "b"), record_of("a", "c"), "their weights differ after epoch 1"),
        (record_of("a", "b"), record_of(), "one completed 2 of the first 2 epochs, the other 0 (does the function"),
        (record_of("a"), record_of("a", "b"), "one completed 1 of the first 2 epochs, the other 2 (does the function"),
        (record_of(idle=True), record_of(), "an optimizer made steps in one, and none in the other (does the function"),
        (record_of(idle=True), record_of(idle=True), ""),
    ],
)
def test_two_runs_of_one_plan_are_told_apart_by_what_they_trained(one, other, found):
    assert difference(one, other).startswith(found)
    assert bool(difference(one, other)) is bool(found)
