"""What a train function of the user's own is given: streams, batches, epochs, and the one model that is followed."""

from __future__ import annotations

import random
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from stabilitykit.errors import MissingModuleError, ProtocolError, TaskError
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.images import RandomCropFlip
from stabilitykit.training.run import TRACED_EPOCHS, Run, combined_digest, state_digest

CPU = torch.device("cpu")
X, Y = torch.arange(10.0)[:, None], torch.arange(10)


def make(vary="none", index=0, **options):
    perturb = options.pop("perturb", None)
    return Run(NoiseProtocol(vary, perturb, runs=3).plans()[index], CPU, **options)


def drawn(run, source):
    with run.stream(source):
        return random.random(), float(np.random.rand()), float(torch.rand(()))


def order_of(run, **options):
    return torch.cat([y for _, y in run.batches((X, Y), 4, **options)]).tolist()


class TestStreams:
    @pytest.mark.parametrize("source", ["init", "shuffle", "augment", "stochastic"])
    def test_a_stream_has_its_sources_seed(self, source):
        assert drawn(make(), source) == drawn(make(index=1), source)
        assert drawn(make(source), source) != drawn(make(source, index=1), source)
        others = {"init", "shuffle", "augment", "stochastic"} - {source}
        assert [drawn(make(source), other) for other in others] == [drawn(make(source, 1), other) for other in others]

    def test_a_stream_goes_on_from_block_to_block_and_each_source_by_itself(self):
        run, other = make(), make()
        first, second = drawn(run, "init"), drawn(run, "init")
        assert first != second
        drawn(other, "augment")
        assert [drawn(other, "init"), drawn(other, "init")] == [first, second]

    def test_the_low_level_source_has_no_stream(self):
        with pytest.raises(TaskError, match="Expected a source with generators, but 'low_level' acts inside"):
            make().stream("low_level")

    @pytest.mark.parametrize("source", ["init+shuffle", "all", "none"])
    def test_a_block_is_of_one_source(self, source):
        with pytest.raises(TaskError, match=r"Expected run\.stream\(source\) to name one source but got"):
            make().stream(source)

    def test_an_unknown_source_is_refused(self):
        with pytest.raises(ProtocolError, match=r"Did you mean 'shuffle'\?"):
            make().stream("shufle")


class TestBatches:
    def test_a_pass_holds_every_example_once_and_the_next_pass_has_another_order(self):
        run = make()
        first, second = order_of(run), order_of(run)
        assert sorted(first) == sorted(second) == list(range(10))
        assert first != second

    def test_the_order_is_the_shuffle_streams_for_tensors_and_datasets_alike(self):
        run, other = make("shuffle", 1), make("shuffle", 1)
        pairs = [order_of(run), order_of(run)]
        assert pairs == [
            torch.cat([y for _, y in other.batches(TensorDataset(X, Y), 3, num_workers=workers)]).tolist()
            for workers in (0, 2)
        ]
        assert order_of(make("shuffle", 2)) != pairs[0]

    def test_the_order_depends_on_nothing_that_is_drawn_elsewhere(self):
        run, disturbed = make(), make()
        expected = [order_of(run), order_of(run)]
        drawn(disturbed, "shuffle")
        torch.manual_seed(9)
        first = order_of(disturbed, augment=lambda x: x + torch.randn_like(x))
        torch.rand(3)
        assert [first, order_of(disturbed)] == expected

    def test_the_last_batch_is_dropped_on_request(self):
        assert [len(y) for _, y in make().batches((X, Y), 4)] == [4, 4, 2]
        assert [len(y) for _, y in make().batches((X, Y), 4, drop_last=True)] == [4, 4]
        assert order_of(make(), drop_last=True) == order_of(make())[:8]

    def test_inputs_and_labels_stay_together(self):
        for x, y in make().batches((X, Y), 4):
            assert torch.equal(x[:, 0], y.float())

    @pytest.mark.parametrize(
        "augment",
        [
            lambda x: x + torch.randn_like(x),
            lambda x, generator: x + torch.randn(x.shape, generator=generator),
            lambda x: x + random.random() + np.random.rand(),
        ],
    )
    def test_a_change_to_a_batch_draws_from_the_augment_stream_and_no_other(self, augment):
        def changes(run):
            return torch.cat([x - y[:, None] for x, y in run.batches((X, Y), 4, augment=augment)])

        state = torch.get_rng_state()
        assert torch.equal(changes(make("shuffle", 0)), changes(make("shuffle", 0)))
        assert not torch.equal(changes(make("augment", 0)), changes(make("augment", 1)))
        assert torch.equal(state, torch.get_rng_state())

    def test_two_passes_augment_differently(self):
        run = make()
        images = torch.arange(1.0, 161).reshape(10, 1, 4, 4)
        passes = [[x for x, _ in run.batches((images, Y), 10, augment=RandomCropFlip(2))] for _ in range(2)]
        assert not torch.equal(passes[0][0].sum(), passes[1][0].sum())

    @pytest.mark.parametrize("size", [0, -1, 2.5, "4", True])
    def test_an_impossible_batch_size_is_refused(self, size):
        with pytest.raises(TaskError, match="Expected batch_size >= 1 but got "):
            next(make().batches((X, Y), size))

    def test_data_that_is_none_is_refused(self):
        with pytest.raises(TaskError, match="Expected data= to be"):
            next(make().batches(X, 4) if False else make().batches(iter([]), 4))


class TestEpochs:
    def test_epochs_count_from_0(self):
        assert list(make().epochs(3)) == [0, 1, 2]
        assert make().trained_epochs == 0

    def test_the_control_stops_after_the_first(self):
        run = make(stop_after=2)
        assert list(run.epochs(5)) == [0, 1]
        assert run.trained_epochs == 2
        assert list(make(stop_after=2).epochs(1)) == [0]

    @pytest.mark.parametrize(
        ("stop_after", "calls", "is_cut"),
        [
            (None, [[0, 1, 2], [0, 1], [0]], False),
            (2, [[0, 1], [], []], True),
            (3, [[0, 1, 2], [], []], True),
            (4, [[0, 1, 2], [0], []], True),
            (6, [[0, 1, 2], [0, 1], [0]], False),
        ],
    )
    def test_several_loops_are_one_training(self, stop_after, calls, is_cut):
        run = make(stop_after=stop_after)
        assert [list(run.epochs(count)) for count in (3, 2, 1)] == calls
        assert run.planned_epochs == 6
        assert run.trained_epochs == min(6, stop_after or 6)
        assert run.is_cut is is_cut

    def test_the_state_is_kept_after_the_first_epochs_of_all_loops(self):
        run, model = make(), nn.Linear(1, 2)
        run.perturb(model)
        for _ in range(3):
            for _ in run.epochs(1):
                with torch.no_grad():
                    model.weight += 1
        assert len(run.trace) == TRACED_EPOCHS
        assert run.trace[0] != run.trace[1]

    def test_an_epoch_that_is_left_by_a_break_has_its_place(self):
        run = make(stop_after=2)
        for _ in run.epochs(3):
            break
        assert list(run.epochs(3)) == [0]
        assert (run.trained_epochs, run.is_cut) == (1, True)

    def test_a_loop_that_waits_for_an_epoch_of_a_cut_training_ends_with_an_error(self):
        run = make(stop_after=2)
        with pytest.raises(TaskError, match=r"Write for epoch in run\.epochs\(most\), and leave it by a break"):
            train_until(run, 5)

    def test_the_state_after_each_of_the_first_epochs_is_kept(self):
        run, model = make(), nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
        run.perturb(model)
        states = []
        for _ in run.epochs(4):
            with torch.no_grad():
                model[0].weight += 1
            states.append(state_digest(model))
        assert run.trace == states[:TRACED_EPOCHS]
        assert set(run.trace[0]) == set(model.state_dict())
        assert [name for name in states[0] if states[0][name] != states[1][name]] == ["0.weight"]

    @pytest.mark.parametrize("count", [0, -1, 1.5, "3", True])
    def test_an_impossible_count_is_refused(self, count):
        with pytest.raises(TaskError, match=r"Expected count >= 1 but got .* run\.epochs\(count\)"):
            list(make().epochs(count))

    @pytest.mark.parametrize(
        ("state", "got"),
        [
            (nn.Linear(2, 2), "Linear"),
            ((nn.Linear(2, 2), None), "Linear, NoneType"),
            ({"model": 1}, "dict"),
            ((), "nothing"),
        ],
    )
    def test_a_state_that_is_no_model_and_optimizer_is_refused_with_an_onset_or_without(self, state, got):
        with pytest.raises(TaskError, match=rf"state=\(model, optimizer\)\) but got {got} as its state"):
            next(make().epochs(3, state=state))


class TestModel:
    def test_without_a_perturbation_the_model_is_only_followed(self):
        run, model = make(), nn.Linear(2, 2)
        before = state_digest(model)
        assert run.perturb(model) is model
        assert run.perturbation is None
        assert run.final_digest() == combined_digest(before)

    def test_the_plans_weight_is_moved(self):
        model = nn.Linear(2, 2)
        before = model.weight.detach().clone()
        run = make(perturb="ulp", index=1)
        run.perturb(model)
        assert int((model.weight != before).sum()) == 1
        assert model.weight[run.perturbation.index] != before[run.perturbation.index]

    @pytest.mark.parametrize("kind", ["ulp", "bit"])
    def test_no_two_runs_of_a_study_move_the_same_weight_the_same_way(self, kind):
        # Drawn with replacement, two of 9 runs out of 9 or 18 choices would nearly always coincide.
        for seed in range(5):
            protocols = [NoiseProtocol(perturb=kind, runs=runs, seed=seed) for runs in (4, 9)]
            few, many = ([self.moved(plan) for plan in protocol.plans()] for protocol in protocols)
            assert len(set(many)) == 9
            assert many[:4] == few, "more runs extend a study"

    def moved(self, plan):
        run, model = Run(plan, CPU), nn.Linear(3, 3)
        nn.init.ones_(model.weight)
        run.perturb(model)
        return run.perturbation.index, run.perturbation.new

    def test_another_base_seed_moves_other_weights(self):
        firsts = {self.moved(NoiseProtocol(perturb="ulp", seed=seed).plans()[0]) for seed in range(20)}
        assert len(firsts) > 5

    def test_a_second_model_is_refused(self):
        run = make()
        run.perturb(nn.Linear(2, 2))
        with pytest.raises(TaskError, match=r"Expected run\.perturb\(model\) once a run"):
            run.perturb(nn.Linear(2, 2))

    def test_there_is_no_digest_of_no_model(self):
        with pytest.raises(TaskError, match=r"Expected run\.perturb\(model\) before the state"):
            make().final_digest()

    def test_the_digest_is_of_every_tensor_buffers_too(self):
        model = nn.BatchNorm1d(2)
        seen = {combined_digest(state_digest(model))}
        for tensor in model.state_dict().values():
            tensor.add_(1)
            seen.add(combined_digest(state_digest(model)))
        assert len(seen) == 1 + len(model.state_dict())


def test_a_run_tells_its_index_and_seeds():
    run = make("init", 2)
    assert run.index == 2
    assert run.seeds == NoiseProtocol("init", runs=3).plans()[2].seeds


def test_what_begins_at_the_onset_begins_then_or_at_once():
    begun = []
    make("shuffle").at_onset(lambda: begun.append("at once"))
    run = Run(NoiseProtocol("shuffle", runs=2, onset=2).plans()[0], CPU)
    run.at_onset(lambda: begun.append("late"))
    seen = [list(begun) for _ in run.epochs(3)]
    assert seen == [["at once"], ["at once"], ["at once", "late"]]
    run.check_began()


def train_until(run, epochs):
    done = 0
    while done < epochs:
        done += len(list(run.epochs(1)))


class TestKeys:
    def test_a_key_is_that_of_the_source_and_the_same_each_time(self, monkeypatch):
        # Not JAX itself, which warns of each fork after its import: docs/jax.md runs it, in another process.
        jax = types.SimpleNamespace(random=types.SimpleNamespace(key=lambda seed: ("key", seed)))
        monkeypatch.setitem(sys.modules, "jax", jax)
        first, other = (Run(plan, torch.device("cpu")) for plan in NoiseProtocol("init", runs=2).plans())
        assert first.key("init") == first.key("init") == ("key", first.seeds["init"])
        assert first.key("init") != other.key("init")
        assert first.key("shuffle") == other.key("shuffle")

    @pytest.mark.parametrize("source", ["low_level", "init+shuffle", "all"])
    def test_a_key_is_of_one_source_with_a_seed(self, source):
        run = Run(NoiseProtocol("init", runs=2).plans()[0], torch.device("cpu"))
        with pytest.raises(TaskError):
            run.key(source)

    def test_without_jax_it_says_how_to_get_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "jax", None)
        run = Run(NoiseProtocol("init", runs=2).plans()[0], torch.device("cpu"))
        with pytest.raises(MissingModuleError, match="pip install jax"):
            run.key("init")
