"""CKA by layer of trained models, through the front door: its numbers, its bounds on memory, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stabilitykit.errors import TaskError
from stabilitykit.estimates.metrics import cka
from stabilitykit.study import layer_similarity as module
from stabilitykit.study.journal import Journal
from stabilitykit.study.layer_similarity import Similarity, compare_layers
from stabilitykit.study.study import Study
from stabilitykit.study.summary import summarize
from stabilitykit.testing import FakeTask, fake_study
from stabilitykit.training.data import Layout, TensorExamples

CPU = torch.device("cpu")


@pytest.fixture
def keeping(dropout_net):
    return dataclasses.replace(dropout_net, keep_weights=True)


@pytest.fixture
def study(ask, keeping) -> Study:
    return ask(keeping, "init", runs=4)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def by_hand(study: Study, layer: str, examples: Tensor) -> Tensor:
    """The activations of every run's own model, all at once."""
    activations = []
    for record in study.records:
        model = study.recipe.model()
        model.load_state_dict(dict(record.weights))
        names = [name for name, _ in model.named_children()]
        with torch.no_grad():
            activations.append(model.eval()[: names.index(layer) + 1](examples))
    return cka(activations, batch_size=len(examples))


def deep(features: int = 6) -> nn.Module:
    return nn.Sequential(nn.Linear(features, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 5))


def states_of(runs: int, build=deep) -> list[dict[str, Tensor]]:
    states = []
    for seed in range(runs):
        torch.manual_seed(seed)
        states.append(build().state_dict())
    return states


def examples_of(count: int, features: int = 6) -> TensorExamples:
    x = torch.randn(count, features, generator=torch.Generator().manual_seed(0))
    return TensorExamples(x, torch.zeros(count), Layout(CPU))


@pytest.mark.trains
class TestAStudy:
    def test_each_layer_has_the_cka_of_its_activations(self, study):
        found = study.cka()
        assert found.layers == ("0", "3")
        for layer in found.layers:
            expected = by_hand(study, layer, study.recipe.test[0])
            torch.testing.assert_close(found.matrices[layer], expected, rtol=1e-6, atol=1e-6)
            pairs = [expected[i, j].item() for i, j in itertools.combinations(range(4), 2)]
            assert found[layer].value == pytest.approx(sum(pairs) / 6, rel=1e-6)
            assert found[layer].low < found[layer].value < found[layer].high <= 1

    def test_models_with_the_same_bits_score_exactly_one(self, ask, keeping):
        found = ask(keeping, "none", runs=3).cka()
        assert all(found[layer].is_exact and found[layer].value == 1 for layer in found.layers)
        assert all(torch.equal(matrix, torch.ones_like(matrix)) for matrix in found.matrices.values())

    def test_runs_that_vary_less_are_more_alike(self, ask, keeping):
        perturbed = ask(keeping, "none", perturb="ulp", runs=10)
        varied = ask(keeping, "init", runs=10)
        # Intervals of 95 % that lie apart: 1 - 10^-14 against 0.94 at most, under five base seeds.
        assert perturbed.cka()["0"].low > varied.cka()["0"].high

    def test_layers_and_examples_can_be_chosen(self, study):
        found = study.cka(layers=["3", "1"], examples=24)
        assert (found.layers, found.examples, found.batch_size) == (("3", "1"), 24, 24)
        expected = by_hand(study, "1", study.recipe.test[0][::2])
        torch.testing.assert_close(found.matrices["1"], expected, rtol=1e-6, atol=1e-6)

    def test_it_is_shown_as_a_table_and_written_as_json(self, study):
        found = study.cka()
        title, first, second, about = str(found).splitlines()
        assert title == "layer  CKA"
        assert first.startswith("0 ")
        assert second.startswith("3 ")
        assert about == "mean over 6 pairs of 4 runs on 48 test examples"
        written = json.loads(json.dumps(found.to_json()))
        assert written["measure"] == "cka"
        assert written["layers"]["3"] == found["3"].to_json()
        assert (written["runs"], written["examples"], written["batch_size"]) == (4, 48, 48)
        assert repr(found) == "Similarity(layers=0, 3, runs=4, examples=48)"

    def test_a_layer_that_was_not_compared_is_named(self, study):
        with pytest.raises(TaskError, match=r"got '1'. They are 0, 3"):
            study.cka()["1"]

    def test_the_report_has_what_was_asked(self, study):
        assert "similarity" not in summarize(study, "test")
        found = [study.cka(), study.cka(["3"])]
        assert summarize(study, "test")["similarity"] == [one.to_json() for one in found]
        assert "similarity" not in summarize(study.ensembles(2), "test")

    @pytest.mark.usefixtures("two_threads")
    def test_the_global_generators_and_threads_stay_as_they_were(self, study):
        torch.manual_seed(5)
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        study.cka()
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == threads

    def test_failed_runs_are_left_out(self, study):
        lost = dataclasses.replace(study.records[1], status="failed", logits=None, weights=None, error="lost")
        records = (study.records[0], lost, *study.records[2:])
        kept = dataclasses.replace(study, records=records, max_failed_runs=1, journal=Journal())
        torch.testing.assert_close(kept.cka().matrices["3"], study.cka().matrices["3"][[0, 2, 3]][:, [0, 2, 3]])

    def test_a_convolutional_net_in_channels_last_and_double_precision(self, ask, conv_net):
        plain = dataclasses.replace(conv_net, keep_weights=True)
        last = dataclasses.replace(plain, memory_format=torch.channels_last, dtype=torch.float64)
        found = ask(last, "init", runs=3).cka()
        assert found.layers == ("0", "4")
        assert found["0"].value < 1


class TestRefused:
    def test_runs_without_weights(self, ask, dropout_net):
        with pytest.raises(TaskError, match=r"run 0, 1, 2 were not kept. Train it as Recipe\(..., keep_weights=True\)"):
            ask(dropout_net, "init").cka()

    def test_a_train_function(self, ask):
        with pytest.raises(TaskError, match=r"fake is a FakeTask\. .* Recipe\(..., keep_weights=True\)"):
            ask(FakeTask(), "init").cka()

    def test_ensembles(self, study):
        with pytest.raises(TaskError, match=r"ensembles or made up.*keep_weights=True"):
            study.ensembles(2).cka()

    def test_a_study_that_was_made_up(self):
        with pytest.raises(TaskError, match="ensembles or made up"):
            fake_study([[[2.0, 0.0]], [[1.0, 0.0]]], labels=[0]).cka()

    def test_snapshot_ensembles(self, ask, keeping):
        study = ask(dataclasses.replace(keeping, epochs=4).with_snapshots(2), "init", runs=2)
        with pytest.raises(TaskError, match=r"ensembles of 2 snapshots, .*keep_weights=True"):
            study.cka()

    @pytest.mark.parametrize("options", [{"examples": 3}, {"batch_size": 3}, {"examples": True}, {"batch_size": 4.5}])
    def test_too_few_examples(self, study, options):
        (name,) = options
        with pytest.raises(TaskError, match=f"Expected {name} >= 4"):
            study.cka(**options)

    def test_a_test_set_of_three(self):
        with pytest.raises(TaskError, match="4 test examples or more but there are 3"):
            compare_layers(deep, states_of(2), examples_of(3), CPU)

    def test_a_wrong_layer_before_any_weights_are_read(self, study):
        class Unread(dict):
            def __getitem__(self, name):
                raise AssertionError("read")

        records = tuple(dataclasses.replace(record, weights=Unread(a=1)) for record in study.records)
        with pytest.raises(TaskError, match="which none is called"):
            dataclasses.replace(study, records=records).cka(["nothing"])


class TestBits:
    def test_they_do_not_depend_on_the_number_of_threads(self, threads):
        threads(1)
        expected = compare_layers(deep, states_of(12), examples_of(200), CPU).matrices
        threads(3)
        got = compare_layers(deep, states_of(12), examples_of(200), CPU).matrices
        assert torch.get_num_threads() == 3
        assert all(torch.equal(got[name], expected[name]) for name in expected)

    def test_nor_on_how_many_batches_are_held_at_once(self, monkeypatch):
        expected = compare_layers(deep, states_of(5), examples_of(50), CPU, batch_size=10)
        monkeypatch.setattr(module, "_HELD_BYTES", 1)
        got = compare_layers(deep, states_of(5), examples_of(50), CPU, batch_size=10)
        assert all(torch.equal(got.matrices[name], expected.matrices[name]) for name in expected.layers)

    def test_a_model_that_draws_when_it_is_evaluated_draws_the_same_in_each_run(self):
        class Noisy(nn.Linear):
            def forward(self, x: Tensor) -> Tensor:
                return super().forward(x) + torch.randn(len(x), self.out_features)

        def build() -> nn.Module:
            return nn.Sequential(Noisy(6, 4))

        found = compare_layers(build, [build().state_dict()] * 3, examples_of(20), CPU)
        assert torch.equal(found.matrices["0"], torch.ones(3, 3, dtype=torch.float64))


class TestMemory:
    def test_only_as_many_gram_matrices_are_held_as_fit(self, monkeypatch):
        """Five runs, two layers, batches of 20: 15,200 bytes of Gram matrices and 480 of inputs each."""
        held, grams_of = [], module._grams

        def counted(*arguments):
            grams = grams_of(*arguments)
            held.append(sum(gram.nbytes for batches in grams.values() for gram in batches))
            return grams

        monkeypatch.setattr(module, "_grams", counted)
        monkeypatch.setattr(module, "_HELD_BYTES", 32_000)
        found = compare_layers(deep, states_of(5), examples_of(100), CPU, batch_size=20)
        assert (found.examples, found.batch_size) == (100, 20)
        assert held == [30_400, 30_400, 15_200]

    def test_the_batch_shrinks_where_one_of_the_usual_size_would_not_fit(self, monkeypatch):
        monkeypatch.setattr(module, "_HELD_BYTES", 10 * 8 * 30 * 29 // 2)
        found = compare_layers(deep, states_of(5), examples_of(90), CPU)
        assert found.batch_size == 30
        monkeypatch.setattr(module, "_HELD_BYTES", 1)
        assert compare_layers(deep, states_of(5), examples_of(90), CPU).batch_size in (4, 5)

    def test_a_model_is_held_for_each_thread_and_none_for_each_run(self, threads):
        built = []
        threads(2)

        def build() -> nn.Module:
            built.append(deep())
            return built[-1]

        compare_layers(build, states_of(6), examples_of(20), CPU)
        assert len(built) == 2


def test_a_layer_with_the_same_output_for_all_has_no_cka():
    def build() -> nn.Module:
        return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))

    states = states_of(3, build)
    states[1]["0.weight"].zero_()
    found = compare_layers(build, states, examples_of(20), CPU)
    assert found["0"].is_undefined
    assert found.to_json()["layers"]["0"] == {"value": None, "low": None, "high": None}
    assert "0      undefined" in str(found)


@pytest.mark.timeout(
    60, method="thread"
)  # each of the runs fails, and none may leave another thread waiting for its model
def test_an_exception_of_a_model_comes_through(threads):
    threads(3)

    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise ZeroDivisionError("in the model")
            return super().forward(x)

    def build() -> nn.Module:
        return nn.Sequential(Broken(6, 4))

    for _ in range(20):
        with pytest.raises(ZeroDivisionError, match="in the model"):
            compare_layers(build, [build().state_dict()] * 30, examples_of(20), CPU)


def test_two_runs_have_a_pair_and_no_interval():
    found = Similarity({"a": torch.tensor([[1.0, 0.5], [0.5, 1.0]])}, examples=20, batch_size=20)
    assert found.to_json()["layers"]["a"] == {"value": 0.5, "low": None, "high": None}


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "representation.md").read_text(encoding="utf-8")
    script, shown = re.findall(r"^```(?:python)?\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(script, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    # The bits are those of one machine; what is compared, and of what, is the same on all.
    assert [line.split()[0] for line in done.stdout.splitlines()] == [line.split()[0] for line in shown.splitlines()]
    assert done.stdout.splitlines()[-1] == shown.splitlines()[-1]
