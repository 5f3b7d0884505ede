"""Outputs of every kind come to the numbers of the same model's logits, by formulas of a second author."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, log_softmax
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, hamming_loss, log_loss
from torch import Tensor
from torch.nn import functional

from stabilitykit import Budget
from stabilitykit.errors import BudgetError
from stabilitykit.estimates.meaning import Meaning
from stabilitykit.estimates.measures import Measures
from stabilitykit.estimates.reading import Reading, are_log_probabilities, are_probabilities, mean_outputs
from stabilitykit.testing import fake_study

R, N, C = 4, 50, 4
DRAWS = torch.Generator().manual_seed(0)
LABELS = torch.randint(C, (N,), generator=DRAWS)
LOGITS = torch.randn(R, N, C, generator=DRAWS).double() + 2 * functional.one_hot(LABELS, C)
TWO = LABELS % 2
SINGLE = torch.randn(R, N, generator=DRAWS).double() + 2 * TWO - 1
SEVERAL = torch.rand(N, 5, generator=DRAWS) < 0.4
SEVERAL_LOGITS = torch.randn(R, N, 5, generator=DRAWS).double() + 2 * SEVERAL - 1

#: What softmax changes: it takes a number off each row of logits, and ranks and products run over all rows.
OVER_ROWS = {"correlation", "pearson"}


def values(measures: Measures) -> dict[str, float]:
    return {name: measures[name].value for name in measures}


def assert_equal(one: Measures, other: Measures, besides: set[str] = frozenset(), rel: float = 1e-9) -> None:
    left, right = (values(m) for m in (one, other))
    assert left.keys() == right.keys()
    for name in left.keys() - besides:
        assert left[name] == pytest.approx(right[name], rel=rel, abs=1e-12), name


class TestProbabilities:
    @pytest.mark.parametrize("stated", [None, "probabilities"])
    def test_every_number_is_that_of_the_logits(self, stated):
        assert_equal(Measures(LOGITS.softmax(-1), LABELS, stated=stated), Measures(LOGITS, LABELS), OVER_ROWS)

    def test_cross_entropy_is_that_of_the_probabilities_themselves(self):
        probabilities = LOGITS.float().softmax(-1)
        right = [log_loss(LABELS, run.double() / run.double().sum(-1, keepdim=True)) for run in probabilities]
        measures = Measures(probabilities, LABELS)
        assert measures["cross_entropy"].value == pytest.approx(np.mean(right), rel=1e-6)
        assert measures["cross_entropy_sd"].value == pytest.approx(np.std(right, ddof=1), rel=1e-5)

    def test_ranks_are_those_of_the_probabilities(self):
        probabilities = LOGITS[:2].softmax(-1)
        right = spearmanr(*(run.flatten() for run in probabilities)).statistic
        assert Measures(probabilities, LABELS)["correlation"].value == pytest.approx(right)

    def test_the_word_logits_overrides_what_the_numbers_show(self):
        probabilities = LOGITS.softmax(-1)
        measures = Measures(probabilities, LABELS, stated="logits")
        right = functional.cross_entropy(probabilities.flatten(0, 1), LABELS.repeat(R))
        assert measures["cross_entropy"].value == pytest.approx(float(right))
        assert [*measures.remarks] == []

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_they_are_known_in_every_precision(self, dtype):
        runs = LOGITS.to(dtype).softmax(-1)
        measures = Measures(runs if dtype is torch.float64 else runs.float(), LABELS)
        assert measures.reading.scale == "probabilities"
        (said,) = measures.remarks
        assert said == (
            "the outputs are probabilities, each row in [0, 1] with the sum 1: scored by their logarithms; "
            "outputs='logits' would take them for logits"
        )

    def test_one_run_of_logits_makes_all_of_them_logits(self):
        runs = [*LOGITS.softmax(-1)[:-1], LOGITS[-1]]
        assert Measures(runs, LABELS).reading.scale == "logits"
        runs = [*LOGITS[:-1], LOGITS.softmax(-1)[-1]]
        assert Measures(runs, LABELS).reading.scale == "logits"

    def test_padding_that_is_labelled_minus_100_may_hold_anything(self):
        runs, labels = LOGITS.softmax(-1), LABELS.clone()
        labels[:3], runs[:, :3] = -100, 7.0
        assert_equal(Measures(runs, labels), Measures(LOGITS[:, 3:], LABELS[3:]), OVER_ROWS)

    def test_a_metric_of_the_users_own_gets_what_was_returned(self):
        seen = []
        Measures(LOGITS.softmax(-1), LABELS, {"mine": lambda p, y: seen.append((p, y)) or 1.0})["mine"]
        assert torch.equal(seen[0][0], LOGITS[0].softmax(-1))
        assert torch.equal(seen[0][1], LABELS)

    def test_a_certain_wrong_answer_makes_the_cross_entropy_infinite_and_says_so(self):
        runs = LOGITS.softmax(-1)
        runs[1, 0] = functional.one_hot((LABELS[0] + 1) % C, C)
        measures = Measures(runs, LABELS)
        assert measures.of_runs("cross_entropy").isinf().tolist() == [False, True, False, False]
        assert measures["cross_entropy"].is_undefined
        assert any("cross-entropy is infinite in 1 of 4 runs, run 1 the first" in said for said in measures.remarks)

    def test_ensembles_average_logits_and_give_probabilities_back(self):
        study = fake_study(LOGITS.softmax(-1), LABELS).ensembles(2)
        assert torch.allclose(study.outputs.sum(-1), torch.ones(2, N).double())
        assert_equal(study.measures, fake_study(LOGITS, LABELS).ensembles(2).measures, OVER_ROWS)


class TestLogProbabilities:
    def test_every_number_is_that_of_the_logits_and_it_is_said(self):
        measures = Measures(LOGITS.log_softmax(-1), LABELS)
        assert_equal(measures, Measures(LOGITS, LABELS), OVER_ROWS)
        assert [*measures.remarks] == [
            "the outputs are log-probabilities, whose exponentials sum to 1: logits as they are"
        ]

    def test_ensembles_stay_log_probabilities(self):
        study = fake_study(LOGITS.log_softmax(-1), LABELS, outputs="log_probabilities").ensembles(2)
        assert all(are_log_probabilities(run) for run in study.outputs)
        assert_equal(study.measures, fake_study(LOGITS, LABELS).ensembles(2).measures, OVER_ROWS)


class TestOneOutput:
    @pytest.mark.parametrize("labels", [TWO, TWO.bool(), TWO.float(), TWO.float()[:, None]])
    @pytest.mark.parametrize("axis", [False, True])
    def test_every_number_is_that_of_the_two_logits_0_and_z(self, labels, axis):
        study = fake_study(SINGLE[..., None] if axis else SINGLE, labels)
        two = Measures(torch.stack([torch.zeros_like(SINGLE), SINGLE], -1), TWO)
        assert_equal(study.measures, two)
        right = [accuracy_score(TWO, run > 0) for run in SINGLE], [log_loss(TWO, expit(run.numpy())) for run in SINGLE]
        assert study.accuracy.value == pytest.approx(100 * np.mean(right[0]))
        assert study.cross_entropy_sd.value == pytest.approx(np.std(right[1], ddof=1))

    def test_probabilities_of_a_sigmoid_are_those_of_class_1(self):
        study = fake_study(SINGLE.sigmoid(), TWO)
        assert_equal(study.measures, fake_study(SINGLE, TWO).measures, OVER_ROWS)
        assert "all of them in [0, 1]" in next(study.measures.remarks)
        assert_equal(study.ensembles(2).measures, fake_study(SINGLE, TWO).ensembles(2).measures, OVER_ROWS)

    def test_a_certain_probability_is_no_nan(self):
        one = torch.tensor([1.0, 0.0, 0.5, 1.0])
        measures = Measures([one, one], torch.tensor([1, 0, 1, 0]), stated="probabilities")
        assert measures.of_runs("cross_entropy").tolist() == [math.inf] * 2
        assert measures["accuracy"].value == 50.0  # level at 0.5: class 0, as with two logits
        assert Measures([one[:3]] * 2, torch.tensor([1, 0, 1]))["cross_entropy"].value == pytest.approx(math.log(2) / 3)

    def test_pixels_have_one_output_each(self):
        labels = torch.randint(2, (3, 4, 5), generator=torch.Generator().manual_seed(1))
        z = torch.randn(R, 3, 1, 4, 5)
        right = Measures(torch.stack([torch.zeros_like(z), z], -1).squeeze(2), labels)
        assert_equal(fake_study(z, labels).measures, right)
        assert_equal(fake_study(z, labels[:, None].float()).measures, right)

    def test_a_metric_of_the_users_own_gets_outputs_and_labels_as_they_are(self):
        bce = functional.binary_cross_entropy_with_logits
        study = fake_study(SINGLE[..., None], TWO.double()[:, None], metrics={"bce": bce})
        assert study["bce"].value == pytest.approx(study.cross_entropy.value)


class TestSeveralLabels:
    MEASURES = fake_study(SEVERAL_LOGITS, SEVERAL.float()).measures

    def test_scores_are_those_of_scikit_learn(self):
        right = {
            "subset_accuracy": [100 * accuracy_score(SEVERAL, run > 0) for run in SEVERAL_LOGITS],
            "f1_micro": [f1_score(SEVERAL, run > 0, average="micro") for run in SEVERAL_LOGITS],
            "f1_macro": [f1_score(SEVERAL, run > 0, average="macro") for run in SEVERAL_LOGITS],
            "cross_entropy": [log_loss(SEVERAL.flatten(), expit(run.numpy()).flatten()) for run in SEVERAL_LOGITS],
        }
        for name, expected in right.items():
            assert self.MEASURES.of_runs(name).tolist() == pytest.approx(expected), name
            assert self.MEASURES[name].value == pytest.approx(np.mean(expected))
            assert self.MEASURES[f"{name}_sd"].value == pytest.approx(np.std(expected, ddof=1))

    def test_a_label_that_none_has_and_none_gives_has_an_f1_of_0_as_in_scikit_learn(self):
        labels, z = torch.tensor([[1, 0], [1, 0]]), torch.tensor([[1.0, -1.0], [-1.0, -1.0]])
        measures = Measures([z, z], labels, stated="multi_label")
        right = f1_score(labels, z > 0, average="macro", zero_division=0)
        assert measures["f1_macro"].value == pytest.approx(right)

    def test_disagreement_is_of_sets_and_of_labels(self):
        runs = [(run > 0).numpy() for run in SEVERAL_LOGITS]
        pairs = [(runs[i], runs[j]) for i in range(R) for j in range(i)]
        of_sets = np.mean([100 * (one != other).any(-1).mean() for one, other in pairs])
        assert self.MEASURES["disagreement"].value == pytest.approx(of_sets)
        of_labels = np.mean([100 * hamming_loss(one, other) for one, other in pairs])
        assert self.MEASURES["label_disagreement"].value == pytest.approx(of_labels)

    def test_ensemble_deltas_are_those_of_the_mean_logits(self):
        def score(z: Tensor) -> tuple[float, float]:
            return 100 * accuracy_score(SEVERAL, z > 0), log_loss(SEVERAL.flatten(), expit(z.numpy()).flatten())

        one, other, both = score(SEVERAL_LOGITS[0]), score(SEVERAL_LOGITS[1]), score(SEVERAL_LOGITS[:2].mean(0))
        for name, place in (("subset_accuracy", 0), ("cross_entropy", 1)):
            right = both[place] - (one[place] + other[place]) / 2
            assert self.MEASURES.pairs(f"{name}_ensemble_delta")[0, 1] == pytest.approx(right)

    def test_there_is_no_accuracy_and_no_rmse(self):
        assert not {"accuracy", "rmse", "flip_floor"} & set(self.MEASURES)
        with pytest.raises(BudgetError, match=r"It is a multi-label task, with several labels an example: subset_acc"):
            Budget(accuracy_sd=1).check_names(tuple(self.MEASURES))

    def test_probabilities_are_known_and_give_the_same_numbers(self):
        measures = Measures(SEVERAL_LOGITS.sigmoid(), SEVERAL.float())
        assert measures.reading.scale == "probabilities"
        assert_equal(measures, self.MEASURES, {"pearson"})

    def test_a_classification_may_have_metrics_of_these_names(self):
        measures = Measures(LOGITS, LABELS, {"f1_macro": lambda z, y: f1_score(y, z.argmax(-1), average="macro")})
        right = [f1_score(LABELS, run.argmax(-1), average="macro") for run in LOGITS]
        assert measures["f1_macro"].value == pytest.approx(np.mean(right))
        assert "f1_macro_ensemble_delta" in measures


class TestImpossibleClasses:
    MASKED = LOGITS.masked_fill(functional.one_hot((LABELS + 1) % C, C).bool(), -torch.inf)

    def test_every_score_is_that_of_a_logit_so_low_that_its_probability_is_0(self):
        low = self.MASKED.masked_fill(-torch.inf == self.MASKED, -2000.0)
        assert_equal(Measures(self.MASKED, LABELS), Measures(low, LABELS), {"pearson"})

    def test_scores_by_a_second_author(self):
        measures = Measures(self.MASKED, LABELS)
        exact = [log_softmax(run.numpy(), axis=-1)[np.arange(N), LABELS] for run in self.MASKED]
        right = [-float(run.mean()) for run in exact]
        assert measures.of_runs("cross_entropy").tolist() == pytest.approx(right)
        assert measures["pearson"].is_undefined

    def test_a_pair_with_no_possible_class_in_common_is_never_right(self):
        runs = torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]])
        measures = Measures(runs, torch.tensor([0]))
        assert measures.pairs("ensemble_delta")[0, 1] == -50.0
        assert measures["cross_entropy_ensemble_delta"].is_undefined
        assert Measures([runs.mean(0)] * 2, torch.tensor([0])).of_runs("cross_entropy").tolist() == [math.inf] * 2


rows = st.lists(st.lists(st.floats(-20, 20), min_size=3, max_size=3), min_size=1, max_size=8)


@given(rows)
def test_softmax_is_always_known_and_its_logarithm_too(logits):
    run = torch.tensor(logits)
    assert are_probabilities(run.softmax(-1))
    assert are_log_probabilities(run.log_softmax(-1))


@given(rows, st.floats(0.01, 1))
def test_rows_that_sum_to_something_else_are_no_probabilities(logits, off):
    run = torch.tensor(logits).softmax(-1)
    run[-1] *= 1 - off / 2
    assert not are_probabilities(run)


@given(rows)
def test_what_is_read_and_given_back_is_what_was_returned(logits):
    run = torch.tensor(logits).double().softmax(-1)
    reading = Reading([run], Meaning.of(torch.zeros(len(run), dtype=torch.long)))
    assert torch.allclose(reading.back(reading.additive()[0]), run)


def test_the_mean_of_logits_is_the_plain_one_bit_for_bit():
    assert torch.equal(mean_outputs([*LOGITS], Meaning.of(LABELS)), LOGITS.mean(0))
