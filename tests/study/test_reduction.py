"""Reduction: by hand and by a second author, its interval by simulation, and what it refuses."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit import Reduction as PublicReduction
from stabilitykit.errors import BudgetError, BudgetExceededError, TaskError
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.study.asserts import assert_reduction
from stabilitykit.study.reduction import (
    MeanDrop,
    Reduction,
    log_ratio_error,
    means_without_each_run,
    sds_without_each_run,
)
from stabilitykit.testing import fake_study
from stabilitykit.verdicts.judgement import Outcome

LABELS = torch.arange(60) % 3
FIVE = ["accuracy_sd", "cross_entropy_sd", "disagreement", "correlation", "ensemble_delta"]


def study_of(scale, seed=0, runs=8, **options):
    noise = torch.randn(runs, 60, 3, generator=torch.Generator().manual_seed(seed))
    return fake_study(2.0 * nn.functional.one_hot(LABELS, 3) + scale * noise, LABELS, **options)


def spreads_of(study):
    """The five measures of a study by two plain loops and the metrics of each pair alone."""
    runs = list(study.outputs)
    pairs = [fake_study(torch.stack(pair), LABELS) for pair in itertools.combinations(runs, 2)]
    mean = {name: statistics.fmean(pair[name].value for pair in pairs) for name in FIVE[2:]}
    alone = [fake_study(torch.stack([run, run]), LABELS) for run in runs]
    sds = [statistics.stdev(run[name].value for run in alone) for name in ("accuracy", "cross_entropy")]
    return [*sds, mean["disagreement"], 1 - mean["correlation"], abs(mean["ensemble_delta"])]


def mean_ratio(above, below):
    return statistics.fmean(a / b for a, b in zip(above, below, strict=True))


def without(study, run):
    outputs = study.outputs
    return fake_study(torch.cat([outputs[:run], outputs[run + 1 :]]), LABELS)


def test_the_front_page_has_it():
    assert PublicReduction is Reduction


def test_it_is_the_mean_of_five_relative_drops_by_hand():
    wide, narrow = study_of(2.0), study_of(1.0)
    reduction = narrow.reduction_against(wide)
    drops = {
        name: 100 * (1 - narrow[name].value / wide[name].value)
        for name in ("accuracy_sd", "cross_entropy_sd", "disagreement", "ensemble_delta")
    }
    drops["correlation"] = 100 * (1 - (1 - narrow.correlation.value) / (1 - wide.correlation.value))
    assert list(reduction.drops) == FIVE
    assert dict(reduction.drops) == pytest.approx(drops)
    assert reduction.value == pytest.approx(sum(drops.values()) / 5)
    assert reduction.drops["disagreement"] > 0
    assert wide.reduction_against(wide).value == 0


def test_its_interval_is_that_of_a_naive_jackknife(monkeypatch):
    monkeypatch.setattr(intervals, "_RESAMPLES", 2)  # the bootstrap of the "±" is slow, and not asked for
    wide, narrow = study_of(2.0, seed=1, runs=5), study_of(1.0, seed=2, runs=4)
    estimate = narrow.reduction_against(wide).estimate
    of_wide, of_narrow = spreads_of(wide), spreads_of(narrow)
    left = [
        [math.log(mean_ratio(spreads_of(without(narrow, run)), of_wide)) for run in range(4)],
        [math.log(mean_ratio(of_narrow, spreads_of(without(wide, run)))) for run in range(5)],
    ]
    # (R - 1) / R times the sum of squared deviations
    variance = sum((len(logs) - 1) * statistics.pvariance(logs) for logs in left)
    ratio, t = mean_ratio(of_narrow, of_wide), 2.353363434801823  # Student's, 3 degrees of freedom, 5 %
    assert estimate.value == pytest.approx(100 * (1 - ratio))
    assert estimate.low == pytest.approx(100 * (1 - ratio * math.exp(t * math.sqrt(variance))))
    assert estimate.high == pytest.approx(100 * (1 - ratio * math.exp(-t * math.sqrt(variance))))
    assert (estimate.runs, estimate.method) == (4, "jackknife over the runs of both")


def test_each_drop_has_the_interval_of_its_ratio():
    wide, narrow = study_of(2.0, seed=1, runs=10), study_of(1.0, seed=2, runs=10)
    drop = narrow.reduction_against(wide).parts["accuracy_sd"]
    ratio = narrow.accuracy_sd.value / wide.accuracy_sd.value
    root = math.sqrt(3.1788931044582653)  # F of 9 and 9 degrees of freedom, 5 %
    assert drop.low == pytest.approx(100 * (1 - ratio * root))
    assert drop.high == pytest.approx(100 * (1 - ratio / root))
    assert drop.at(0.01, 0.01).low < drop.low


def test_it_is_written_with_its_parts():
    reduction = Reduction(
        Estimate(20.2, -5.4, 41.7, 8, "jackknife"),
        {"accuracy_sd": Estimate(50.4, 10, 70, 8, "F"), "disagreement": Estimate(-10.0, -20, 1.2, 8, "t")},
    )
    written = "20 [-5, 42] % less variability (accuracy_sd 50 [10, 70], disagreement -10 [-20, 1])"
    assert str(reduction) == written
    assert reduction.value == 20.2
    assert reduction.drops == {"accuracy_sd": 50.4, "disagreement": -10.0}


def test_a_regression_has_its_own_parts():
    noise = torch.randn(6, 60, generator=torch.Generator().manual_seed(0))
    wide, narrow = (fake_study(scale * noise, noise[0]) for scale in (1.0, 0.5))
    assert set(narrow.reduction_against(wide).drops) == {"rmse_sd", "correlation", "rmse_ensemble_delta"}


def test_a_baseline_that_does_not_vary_is_refused():
    still = fake_study(study_of(1.0).outputs[:1].expand(6, -1, -1), LABELS)
    with pytest.raises(TaskError, match="but it has no variability of accuracy_sd, cross_entropy_sd, disagreement"):
        study_of(1.0).reduction_against(still)
    taken = still.reduction_against(study_of(1.0))
    assert (taken.estimate.low, taken.value, taken.estimate.high) == (100, 100, 100)
    assert all(part.is_exact for part in taken.parts.values())


def test_studies_of_two_kinds_are_refused():
    regression = fake_study(study_of(1.0).outputs[..., 0], LABELS.float())
    with pytest.raises(TaskError, match="one is a classification and the other is not"):
        regression.reduction_against(study_of(1.0))


def test_two_runs_have_no_interval_and_say_how_many_have():
    reduction = study_of(1.0, runs=2).reduction_against(study_of(2.0))
    assert (reduction.estimate.low, reduction.estimate.high) == (-math.inf, math.inf)
    assert math.isfinite(reduction.value)
    assert reduction.decide(0) is Outcome.UNDECIDED
    assert "at least 3 runs would settle it: --stability-runs 3, of both studies" in reduction.reason(0)


def test_runs_of_which_one_has_all_variability_have_no_interval():
    outputs = study_of(2.0).outputs[[0, 0, 0, 1]]
    reduction = study_of(1.0).reduction_against(fake_study(outputs, LABELS))
    assert (reduction.estimate.low, reduction.estimate.method) == (
        -math.inf,
        "without one run nothing varies, no interval",
    )


# Laws


def test_the_order_of_runs_does_not_matter():
    wide, narrow = study_of(2.0, seed=1), study_of(1.0, seed=2)
    estimate = narrow.reduction_against(wide).estimate
    turned = fake_study(narrow.outputs.flip(0), LABELS).reduction_against(fake_study(wide.outputs.roll(3, 0), LABELS))
    for bound in ("low", "value", "high"):
        assert getattr(turned.estimate, bound) == pytest.approx(getattr(estimate, bound))


def test_scaling_both_samples_changes_nothing():
    draw = np.random.default_rng(0)
    squares = np.square(draw.normal(size=(2, 9, 9)))
    samples = list(zip(draw.normal(size=(2, 9)), squares + squares.transpose(0, 2, 1), strict=True))

    def error(scale):
        without = [[sds_without_each_run(scale * s), means_without_each_run(scale * p)] for s, p in samples]
        whole = [[(scale * s).std(ddof=1), scale * (p.sum() - p.trace()) / 72] for s, p in samples]
        return log_ratio_error(*without, *whole)

    assert error(1e-6) == pytest.approx(error(1.0)) == pytest.approx(error(1e6))


def test_more_runs_narrow_it():
    drop = MeanDrop(ratio=0.8, error=0.2, runs=5)
    assert drop.low(0.05) < drop.after(10).low(0.05) < drop.after(100).low(0.05) < 20
    assert 20 < drop.after(10).high(0.05) < drop.high(0.05) < drop.high(0.001) < 100


# Its error rates: a score with its SD, and two means over pairs that go together with it


def drawn(draw, runs, scale):
    shared = draw.normal(size=(runs, 3))
    noise = draw.normal(size=(2, runs, runs))
    pairs = [
        scale * (1 + cv * (a[:, None] + a[None]) / 2 + cv / 6 * (e + e.T))
        for cv, a, e in zip((0.1, 0.3), shared.T[1:], noise, strict=True)
    ]
    pairs = [np.where(np.eye(runs, dtype=bool), 0, p) for p in pairs]
    scores = [scale * shared[:, 0], scale * (0.6 * shared[:, 0] + 0.8 * shared[:, 1])]
    whole = [s.std(ddof=1) for s in scores] + [p.sum() / (runs * (runs - 1)) for p in pairs]
    without = [sds_without_each_run(s) for s in scores] + [means_without_each_run(p) for p in pairs]
    return whole, without


@pytest.mark.parametrize(("runs", "rates"), [(5, (0.01, 0.06)), (10, (0.025, 0.065))])
def test_each_bound_misses_the_truth_as_often_as_is_said(runs, rates):
    draw, studies = np.random.default_rng(runs), 1000
    low = high = 0
    for _ in range(studies):
        (above, above_without), (below, below_without) = drawn(draw, runs, 0.7), drawn(draw, runs, 1.0)
        error = log_ratio_error(above_without, below_without, above, below)
        drop = MeanDrop(float(np.mean(np.divide(above, below))), error, runs)
        low += drop.low(0.05) > 30
        high += drop.high(0.05) < 30
    assert rates[0] < low / studies < rates[1]
    assert rates[0] < high / studies < rates[1]


# The gate


def test_it_has_three_outcomes():
    wide, narrow, like = study_of(2.0, runs=12), study_of(0.7, seed=1, runs=12), study_of(2.0, seed=2, runs=12)
    assert_reduction(narrow, wide)
    assert_reduction(narrow, wide, at_least=narrow.reduction_against(wide).estimate.low - 0.1)
    with pytest.raises(BudgetExceededError, match=r"^FAIL +mean reduction .* is below the 0 % that are wanted"):
        assert_reduction(wide, narrow)
    with pytest.raises(BudgetExceededError, match=r"^UNDECIDED +mean reduction .* nor to be less; .* of both studies"):
        assert_reduction(like, wide)
    assert any(remark.endswith("% less variability than fake: PASS") for remark in narrow.journal.remarks)


def test_the_runs_that_it_names_settle_it():
    reduction = study_of(1.7, seed=1, runs=6).reduction_against(study_of(2.0, runs=6))
    assert reduction.decide(0) is Outcome.UNDECIDED
    words = reduction.reason(0).split()
    runs = int(words[words.index("about") + 1])
    pivot = reduction.estimate.pivot
    assert pivot is not None
    assert pivot.after(runs).low(0.05) >= 0 > pivot.after(runs - 1).low(0.05)


def test_more_runs_than_anybody_trains_are_not_asked_for():
    reduction = study_of(1.0, runs=6).reduction_against(study_of(1.0, runs=6))
    assert reduction.reason(0).endswith("; not even 1000 runs would settle it, so move the budget.")


@pytest.mark.parametrize("at_least", [101, True, None, math.nan])
def test_a_reduction_that_cannot_be_is_refused(at_least):
    with pytest.raises(BudgetError, match="Expected at_least <= 100"):
        assert_reduction(study_of(1.0), study_of(2.0), at_least=at_least)
