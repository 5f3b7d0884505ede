"""Assertions on a study, for a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from ..errors import BudgetError, BudgetExceededError, number_of
from ..estimates.measure_kinds import kind_of
from ..public import public
from ..render.study_table import study_table
from ..verdicts.budgets import Budget, Verdict
from ..verdicts.explanation import explanation
from ..verdicts.judgement import Judgement, Outcome
from ..verdicts.unreachable import under_two_examples
from .likeness import MeasureLikeness, alike, check_asked
from .planned_study import PlannedStudy
from .reduction import ReductionJudgement
from .study import RelativeGate, Study, check_is_study, listed
from .summary import summarize

_NEXT = (
    "next: vary one source at a time to see which matters, try recipe.with_snapshots(...), or, if the model may "
    "vary this much, take the upper bound above as its budget."
)


@public
def assert_within(study: Study, budget: Budget) -> None:
    """Judge every limit of the budget, then fail unless all are kept; see `Budget`.

    Raises `BudgetExceededError`, an AssertionError, with the table, the intervals and what to do next.
    """
    __tracebackhide__ = True
    check_is_study(study)
    if isinstance(study, PlannedStudy):
        study.note(budget)
        return
    verdict = study.policy.standing(budget, study.judge(budget))
    study.journal.verdicts.append(verdict)
    coarse = under_two_examples(budget.limits, study.measures.examples)
    if coarse:
        study.journal.remark(coarse)
    demand_pass(study, verdict, explanation(verdict, study.measures))
    study.policy.judged(study, budget)


def demand_pass(study: Study, verdict: Verdict, why: Iterable[str]) -> None:
    """Fail with everything that a reader needs unless the verdict is PASS; what is UNDECIDED is the study's policy.

    ``why`` are paragraphs of `explanation`.
    """
    __tracebackhide__ = True
    if verdict.outcome is Outcome.PASS:
        study.check_alive()
        return
    said = f"{verdict.summary()}\n{verdict.error_rates()}"
    flips = (
        ["\n".join(study.flips.lines(top=5))]
        if any(kind_of(limit.name).is_of_flips for limit in verdict.beyond)
        else []
    )
    summary = summarize(study, test=study.task)
    message = "\n\n".join([said, *why, *flips, "\n".join(study_table([summary]))])
    if verdict.outcome is Outcome.FAIL:
        _fail(study, f"{message}\n\n{_NEXT}")
    study.policy.undecided(message)


@public
def assert_accuracy_sd(study: Study, at_most: float) -> None:
    """Fail where the SD of accuracy over runs exceeds ``at_most`` percentage points."""
    __tracebackhide__ = True
    assert_within(study, Budget(accuracy_sd=at_most))


@public
def assert_cross_entropy_sd(study: Study, at_most: float) -> None:
    """Fail where the SD of cross-entropy over runs exceeds ``at_most`` nats."""
    __tracebackhide__ = True
    assert_within(study, Budget(cross_entropy_sd=at_most))


@public
def assert_disagreement(study: Study, at_most: float) -> None:
    """Fail where two runs disagree on more than ``at_most`` percent of the test examples, on average over pairs."""
    __tracebackhide__ = True
    assert_within(study, Budget(disagreement=at_most))


@public
def assert_ensemble_delta(study: Study, at_most: float) -> None:
    """Fail where averaging two runs changes the accuracy (or RMSE) by more than ``at_most``, on average over pairs."""
    __tracebackhide__ = True
    check_is_study(study)
    limits: dict[str, Any] = {study.main_delta: at_most}
    assert_within(study, Budget(**limits))


@public
def assert_correlation(study: Study, at_least: float) -> None:
    """Fail where the outputs of two runs correlate by less than ``at_least`` (Spearman), on average over pairs."""
    __tracebackhide__ = True
    assert_within(study, Budget(correlation=at_least))


@public
def assert_alike(studies: Iterable[Study], within: float = 2.0, measures: Sequence[str] | None = None) -> None:
    """Fail where one study varies more than ``within`` times as much as another, in any of the ``measures``.

    They are SDs and means over pairs by name, the paper's five if None; see `alike`. SDs of six studies are shown to be
    within a factor of 2 from some 50 runs of each on, means over pairs from a few (docs/comparing.md).

    Raises `BudgetExceededError`, an AssertionError, with the two studies, their ratio and what to do next.
    """
    __tracebackhide__ = True
    studies = listed(studies)
    if any(isinstance(study, PlannedStudy) for study in studies):
        of_each = [s.names if isinstance(s, PlannedStudy) else tuple(s.measures) for s in studies]
        if all(of_each):  # what scores there are, the first run shows
            check_asked(len(studies), within, measures, of_each)
        return
    found = alike(studies, within, measures)
    for study in studies:
        study.journal.verdicts.append(Verdict((found,), found.alpha, found.beta))
        study.journal.remark(found.summary)
    _demand(studies[0], found, str(found))
    studies[0].policy.judged(studies[0], [_within_of_others(of) for of in found.measures])


@public
def assert_reduction(study: Study, baseline: Study, at_least: float = 0.0) -> None:
    """Fail where ``study`` varies less than ``baseline`` by under ``at_least`` percent, in the mean over five measures.

    See `Study.reduction_against`. Raises `BudgetExceededError`, an AssertionError, with each drop and its interval.
    """
    __tracebackhide__ = True
    for given in (study, baseline):
        check_is_study(given)
    if not number_of(at_least) <= 100:
        raise BudgetError(f"Expected at_least <= 100, percent of variability that is taken away, but got {at_least!r}.")
    if isinstance(study, PlannedStudy) or isinstance(baseline, PlannedStudy):
        return
    found = study.reduction_against(baseline)
    judged = ReductionJudgement(found, at_least, baseline.task)
    study.journal.verdicts.append(Verdict((judged,)))
    study.journal.remark(f"{found.estimate:.0f} % less variability than {baseline.task}: {judged.outcome.name}")
    _demand(study, judged, f"{judged.outcome.name:<10} {judged.reason}\n{' ' * 11}{found}")
    gate = RelativeGate(
        f"the variability beside {baseline.task}",
        lambda planted: planted.reduction_against(baseline).reach(at_least),
        lambda planted: planted.reduction_against(baseline).decide(at_least),
    )
    study.policy.judged(study, [gate])


def _within_of_others(of: MeasureLikeness) -> RelativeGate:
    return RelativeGate(
        f"{of.metric} beside {', '.join(of.studies[1:])}",
        lambda planted: of.with_first(planted).reach,
        lambda planted: of.with_first(planted).outcome,
    )


def _demand(study: Study, judgement: Judgement, message: str) -> None:
    __tracebackhide__ = True
    if judgement.outcome is Outcome.FAIL:
        _fail(study, message)
    if judgement.outcome is Outcome.UNDECIDED:
        study.policy.undecided(message)


def _fail(study: Study, message: str) -> NoReturn:
    __tracebackhide__ = True
    error = BudgetExceededError(message)
    study.policy.failed(error)
    raise error
