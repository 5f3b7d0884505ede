"""Warm-up and cosine, in whole cycles: the properties that snapshots rely on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.errors import TaskError
from stabilitykit.training.schedule import CosineCycles, warmup_cosine


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
