"""Claims: a run is trained by one process at a time, and deaths are counted."""

from __future__ import annotations

import json
import os
import signal
import socket
import time

import pytest

from stabilitykit.errors import StoreError
from stabilitykit.store.claims import MOST_DEATHS
from stabilitykit.store.run_store import FORMAT
from tests.store.small_records import KEY, claimed, publish, record
from tests.store_names import session_id

HOLD = """
import sys, time
from pathlib import Path
from stabilitykit.store.run_store import RunStore
claim = RunStore(Path(sys.argv[1]), sys.argv[2]).experiment(sys.argv[3], {}).claim(0)
print("none" if claim is None else claim.attempt, flush=True)
time.sleep(60)
"""


@pytest.fixture
def claim_elsewhere(tmp_path, start_holder):
    """Start a process that claims run 0 in a session and trains for ever; give it and its attempt."""

    def start(session="one"):
        return start_holder(HOLD, tmp_path / "store", session_id(session), KEY)

    return start


def kill(child):
    child.send_signal(signal.SIGKILL)
    child.wait()


class TestClaims:
    def test_a_run_is_claimed_by_one(self, open_store, tmp_path):
        one, other = open_store(), open_store()
        claim = one.claim(0)
        assert (claim.index, claim.attempt) == (0, 1)
        assert one.claim(0) is None
        assert other.claim(0) is None
        assert not other.is_free(0)
        assert other.is_free(1)
        one.release(claim)
        assert other.is_free(0)
        assert not list((tmp_path / f"store/v{FORMAT}/{KEY}/claims").iterdir())

    def test_another_process_holds_its_claim_until_it_is_killed_and_then_the_run_is_free(
        self, open_store, claim_elsewhere
    ):
        child, attempt = claim_elsewhere()
        experiment = open_store()
        assert attempt == "1"
        assert experiment.claim(0) is None
        assert not experiment.is_finished(0)
        kill(child)
        claim = experiment.claim(0)
        assert (claim.index, claim.attempt) == (0, 2)
        experiment.publish(claim, record())
        experiment.release(claim)
        assert experiment.load(0).trained_by["attempt"] == 2

    def test_two_deaths_in_one_session_make_a_crash(self, open_store, claim_elsewhere):
        pids = []
        for attempt in ("1", "2"):
            child, got = claim_elsewhere()
            assert got == attempt
            pids.append(child.pid)
            kill(child)
        experiment = open_store()
        assert experiment.claim(0) is None
        crashed = experiment.load(0)
        assert crashed.status == "crashed"
        assert crashed.error.startswith("2 processes died while training this run: ")
        assert all(f"process {pid} on " in crashed.error for pid in pids)
        # Nothing stays claimed, and the next session tries again from the start.
        later = open_store("two")
        assert not later.is_finished(0)
        claim = later.claim(0)
        assert claim.attempt == 1
        later.release(claim)

    def test_a_child_that_dies_twice_makes_a_crash_that_says_why(self, open_store):
        experiment = open_store(worker="gw1")
        claim = experiment.claim(0)
        claim = experiment.claims.note_death(0, "exit code -9 (SIGKILL)", pid=4711)
        assert (claim.index, claim.attempt) == (0, 2)
        assert not open_store().is_free(0)
        claim = experiment.claims.note_death(0, "exit code 3")
        assert claim.attempt == 3 > MOST_DEATHS
        experiment.publish_crash(claim, {"init": 3}, experiment.claims.recorded_deaths(0))
        experiment.release(claim)
        crashed = open_store().load(0)
        host = socket.gethostname()
        assert crashed.error == (
            f"2 processes died while training this run: process 4711 on {host} (worker gw1), exit code -9 "
            f"(SIGKILL); a process on {host} (worker gw1), exit code 3"
        )
        assert (crashed.status, crashed.seeds) == ("crashed", {"init": 3})

    def test_a_child_that_dies_once_is_forgotten_when_its_claim_is_given_back(self, open_store):
        experiment = open_store()
        claim = experiment.claims.note_death(experiment.claim(0).index, "exit code 3")
        experiment.release(claim)
        assert experiment.claim(0).attempt == 1

    def test_the_deaths_of_children_and_of_their_parent_add_up(self, open_store, claim_elsewhere):
        child, _ = claim_elsewhere()
        kill(child)
        experiment = open_store()
        claim = experiment.claim(0)
        assert claim.attempt == 2
        claim = experiment.claims.note_death(0, "exit code 3")
        assert claim.attempt == 3
        experiment.publish_crash(claim, {}, experiment.claims.recorded_deaths(0))
        experiment.release(claim)
        assert f"process {child.pid} on " in experiment.load(0).error
        assert "left no exit status; a process on" in experiment.load(0).error

    def test_a_claim_that_cannot_be_written_is_an_error_and_is_not_held(self, open_store, tmp_path):
        experiment = open_store()
        (tmp_path / f"store/v{FORMAT}/{KEY}/claims/0000.json").mkdir(parents=True)
        with pytest.raises(StoreError, match=r"Expected to write .*claims/0000\.json but got:"):
            experiment.claim(0)
        assert experiment.is_free(0)

    def test_who_trains_what_is_known_to_all(self, open_store, claim_elsewhere):
        experiment = open_store(worker="gw1")
        assert experiment.claims.running() == {}
        child, _ = claim_elsewhere("two")
        before = time.time()
        claim = experiment.claim(3)
        running = experiment.claims.running()
        assert list(running) == [0, 3]
        assert (running[0].worker, running[0].pid, running[0].host) == ("main", child.pid, socket.gethostname())
        assert (running[3].worker, running[3].pid, running[3].attempt) == ("gw1", os.getpid(), 1)
        assert before <= running[3].started <= time.time()
        kill(child)
        assert list(open_store().claims.running()) == [3]
        experiment.claims.note_death(3, "exit code 3")
        assert experiment.claims.running()[3].attempt == 2
        experiment.release(claim)
        assert experiment.claims.running() == {}

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x"}'])
    def test_a_claim_that_nobody_can_read_is_nobody_s(self, open_store, tmp_path, content):
        experiment = open_store()
        claim = experiment.claim(0)
        (tmp_path / f"store/v{FORMAT}/{KEY}/claims/0000.json").write_text(content)
        assert experiment.claims.running() == {}
        experiment.release(claim)

    def test_a_finished_run_names_its_trainer_and_its_seconds(self, open_store):
        experiment = open_store(worker="gw1")
        assert experiment.finished() == {}
        publish(experiment, record(seconds=1.5))
        finished = open_store("two").finished()[0]
        assert (finished["trained_by"]["worker"], finished["seconds"]) == ("gw1", 1.5)

    def test_a_child_s_word_on_where_it_trained_goes_before_its_parent_s(self, open_store):
        publish(open_store(worker="gw1"), record(trained_by={"pid": 4711, "session": "x", "isolation": "process"}))
        trained_by = open_store("two").load(0).trained_by
        assert (trained_by["pid"], trained_by["session"], trained_by["isolation"]) == (
            4711,
            session_id("one"),
            "process",
        )

    def test_a_death_in_an_earlier_session_is_no_attempt_of_this_one(self, open_store, claim_elsewhere):
        child, _ = claim_elsewhere("yesterday")
        kill(child)
        claim = open_store().claim(0)
        assert claim.attempt == 1
        claim = open_store().claims.note_death(0, "exit code 3")
        assert claim.attempt == 2
        open_store().release(claim)

    def test_a_run_that_kills_every_session_is_told_by_the_fourth_and_tried_by_the_fifth(
        self, open_store, claim_elsewhere
    ):
        for session in ("mon", "tue", "wed"):
            child, attempt = claim_elsewhere(session)
            assert attempt == "1"
            kill(child)
        assert open_store("thu").claim(0) is None
        assert open_store("thu").load(0).error.startswith("3 processes died while training this run: ")
        claim = open_store("fri").claim(0)
        assert claim.attempt == 1
        open_store("fri").release(claim)

    @pytest.mark.parametrize("content", ["", "[]", "{"])
    def test_what_the_key_was_made_of_is_written_again_where_it_was_damaged(self, open_store, content):
        publish(open_store(), record())
        about = open_store().folder / "experiment.json"
        about.write_text(content)
        publish(open_store(), record(1))
        assert json.loads(about.read_text()) == {"task": "a"}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
    def test_an_interrupted_training_gives_its_claim_back_and_is_no_death(self, open_store, error):
        experiment = open_store()

        def interrupted():
            with claimed(experiment, 0):
                raise error

        for _ in range(3):
            with pytest.raises(error):
                interrupted()
        claim = experiment.claim(0)
        assert claim.attempt == 1
        experiment.release(claim)

    def test_there_is_no_claim_on_a_finished_run(self, open_store):
        experiment = open_store()
        publish(experiment, record())
        with claimed(experiment, 0) as claim:
            assert claim is None
        assert not experiment.is_free(0)

    def test_a_run_that_is_finished_while_its_lock_is_taken_is_not_trained_again(self, open_store, monkeypatch):
        experiment, other = open_store(), open_store()
        acquire = experiment.claims.locks.acquire

        def late(index):
            with claimed(other, index) as claim:
                other.publish(claim, record(index))
            monkeypatch.setattr(experiment.claims.locks, "acquire", acquire)
            return acquire(index)

        monkeypatch.setattr(experiment.claims.locks, "acquire", late)
        monkeypatch.setattr(
            other.claims, "locks", type("Free", (), {"acquire": lambda *_: True, "release": lambda *_: None})()
        )
        assert experiment.claim(0) is None
        monkeypatch.undo()
        assert not experiment.claims.locks.is_held(0)


def test_a_process_of_another_container_is_told_from_this_one(open_store, tmp_path):
    """There the process id is 1, and the host's name the same, in each session."""
    with claimed(open_store("one"), 3):
        (path,) = tmp_path.glob("**/claims/0003.json")
        left = json.loads(path.read_text())
    path.write_text(json.dumps(left | {"process": "of another container", "session": "two"}))
    deaths = open_store("three").claims.deaths(3)
    assert [death["pid"] for death in deaths] == [os.getpid()]
    path.write_text(json.dumps(left))
    assert open_store("three").claims.deaths(3) == []


def test_a_run_whose_place_is_blocked_is_an_error_and_not_trained_for_ever(open_store, tmp_path):
    experiment = open_store("one")
    with claimed(experiment, 0):
        (runs,) = tmp_path.glob("**/runs")
    (runs / "0000.json").symlink_to("nothing")
    with pytest.raises(StoreError, match="is a symbolic link"):
        experiment.claim(0)
    (runs / "0000.json").unlink()
    with claimed(experiment, 1) as claim:
        (runs / "0001.json").symlink_to("nothing")
        with pytest.raises(StoreError, match="something that is no result of this run lies there"):
            experiment.publish(claim, record(1))
