from __future__ import annotations

import signal
import threading
import time

import pytest

from stabilitykit.errors import ConfigError
from stabilitykit.executor import RunTimeout, time_limit


def test_a_block_that_takes_too_long_is_interrupted_between_two_steps() -> None:
    began = time.monotonic()
    with pytest.raises(RunTimeout), time_limit(0.1):
        spin()
    assert time.monotonic() - began < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def spin() -> None:
    while True:
        pass


def test_a_block_in_time_is_left_alone_and_so_is_one_without_a_limit() -> None:
    with time_limit(0.05):
        pass
    with time_limit(None):
        time.sleep(0.1)


def test_the_timer_of_a_whole_test_goes_on() -> None:
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        with pytest.raises(RunTimeout), time_limit(0.1):
            time.sleep(5)
        assert not rung.is_set()
        assert rung.wait(5) or rung.is_set()
        rung.clear()
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with time_limit(5):  # the other one is due first
            rung.wait(2)
        assert rung.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_limit_outside_of_the_main_thread_is_refused_with_the_way_out() -> None:
    said: list[str] = []

    def limited() -> None:
        try:
            with time_limit(1):
                pass
        except ConfigError as error:
            said.append(str(error))

    thread = threading.Thread(target=limited)
    thread.start()
    thread.join()
    assert "Use --stability-isolation process" in said[0]
