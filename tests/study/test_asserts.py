"""The helpers: each judges its own measure, fails with everything a reader needs, and leaves its verdict behind."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from stabilitykit.errors import BudgetError, BudgetExceededError, StabilityError, TaskError
from stabilitykit.study.asserts import (
    assert_accuracy_sd,
    assert_correlation,
    assert_cross_entropy_sd,
    assert_disagreement,
    assert_ensemble_delta,
    assert_within,
)
from stabilitykit.study.comparison import compare
from stabilitykit.study.journal import Journal
from stabilitykit.study.study import Policy
from stabilitykit.testing import fake_study
from stabilitykit.verdicts.budgets import Budget
from stabilitykit.verdicts.judgement import Outcome

LABELS = torch.arange(60) % 3
NOISE = torch.randn(8, 60, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def study():
    return fake_study(1.5 * nn.functional.one_hot(LABELS, 3) + NOISE, LABELS, vary="init")


HELPERS = [
    (assert_accuracy_sd, "accuracy_sd"),
    (assert_cross_entropy_sd, "cross_entropy_sd"),
    (assert_disagreement, "disagreement"),
    (assert_ensemble_delta, "ensemble_delta"),
]


@pytest.mark.parametrize(("helper", "metric"), HELPERS)
def test_each_helper_judges_its_own_measure(study, helper, metric):
    estimate, ratio = study[metric], 2 if metric.endswith("_sd") else 1.25
    helper(study, at_most=estimate.high / ratio * 1.01)
    with pytest.raises(BudgetExceededError, match=f"FAIL +{metric} "):
        helper(study, at_most=estimate.low * 0.99)
    with pytest.raises(BudgetExceededError, match=f"UNDECIDED +{metric} "):
        helper(study, at_most=max(estimate.low, estimate.high / ratio * 0.99))
    judged = [(v.outcome, v.judgements[0].metric) for v in study.verdicts]
    assert judged == [(outcome, metric) for outcome in (Outcome.PASS, Outcome.FAIL, Outcome.UNDECIDED)]


def test_a_correlation_is_limited_from_below(study):
    estimate = study.correlation
    assert_correlation(study, at_least=estimate.low)
    with pytest.raises(BudgetExceededError, match=r"FAIL +correlation "):
        assert_correlation(study, at_least=estimate.high * 1.01)


def test_the_ensemble_delta_of_a_regression_is_that_of_its_error():
    study = fake_study(NOISE[..., 0] + LABELS, LABELS.float())
    size = abs(study["rmse_ensemble_delta"].value)
    assert size > 0
    assert_ensemble_delta(study, at_most=size)
    with pytest.raises(BudgetExceededError, match=r"FAIL +rmse_ensemble_delta"):
        assert_ensemble_delta(study, at_most=size / 100)


def test_a_failure_is_an_assertion_error_and_one_of_ours(study):
    with pytest.raises(AssertionError) as failure:
        assert_disagreement(study, at_most=0)
    assert isinstance(failure.value, StabilityError)


def test_a_failure_shows_every_judgement_the_interval_and_the_table(study):
    accuracy = study.accuracy_sd
    budget = Budget(accuracy_sd=accuracy.value, disagreement=18.0, correlation=-1, ratio={"accuracy_sd": 1.1})
    with pytest.raises(BudgetExceededError) as failure:
        assert_within(study, budget)
    lines = str(failure.value).splitlines()
    assert lines[0].startswith(
        f"FAIL       disagreement {study.disagreement.at(0.05 / 3, 0.05)} % over 8 runs is beyond"
    )
    assert lines[1].startswith(f"UNDECIDED  accuracy_sd {accuracy.at(0.05 / 3, 0.05)} points over 8 runs is neither ")
    assert lines[1].endswith(f"--stability-runs {study.verdicts[0].judgements[0].runs_to_settle}.")
    assert lines[2].startswith("PASS       correlation ")
    assert lines[3].startswith("PASS       0 of 8 runs failed, ")
    assert lines[4].startswith("error rates: a model within its budget fails in 5 % of studies at most")
    assert lines[5] == ""
    assert lines[6].startswith(
        f"why: accuracy SD {accuracy.value:.2f} points: 60 test examples that flip independently"
    )
    titles, row = lines[-4:-2]
    assert " ".join(titles.split()) == (
        "test varies runs accuracy % acc. SD floor CE SD disagree % corr. ens. delta verdict"
    )
    assert row.split()[:3] == ["fake", "init", "8"]
    assert row.split()[-1] == "FAIL"
    assert lines[-1].startswith("next: ")


def test_what_flips_most_is_shown_where_flips_are_what_failed(study):
    text = "\n".join(study.flips.lines(top=5))
    for budget, shown in ((Budget(disagreement=1), True), (Budget(cross_entropy_sd=0), False)):
        with pytest.raises(BudgetExceededError) as failure:
            assert_within(study, budget)
        assert (f"\n\n{text}\n\n" in str(failure.value)) == ("runs disagree" in str(failure.value)) == shown


def test_a_budget_below_the_flip_floor_is_said_to_be_unreachable(study):
    with pytest.raises(BudgetExceededError, match=r"the budget of 0.5 points is unreachable on 60 examples unless"):
        assert_accuracy_sd(study, at_most=0.5)
    with pytest.raises(BudgetExceededError) as failure:
        assert_within(study, Budget(accuracy_sd=study.flip_floor.low, ratio=1.1))
    assert "unreachable" not in str(failure.value)


def test_the_flip_floor_can_be_limited_and_the_diagnosis_cannot(study):
    assert_within(study, Budget(flip_floor=study.flip_floor.high * 1.1))
    with pytest.raises(BudgetExceededError, match=r"FAIL +flip_floor .* points .*is beyond"):
        assert_within(study, Budget(flip_floor=study.flip_floor.low * 0.9))
    with pytest.raises(BudgetError, match=r"Budget\(training_sd=...\), which only explains one"):
        assert_within(study, Budget(training_sd=1))


def test_what_is_undecided_is_left_to_the_policy_of_the_study(study):
    told = []
    lenient = dataclasses.replace(study, policy=Policy(undecided=told.append), journal=Journal())
    accuracy = study.accuracy_sd
    assert_within(lenient, Budget(accuracy_sd=accuracy.value, ratio=1.1))
    (message,) = told
    assert message.startswith("UNDECIDED  accuracy_sd")
    assert lenient.verdicts[0].outcome is Outcome.UNDECIDED
    with pytest.raises(BudgetExceededError, match=r"FAIL +accuracy_sd"):
        assert_accuracy_sd(lenient, at_most=0)  # a failure is no matter of policy
    assert len(told) == 1


def test_a_budget_under_two_test_examples_is_said_beside_its_verdict(study):
    with pytest.raises(BudgetExceededError):
        assert_accuracy_sd(study, at_most=1.0)
    with pytest.raises(BudgetExceededError):
        assert_accuracy_sd(study, at_most=1.0)
    under = [note for note in study.notes if note.startswith("accuracy_sd=1 points are 0.6 of 60 test examples")]
    assert len(under) == 1
    assert_accuracy_sd(study, at_most=50.0)
    assert not any(note.startswith("accuracy_sd=50") for note in study.notes)


def test_a_limit_on_a_measure_that_the_task_does_not_have_is_no_verdict(study):
    with pytest.raises(BudgetError, match=r"but got Budget\(rmse_sd=\.\.\.\)"):
        assert_within(study, Budget(rmse_sd=1))
    assert study.verdicts == []


@pytest.mark.parametrize("budget", [{"accuracy_sd": 1}, 0.3, None])
def test_what_is_no_budget_judges_nothing(study, budget):
    with pytest.raises(BudgetError, match="Expected a Budget but got "):
        assert_within(study, budget)
    with pytest.raises(BudgetError, match="Expected a Budget but got "):
        study.judge(budget)
    assert study.verdicts == []


@pytest.mark.parametrize("ask", [assert_ensemble_delta, assert_accuracy_sd, compare])
def test_a_task_is_no_study(linear, ask):
    with pytest.raises(TaskError, match=r"^Expected a study but got Recipe.*Train it first, as in study = "):
        ask(linear, 1.0)


def test_equal_runs_keep_a_budget_of_nothing():
    study = fake_study(NOISE[:1].expand(8, -1, -1), LABELS)
    assert_within(study, Budget(accuracy_sd=0, disagreement=0, correlation=1, ensemble_delta=0, cross_entropy_sd=0))
