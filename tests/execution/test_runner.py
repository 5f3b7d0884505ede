"""Plans to records: in order, each trained once by whoever is free, beside any number of others."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from textwrap import dedent
from types import SimpleNamespace

import pytest
import torch

from stabilitykit.errors import IncompleteStudyError
from stabilitykit.execution.executor import Died, Executor, InProcess, Training
from stabilitykit.execution.runner import Progress, Runner, Wanted
from stabilitykit.execution.stop import Stop
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import RunStore
from tests.store.small_records import claimed
from tests.store_names import key_of, session_id

PLANS = NoiseProtocol("init", runs=6).plans()


@pytest.fixture
def make(tmp_path):
    """A runner in a session by name, and the indices that it has trained."""

    def make(session="one", runs=6, cache="auto", fails=(), settled=None, **options):
        trained = []

        def train(plan):
            trained.append(plan.index)
            if plan.index in fails:
                return RunRecord(plan.index, plan.seeds, "failed", 0.1, error="boom")
            return record_of(plan)

        experiment = RunStore(tmp_path, session_id(session), cache).experiment(key_of("key"), {})
        wanted = Wanted(experiment, PLANS[:runs], settled)
        return Runner(wanted, InProcess(SimpleNamespace(train_once=train)), **options), trained

    return make


class Pool(Executor):
    """Children that finish in an order of their own, or die."""

    def __init__(self, slots, order=lambda trainings: trainings[:1], deaths=()):
        self.slots, self.order, self.deaths = slots, order, list(deaths)
        self.started, self.cancelled, self.most = [], [], 0

    def start(self, plan, *, log, attempt=1):
        self.started.append((plan.index, attempt))
        return Training(plan)

    def wait(self, trainings):
        self.most = max(self.most, len(trainings))
        ended = self.order(trainings)
        for training in ended:
            index = training.plan.index
            if index in self.deaths:
                self.deaths.remove(index)
                training.outcome = Died("exit code -9 (SIGKILL)", 4711)
            else:
                training.outcome = record_of(training.plan)
        return ended

    def cancel(self, trainings):
        self.cancelled += [training.plan.index for training in trainings]

    def call(self, function, *args):
        raise NotImplementedError


def record_of(plan):
    return RunRecord(plan.index, plan.seeds, "ok", 0.1, logits=torch.full((2, 2), float(plan.index)))


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
    claim = other.wanted.experiment.claim(1)

    def publish():
        time.sleep(0.3)
        other.wanted.experiment.publish(claim, RunRecord(1, {}, "ok", 0.1, logits=torch.full((2, 2), 41.0)))
        other.wanted.experiment.release(claim)

    thread = threading.Thread(target=publish)
    thread.start()
    assert values(owner.gather()) == [0, 41, 2, 3]
    thread.join()
    assert trained == [0, 2, 3]


def test_an_unfinished_claim_that_is_given_back_is_trained(make):
    owner, trained = make(runs=3)
    other, _ = make(runs=3)
    claim = other.wanted.experiment.claim(0)
    threading.Timer(0.2, other.wanted.experiment.release, [claim]).start()
    assert values(owner.gather()) == [0, 1, 2]
    assert trained == [1, 2, 0]


def test_training_only_what_is_free_waits_for_nobody(make):
    helper, trained = make(runs=3)
    other, _ = make(runs=3)
    claim = other.wanted.experiment.claim(1)
    assert helper.train_free() == 2
    assert helper.train_free() == 0
    assert trained == [0, 2]
    assert not helper.wanted.is_finished()
    other.wanted.experiment.release(claim)
    assert helper.train_free() == 1
    assert helper.wanted.is_finished()


def test_a_helper_stops_between_runs_when_nobody_waits_any_more(make):
    helper, trained = make()
    assert helper.train_free(lambda: len(trained) < 2) == 2
    assert trained == [0, 1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_run_is_free_again_and_those_before_it_are_kept(make, error):
    runner, trained = make()
    train = runner._executor.trainer.train_once

    def interrupted(plan):
        if plan.index == 2:
            raise error
        return train(plan)

    runner._executor.trainer.train_once = interrupted
    with pytest.raises(error):
        runner.gather()
    resumed, more = make("two")
    assert resumed.wanted.experiment.is_free(2)
    resumed.gather()
    assert (trained, more) == ([0, 1], [2, 3, 4, 5])


def test_a_crashed_run_has_the_seeds_of_its_plan(make):
    runner, _ = make(runs=3)
    with claimed(runner.wanted.experiment, 1) as claim:
        runner.wanted.experiment.publish(claim, RunRecord(1, {}, "crashed", 0.0, error="2 processes died"))
    assert runner.gather()[1].seeds == PLANS[1].seeds


class TestPool:
    @pytest.fixture
    def run(self, make):
        def run(pool, **options):
            runner, _ = make(**options)
            runner._executor = pool
            return runner

        return run

    @pytest.mark.parametrize("order", [lambda t: t[:1], lambda t: t[-1:], lambda t: t])
    def test_as_many_train_at_once_as_there_are_slots_in_whichever_order_they_end(self, run, order):
        pool = Pool(3, order)
        assert values(run(pool).gather()) == [0, 1, 2, 3, 4, 5]
        assert pool.most == 3
        assert pool.started == [(index, 1) for index in range(6)]
        assert pool.cancelled == []

    def test_a_run_whose_process_dies_is_tried_once_more(self, run):
        pool = Pool(2, deaths=[1])
        assert values(run(pool).gather()) == [0, 1, 2, 3, 4, 5]
        assert [start for start in pool.started if start[0] == 1] == [(1, 1), (1, 2)]

    def test_a_run_whose_process_always_dies_has_crashed_and_names_every_death(self, run):
        pool = Pool(2, deaths=[1] * 9)
        records = run(pool).gather()
        assert [record.status for record in records] == ["ok", "crashed", "ok", "ok", "ok", "ok"]
        assert records[1].error.count("exit code -9 (SIGKILL)") == records[1].error.count("4711") == 2
        assert records[1].seeds == PLANS[1].seeds
        assert len(pool.started) == 7

    def test_an_interruption_cancels_what_trains_and_gives_it_back(self, run, make):
        def interrupt(trainings):
            if trainings[0].plan.index == 2:
                raise KeyboardInterrupt
            return trainings[:1]

        pool = Pool(2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(pool).gather()
        assert pool.cancelled == [2, 3]
        resumed, trained = make("two")
        resumed.gather()
        assert trained == [2, 3, 4, 5]

    def test_what_trains_when_the_runs_suffice_is_given_up_and_no_further_one_begins(self, run):
        pool = Pool(3)
        runner = run(pool)
        is_finished = runner.wanted.experiment.is_finished
        runner.wanted = replace(runner.wanted, settled=lambda: 2 if is_finished(0) and is_finished(1) else None)
        assert values(runner.gather()) == [0, 1]
        assert pool.cancelled == [2, 3]
        assert [index for index, _ in pool.started] == [0, 1, 2, 3]
        assert runner.wanted.experiment.is_free(2)
        assert runner.wanted.experiment.is_free(3)

    def test_a_stop_ends_the_study_with_what_is_missing_and_the_next_session_trains_that(self, run, make):
        stop = Stop()

        def stop_at_one(trainings):
            if trainings[0].plan.index == 1:
                stop.now("enough is enough")
            return trainings[:1]

        pool = Pool(2, stop_at_one)
        with pytest.raises(IncompleteStudyError, match=r"after 1 of 6 runs, since enough is enough.*run 1-5\."):
            run(pool, stop=stop, study="fake").gather()
        assert pool.cancelled == [1, 2]
        resumed, trained = make("two")
        resumed.gather()
        assert trained == [1, 2, 3, 4, 5]

    def test_no_run_begins_that_would_end_after_the_deadline(self, run, make):
        make(runs=2)[0].gather()  # a run takes 0.1 s
        pool = Pool(1)
        with pytest.raises(IncompleteStudyError, match="cancelled after 2 of 6 runs, since the 3 minutes"):
            run(pool, session="two", stop=Stop(time.time() + 0.05, minutes=3)).gather()
        assert pool.started == []


class TestProgress:
    def test_each_new_run_is_told_of_with_what_was_known_before(self, make):
        make(runs=2)[0].gather()
        told = []
        make("two", runs=4, fails={3}, study="fake init", on_progress=told.append)[0].gather()
        news = [(p.finished, p.new, p.failed, [run.index for run in p.running], p.by_worker) for p in told]
        assert news == [(2, 0, 0, [2], {}), (3, 1, 0, [3], {"main": 1}), (4, 2, 1, [], {"main": 2})]
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
    from stabilitykit.store.record import RunRecord
    from types import SimpleNamespace
    from stabilitykit.execution.executor import InProcess
    from stabilitykit.execution.runner import Runner, Wanted
    from stabilitykit.store.run_store import RunStore

    folder = Path(sys.argv[1])

    def train(plan):
        with open(folder / "ledger", "a") as ledger:
            ledger.write(f"{os.getpid()} {plan.index}\\n")
        while len({line.split()[0] for line in (folder / "ledger").read_text().splitlines()}) < 2:
            time.sleep(0.001)  # the first run of one process lasts until the other has begun one too
        return RunRecord(plan.index, plan.seeds, "ok", 0.1, logits=torch.full((2, 2), float(plan.seeds["init"] % 1000)))

    experiment = RunStore(folder / "store", sys.argv[2]).experiment(sys.argv[3], {})
    (folder / f"ready {os.getpid()}").touch()
    while len(list(folder.glob("ready *"))) < 2:
        time.sleep(0.001)
    executor = InProcess(SimpleNamespace(train_once=train))
    records = Runner(Wanted(experiment, NoiseProtocol("init", runs=12).plans()), executor).gather()
    print([record.logits[0, 0].item() for record in records])
    """
)


@pytest.mark.slow
def test_two_processes_train_every_run_exactly_once_between_them(tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path), session_id("shared"), key_of("key")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    lines = [line.split() for line in (tmp_path / "ledger").read_text().splitlines()]
    assert sorted(int(index) for _, index in lines) == list(range(12))
    assert len({pid for pid, _ in lines}) == 2
    assert answers[0] == answers[1] != ""
