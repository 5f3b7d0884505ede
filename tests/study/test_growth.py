"""How runs part while they train: what a study says of the curves that its runs kept."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics

import pytest
import torch
from torch import nn

from stabilitykit.errors import TaskError
from stabilitykit.store.record import RunRecord
from stabilitykit.study.growth import growth_of
from stabilitykit.testing import FakeTask


def records(*curves, score="accuracy"):
    return [
        RunRecord(index, {}, "ok", 0.0, curve=tuple({score: value} for value in curve))
        for index, curve in enumerate(curves)
    ]


def growth(*curves, score="accuracy"):
    return growth_of(records(*curves, score=score), score, "net", "ulp")


class TestNumbers:
    def test_are_those_of_each_epoch(self):
        found = growth([1.0, 10.0], [2.0, 10.0], [6.0, 10.0])
        assert [spread.epoch for spread in found.epochs] == [1, 2]
        assert found.epochs[0].mean == 3
        assert found.epochs[0].sd.value == pytest.approx(statistics.stdev([1, 2, 6]))
        assert (found.epochs[0].low, found.epochs[0].high) == pytest.approx((1.05, 5.8))
        assert found.epochs[1].sd.is_exact
        assert found.peak.epoch == 1

    @pytest.mark.trains
    def test_the_last_epoch_is_the_study(self, ask, dropout_net):
        study = ask(dataclasses.replace(dropout_net, curve=True), "init", runs=5)
        for score in ("accuracy", "cross_entropy"):
            last = study.growth(score).epochs[-1]
            expected = study[f"{score}_sd"]
            assert (last.sd.value, last.sd.low, last.sd.high) == pytest.approx(
                (expected.value, expected.low, expected.high)
            )
            assert last.sd.method == expected.method
            assert last.mean == pytest.approx(study[score].value)
        assert len(study.growth("accuracy").epochs) == dropout_net.epochs

    @pytest.mark.slow
    @pytest.mark.trains
    def test_one_ulp_grows_where_there_is_a_hidden_layer_and_not_in_a_linear_model(self, ask, unstable_net):
        linear = dataclasses.replace(unstable_net, model=lambda: nn.Linear(6, 2))
        deep, flat = (ask(net, perturb="ulp", runs=6).growth("cross_entropy") for net in (unstable_net, linear))
        # Intervals of 95 % that lie apart, here by a factor of 10^4 and more (0.07 nats against 10^-6 at most, under
        # four base seeds): an SD of six normal numbers is that far below its own value once in 10^16 times.
        assert deep.epochs[-1].sd.low > deep.epochs[0].sd.high
        assert deep.epochs[-1].sd.low > flat.peak.sd.high

    def test_an_epoch_in_which_a_run_diverged_is_undefined_and_no_other(self):
        found = growth([1.0, math.nan, 3.0], [2.0, 1.0, 5.0])
        assert [spread.sd.is_undefined for spread in found.epochs] == [False, True, False]
        assert found.peak.epoch == 3
        assert found.to_json()["epochs"][1]["low"] is None
        json.dumps(found.to_json(), allow_nan=False)
        assert "undefined" in str(found)


class TestTable:
    def test_has_a_row_an_epoch_and_says_what_a_range_of_few_runs_holds(self):
        lines = str(growth([70.0, 90.0], [72.0, 90.2], [71.0, 90.4])).splitlines()
        assert lines[0] == "accuracy of net [ulp], 3 runs, peak SD after epoch 1"
        assert lines[1].split() == ["epoch", "mean", "SD", "95", "%", "range,", "less", "the", "mean"]
        assert lines[2].split() == ["1", "71", "1.0", "[0.6,", "4.4]", "-0.95", "to", "+0.95"]
        assert lines[-1] == (
            "95 % range: of 3 runs it lies between the two outermost runs on either side (fewer than 41) and holds "
            "about 48 % of further runs"
        )
        many = str(growth(*[[float(run)] for run in range(41)])).splitlines()
        assert many[-1] == "95 % range: of 41 runs it holds about 90 % of further runs"

    @pytest.mark.parametrize("epochs", [1, 2, 19, 20, 21, 200, 500])
    def test_of_many_epochs_is_thinned_from_the_first_to_the_last(self, epochs):
        lines = str(growth([float(epoch) for epoch in range(epochs)], [0.0] * epochs)).splitlines()[2:-1]
        shown = [int(line.split()[0]) for line in lines]
        assert shown[0] == 1
        assert shown[-1] == epochs
        assert len(shown) <= 20
        assert shown == sorted(set(shown))
        assert shown == list(range(1, epochs + 1)) or epochs > 20

    def test_of_runs_that_hardly_differ_shows_that_they_do(self):
        assert "+9.5e-10" in str(growth([2.0], [2.0 + 1e-9], [2.0 - 1e-9], score="cross_entropy"))


class TestErrors:
    def test_runs_without_a_curve(self, ask):
        with pytest.raises(TaskError, match=r"kept no curve.*curve=True"):
            ask(FakeTask(), "init").growth("accuracy")

    def test_an_ensemble_has_none_of_its_members_curves(self, ask, linear):
        study = ask(dataclasses.replace(linear, curve=True), "init", runs=4)
        with pytest.raises(TaskError, match="kept no curve"):
            study.ensembles(2).growth("accuracy")

    def test_an_unknown_score_is_answered_with_those_there_are(self, ask, linear):
        study = ask(dataclasses.replace(linear, curve=True), "init")
        with pytest.raises(TaskError, match=r"got 'acc'\. They have accuracy, cross_entropy\."):
            study.growth("acc")

    def test_curves_of_different_lengths(self):
        with pytest.raises(TaskError, match="run 1 has 1 and run 0 has 2"):
            growth([1.0, 2.0], [1.0])


def test_a_regression_has_the_growth_of_its_error(ask, linear, blobs):
    x, _ = blobs
    data = (x, x[:, :3].contiguous())
    study = ask(dataclasses.replace(linear, train=data, test=data, curve=True), "init")
    assert torch.isfinite(torch.tensor([spread.sd.value for spread in study.growth("rmse").epochs])).all()
