from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from stabilitykit.errors import ConfigError
from stabilitykit.execution.executor import RunTimeout, time_limit
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.testing import FakeTask
from tests.conftest import study_of


@pytest.fixture
def no_other_timer() -> Iterator[None]:
    """Set the timer of pytest-timeout aside, where it has one for this very test."""
    timer, handler = signal.setitimer(signal.ITIMER_REAL, 0), signal.signal(signal.SIGALRM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)


@pytest.mark.usefixtures("no_other_timer")
def test_a_block_that_takes_too_long_is_interrupted_between_two_steps() -> None:
    with pytest.raises(RunTimeout), time_limit(0.1):
        spin()  # for ever
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def spin() -> None:
    while True:
        pass


@pytest.mark.usefixtures("no_other_timer")
def test_a_block_in_time_is_left_alone_and_so_is_one_without_a_limit() -> None:
    with time_limit(600):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0), "no clock runs on after it"
    with time_limit(None):
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.usefixtures("no_other_timer")
def test_the_timer_of_a_whole_test_goes_on() -> None:
    rung = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rung.set())
    signal.setitimer(signal.ITIMER_REAL, 1000)
    with pytest.raises(RunTimeout), time_limit(0.1):
        spin()
    assert not rung.is_set()
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 999.95, "less by what the block took"
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    with time_limit(1000):  # the other one is due first
        assert rung.wait(300)


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
    assert "Set --stability-isolation process." in said[0]


# What would make a session green


class Swallows(FakeTask):
    """Catches whatever interrupts it."""

    def fit(self, run):
        until = time.monotonic() + 0.5
        try:
            while time.monotonic() < until:
                time.sleep(0.01)
        except BaseException:  # noqa: BLE001  # as users write it
            pass
        while time.monotonic() < until:
            pass
        return super().fit(run)


LEAVES = ["os._exit(0)", "os._exit(256)", "os.execv('/bin/true', ['true'])", "os.execlp('true', 'true')"]


@pytest.mark.parametrize("leave", LEAVES)
def test_a_run_that_would_end_pytest_with_success_fails(make_session, leave):
    class Leaves(FakeTask):
        def fit(self, run):
            exec(leave, {"os": os})  # a line of the test's own
            return super().fit(run)

    before = os._exit, os.execv, os.execve
    study = study_of(make_session(), Leaves(), NoiseProtocol("init", runs=2))
    assert [record.status for record in study.records] == ["failed", "failed"]
    assert "it would end pytest, and report success" in study.records[0].error
    assert (os._exit, os.execv, os.execve) == before


def test_a_forked_child_of_a_run_may_end_as_it_likes(make_session):
    class Forks(FakeTask):
        def fit(self, run):
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
            return super().fit(run)

    study = study_of(make_session(), Forks(), NoiseProtocol("init", runs=2))
    assert [record.status for record in study.records] == ["ok", "ok"]


def test_a_time_limit_that_is_caught_is_kept_all_the_same(make_session):
    study = study_of(make_session(run_timeout=0.2), Swallows(), NoiseProtocol("init", runs=2))
    assert [record.status for record in study.records] == ["timeout", "timeout"]
    assert "it caught the interruption" in study.records[0].error
