"""The numbers of a study by name: for classes, for every pixel, for regression, and for metrics of the user's own."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch

from stabilitykit.errors import TaskError
from stabilitykit.estimates.measures import Measures, check_metrics

R, N, C = 4, 30, 3
LABELS = torch.arange(N) % C
LOGITS = torch.randn(R, N, C, generator=torch.Generator().manual_seed(0)) + torch.nn.functional.one_hot(LABELS, C)
PIXELS = torch.randint(0, C, (5, 2, 3), generator=torch.Generator().manual_seed(1))
PIXELS[:, 0, 0] = -100


def share_of_class_0(logits, labels):
    return (logits.argmax(-1) == 0).double().mean().item()


CLASS_NAMES = ["accuracy", "accuracy_sd", "cross_entropy", "cross_entropy_sd", "disagreement", "correlation", "pearson"]
CLASS_NAMES += ["ensemble_delta", "cross_entropy_ensemble_delta", "flip_floor", "training_sd"]
CLASS_NAMES += ["brier", "brier_sd"]
REGRESSION_NAMES = ["rmse", "rmse_sd", "correlation", "pearson", "rmse_ensemble_delta"]


class TestNames:
    def test_a_classification_has_the_papers_measures(self):
        assert set(Measures(LOGITS, LABELS)) == set(CLASS_NAMES)

    def test_a_regression_has_no_classes_to_disagree_on(self):
        assert set(Measures(LOGITS[..., 0], LOGITS[0, :, 0])) == set(REGRESSION_NAMES)

    def test_a_metric_of_ones_own_has_a_mean_an_sd_and_an_ensemble_delta(self):
        measures = Measures(LOGITS, LABELS, {"zeros": share_of_class_0})
        assert set(measures) - set(CLASS_NAMES) == {"zeros", "zeros_sd", "zeros_ensemble_delta"}

    @pytest.mark.parametrize(
        ("outputs", "labels"),
        [
            (LOGITS, LABELS),
            (LOGITS[..., 0], LOGITS[0, :, 0]),
            (torch.zeros(R, *PIXELS.shape, C), PIXELS),
            (torch.zeros(R, 4, 2), torch.zeros(4, 2)),
        ],
    )
    @pytest.mark.parametrize("metrics", [{}, {"zeros": share_of_class_0}])
    def test_the_names_are_known_before_training(self, outputs, labels, metrics):
        assert Measures.names(labels, metrics) == tuple(Measures(outputs, labels, metrics))

    def test_an_unknown_name_is_missing_and_asking_for_it_computes_nothing(self):
        def metric(logits, labels):
            raise KeyError("nothing may be computed")

        measures = Measures(LOGITS, LABELS, {"mine": metric})
        assert "f1" not in measures
        assert "mine" in measures
        assert len(measures) == len(CLASS_NAMES) + 3
        with pytest.raises(KeyError, match="f1"):
            measures["f1"]


class TestValues:
    def test_scores_are_means_and_sds_over_runs(self):
        measures = Measures(LOGITS, LABELS)
        accuracies = [100 * (run.argmax(-1) == LABELS).double().mean().item() for run in LOGITS]
        losses = [torch.nn.functional.cross_entropy(run.double(), LABELS).item() for run in LOGITS]
        assert measures.of_runs("accuracy").tolist() == pytest.approx(accuracies)
        assert measures["accuracy"].value == pytest.approx(statistics.mean(accuracies))
        assert measures["accuracy_sd"].value == pytest.approx(statistics.stdev(accuracies))
        assert measures["cross_entropy"].value == pytest.approx(statistics.mean(losses))
        assert measures["cross_entropy_sd"].value == pytest.approx(statistics.stdev(losses))
        assert measures["accuracy"].runs == R

    def test_pairs_are_averaged(self):
        measures = Measures(LOGITS, LABELS)
        classes = LOGITS.argmax(-1)
        pairs = [100 * (one != two).double().mean().item() for one, two in itertools.combinations(classes, 2)]
        assert measures["disagreement"].value == pytest.approx(statistics.mean(pairs))
        flat = LOGITS.double().flatten(1)
        pearson = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in itertools.combinations(flat, 2)]
        assert measures["pearson"].value == pytest.approx(statistics.mean(pearson))
        ranks = flat.argsort(-1).argsort(-1).double()  # no ties among random floats
        spearman = [torch.corrcoef(torch.stack(pair))[0, 1].item() for pair in itertools.combinations(ranks, 2)]
        assert measures["correlation"].value == pytest.approx(statistics.mean(spearman))

    @pytest.mark.parametrize(
        ("name", "score"),
        [
            ("ensemble_delta", lambda logits: 100 * (logits.argmax(-1) == LABELS).double().mean().item()),
            ("cross_entropy_ensemble_delta", lambda logits: torch.nn.functional.cross_entropy(logits, LABELS).item()),
            ("zeros_ensemble_delta", lambda logits: share_of_class_0(logits, LABELS)),
        ],
    )
    def test_an_ensemble_delta_is_the_papers_equation(self, name, score):
        pairs = itertools.combinations(LOGITS.double(), 2)
        expected = [score((one + two) / 2) - (score(one) + score(two)) / 2 for one, two in pairs]
        measures = Measures(LOGITS, LABELS, {"zeros": share_of_class_0})
        assert measures[name].value == pytest.approx(statistics.mean(expected))

    def test_a_regression_is_scored_by_its_error(self):
        outputs, targets = LOGITS[..., :2], LOGITS[0, :, 1:]
        errors = [(run - targets).double().square().mean().sqrt().item() for run in outputs]
        measures = Measures(outputs, targets)
        assert measures["rmse"].value == pytest.approx(statistics.mean(errors))
        assert measures["rmse_sd"].value == pytest.approx(statistics.stdev(errors))
        assert measures.main_delta == "rmse_ensemble_delta"
        assert measures[measures.main_delta].value <= 0  # the mean of two models errs less than they do
        assert Measures(LOGITS, LABELS).main_delta == "ensemble_delta"

    def test_every_labelled_pixel_is_an_example(self):
        logits = torch.randn(R, *PIXELS.shape, C, generator=torch.Generator().manual_seed(2))
        kept = PIXELS != -100
        flat = Measures(logits[:, kept], PIXELS[kept])
        dense = Measures(logits, PIXELS, {"count": lambda logits, labels: float(len(labels))})
        assert all(dense[name] == flat[name] for name in CLASS_NAMES)
        assert dense["count"].value == int(kept.sum()) == 25

    @pytest.mark.parametrize(
        ("outputs", "labels"),
        [
            (LOGITS, LABELS),
            (LOGITS.double() / 3, LABELS.int()),
            (LOGITS[..., 0], LOGITS[0, :, 0]),
            (LOGITS, LOGITS[0] + 1),
            (torch.randn(R, *PIXELS.shape, C, generator=torch.Generator().manual_seed(2)), PIXELS),
        ],
    )
    def test_runs_one_by_one_measure_the_same_bits_as_one_tensor(self, outputs, labels):
        metrics = {"mine": lambda outputs, labels: outputs.double().mean() + labels.double().sum()}
        one = Measures(outputs, labels, metrics)
        other = Measures([run.clone() for run in outputs], labels, metrics)
        assert {name: one[name] for name in one} == {name: other[name] for name in other}

    @pytest.mark.parametrize("classes", [2, 200, 300])
    def test_predictions_fit_into_the_few_bytes_that_keep_them(self, classes):
        labels = torch.arange(N) % classes
        logits = torch.randn(R, N, classes, generator=torch.Generator().manual_seed(0))
        logits[:, : N // 2, -1] = 9.0  # the last class, which too small an integer would turn into another
        measures = Measures(logits, labels)
        predicted = logits.argmax(-1)
        assert measures.of_runs("accuracy").tolist() == pytest.approx(
            [100 * (run == labels).double().mean().item() for run in predicted]
        )
        pairs = [100 * (one != two).double().mean().item() for one, two in itertools.combinations(predicted, 2)]
        assert measures["disagreement"].value == pytest.approx(statistics.mean(pairs))

    def test_equal_runs_have_no_spread_at_all(self):
        measures = Measures(LOGITS[:1].expand(R, -1, -1), LABELS, {"zeros": share_of_class_0})
        for name in ("accuracy_sd", "cross_entropy_sd", "disagreement", "ensemble_delta", "zeros_sd"):
            assert measures[name].value == 0
            assert measures[name].is_exact
        assert measures["correlation"].value == measures["pearson"].value == 1

    def test_the_order_of_runs_does_not_matter(self):
        one, other = Measures(LOGITS, LABELS), Measures(LOGITS.flip(0), LABELS)
        for name in one:
            assert other[name].value == pytest.approx(one[name].value, rel=1e-12)

    def test_each_is_computed_once(self):
        calls = []

        def metric(logits, labels):
            calls.append(1)
            return 1.0

        measures = Measures(LOGITS, LABELS, {"mine": metric})
        assert not calls
        measures.compute(["mine", "mine_sd"])
        assert measures["mine"] is measures["mine"]
        assert len(calls) == R + 1, "and of run 0 twice: it must give one number"

    def test_a_metric_may_return_any_number(self):
        measures = Measures(LOGITS, LABELS, {"mine": lambda logits, labels: logits.sum()})
        assert measures["mine"].value == pytest.approx(LOGITS.double().sum((1, 2)).mean().item(), rel=1e-5)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_metric_that_is_not_finite_is_refused_with_what_it_returned(self, value):
        measures = Measures(LOGITS, LABELS, {"mine": lambda logits, labels: value})
        with pytest.raises(
            TaskError, match=r"^Expected the metric 'mine' to return finite numbers but got \[(nan|inf),"
        ):
            measures.compute(["mine"])


class TestChecking:
    @pytest.mark.parametrize("labels", [LABELS, LABELS.float()])
    @pytest.mark.parametrize(
        ("metrics", "message"),
        [
            ({"accuracy": len}, "but got 'accuracy', which would measure accuracy, accuracy_sd, ensemble_delta a"),
            ({"rmse": len}, "but got 'rmse', which would measure rmse, rmse_ensemble_delta, rmse_sd a second time."),
            ({"disagreement": len}, "but got 'disagreement', which would measure disagreement a second time."),
            ({"accuracy_sd": len}, "but got 'accuracy_sd', which would measure accuracy_sd a second time."),
            ({"f1": len, "f1_sd": len}, "but got 'f1_sd', which would measure f1_sd a second time."),
            ({"f1_sd": len, "f1": len}, "but got 'f1', which would measure f1_sd a second time."),
            ({"top 5": len}, "but got 'top 5', which is no identifier, so no budget could name it."),
            ({5: len}, "but got 5, which is no identifier, so no budget could name it."),
        ],
    )
    def test_a_name_that_is_taken_or_is_none_is_refused(self, labels, metrics, message):
        with pytest.raises(TaskError) as refusal:
            check_metrics(metrics, labels)
        assert str(refusal.value).startswith("Expected each key of metrics= to name a new metric but got")
        assert message in str(refusal.value)

    def test_what_is_no_function_is_refused(self):
        with pytest.raises(
            TaskError, match=r"^Expected metrics\['f1'\] to be a function of logits and labels but got 3"
        ):
            check_metrics({"f1": 3}, LABELS)

    @pytest.mark.parametrize(
        ("value", "got"), [(torch.zeros(3, 2), "Tensor of shape [3, 2]"), ("high", "str"), (None, "NoneType")]
    )
    def test_what_is_no_number_is_refused_by_name(self, value, got):
        measures = Measures(torch.rand(2, len(LABELS), 3), LABELS, {"f1": lambda outputs, labels: value})
        with pytest.raises(TaskError) as refusal:
            measures["f1_sd"]
        assert str(refusal.value).startswith(
            f"Expected the metric 'f1' to return one number for a run but got a {got}."
        )

    def test_new_names_are_taken(self):
        check_metrics({"f1": len, "auc": len}, LABELS)
        check_metrics({}, LABELS.float())


class Running:
    """A metric that goes on from call to call, as one of a library with ``update`` and ``compute`` does."""

    def __init__(self) -> None:
        self.seen = self.right = 0

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> float:
        self.seen += len(labels)
        self.right += int((outputs.argmax(-1) == labels).sum())
        return self.right / self.seen


def bootstrap(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    chosen = np.random.default_rng().integers(0, len(labels), len(labels))
    return float(outputs[chosen].mean())


def in_place(outputs: torch.Tensor, labels: torch.Tensor) -> float:
    return float(outputs.add_(1).mean())


@pytest.mark.parametrize("metric", [Running(), bootstrap, in_place])
def test_a_metric_that_gives_another_number_the_second_time_is_an_error(metric):
    outputs, labels = torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
    measures = Measures(outputs, labels, {"mine": metric})
    with pytest.raises(
        TaskError, match=r"^Expected the metric 'mine' to give the same number twice .* of run 0 it gave"
    ):
        measures["mine_sd"]


def test_a_metric_costs_one_more_call_and_may_draw_from_a_seed():
    calls = []

    def seeded(outputs, labels):
        calls.append(1)
        chosen = np.random.default_rng(0).integers(0, len(labels), len(labels))
        return float(outputs[chosen].mean())

    measures = Measures(torch.randn(4, 60, 3), torch.arange(60) % 3, {"mine": seeded})
    assert measures["mine_sd"].value > 0
    assert measures["mine"].value == pytest.approx(float(measures.of_runs("mine").mean()))
    assert len(calls) == 5
