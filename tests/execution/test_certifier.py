"""The certificate: each leak and each source that moves nothing is found, wherever and whenever it acts."""

from __future__ import annotations

import dataclasses
import itertools
import random
import threading

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.cli import main
from stabilitykit.errors import IsolationError
from stabilitykit.execution import certifier
from stabilitykit.execution.session import check, measure
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import Experiment
from stabilitykit.study.asserts import assert_accuracy_sd
from stabilitykit.training.task import LoopTask
from stabilitykit.verdicts.budgets import Budget

pytestmark = pytest.mark.trains

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(24) % 3
LOOSE = Budget(accuracy_sd=50.0)

trained: list[tuple[int, int]] = []
entropy = np.random.default_rng()


@pytest.fixture(autouse=True)
def nothing_is_known():
    trained.clear()
    certifier._shown.clear()


class Planted(LoopTask):
    """A loop whose key does not see what is planted in it, as if it were somewhere that no key sees."""

    def content(self) -> object:
        return self.function.__name__


def loop(leak=lambda run, model, epoch: None, at_test=lambda x: x, init=lambda: None, epochs=4):
    """Train a small network, which draws from every source, with something planted at the end of an epoch."""

    def train(run):
        with run.stream("init"):
            init()
            model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for epoch in run.epochs(epochs):
            trained.append((run.index, epoch))
            for x, y in run.batches((X, Y), 8, augment=lambda x: x + 0.1 * torch.randn_like(x)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(nn.functional.dropout(x, 0.1)), y).backward()
                optimizer.step()
            leak(run, model, epoch)
        return at_test(model(X))

    return Planted(train, Y)


def shifted(model):
    with torch.no_grad():
        model[0].weight += float(entropy.standard_normal())


class TestCost:
    def test_four_sources_of_ten_runs_train_37_runs_and_one_repetition(self, make_session):
        session, task = make_session(), loop()
        for vary in ("init", "shuffle", "augment", "stochastic"):
            measure(task, NoiseProtocol(vary, runs=10), session=session)
        whole = sum(epoch == 3 for _, epoch in trained)
        assert whole == 37 + 1
        first_epochs = sum(epoch == 0 for _, epoch in trained)
        assert first_epochs - whole == 2 + 1 + 4  # the first look, the reference, and each source moved alone

    def test_low_level_and_an_ulp_are_certified_by_the_same_base_run(self, make_session):
        session, task = make_session(), loop()
        measure(task, NoiseProtocol("init", runs=3), session=session)
        before = sum(epoch == 3 for _, epoch in trained)
        for protocol in (NoiseProtocol("low_level", runs=3), NoiseProtocol(perturb="ulp", runs=3)):
            measure(task, protocol, session=session)
        more = sum(epoch == 3 for _, epoch in trained) - before - 6
        assert more in (0, 2)  # an ulp may need a whole run to reach the outputs, beside one without it

    def test_what_is_proven_is_not_proven_again(self, make_session):
        task = loop()
        one = measure(task, NoiseProtocol("init", runs=3), session=make_session("one"))
        trained.clear()
        two = measure(task, NoiseProtocol("init", runs=3), session=make_session("two"))
        assert trained == []
        assert one.certificate == two.certificate
        assert one.certificate.scope == "the whole run twice, bit-identical"
        assert one.certificate.alive == {"init": "in the first epoch"}
        assert one.certificate.base == one.records[0].fingerprint

    def test_a_later_session_shows_one_epoch_before_it_adds_runs(self, make_session):
        task = loop()
        measure(task, NoiseProtocol("init", runs=2), session=make_session("one"))
        trained.clear()
        certifier._shown.clear()  # another process
        study = measure(task, NoiseProtocol("init", runs=3), session=make_session("two"))
        assert trained == [(0, 0), *((2, epoch) for epoch in range(4))]
        assert study.certificate.joined == 1
        assert "bit-identical; 1 more process: one epoch; alive: init" in study.certificate.line()

    def test_a_look_is_all_where_that_is_asked_for(self, make_session):
        study = measure(loop(epochs=9), NoiseProtocol("init", runs=2), session=make_session(), control="first")
        assert sum(epoch == 8 for _, epoch in trained) == 2
        assert study.notes == ("isolation proven by only the first 2 epochs twice, bit-identical, of 9 epochs",)

    def test_run_0_is_the_base_run(self, make_session):
        session, task = make_session(), loop()
        studies = [measure(task, NoiseProtocol(v, runs=2), session=session) for v in ("init", "shuffle", "none")]
        assert len({study.records[0].fingerprint for study in studies}) == 1
        assert len({study.records[1].fingerprint for study in studies}) == 3


class TestHeld:
    @pytest.mark.parametrize("at", [0, 1, 2, 3])
    @pytest.mark.parametrize("vary", ["init", "none", "low_level"])
    def test_a_leak_is_found_in_whichever_epoch_it_acts(self, ask, at, vary):
        with pytest.raises(IsolationError) as leak:
            ask(loop(lambda run, model, epoch: shifted(model) if epoch == at else None), vary)
        where = f"after epoch {at} (from 0)" if at < 2 else "not in the first 2 epochs: what differs begins later"
        assert where in str(leak.value)

    def test_an_early_leak_is_found_before_a_whole_run_is_trained(self, ask):
        with pytest.raises(IsolationError):
            ask(loop(lambda run, model, epoch: shifted(model)), "init")
        assert trained == [(0, 0), (0, 1)] * 2

    def test_sampling_at_test_time_is_found(self, ask):
        drawn = lambda outputs: outputs + torch.from_numpy(entropy.standard_normal(3)).float()  # noqa: E731
        with pytest.raises(IsolationError, match="in the test outputs"):
            ask(loop(at_test=drawn), "shuffle")

    def test_sampling_at_test_time_that_begins_late_is_found(self, ask):
        epochs = []
        late = lambda outputs: outputs + (epochs[-1] == 3) * float(entropy.standard_normal())  # noqa: E731
        with pytest.raises(IsolationError, match="drawn at test time"):
            ask(loop(lambda run, model, epoch: epochs.append(epoch), late), "none")

    def test_a_network_that_no_output_shows_is_compared_too(self, ask):
        def train(run):
            with run.stream("init"):
                model, other = nn.Linear(4, 3), nn.Linear(4, 1)
            run.perturb(model)
            optimizers = [torch.optim.SGD(net.parameters(), lr=0.1) for net in (model, other)]
            for _ in run.epochs(3):
                (
                    nn.functional.cross_entropy(model(X), Y) + (other(X) * float(entropy.standard_normal())).mean()
                ).backward()
                for optimizer in optimizers:
                    optimizer.step()
            return model(X)

        with pytest.raises(IsolationError, match=r"not the weights of a network that run\.perturb"):
            ask(train, "init", labels=Y)

    def test_a_loop_that_ends_by_chance_is_found(self, ask):
        def train(run):
            model = nn.Linear(4, 3)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in run.epochs(40):
                nn.functional.cross_entropy(model(X), Y).backward()
                optimizer.step()
                if next(lengths):
                    break
            return model(X)

        lengths = itertools.cycle([True, False, False])
        with pytest.raises(IsolationError, match="but one completed 0 epochs, the other 2"):
            ask(train, "none", labels=Y)

    @pytest.mark.parametrize("fault", ["cut at a wrong place", "raises once"])
    def test_what_a_rehearsal_cannot_show_a_whole_run_does(self, ask, fault):
        """A rehearsal that fails opens nothing: the base run is trained twice, whole."""
        calls = itertools.count()

        def check_length(leaking):
            def train(run):
                if fault == "raises once" and next(calls) == 0:
                    raise OSError("the first download fails")
                losses = []
                outputs = loop(lambda run, model, epoch: (losses.append(epoch), leaking and shifted(model))).fit(run)
                if fault == "cut at a wrong place":
                    assert len(losses) == 4
                return outputs

            return train

        assert ask(check_length(False), "init", labels=Y).certificate.scope == "the whole run twice, bit-identical"
        calls = itertools.count()
        with pytest.raises(IsolationError):
            ask(check_length(True), "init", labels=Y)

    def test_a_base_run_that_fails_is_told_by_the_study(self, ask):
        def train(run):
            raise ValueError("boom")

        study_error = pytest.raises(Exception, match="boom")
        with study_error:
            ask(train, "init", labels=Y)

    def test_runs_that_must_be_equal_are_compared_whatever_is_stored(self, make_session):
        task = loop()
        measure(task, NoiseProtocol("none", runs=3), session=make_session("one"))
        other = loop(lambda run, model, epoch: epoch == 3 and run.index == 3 and model[0].weight.data.add_(1.0))
        with pytest.raises(IsolationError, match="Expected equal runs where nothing varies, but of runs 0 and 3"):
            measure(other, NoiseProtocol("none", runs=4), session=make_session("two"))

    def test_a_study_of_everything_repeats_its_first_run_last(self, ask):
        study = ask(loop(), "all", runs=3)
        assert [index for index, epoch in trained if epoch == 3] == [0, 1, 2, 0]
        assert study.certificate.scope == "run 0 of all sources twice, bit-identical"
        assert set(study.certificate.alive) == {"init", "shuffle", "augment", "stochastic", "low_level"}
        trained.clear()
        assert ask(loop(), "all", runs=3).certificate == study.certificate
        assert trained == []

    def test_it_says_the_same_beside_another_study_of_its_task(self, ask):
        ask(loop(), "init", runs=2)
        assert ask(loop(), "all", runs=3).certificate.scope == "run 0 of all sources twice, bit-identical"

    @pytest.mark.parametrize("vary", ["all", "init"])
    @pytest.mark.parametrize("at", [3, "test"])
    def test_what_runs_leave_in_the_process_is_found(self, ask, vary, at):
        runs = []

        def count(run, model, epoch):
            if epoch == 3:
                runs.append(run.index)
                if at == 3:
                    model[0].weight.data += len(runs)

        at_test = lambda x: x + len(runs) * (at == "test")  # noqa: E731
        with pytest.raises(IsolationError, match="state kept between runs"):
            ask(loop(count, at_test), vary)

    def test_so_it_is_where_another_process_has_repeated_the_base_run_at_once(self, make_session, monkeypatch):
        runs = []

        def count(run, model, epoch):
            runs.append(run.index) if epoch == 3 else None
            model[0].weight.data += float(epoch == 3 and len(runs) > 2)

        def certify(certifier, wanted):
            certifier.begin()
            certifier.runner(certifier.repeated).gather()  # as a helper does that comes early

        session = make_session()
        monkeypatch.setattr(session, "certify", certify)
        study = measure(loop(), NoiseProtocol("init", runs=2), session=session)
        assert [index for index, epoch in trained if epoch == 3] == [0, 0, 1, 0]
        assert study.certificate.scope == "the whole run twice, bit-identical"
        certifier._shown.clear()
        leaking = loop(count)
        leaking.content = lambda: "another task"
        with pytest.raises(IsolationError, match="state kept between runs"):
            measure(leaking, NoiseProtocol("init", runs=2), session=session)

    @pytest.mark.parametrize("cache", ["auto", "refresh", "off"])
    def test_a_leak_that_chance_hides_later_is_remembered(self, make_session, cache):
        with pytest.raises(IsolationError):
            measure(
                loop(lambda run, model, epoch: shifted(model)), NoiseProtocol("init", runs=2), session=make_session()
            )
        trained.clear()
        for vary in ("init", "all"):
            with pytest.raises(IsolationError, match=r"there was one, .* they differ in '0.weight' after epoch 0"):
                measure(loop(), NoiseProtocol(vary, runs=2), session=make_session("two", cache=cache))
        assert trained == []

    def test_a_repetition_that_fails_is_no_leak(self, make_session):
        """It proves nothing for its own session, and stands in the way of no later one."""
        whole, protocol = [], NoiseProtocol("init", runs=2)

        def fails_once(run, model, epoch):
            if epoch == 3 and run.index == 0:
                whole.append(run)
                if len(whole) == 2:
                    raise MemoryError("once")

        with pytest.raises(IsolationError, match=r"(?s)trained twice under one plan, .* the second failed: .*once"):
            measure(loop(fails_once), protocol, session=make_session())
        assert measure(loop(), protocol, session=make_session("two")).certificate.proven

    def test_the_command_that_the_message_gives_forgets_a_leak(self, make_session, tmp_path, capsys):
        """Where something beside the task was mended."""
        protocol = NoiseProtocol("init", runs=2)
        with pytest.raises(IsolationError):
            measure(loop(lambda run, model, epoch: shifted(model)), protocol, session=make_session())
        with pytest.raises(IsolationError, match="there was one") as remembered:
            measure(loop(), protocol, session=make_session("two"))
        command = str(remembered.value).rpartition("stability-cache ")[2].split()
        for name in ("one", "two"):
            make_session(name).store.end_session()
        assert main(["--store", str(tmp_path / "store"), *command]) == 0, capsys.readouterr()
        assert measure(loop(), protocol, session=make_session("three")).certificate.proven


class TestAlive:
    @pytest.mark.parametrize("vary", ["init", "init+shuffle", "all"])
    def test_a_constructor_that_seeds_is_named(self, ask, vary):
        study = ask(loop(init=lambda: torch.default_generator.manual_seed(23)), vary)
        (note,) = [note for note in study.notes if "init never reaches" in note]
        assert "does a constructor call torch.manual_seed" in note
        with pytest.raises(IsolationError, match="init never reaches the weights"):
            assert_accuracy_sd(study, at_most=50)

    @pytest.mark.parametrize("vary", ["init", "init+shuffle", "all"])
    def test_a_check_of_it_trains_no_run(self, make_session, vary):
        task = loop(init=lambda: torch.default_generator.manual_seed(23))
        with pytest.raises(IsolationError, match="init never reaches the weights"):
            check(task, NoiseProtocol(vary, runs=10), budget=LOOSE, session=make_session())
        assert {index for index, _ in trained} == {0}

    def test_a_check_of_runs_that_were_measured_before_is_no_way_around(self, make_session):
        task = loop(init=lambda: torch.default_generator.manual_seed(23))
        measure(task, NoiseProtocol("init+shuffle", runs=10), session=make_session("one"))
        trained.clear()
        with pytest.raises(IsolationError, match="init never reaches the weights"):
            check(task, NoiseProtocol("init+shuffle", runs=10), budget=LOOSE, session=make_session("two"))
        assert trained == []

    def test_all_names_what_there_is(self, make_session, linear):
        study = check(linear, NoiseProtocol("all", runs=10), budget=LOOSE, session=make_session())
        assert study.certificate.dead == ("augment", "stochastic")
        assert sum("never reaches the weights" in note for note in study.notes) == 2

    def test_what_acts_late_is_seen_in_a_whole_run(self, ask):
        def late(run, model, epoch):
            if epoch == 3:
                with run.stream("augment"):
                    noise = torch.randn(())
                model[0].weight.data += noise

        def train(run):
            with run.stream("init"):
                model = nn.Sequential(nn.Linear(4, 3))
            run.perturb(model)
            for epoch in run.epochs(4):
                late(run, model, epoch)
            return model(X)

        study = ask(train, "init+augment", labels=Y)
        assert study.certificate.alive == {"init": "in the first epoch", "augment": "in a whole run"}
        assert not any("never reaches" in note for note in study.notes)

    def test_a_moved_weight_that_no_output_shows_is_named(self, ask):
        def train(run):
            with run.stream("init"):
                unused, model = nn.Linear(2, 2), nn.Linear(4, 3)
            run.perturb(nn.ModuleList([unused, model]))
            for _ in run.epochs(1):
                pass
            return model(X)

        study = ask(train, "none", "ulp", labels=Y)
        assert any("ulp never reaches an output" in note for note in study.notes)


class TestJoining:
    def test_a_process_that_computes_other_bits_is_refused_and_nothing_is_lost(self, make_session):
        """Something that no key sees is another, as the order of a set under another hash seed."""
        unseen = [0.0]
        task = loop(lambda run, model, epoch: model[0].weight.data.add_(unseen[0]))
        measure(task, NoiseProtocol("init", runs=2), session=make_session("one"))
        unseen[0] = 1.0
        certifier._shown.clear()
        answered = measure(task, NoiseProtocol("init", runs=2), session=make_session("two"))
        assert len(answered.records) == 2
        with pytest.raises(IsolationError, match="no run of this process may join") as refusal:
            measure(task, NoiseProtocol("init", runs=3), session=make_session("three"))
        assert "PYTHONHASHSEED" in str(refusal.value)
        unseen[0] = 0.0
        assert len(measure(task, NoiseProtocol("init", runs=3), session=make_session("four")).records) == 3

    def test_a_store_with_runs_of_two_platforms_is_refused(self, make_session, monkeypatch):
        task = loop()
        load = Experiment.load

        def forged(self, index):
            record = load(self, index)
            if index == 1:
                record.environment["cpu_capability"] = "another"
            return record

        monkeypatch.setattr(Experiment, "load", forged)
        with pytest.raises(IsolationError, match="run 1 cpu_capability='another'"):
            measure(task, NoiseProtocol("init", runs=2), session=make_session())


def test_seeds_of_python_are_no_leak(ask):
    study = ask(loop(lambda run, model, epoch: model[0].weight.data.add_(random.random())), "init")
    assert study.certificate.proven


def test_the_base_run_of_a_task_that_no_key_tells_ends_with_its_session(make_session, tmp_path):
    lock = threading.Lock()

    def train(run):
        with lock, run.stream("init"):
            model = nn.Linear(4, 3)
        run.perturb(model)
        for _ in run.epochs(1):
            pass
        return model(X)

    session = make_session()
    study = measure(train, NoiseProtocol("init", runs=2), labels=Y, session=session)
    assert "runs not kept" in study.notes[0]
    session.store.end_session()
    assert not [*(tmp_path / "store").rglob("runs/*.json")]


@pytest.mark.parametrize(("trace", "left"), [((), 0), (("a",), 1)])
def test_a_base_run_that_trained_fewer_epochs_than_its_look_is_no_proof(trace, left):
    record = RunRecord(0, {}, "ok", 1.0, trace=trace)
    certifier.check_begins(dataclasses.replace(record, trace=("a", "b")), ("a", "b"))
    with pytest.raises(IsolationError, match=rf"one completed 2 of the first 2 epochs, the other {left} \(does the"):
        certifier.check_begins(record, ("a", "b"))
    with pytest.raises(IsolationError, match=rf"one completed {left} of the first 2 epochs, the other 2 \(does the"):
        certifier.check_begins(dataclasses.replace(record, trace=("a", "b")), trace)
