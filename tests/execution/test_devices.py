from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.errors import ConfigError
from stabilitykit.plugin.xdist import Slots
from stabilitykit.training.environment import device_of


def test_a_replacement_takes_the_slot_of_the_worker_that_died() -> None:
    slots = Slots()
    assert [slots.take(worker) for worker in ("gw0", "gw1", "gw2")] == [0, 1, 2]
    slots.give_back("gw0")
    slots.give_back("gw0")  # told twice, as of a worker that crashed while it shut down
    assert slots.take("gw3") == 0
    assert slots.take("gw4") == 3


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60))
def test_no_two_living_workers_have_one_slot_and_none_is_higher_than_needed(steps: list[tuple[bool, int]]) -> None:
    slots, living = Slots(), {}
    for born, worker in steps:
        name = f"gw{worker}"
        if born and name not in living:
            living[name] = slots.take(name)
        elif not born:
            slots.give_back(name)
            living.pop(name, None)
        assert len(set(living.values())) == len(living)
    assert all(slot < 8 for slot in living.values())


@given(st.integers(1, 4), st.integers(1, 3))
def test_every_device_gets_as_many_workers_as_were_allowed(count: int, each: int) -> None:
    devices = [f"cuda:{index}" for index in range(count)]
    given_out = [device_of(slot, devices, each) for slot in range(count * each)]
    assert {device: given_out.count(device) for device in devices} == dict.fromkeys(devices, each)
    assert given_out[:count] == devices, "a second worker on a device only when each has one"


def test_one_worker_too_many_is_told_what_to_ask_for() -> None:
    with pytest.raises(ConfigError) as refusal:
        device_of(2, ["cuda:0", "cuda:1"])
    assert str(refusal.value) == (
        "Expected at most 2 workers, 1 for each of cuda:0, cuda:1, but this is number 3. Start no more than 2, or "
        "let more workers share a device, if its memory holds as many trainings. Set --stability-workers-per-device 2."
    )
