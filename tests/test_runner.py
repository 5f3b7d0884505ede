"""Plans to records: in order, each trained once by whoever is free, beside any number of others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from textwrap import dedent

import pytest
import torch

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.record import RunRecord
from stabilitykit.runner import Progress, Runner
from stabilitykit.store import RunStore

PLANS = NoiseProtocol("init", runs=6).plans()


@pytest.fixture
def make(tmp_path):
    """A runner in a session by name, and the indices that it has trained."""

    def make(session="one", runs=6, cache="auto", fails=(), **options):
        trained = []

        def train(plan):
            trained.append(plan.index)
            if plan.index in fails:
                return RunRecord(plan.index, plan.seeds, "failed", 0.1, error="boom")
            return RunRecord(plan.index, plan.seeds, "ok", 0.1, logits=torch.full((2, 2), float(plan.index)))

        experiment = RunStore(tmp_path, session, cache).experiment("key", {})
        return Runner(experiment, PLANS[:runs], train, **options), trained

    return make


def values(records):
    return [None if record.logits is None else record.logits[0, 0].item() for record in records]


def test_every_run_is_trained_once_the_lowest_index_first(make):
    runner, trained = make()
    records = runner.gather()
    assert trained == [0, 1, 2, 3, 4, 5]
    assert [record.index for record in records] == trained
    assert values(records) == [0, 1, 2, 3, 4, 5]
    assert values(runner.gather()) == values(records)
    assert len(trained) == 6


def test_another_session_trains_nothing(make):
    first = make()[0].gather()
    runner, trained = make("two")
    assert values(runner.gather()) == values(first)
    assert trained == []


def test_more_runs_extend_those_there_are_and_fewer_are_a_prefix(make):
    make(runs=3)[0].gather()
    runner, trained = make("two", runs=6)
    runner.gather()
    assert trained == [3, 4, 5]
    runner, trained = make("three", runs=2)
    assert values(runner.gather()) == [0, 1]
    assert trained == []


def test_a_failed_run_is_a_record_of_its_session_and_is_tried_again_in_the_next(make):
    runner, trained = make(runs=3, fails={1})
    records = runner.gather()
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    assert records[1].error == "boom"
    again, more = make(runs=3, fails={1})
    assert [record.status for record in again.gather()] == ["ok", "failed", "ok"]
    assert (trained, more) == ([0, 1, 2], [])
    later, retried = make("two", runs=3)
    assert [record.status for record in later.gather()] == ["ok", "ok", "ok"]
    assert retried == [1]


def test_refresh_trains_every_run_once_a_session(make):
    make()[0].gather()
    runner, trained = make("two", cache="refresh")
    runner.gather()
    make("two", cache="refresh")[0].gather()
    assert trained == [0, 1, 2, 3, 4, 5]


def test_a_claimed_run_is_left_to_its_trainer_and_waited_for(make):
    owner, trained = make(runs=4)
    other, _ = make(runs=4)
    claim = other.experiment.claim(1)

    def publish():
        time.sleep(0.3)
        other.experiment.publish(claim, RunRecord(1, {}, "ok", 0.1, logits=torch.full((2, 2), 41.0)))
        other.experiment.release(claim)

    thread = threading.Thread(target=publish)
    thread.start()
    assert values(owner.gather()) == [0, 41, 2, 3]
    thread.join()
    assert trained == [0, 2, 3]


def test_an_unfinished_claim_that_is_given_back_is_trained(make):
    owner, trained = make(runs=3)
    other, _ = make(runs=3)
    claim = other.experiment.claim(0)
    threading.Timer(0.2, other.experiment.release, [claim]).start()
    assert values(owner.gather()) == [0, 1, 2]
    assert trained == [1, 2, 0]


def test_training_only_what_is_free_waits_for_nobody(make):
    helper, trained = make(runs=3)
    other, _ = make(runs=3)
    claim = other.experiment.claim(1)
    assert helper.train_free() == 2
    assert helper.train_free() == 0
    assert trained == [0, 2]
    assert not helper.is_finished()
    other.experiment.release(claim)
    assert helper.train_free() == 1
    assert helper.is_finished()


def test_a_helper_stops_between_runs_when_nobody_waits_any_more(make):
    helper, trained = make()
    assert helper.train_free(lambda: len(trained) < 2) == 2
    assert trained == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_run_is_free_again_and_those_before_it_are_kept(make, error):
    runner, trained = make()
    train = runner.train

    def interrupted(plan):
        if plan.index == 2:
            raise error
        return train(plan)

    runner.train = interrupted
    with pytest.raises(error):
        runner.gather()
    resumed, more = make("two")
    assert resumed.experiment.is_free(2)
    resumed.gather()
    assert (trained, more) == ([0, 1], [2, 3, 4, 5])


def test_a_crashed_run_has_the_seeds_of_its_plan(make):
    runner, _ = make(runs=3)
    with runner.experiment.claimed(1) as claim:
        runner.experiment.publish(claim, RunRecord(1, {}, "crashed", 0.0, error="2 processes died"))
    assert runner.gather()[1].seeds == PLANS[1].seeds


class TestProgress:
    def test_each_new_run_is_told_of_with_what_was_known_before(self, make):
        make(runs=2)[0].gather()
        told = []
        make("two", runs=4, fails={3}, study="fake init", on_progress=told.append)[0].gather()
        assert [(p.finished, p.new, p.failed) for p in told] == [(2, 0, 0), (3, 1, 0), (4, 2, 1)]
        assert {(p.study, p.total) for p in told} == {("fake init", 4)}

    def test_a_study_from_the_store_is_told_of_once(self, make):
        make()[0].gather()
        told = []
        make("two", on_progress=told.append)[0].gather()
        assert [(p.finished, p.new) for p in told] == [(6, 0)]

    def test_the_time_left_goes_by_the_new_runs(self):
        assert Progress("s", total=10, finished=4, failed=0, new=2, elapsed=6.0).seconds_left == 18
        assert Progress("s", total=10, finished=4, failed=0, new=0, elapsed=6.0).seconds_left is None
        assert Progress("s", total=10, finished=10, failed=0, new=6, elapsed=6.0).seconds_left == 0


WORKER = dedent(
    """
    import os, sys, time
    from pathlib import Path
    import torch
    from stabilitykit.protocol import NoiseProtocol
    from stabilitykit.record import RunRecord
    from stabilitykit.runner import Runner
    from stabilitykit.store import RunStore

    folder = Path(sys.argv[1])

    def train(plan):
        with open(folder / "ledger", "a") as ledger:
            ledger.write(f"{os.getpid()} {plan.index}\\n")
        time.sleep(0.05)
        return RunRecord(plan.index, plan.seeds, "ok", 0.1, logits=torch.full((2, 2), float(plan.seeds["init"] % 1000)))

    experiment = RunStore(folder / "store", "shared").experiment("key", {})
    (folder / f"ready {os.getpid()}").touch()
    while len(list(folder.glob("ready *"))) < 2:
        time.sleep(0.001)
    records = Runner(experiment, NoiseProtocol("init", runs=12).plans(), train).gather()
    print([record.logits[0, 0].item() for record in records])
    """
)


def test_two_processes_train_every_run_exactly_once_between_them(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    lines = [line.split() for line in (tmp_path / "ledger").read_text().splitlines()]
    assert sorted(int(index) for _, index in lines) == list(range(12))
    assert len({pid for pid, _ in lines}) == 2
    assert answers[0] == answers[1] != ""
