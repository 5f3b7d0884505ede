"""The slots of xdist's workers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stabilitykit.plugin.xdist import Slots


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
