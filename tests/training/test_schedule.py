"""Warm-up and cosine, in whole cycles: the properties that snapshots rely on."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from stabilitykit.errors import TaskError
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.schedule import CosineCycles, makes_scheduler, warmup_cosine


@st.composite
def schedules(draw):
    """A schedule, the epochs that it fits, and the steps of an epoch."""
    cycles, length = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    warmup = draw(st.integers(0, 4 * length - 1)) / 4
    return CosineCycles(cycles, warmup), cycles * length, draw(st.integers(1, 7))


@given(schedules())
def test_the_factor_lies_between_0_and_1(given_schedule):
    schedule, epochs, steps = given_schedule
    schedule.check(epochs)
    factors = [schedule(e + s / steps, epochs) for e in range(epochs) for s in range(1, steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)


@given(schedules())
def test_the_rate_is_exactly_0_at_the_end_of_each_cycle_and_nowhere_else(given_schedule):
    schedule, epochs, steps = given_schedule
    length = epochs // schedule.cycles
    for epoch in range(epochs):
        for s in range(1, steps + 1):
            ends = s == steps and (epoch + 1) % length == 0
            assert (schedule(epoch + s / steps, epochs) == 0) == ends


@given(schedules())
def test_every_cycle_is_like_the_first(given_schedule):
    schedule, epochs, steps = given_schedule
    length = epochs // schedule.cycles
    for e in range(length):
        for s in range(1, steps + 1):
            within = e + s / steps
            first = CosineCycles(1, schedule.warmup_epochs)(within, length)
            for cycle in range(schedule.cycles):
                assert schedule(cycle * length + within, epochs) == pytest.approx(first, abs=1e-9)


@given(schedules())
def test_the_rate_rises_to_1_in_the_warmup_and_only_falls_after(given_schedule):
    schedule, epochs, _ = given_schedule
    length, warmup = epochs // schedule.cycles, schedule.warmup_epochs
    up = [schedule(warmup * share, epochs) for share in (0.25, 0.5, 0.75, 1.0) if warmup]
    assert up == pytest.approx([0.25, 0.5, 0.75, 1.0][: len(up)])
    down = [schedule(warmup + (length - warmup) * k / 10, epochs) for k in range(1, 11)]
    assert down == sorted(down, reverse=True)
    assert down[4] == pytest.approx(0.5)  # half way


def test_the_papers_schedule_by_hand():
    schedule = warmup_cosine(warmup_epochs=2)
    assert schedule == CosineCycles(cycles=1, warmup_epochs=2)
    assert [schedule(epoch, 10) for epoch in (0.5, 2)] == [0.25, 1.0]
    assert schedule(4, 10) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert schedule(10, 10) == 0


def test_without_a_warmup_the_first_step_is_already_a_cosine():
    assert CosineCycles()(1, 4) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cycles": 0}, "Expected cycles >= 1 but got cycles=0."),
        ({"cycles": 1.5}, "Expected cycles >= 1 but got cycles=1.5."),
        ({"cycles": True}, "Expected cycles >= 1 but got cycles=True."),
        ({"warmup_epochs": -1}, "Expected warmup_epochs >= 0 but got warmup_epochs=-1."),
        ({"warmup_epochs": math.nan}, "Expected warmup_epochs >= 0 but got warmup_epochs=nan."),
    ],
)
def test_an_impossible_schedule_is_refused(values, message):
    with pytest.raises(TaskError) as refusal:
        CosineCycles(**values)
    assert str(refusal.value) == message


@pytest.mark.parametrize(("epochs", "advice"), [(12, "Train 10 or 15 epochs."), (3, "Train 5 epochs.")])
def test_epochs_that_are_no_multiple_of_cycles_are_refused(epochs, advice):
    with pytest.raises(TaskError) as refusal:
        CosineCycles(cycles=5).check(epochs)
    assert f"but got epochs={epochs} and cycles=5: the last cycle would stop before its rate is 0." in str(
        refusal.value
    )
    assert str(refusal.value).endswith(advice)


def test_a_warmup_as_long_as_its_cycle_is_refused():
    with pytest.raises(TaskError, match="but got 3 epochs a cycle and warmup_epochs=3"):
        CosineCycles(cycles=2, warmup_epochs=3).check(6)
    CosineCycles(cycles=2, warmup_epochs=2.9).check(6)


# Schedulers of torch's

X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3
BATCHES, EPOCHS = 3, 4


def recipe_of(schedule, optimizer=None, **options):
    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)

    settings = {"epochs": EPOCHS, "batch_size": 8, "optimizer": optimizer or sgd}
    return Recipe(lambda: nn.Linear(4, 3), (X, Y), (X, Y), schedule=schedule, **(settings | options))


def check(recipe):
    recipe.check(NoiseProtocol("init", runs=2), torch.device("cpu"))


def one_cycle(optimizer):
    return OneCycleLR(optimizer, max_lr=0.7, total_steps=BATCHES * EPOCHS)


def sequential(optimizer):
    parts = [ExponentialLR(optimizer, 0.5), StepLR(optimizer, 1)]
    return SequentialLR(optimizer, parts, milestones=[2])


@pytest.mark.trains
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step:UserWarning")  # torch 2.4's SequentialLR
@pytest.mark.parametrize(
    ("factory", "given_every", "every"),
    [
        (one_cycle, None, "batch"),
        (lambda optimizer: CyclicLR(optimizer, 0.1, 0.5, step_size_up=2), None, "batch"),
        (functools.partial(OneCycleLR, max_lr=0.7, epochs=EPOCHS, steps_per_epoch=BATCHES), None, "batch"),
        (lambda optimizer, size=2: StepLR(optimizer, size, gamma=0.1), "epoch", "epoch"),
        (lambda optimizer: CosineAnnealingLR(optimizer, EPOCHS), "epoch", "epoch"),
        (lambda optimizer: LambdaLR(optimizer, lambda step: 1 / (1 + step)), "batch", "batch"),
        (lambda optimizer: ChainedScheduler([ExponentialLR(optimizer, 0.9)]), "batch", "batch"),
        (sequential, "epoch", "epoch"),
    ],
)
def test_a_scheduler_of_torchs_steps_where_torch_steps_it(train, factory, given_every, every):
    rates = []

    def optimizer(model):
        made = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
        made.register_step_pre_hook(lambda made, *_: rates.append(made.param_groups[0]["lr"]))
        return made

    recipe = recipe_of(factory, optimizer, schedule_every=given_every)
    check(recipe)
    rates.clear()
    train(recipe)
    made = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.5, momentum=0.5)
    scheduler, expected = factory(made), []
    for _ in range(EPOCHS):
        for _ in range(BATCHES):
            expected.append(made.param_groups[0]["lr"])
            made.step()
            if every == "batch":
                scheduler.step()
        if every == "epoch":
            scheduler.step()
    assert rates == expected
    assert len(set(rates)) > 1


@pytest.mark.trains
def test_an_onset_trains_a_scheduler_from_the_start(train):
    recipe = recipe_of(one_cycle)
    held = train(recipe).fingerprint
    assert len({train(recipe, "shuffle", index, onset=2).fingerprint for index in range(3)} | {held}) == 4


def test_snapshots_have_a_schedule_of_their_own():
    recipe = recipe_of(lambda optimizer: StepLR(optimizer, 1), schedule_every="epoch")
    assert recipe.with_snapshots(cycles=2).schedule_every is None


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (
            StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), 1),
            {},
            (
                "Expected schedule= to be a function that makes a scheduler for each run's optimizer but got StepLR. "
                "Write schedule=lambda optimizer: StepLR(optimizer, ...)."
            ),
        ),
        (OneCycleLR, {}, "makes a scheduler for each run's optimizer but got the class OneCycleLR. Write"),
        (3, {}, "which returns a scheduler of torch's, but got 3. Write schedule=lambda epoch, epochs: ..."),
        (lambda: 1.0, {}, "but got <lambda>(). Write schedule=lambda epoch, epochs: ..."),
        (lambda a, b, c: 1.0, {}, "but got <lambda>(a, b, c). Write schedule=lambda epoch, epochs: ..."),
        (
            one_cycle,
            {"schedule_every": "step"},
            "Expected schedule_every='batch' or 'epoch' but got schedule_every=",
        ),
        (CosineCycles(), {"schedule_every": "epoch"}, "Expected schedule_every= beside a scheduler of torch's but got"),
        (None, {"schedule_every": "epoch"}, "Expected schedule_every= beside a scheduler of torch's but got"),
    ],
)
def test_what_is_neither_a_schedule_nor_makes_a_scheduler_is_refused(schedule, options, message):
    with pytest.raises(TaskError) as refusal:
        recipe_of(schedule, **options)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("schedule", "options", "message"),
    [
        (
            lambda optimizer: StepLR(optimizer, 2),
            {},
            (
                "Expected schedule_every= beside a StepLR: torch counts calls of its step(), and does not say whether "
                "they are batches or epochs. Add schedule_every='epoch' or schedule_every='batch', as "
                "the StepLR is meant."
            ),
        ),
        (
            lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=11),
            {},
            "Expected total_steps >= 12 in OneCycleLR, which makes a step each batch, but got total_steps=11",
        ),
        (
            lambda optimizer: ReduceLROnPlateau(optimizer, patience=3),
            {},
            "schedule(optimizer) returned ReduceLROnPlateau, which needs the value of a metric after each epoch.",
        ),
        (lambda optimizer: 0.5, {}, "(an LRScheduler) but it returned float. A factor on the learning rate takes two"),
        (
            lambda optimizer: StepLR(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1), 1),
            {"schedule_every": "epoch"},
            "to return a scheduler of this optimizer but its StepLR sets the rates of another one.",
        ),
        (
            lambda optimizer: OneCycleLR(optimizer, total_steps=12),
            {},
            "Expected schedule= to set the learning rate of a step but it raised TypeError: ",
        ),
        (lambda epoch, epochs: math.nan, {}, "Expected schedule(epoch, epochs) to return a number, a factor"),
        (lambda epoch, epochs: "half", {}, "Expected schedule= to set the learning rate of a step but it raised Type"),
    ],
)
def test_a_schedule_that_cannot_set_a_rate_is_refused_before_anything_trains(schedule, options, message):
    with pytest.raises(TaskError) as refusal:
        check(recipe_of(schedule, **options))
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("function", "makes"),
    [
        (one_cycle, True),
        (lambda optimizer, steps=3: None, True),
        (lambda opt, *more: None, True),
        (functools.partial(OneCycleLR, max_lr=0.7), True),
        (lambda epoch, epochs: 1.0, False),
        (lambda epoch, epochs=10: 1.0, False),
        (CosineCycles(), False),
        (warmup_cosine(1), False),
        (min, False),
        (None, False),
    ],
)
def test_a_function_of_the_optimizer_is_told_from_one_of_the_progress(function, makes):
    assert makes_scheduler(function) is makes
