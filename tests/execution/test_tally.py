"""The count of finished runs: of this process at once, of others at the next look."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stabilitykit.execution.executor import Executor, Training
from stabilitykit.execution.runner import Progress, Runner, Wanted
from stabilitykit.execution.session import Session
from stabilitykit.execution.tally import Tally
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.run_store import Experiment
from tests.store.small_records import claimed, record
from tests.store_names import key_of


class AtOnce(Executor):
    """Trains nothing, and has a record of every plan."""

    def start(self, plan, *, log, attempt=1):
        return Training(plan)

    def wait(self, trainings):
        for training in trainings:
            training.outcome = record(training.plan.index)
        return list(trainings)

    def call(self, function, *args):
        raise NotImplementedError


@pytest.fixture
def experiment(make_session: Callable[..., Session]) -> Callable[..., Experiment]:
    def of(name: str) -> Experiment:
        return make_session(name).store.experiment(key_of("key"), {})

    return of


def _publish(experiment: Experiment, index: int) -> None:
    with claimed(experiment, index) as claim:
        experiment.publish(claim, record(index))


def test_it_counts_what_is_there_and_what_comes(experiment):
    ours, theirs = experiment("one"), experiment("two")
    _publish(ours, 0)
    _publish(ours, 9)  # not wanted
    tally = Tally(ours, range(4))
    assert (len(tally), tally.new, tally.failed) == (1, 0, 0)
    _publish(ours, 1)
    tally.note(1)
    tally.note(1)
    _publish(theirs, 3)
    tally.look_if_due()
    assert (len(tally), tally.new) == (2, 1)
    tally.look()
    assert (len(tally), tally.new, sum(tally.by_worker.values())) == (3, 2, 2)
    first = tally.of_first(2)
    assert (len(first), first.new, sum(first.by_worker.values())) == (2, 1, 1)


def test_the_files_that_a_run_costs_do_not_grow_with_their_number(experiment, monkeypatch):
    """Counted, not timed: looks through the folder, and headers that are asked for."""
    counts = []
    for runs in (50, 200):
        one, asked = experiment(str(runs)), []
        plans = NoiseProtocol("init", runs=runs, seed=runs).plans()
        header = Experiment._header
        with monkeypatch.context() as patch:
            patch.setattr(Experiment, "_header", lambda self, i, asked=asked, of=header: asked.append(i) or of(self, i))
            said: list[Progress] = []
            Runner(Wanted(one, plans), AtOnce(), on_progress=said.append).gather()
        assert said[-1].finished == runs
        counts.append(len(asked) / runs)
    assert counts[1] < 2 * counts[0]
