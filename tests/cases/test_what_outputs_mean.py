"""What a training returns is taken for what it is, and the study says so; or it is refused with the way out.

After public threads on probabilities taken for logits, lone logits, masks and axes, each with its link.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from stabilitykit import Budget, assert_accuracy_sd
from stabilitykit.errors import StabilityError, TaskError
from stabilitykit.execution.session import check
from stabilitykit.protocol import NoiseProtocol
from tests.conftest import recipe_of
from tests.seeds import BASE_SEED

pytestmark = pytest.mark.trains


def logits_of(runs: int = 3, examples: int = 60, classes: int = 3, scale: float = 2.0) -> tuple[Tensor, Tensor]:
    """Outputs ``[R, N, C]`` of runs that are mostly right, and the labels."""
    draws = torch.Generator().manual_seed(4)
    labels = torch.arange(examples) % classes
    outputs = torch.randn(runs, examples, classes, generator=draws) + scale * functional.one_hot(labels, classes)
    return outputs, labels


def returning(outputs: Tensor):
    """A task whose runs return ``outputs``, one each in some order, so that each right value is known beforehand."""

    def train(run):
        model = nn.Linear(1, 1)
        run.perturb(model)
        with torch.no_grad():
            model.weight.fill_(run.seeds["init"])
        for _ in run.epochs(1):
            pass
        return outputs[(run.seeds["init"] - BASE_SEED) % len(outputs)]

    return train


class TestProbabilities:
    """Rows in [0, 1] with the sum 1 are scored by their logarithms, and the study says so.

    https://github.com/ariecattan/SciCo/issues/2: a softmax in the model and another one in the loss.
    """

    def test_cross_entropy_is_that_of_the_probabilities(self, ask):
        logits, labels = logits_of()
        study = ask(returning(logits.softmax(-1)), "init", labels=labels)
        right = [functional.cross_entropy(run.double(), labels) for run in logits]
        assert study.cross_entropy.value == pytest.approx(float(torch.stack(right).mean()), rel=1e-5)
        assert study.cross_entropy_sd.value == pytest.approx(float(torch.stack(right).std()), rel=1e-4)
        assert any("the outputs are probabilities, each row in [0, 1] with the sum 1" in note for note in study.notes)

    def test_a_model_that_ends_in_a_softmax(self, ask, blobs):
        def loss(p, y):
            return functional.nll_loss(p.clamp_min(1e-9).log(), y)

        task = recipe_of(lambda: nn.Sequential(nn.Linear(6, 3), nn.Softmax(-1)), blobs, lr=0.1, loss=loss)
        study = ask(task, "init")
        right = [functional.nll_loss(run.double().log(), blobs[1]) for run in study.outputs]
        assert study.cross_entropy.value == pytest.approx(float(torch.stack(right).mean()), rel=1e-5)

    # Siblings

    def test_log_probabilities_need_no_second_logarithm(self, ask):
        logits, labels = logits_of()
        plain = ask(returning(logits), "init", labels=labels)
        logs = ask(returning(logits.log_softmax(-1)), "init", labels=labels)
        assert logs.cross_entropy.value == pytest.approx(plain.cross_entropy.value, rel=1e-5)
        assert any("the outputs are log-probabilities" in note for note in logs.notes)

    def test_frequencies_of_a_vote_may_be_zero(self, ask):
        """Random forests return how many trees say each class: often 0, and often 1."""
        logits, labels = logits_of(scale=9.0)
        votes = torch.softmax(logits, -1).mul(4).round().div(4)
        votes = votes / votes.sum(-1, keepdim=True)
        study = ask(returning(votes), "init", labels=labels)
        assert study.accuracy.value == pytest.approx(100.0)
        assert study.disagreement.value == 0

    def test_logits_that_happen_to_be_small_are_logits(self, ask):
        logits, labels = logits_of()
        small = logits / (2 * logits.abs().max()) + 0.5  # in [0, 1], but the rows have other sums
        study = ask(returning(small), "init", labels=labels)
        right = torch.stack([functional.cross_entropy(run.double(), labels) for run in small]).mean()
        assert study.cross_entropy.value == pytest.approx(float(right), rel=1e-5)
        assert ["taken for logits" in note for note in study.notes if "probabilities" in note] == [True]
        stated = ask(returning(small), "init", labels=labels, outputs="logits")
        assert not any("probabilities" in note for note in stated.notes)


class TestOneOutput:
    """A lone logit z is the two logits 0 and z, whatever type its labels have.

    https://github.com/aleximmer/Laplace/issues/107: a binary classifier as nn.BCEWithLogitsLoss wants it.
    """

    labels = torch.arange(60) % 2

    def z(self) -> Tensor:
        return torch.randn(3, 60, generator=torch.Generator().manual_seed(6)) + 2.0 * (2 * self.labels - 1)

    @pytest.mark.parametrize("shape", [(60,), (60, 1)])
    @pytest.mark.parametrize("kind", [torch.int64, torch.float32, torch.bool])
    def test_it_is_scored_as_two_classes(self, ask, shape, kind):
        study = ask(returning(self.z().reshape(3, *shape)), "init", labels=self.labels.to(kind))
        right = [((run > 0).long() == self.labels).double().mean() * 100 for run in self.z()]
        losses = [functional.binary_cross_entropy_with_logits(run, self.labels.float()) for run in self.z()]
        assert study.accuracy.value == pytest.approx(float(torch.stack(right).mean()))
        assert study.cross_entropy.value == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
        said = any("all labels are 0.0 or 1.0: taken for two classes" in note for note in study.notes)
        assert said == (kind is torch.float32)

    def test_a_recipe_with_the_labels_that_its_loss_wants(self, ask, blobs):
        x, y = blobs[0], (blobs[1] == 0).float()[:, None]
        study = ask(recipe_of(lambda: nn.Linear(6, 1), (x, y), lr=0.5, loss=nn.BCEWithLogitsLoss()), "init")
        assert "accuracy" in study.measures
        assert "rmse" not in study.measures
        assert study.accuracy.value > 70

    # Siblings

    def test_a_probability_alone(self, ask):
        study = ask(returning(self.z().sigmoid()), "init", labels=self.labels)
        losses = [functional.binary_cross_entropy_with_logits(run, self.labels.float()) for run in self.z()]
        assert study.cross_entropy.value == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
        assert any("the outputs are probabilities, all of them in [0, 1]" in note for note in study.notes)

    def test_labels_of_minus_one_and_one_are_no_classes_of_ours(self, ask):
        with pytest.raises(TaskError, match="Expected class labels from 0"):
            ask(returning(self.z()), "init", labels=2 * self.labels - 1)

    def test_three_classes_need_three_logits(self, ask):
        with pytest.raises(StabilityError, match="these labels go up to 2"):
            ask(returning(self.z()), "init", labels=torch.arange(60) % 3)


class TestSeveralLabels:
    """Columns of yes and no are scored label by label, beside metrics of the user's own.

    https://github.com/Lightning-AI/torchmetrics/issues/1367: floats for the loss, classes for the metrics.
    """

    labels = (torch.rand(50, 4, generator=torch.Generator().manual_seed(7)) > 0.5).float()

    def outputs(self) -> Tensor:
        return torch.randn(3, 50, 4, generator=torch.Generator().manual_seed(8)) + 2 * self.labels - 1

    def test_its_own_scores_and_no_regression(self, ask):
        study = ask(returning(self.outputs()), "init", labels=self.labels)
        exact = [((run > 0) == self.labels.bool()).all(-1).double().mean() * 100 for run in self.outputs()]
        assert "rmse" not in study.measures
        assert study["subset_accuracy"].value == pytest.approx(float(torch.stack(exact).mean()))
        assert any("taken for a multi-label task" in note for note in study.notes)

    def test_a_metric_of_ones_own_is_right_to_the_digit(self, ask, make_session):
        def f1(outputs, labels):
            predicted, labels = outputs > 0, labels.bool()
            hits = float((predicted & labels).sum())
            return 2 * hits / float(predicted.sum() + labels.sum())

        study = ask(returning(self.outputs()), "init", labels=self.labels, metrics={"f1": f1})
        right = [f1(run, self.labels) for run in self.outputs()]
        assert study["f1"].value == pytest.approx(np.mean(right))
        assert study["f1_sd"].value == pytest.approx(np.std(right, ddof=1))
        protocol = NoiseProtocol("init", runs=10, seed=BASE_SEED)
        question = {"labels": self.labels, "metrics": {"f1": f1}, "budget": Budget(f1_sd=0.9)}
        judged = check(returning(self.outputs()), protocol, **question, session=make_session())
        assert judged.verdicts[-1].outcome.name == "PASS"

    def test_a_question_for_the_accuracy_is_answered_in_words(self, ask):
        study = ask(returning(self.outputs()), "init", labels=self.labels)
        with pytest.raises(StabilityError, match=r"multi-label|several labels"):
            assert_accuracy_sd(study, at_most=1)

    # Siblings

    def test_one_column_is_two_classes_and_no_set(self, ask):
        study = ask(returning(self.outputs()[..., :1]), "init", labels=self.labels[:, :1])
        assert "accuracy" in study.measures

    def test_one_hot_rows_are_asked_about(self, ask):
        rows = functional.one_hot(torch.arange(50) % 4, 4).float()
        with pytest.raises(TaskError, match=r"give labels\.argmax\(-1\)"):
            ask(returning(self.outputs()), "init", labels=rows)

    def test_shares_that_sum_to_one_are_said_to_be_targets(self, ask):
        study = ask(returning(self.outputs()), "init", labels=torch.rand(50, 4).softmax(-1))
        assert any("taken for targets of a regression" in note for note in study.notes)


class TestMaskedLogits:
    """A logit of -inf is a class of probability 0; NaN and +inf are not to be scored.

    https://github.com/hill-a/stable-baselines/pull/453: impossible actions taken for divergence.
    """

    def test_an_impossible_class_is_no_divergence(self, ask):
        logits, labels = logits_of(classes=4)
        masked = logits.masked_fill(functional.one_hot((labels + 2) % 4, 4).bool(), -torch.inf)
        study = ask(returning(masked), "init", labels=labels)
        right = torch.stack([functional.cross_entropy(run.double(), labels) for run in masked]).mean()
        assert study.cross_entropy.value == pytest.approx(float(right), rel=1e-5)
        assert -1 <= study.correlation.value <= 1

    def test_a_right_answer_of_probability_zero_is_said(self, ask):
        logits, labels = logits_of()
        masked = logits.clone()
        masked[1, 5, labels[5]] = -torch.inf
        study = ask(returning(masked), "init", labels=labels)
        assert study.accuracy.value == pytest.approx(
            float(torch.stack([(run.argmax(-1) == labels).double().mean() * 100 for run in masked]).mean())
        )
        (first,) = [place for place, run in enumerate(study.outputs) if run.isinf().any()]
        assert any(f"cross-entropy is infinite in 1 of 3 runs, run {first} the first" in note for note in study.notes)

    # Siblings

    @pytest.mark.parametrize(("value", "said"), [(torch.nan, "are NaN"), (torch.inf, "are +inf")])
    def test_what_diverged_is_named_by_what_it_is(self, ask, value, said):
        logits, labels = logits_of()
        logits[0, 7, 2] = value
        with pytest.raises(StabilityError) as error:
            ask(returning(logits), "init", labels=labels)
        assert f"1 of 180 test outputs {said}, in class 2" in str(error.value)

    def test_an_example_without_a_possible_class_is_refused(self, ask):
        logits, labels = logits_of()
        logits[0, 7] = -torch.inf
        with pytest.raises(StabilityError, match="1 of 60 test examples have the logit -inf for every class"):
            ask(returning(logits), "init", labels=labels)


class TestAxisOfTheClasses:
    """Classes come last; where torch's layout has them second, the study says so or refuses.

    https://github.com/fastai/fastai/pull/1117: a softmax over the columns of an image.
    """

    images = torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))

    def task(self, classes: int, loss=functional.cross_entropy):
        labels = (self.images[:, 0] * classes).long().clamp(max=classes - 1)
        return recipe_of(lambda: nn.Conv2d(1, classes, 1), (self.images, labels), lr=0.5, loss=loss)

    def test_other_sizes_are_refused_in_words(self, ask):
        with pytest.raises(StabilityError, match=r"Classes come last: here axis 1 has 4\. Return outputs\.movedim"):
            ask(self.task(4), "init")

    def test_equal_sizes_contradict_the_loss(self, ask):
        with pytest.raises(StabilityError, match=r"takes axis 1 of the outputs .* scores take the last one"):
            ask(self.task(6), "init")

    def test_a_void_label_is_named_with_the_way_out(self, ask):
        labels = (self.images[:, 0] * 4).long().clamp(max=3)
        labels[:, 0] = 255
        outputs = functional.one_hot(labels.clamp(max=3), 4).float().expand(3, -1, -1, -1, -1)
        with pytest.raises(TaskError, match=r"labels\.masked_fill\(labels == 255, -100\)"):
            ask(returning(outputs), "init", labels=labels)

    # Siblings

    def test_equal_sizes_in_a_loop_of_ones_own_are_doubted(self, ask):
        labels = (self.images[:, 0] * 6).long().clamp(max=5)
        right = 3 * functional.one_hot(labels, 6).float().movedim(-1, 1)
        outputs = right + torch.randn(3, *right.shape, generator=torch.Generator().manual_seed(3))
        study = ask(returning(outputs), "init", labels=labels)
        assert any("the classes seem to be on axis 1 of the outputs [24, 6, 6, 6]" in note for note in study.notes)

    def test_tokens_in_torchs_layout_are_refused(self, ask):
        labels = torch.randint(0, 5, (12, 7), generator=torch.Generator().manual_seed(2))
        with pytest.raises(StabilityError, match="Classes come last: here axis 1 has 5"):
            ask(returning(torch.randn(3, 12, 5, 7)), "init", labels=labels)

    def test_labels_that_start_at_one_are_recognised(self, ask):
        outputs, labels = logits_of()
        with pytest.raises(TaskError, match="They seem to start at 1: give labels - 1"):
            ask(returning(outputs), "init", labels=labels + 1)


class TestOtherTestSets:
    """Runs that are scored on other test sets are at chance, and the study asks why.

    https://github.com/havakv/pycox/issues/151: train_test_split(..., random_state=seed) in the loop over seeds.
    """

    labels = torch.arange(300) % 5

    def test_accuracy_at_chance_is_questioned(self, ask):
        def train(seed):
            order = np.random.default_rng(seed).permutation(300)
            return 5 * functional.one_hot(self.labels, 5).numpy()[order]

        study = ask(train, "all", labels=self.labels)
        assert any("Is the test set the same in every run" in note for note in study.notes), study.notes

    def test_labels_beside_the_outputs_are_compared(self, ask):
        def train(seed):
            order = np.random.default_rng(seed).permutation(300)
            return 5 * functional.one_hot(self.labels, 5).numpy()[order], self.labels.numpy()[order]

        with pytest.raises(StabilityError, match="Its test set is another one"):
            ask(train, "all", labels=self.labels)

    # Siblings

    def test_a_test_set_that_is_shuffled_by_its_loader(self, ask, blobs):
        """shuffle=True was left on at test time: each run is right, of other examples."""
        x, y = torch.randn(300, 6, generator=torch.Generator().manual_seed(1)), self.labels

        def train(run):
            with run.stream("init"):
                model = nn.Linear(6, 5)
            run.perturb(model)
            for _ in run.epochs(1):
                pass
            rows = torch.randperm(300, generator=torch.Generator().manual_seed(run.seeds["init"] + 10))
            return 5.0 * functional.one_hot(y, 5)[rows] + 0 * model(x)

        study = ask(train, "init", labels=y)
        assert any("accuracy is at chance in all 3 runs" in note for note in study.notes), study.notes

    def test_a_weak_model_is_not_suspected(self, ask):
        generator = torch.Generator().manual_seed(9)
        outputs = torch.randn(3, 300, 5, generator=generator) + 1.0 * functional.one_hot(self.labels, 5)
        study = ask(returning(outputs), "init", labels=self.labels)
        assert not any("chance" in note for note in study.notes)

    def test_a_model_that_always_says_one_class_has_learnt_nothing(self, ask):
        outputs = torch.zeros(3, 300, 5)
        outputs[..., 0] = 1 + torch.arange(3)[:, None]
        study = ask(returning(outputs), "init", labels=self.labels)
        assert any("has training learnt nothing yet" in note for note in study.notes), study.notes


class TestOnlyAScore:
    """A run that ends in one number is measured.

    https://github.com/POSTECH-CVLab/PyTorch-StudioGAN/issues/132: FID over seeds.
    """

    @staticmethod
    def returns(seed: int) -> float:
        return 5 + float(np.random.default_rng(seed).normal())

    def test_it_is_a_score(self, ask):
        study = ask(self.returns, "all", runs=5)
        values = [self.returns(record.seeds["init"]) for record in study.records]
        assert study["score"].value == pytest.approx(np.mean(values))
        assert study["score_sd"].value == pytest.approx(np.std(values, ddof=1))

    def test_a_regression_on_one_example_is_the_same(self, ask):
        study = ask(lambda seed: np.array([self.returns(seed)]), "all", runs=5, labels=np.zeros(1))
        values = [self.returns(record.seeds["init"]) for record in study.records]
        assert study.rmse.value == pytest.approx(np.mean(values), rel=1e-6)
        assert study.rmse_sd.value == pytest.approx(np.std(values, ddof=1), rel=1e-5)
