from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from stabilitykit.execution.stop import Stop


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


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """It is ignored where the tests run in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_stop_from_another_thread_ends_the_block_that_trains_and_nothing_else() -> None:
    stop, ended = Stop(), False
    with stop.interrupts():
        threading.Thread(target=stop.now, args=["enough"]).start()
        time.sleep(500)
        ended = True
    assert not ended
    assert stop.reason == "enough"
    stop.now("again")  # outside of the block it interrupts nobody
    time.sleep(0.05)


def test_a_process_that_ignores_ctrl_c_hears_a_stop_and_nothing_else() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop, passed = Stop(), []
        with stop.interrupts():
            os.kill(os.getpid(), signal.SIGINT)
            passed.append("Ctrl-C")
            threading.Thread(target=stop.now, args=["enough"]).start()
            time.sleep(500)
            passed.append("the stop")
        assert passed == ["Ctrl-C"]
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_in_the_block_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt), Stop().interrupts():
        raise KeyboardInterrupt
