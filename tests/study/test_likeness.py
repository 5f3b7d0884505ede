"""Likeness of several studies: three outcomes, what they say, and how often either is wrong."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetError, BudgetExceededError, TaskError
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import sd_estimate
from stabilitykit.study.asserts import assert_alike
from stabilitykit.study.likeness import MeasureLikeness, alike
from stabilitykit.study.study import Policy
from stabilitykit.testing import fake_study
from stabilitykit.verdicts.judgement import Outcome

LABELS = torch.arange(90) % 3
SURE = 2.0 * nn.functional.one_hot(LABELS, 3)


def study_of(scale=1.0, seed=0, runs=10, **options):
    noise = torch.randn(runs, 90, 3, generator=torch.Generator().manual_seed(seed))
    return fake_study(SURE + scale * noise, LABELS, **options)


@pytest.fixture
def sources():
    """Three sources that do the same, under three names."""
    return [study_of(seed=seed, vary=name) for seed, name in enumerate(["init", "shuffle", "augment"])]


def test_sources_that_do_the_same_pass(sources):
    found = alike(sources, 1.5, ["disagreement", "correlation"])
    assert [of.outcome for of in found.measures] == [Outcome.PASS, Outcome.PASS]
    assert found["disagreement"].studies == ("init", "shuffle", "augment")
    assert len(found["disagreement"].ratios) == 6
    assert found["disagreement"].alpha == pytest.approx(0.05 / 12)  # shared by the ratios of both measures
    assert found["disagreement"].beta == 0.05
    text = str(found)
    assert "times that of" in text
    assert "the largest ratio of 6: all are shown to be within 1.5." in text
    assert "PASS       1 - correlation of" in text
    assert f"init {sources[0].disagreement}; shuffle {sources[1].disagreement}; augment" in text
    assert "5 % of cases at most, shared by 12 ratios" in text
    assert_alike(sources, 1.5, ["disagreement", "correlation"])
    (remark,) = sources[2].journal.remarks
    assert remark == "within a factor of 1.5 of init, shuffle, augment: PASS disagreement, correlation"


def test_one_that_does_more_fails_with_both_names_and_the_interval(sources):
    studies = [*sources, study_of(3.0, seed=9, vary="low_level")]
    with pytest.raises(BudgetExceededError) as failure:
        assert_alike(studies, 1.2, ["disagreement"])
    found = alike(studies, 1.2, ["disagreement"])["disagreement"]
    above, below = found.largest
    assert above == "low_level"
    ratio = found.ratios[above, below]
    assert str(failure.value).startswith(
        f"FAIL       disagreement of low_level is {ratio.value:.3g} [{ratio.low(found.alpha):.3g}, "
        f"{ratio.high(0.05):.3g}] times that of {below}, and so is beyond a factor of 1.2 with its whole interval."
    )


def test_few_runs_leave_sds_undecided_and_say_how_many_would_not(sources):
    told = []
    lenient = [dataclasses.replace(study, policy=Policy(undecided=told.append)) for study in sources]
    assert_alike(lenient, measures="accuracy_sd")
    (message,) = told
    assert message.startswith("UNDECIDED  accuracy_sd of ")
    assert "neither shown to be within a factor of 2 nor beyond it; about " in message
    found = alike(sources, measures="accuracy_sd")["accuracy_sd"]
    runs = found.runs_to_settle
    assert f"about {runs} runs would settle it: --stability-runs {runs}, in each." in message
    outcomes = [
        all(ratio.after(count).high(0.05) <= 2 for ratio in found.ratios.values()) for count in (runs - 1, runs)
    ]
    assert outcomes == [False, True]
    with pytest.raises(BudgetExceededError, match=r"^UNDECIDED +accuracy_sd"):
        assert_alike(sources, measures="accuracy_sd")


def test_the_worst_is_said_first(sources):
    found = alike([*sources, study_of(2.0, seed=9)], 1.5)  # of which disagreement, the third, is shown to be beyond
    outcomes = [line.split()[0] for line in str(found).splitlines() if line.startswith(("FAIL  ", "UNDECIDED", "PASS"))]
    assert outcomes == sorted(outcomes, key=["FAIL", "UNDECIDED", "PASS"].index)
    assert outcomes[0] == "FAIL"
    assert found.measures[0].outcome is Outcome.UNDECIDED


def test_more_runs_than_anybody_trains_are_not_asked_for_in_each(sources):
    spreads = [study["accuracy_sd"] for study in sources]
    within = max(a.value / b.value for a in spreads for b in spreads)
    reason = alike(sources, within, ["accuracy_sd"])["accuracy_sd"].reason
    assert reason.endswith("; not even 1000 runs would settle it, so move the budget.")


def test_a_failure_is_no_matter_of_policy(sources):
    told = []
    studies = [dataclasses.replace(study, policy=Policy(undecided=told.append)) for study in (*sources, study_of(4.0))]
    with pytest.raises(BudgetExceededError, match="FAIL"):
        assert_alike(studies, 1.1)
    assert told == []


def test_without_measures_it_is_the_papers_five(sources):
    assert [of.metric for of in alike(sources).measures] == [
        "accuracy_sd",
        "cross_entropy_sd",
        "disagreement",
        "correlation",
        "ensemble_delta",
    ]


def test_nothing_is_alike_nothing_and_infinitely_less_than_something():
    still = [study_of(vary=vary).outputs[:1].expand(4, -1, -1) for vary in ("init", "shuffle")]
    still = [fake_study(outputs, LABELS, task=name) for name, outputs in zip("ab", still, strict=True)]
    found = alike(still)
    assert found.outcome is Outcome.PASS
    assert "disagreement is exactly 0 in each study." in str(found)
    with pytest.raises(BudgetExceededError, match=r"FAIL +disagreement of fake is inf \[inf, inf\] times that of a"):
        assert_alike([still[0], study_of()], 1000, ["disagreement"])


def test_runs_that_tie_in_accuracy_are_not_taken_for_equal():
    outputs = study_of(runs=3).outputs
    accuracies = (outputs.argmax(-1) == LABELS).sum(1)
    for run, more in enumerate(accuracies - accuracies.min()):
        right = (outputs[run].argmax(-1) == LABELS).nonzero().flatten()[: int(more)]
        outputs[run, right] *= -1  # one right answer less each
    tied = fake_study(outputs, LABELS)
    assert tied.accuracy_sd.value == 0 < tied.disagreement.value
    assert alike([tied, study_of(runs=3, seed=1)], 2, ["accuracy_sd"]).outcome is Outcome.UNDECIDED


def test_two_runs_say_that_three_are_needed():
    reason = alike([study_of(runs=2), study_of(runs=2, seed=1)], measures=["disagreement"])["disagreement"].reason
    assert "[0, inf]" in reason
    assert "at least 3 runs would settle it: --stability-runs 3" in reason


def test_what_is_undefined_fails():
    spreads = (Estimate.undefined(4, "constant"), sd_estimate([1.0, 2.0, 4.0]))
    found = MeasureLikeness("any_sd", spreads, ("a", "b"), 2.0, 0.05, 0.05)
    assert found.outcome is Outcome.FAIL
    assert "undefined, and what cannot be measured cannot pass" in found.reason


def test_studies_are_named_by_what_tells_them_apart():
    def names(*studies):
        return alike(studies, measures=["disagreement"])["disagreement"].studies

    init, shuffle, other = study_of(vary="init"), study_of(vary="shuffle"), study_of(vary="init", task="linear")
    assert names(init, shuffle) == ("init", "shuffle")
    assert names(init, other) == ("fake", "linear")
    assert names(init, shuffle, other) == ("fake [init]", "fake [shuffle]", "linear [init]")
    assert names(init, shuffle, init) == ("init (1)", "shuffle", "init (2)")


def test_labels_may_differ():
    fewer = fake_study(study_of(seed=3).outputs[:, :60], LABELS[:60], task="fewer")
    assert alike([study_of(), fewer], 2, ["disagreement"]).outcome is Outcome.PASS


@pytest.mark.parametrize("ask", [alike, assert_alike])
def test_what_cannot_be_compared_is_refused(sources, ask):
    regression = fake_study(study_of().outputs[..., 0], LABELS.float())
    with pytest.raises(TaskError, match="two studies or more to compare but got 1"):
        ask(sources[:1])
    for within in (1, 1.0, 0.5, math.nan, math.inf, True, "2"):
        with pytest.raises(BudgetError, match="Expected within > 1"):
            ask(sources, within)
    for measure in ("accuracy", "training_sd", "f1_sd"):
        with pytest.raises(TaskError, match=f"each study has but got '{measure}'. They are accuracy_sd, "):
            ask(sources, 2, [measure])
    with pytest.raises(TaskError, match=r"but got 'accuracy_sd'\. They are rmse_sd, correlation"):
        ask([*sources, regression], 2, ["accuracy_sd"])
    with pytest.raises(TaskError, match=r"but got none\. Leave them out"):
        ask(sources, 2, [])
    for measures in (3, True):
        with pytest.raises(TaskError, match=f"to be names of measures, .* but got {measures}"):
            ask(sources, 2, measures)
    with pytest.raises(TaskError, match="Expected a study but got 3"):
        ask([sources[0], 3])
    with pytest.raises(TaskError, match=r"several studies but got Study\(.*\) alone"):
        ask(sources[0])
    with pytest.raises(TaskError, match=r"several studies but got 3\."):
        ask(3)
    with pytest.raises(TaskError, match="a measure that was compared but got 'pearson'"):
        alike(sources)["pearson"]


# Laws


def test_the_order_of_studies_and_the_scale_of_their_scores_do_not_matter():
    draw = np.random.default_rng(0)
    scores = [scale * draw.normal(size=12) for scale in (1, 1.5, 4)]
    reasons = set()
    for order, scale in itertools.product(itertools.permutations(range(3)), (1e-6, 1, 1e6)):
        spreads = tuple(sd_estimate(scale * scores[i]) for i in order)
        found = MeasureLikeness("any_sd", spreads, tuple("abc"[i] for i in order), 2.0, 0.05, 0.05)
        reasons.add(found.reason)
    assert len(reasons) == 1


# Error rates: six studies, as the sources of the paper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scales", "wrong", "rates"),
    [
        ([1, 1, 1, 2, 2, 2], Outcome.FAIL, (0.002, 0.05)),  # as far apart as may be, in 9 of 15 pairs
        ([1, 1, 1, 1, 1, 2], Outcome.PASS, (0.0, 0.05)),
        ([1, 2], Outcome.PASS, (0.03, 0.07)),  # with two studies nothing is given away
        ([1, 2], Outcome.FAIL, (0.01, 0.05)),
    ],
)
def test_neither_verdict_is_wrong_more_often_than_is_said(monkeypatch, scales, wrong, rates):
    monkeypatch.setattr(intervals, "_RESAMPLES", 2)  # the bootstrap of the "±" is not what is measured here
    draw, cases, found = np.random.default_rng(0), 600, 0
    names, each = tuple(map(str, range(len(scales)))), 0.05 / (len(scales) * (len(scales) - 1))
    for _ in range(cases):
        spreads = tuple(sd_estimate(scale * draw.normal(size=40)) for scale in scales)
        found += MeasureLikeness("any_sd", spreads, names, 2.0, each, 0.05).outcome is wrong
    assert rates[0] <= found / cases <= rates[1]


def test_with_runs_enough_what_is_alike_passes_and_what_is_not_fails(monkeypatch):
    monkeypatch.setattr(intervals, "_RESAMPLES", 2)
    draw = np.random.default_rng(0)
    for scales, right in (([1] * 6, Outcome.PASS), ([1, 1, 1, 1, 1, 4], Outcome.FAIL)):
        found = [
            MeasureLikeness(
                "any_sd",
                tuple(sd_estimate(s * draw.normal(size=60)) for s in scales),
                tuple("abcdef"),
                2.0,
                0.002,
                0.05,
            ).outcome
            for _ in range(50)
        ]
        assert found.count(right) > 45
