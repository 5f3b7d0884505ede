"""The condition number of training: against the paper's own example, a plain loop, and models that start apart."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit.errors import ProtocolError, StabilityError, TaskError
from stabilitykit.protocol import NoiseProtocol, Perturbation
from stabilitykit.store.record import RunRecord
from stabilitykit.study.condition_number import condition_number_of, distance
from stabilitykit.testing import FakeTask
from stabilitykit.training.certificate import Certificate
from stabilitykit.training.perturb import perturb_model


def step(old, new, index=(0, 0), parameter="weight"):
    return {"parameter": parameter, "index": index, "old": float(old).hex(), "new": float(new).hex()}


def records(*steps):
    return [RunRecord(index, {}, "ok", 0.0, perturbation=move) for index, move in enumerate(steps)]


class TestPaper:
    """Section 4.1: one weight from -0.0066514308 to -0.0066514313, 90.0 to 90.12 %, 0.3519 to 0.34335 nats."""

    old = np.float32(-0.0066514308)
    moved = np.nextafter(old, np.float32(-1))

    @pytest.mark.parametrize(
        ("score", "values", "printed"),
        [("accuracy", (90.0, 90.12), 2.6e8), ("cross_entropy", (0.3519, 0.34335), 1.8e7)],
    )
    def test_its_numbers_are_ours_with_accuracy_in_points(self, score, values, printed):
        runs = records(step(self.old, self.old), step(self.old, self.moved))
        found = condition_number_of(runs, NoiseProtocol(perturb="ulp", runs=2), score, values)
        assert found.step == 2.0**-31
        assert float(f"{found.at_least:.1e}") == printed


class TestDistance:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("kind", ["ulp", "bit"])
    def test_is_the_norm_of_the_difference_of_all_weights(self, dtype, kind):
        models, moves = [], []
        for position in range(12):  # of 4 weights: some pairs share one
            torch.manual_seed(0)
            model = nn.Linear(2, 2).to(dtype)
            moves.append(perturb_model(model, Perturbation(kind), seed=3, position=position).to_json())
            models.append(torch.cat([weight.detach().double().flatten() for weight in model.parameters()]))
        for i, j in itertools.combinations(range(12), 2):
            assert distance(moves[i], moves[j]) == pytest.approx((models[i] - models[j]).norm().item(), rel=1e-12)

    @settings(deadline=None, max_examples=60)
    @given(
        *[st.floats(-1e3, 1e3, width=32)] * 3, st.sampled_from([(0, 0), (1, 0)]), st.sampled_from(["weight", "bias"])
    )
    def test_is_symmetric_and_zero_only_for_one_model(self, old, new, other, index, parameter):
        one, two = step(old, new), step(old, other, index, parameter)
        assert distance(one, two) == distance(two, one) >= 0
        assert distance(one, one) == 0
        same = (new == other) if (index, parameter) == ((0, 0), "weight") else new == old == other
        assert (distance(one, two) == 0) == same

    def test_of_subnormal_steps_is_not_lost(self):
        assert distance(step(0, 2.0**-149), step(0, 2.0**-149, (0, 1))) == pytest.approx(2**0.5 * 2.0**-149)


@pytest.mark.trains
class TestStudy:
    def test_is_the_largest_over_pairs_beside_the_median(self, ask, conv_net):
        study = ask(dataclasses.replace(conv_net, epochs=6), perturb="ulp", runs=5)
        found = study.condition_number("cross_entropy")
        losses = study.measures.of_runs("cross_entropy").tolist()
        ratios = [
            abs(losses[i] - losses[j]) / distance(study.records[i].perturbation, study.records[j].perturbation)
            for i, j in itertools.combinations(range(5), 2)
        ]
        assert found.at_least == max(ratios) == found.change / found.step
        assert found.median == statistics.median(ratios)
        assert found.pairs == 10
        assert str(found).startswith("condition number of training for cross_entropy: at least ")
        assert json.loads(json.dumps(found.to_json()))["between"] == list(found.between)

    def test_a_stored_study_says_the_same(self, make_session, ask, conv_net):
        first = ask(conv_net, perturb="ulp", runs=3).condition_number("cross_entropy")
        again = ask(conv_net, perturb="ulp", runs=3, session=make_session("later"))
        assert again.condition_number("cross_entropy") == first

    @pytest.mark.slow
    def test_a_linear_model_is_well_conditioned_and_a_deeper_one_is_not(self, ask, unstable_net):
        linear = dataclasses.replace(unstable_net, model=lambda: nn.Linear(6, 2))
        deep, flat = (
            ask(net, perturb="ulp", runs=6).condition_number("cross_entropy") for net in (unstable_net, linear)
        )
        # What one pair in two shows of the first is more than any pair of the second does: 10^7 against 4 to 12, under
        # four base seeds. Seven or more of 15 pairs would have to agree in a millionth of what they differ by.
        assert deep.median > flat.at_least

    def test_what_the_control_did_not_prove_is_said(self, ask, linear):
        study = ask(linear, perturb="ulp")
        assert study.condition_number("accuracy").note == ""
        unproven = dataclasses.replace(study, certificate=Certificate(False, "not proven: out of memory"))
        assert str(unproven.condition_number("accuracy")).endswith("; isolation not proven: out of memory")


class TestPairs:
    protocol = NoiseProtocol(perturb="ulp", runs=3)

    def test_runs_with_one_start_are_no_pair(self):
        up, other = step(1, 1 + 2.0**-23), step(1, 1 + 2.0**-23, (1, 1))
        found = condition_number_of(records(up, up, other), self.protocol, "accuracy", [90.0, 90.0, 91.0])
        assert found.pairs == 2
        assert found.between == (0, 2)

    def test_runs_that_all_start_alike_show_nothing(self):
        up = step(1, 1 + 2.0**-23)
        with pytest.raises(StabilityError, match="made the same step"):
            condition_number_of(records(up, up), self.protocol, "accuracy", [90.0, 90.0])

    def test_beyond_what_a_float_holds_is_null_in_json(self):
        smallest = records(step(0, 5e-324), step(0, -5e-324))
        found = condition_number_of(smallest, self.protocol, "accuracy", [90.0, 91.0])
        assert math.isinf(found.at_least)
        assert found.to_json()["at_least"] is None


class TestErrors:
    def test_no_perturbation(self, ask, linear):
        with pytest.raises(ProtocolError, match=r"vary='none' moves none.*perturb='ulp'"):
            ask(linear).condition_number("accuracy")

    def test_sources_that_vary_as_well(self, ask, linear):
        with pytest.raises(ProtocolError, match="init, shuffle varies as well"):
            ask(linear, "init+shuffle", perturb="ulp").condition_number("accuracy")

    def test_an_ensemble_has_no_one_step(self, ask, linear):
        study = ask(linear, perturb="ulp", runs=4).ensembles(2)
        with pytest.raises(ProtocolError, match=r"does not\. An ensemble"):
            study.condition_number("accuracy")

    def test_an_unknown_score_is_answered_with_those_there_are(self, ask):
        study = ask(FakeTask(), perturb="ulp")
        with pytest.raises(TaskError, match=r"got 'accuracy_sd'\. It has accuracy, cross_entropy, brier\."):
            study.condition_number("accuracy_sd")
