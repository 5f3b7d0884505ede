"""A FAIL of an earlier session, as a judgement beside others."""

from __future__ import annotations

from stabilitykit.verdicts.budgets import Verdict
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.limits import FailedRuns
from stabilitykit.verdicts.standing import StandingFail


def test_it_fails_the_verdict_and_says_when_and_why() -> None:
    stands = StandingFail(20, "accuracy_sd is beyond the budget.", "2024-02-01")
    verdict = Verdict((FailedRuns(0, 4, 0), stands))
    assert verdict.outcome is Outcome.FAIL
    assert verdict.beyond == ()
    for said in ("2024-02-01", "20 runs", "accuracy_sd is beyond the budget."):
        assert said in verdict.summary()
    assert stands.to_json()["outcome"] == "fail"
