from __future__ import annotations

import threading
import time

import pytest

from stabilitykit.stopping import Stop


def test_nothing_speaks_against_a_run_until_the_session_stops() -> None:
    stop = Stop()
    assert stop.reason_against(1e9) is None
    stop.now("first")
    stop.now("second")
    assert stop.reason_against(0) == stop.reason == "first"


def test_a_run_that_would_end_after_the_deadline_may_not_begin() -> None:
    stop = Stop(time.time() + 60, minutes=1.5)
    assert stop.reason_against(30) is None
    assert stop.reason_against(90) == "the 1.5 minutes of --stability-budget-minutes would not suffice for another run"
    assert stop.reason is None, "the session goes on"


def test_a_stop_from_another_thread_ends_the_block_that_trains_and_nothing_else() -> None:
    stop, began = Stop(), time.monotonic()
    threading.Timer(0.2, stop.now, ["enough"]).start()
    with stop.interrupts():
        time.sleep(30)
    assert time.monotonic() - began < 10
    assert stop.reason == "enough"
    stop.now("again")  # outside of the block it interrupts nobody
    time.sleep(0.05)


def test_ctrl_c_in_the_block_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt), Stop().interrupts():
        raise KeyboardInterrupt
