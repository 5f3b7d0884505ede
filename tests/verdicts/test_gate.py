"""The sequential rule: when it looks, what is final, what it spends; its error rates by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from stabilitykit.errors import ConfigError
from stabilitykit.estimates import intervals
from stabilitykit.estimates.estimate import Estimate
from stabilitykit.estimates.intervals import sd_estimate
from stabilitykit.verdicts.budgets import Budget
from stabilitykit.verdicts.gate import Gate
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.sequential_levels import levels, looks

NONE = Estimate(0.5, 0.0, 9.0, 10, "bounds of any rate that say nothing")
LOW = Estimate(0.1, 0.0, 0.2, 10, "far below")
HIGH = Estimate(5.0, 4.0, 6.0, 10, "far beyond")


def test_it_looks_at_the_scheduled_runs_and_then_leaves_it_open():
    gate, looked = Gate(Budget(accuracy_sd=1.0), runs=12), []
    while gate.next_look:
        looked.append(gate.next_look)
        gate.look({"accuracy_sd": NONE})
    assert looked == [3, 4, 5, 6, 8, 10, 12]
    assert gate.verdict.outcome is Outcome.UNDECIDED
    assert gate.runs == 12


@pytest.mark.parametrize(("found", "outcome"), [(LOW, Outcome.PASS), (HIGH, Outcome.FAIL)])
def test_it_stops_as_soon_as_it_knows(found, outcome):
    gate = Gate(Budget(accuracy_sd=1.0), runs=20)
    gate.look({"accuracy_sd": NONE})
    assert gate.next_look == 4
    gate.look({"accuracy_sd": found})
    assert (gate.next_look, gate.runs, gate.verdict.outcome) == (None, 4, outcome)


def test_the_first_verdict_on_a_limit_is_final_and_the_others_go_on():
    gate = Gate(Budget(accuracy_sd=1.0, disagreement=7.0), runs=20)
    gate.look({"accuracy_sd": LOW, "disagreement": NONE})
    assert gate.open == ("disagreement",)
    gate.look({"accuracy_sd": HIGH, "disagreement": NONE})  # it is not asked again
    gate.look({"disagreement": LOW})
    assert gate.verdict.outcome is Outcome.PASS
    assert gate.runs == 5


def test_the_first_failure_ends_it_though_others_are_open():
    gate = Gate(Budget(accuracy_sd=1.0, disagreement=7.0), runs=20)
    gate.look({"accuracy_sd": NONE, "disagreement": Estimate(20, 15, 25, 3, "far beyond")})
    assert (gate.next_look, gate.verdict.outcome) == (None, Outcome.FAIL)


def test_limits_share_alpha_and_each_has_all_of_beta_at_every_look():
    gate = Gate(Budget(accuracy_sd=1.0, disagreement=8.0, alpha=0.04, beta=0.1), runs=10)
    assert [look.alpha for look in gate.schedule] == list(levels(looks(10), 0.02))
    assert [look.beta for look in gate.schedule] == list(levels(looks(10), 0.1))


def test_what_was_open_when_another_limit_failed_asks_for_no_more_runs():
    gate = Gate(Budget(accuracy_sd=1.0, disagreement=7.0), runs=20)
    gate.look({"accuracy_sd": sd_estimate([90.0, 91.0, 92.0]), "disagreement": Estimate(20, 15, 25, 3, "far beyond")})
    (is_open,) = (j for j in gate.verdict.judgements if j.outcome is Outcome.UNDECIDED)
    assert is_open.reason.endswith("; the check ended before it was settled, with what failed.")


@pytest.mark.parametrize(("runs", "seed", "advised"), [(5, 1, 15), (10, 11, 20)])
def test_as_many_runs_as_it_advises_would_settle_it(runs, seed, advised):
    scores = np.random.default_rng(seed).normal(size=runs) * 1.3
    gate = Gate(Budget(accuracy_sd=1.0), runs)
    while gate.next_look:
        gate.look({"accuracy_sd": sd_estimate(scores[: gate.next_look])})
    (judgement,) = gate.verdict.judgements
    assert judgement.outcome is Outcome.UNDECIDED
    assert judgement.reason.endswith(f"; about {advised} runs would settle it: --stability-runs {advised}.")
    at_this_level = judgement.runs_to_settle  # which later looks have not
    last, too_early = (Gate(gate.budget, n, gate.taken).schedule[-1] for n in (advised, at_this_level))
    assert judgement.would_be_settled(advised, last.alpha, last.beta)
    assert not judgement.would_be_settled(at_this_level, too_early.alpha, too_early.beta)


@pytest.mark.parametrize("runs", [2, 1, 0])
def test_fewer_runs_than_the_first_look_are_refused(runs):
    with pytest.raises(ConfigError, match=f"at least 3 runs for a check but got {runs}, too few for its first look"):
        Gate(Budget(accuracy_sd=1.0), runs=runs)


class TestAnotherSession:
    """A study that is asked for again, with as many runs or others."""

    budget = Budget(accuracy_sd=1.0)

    def test_the_same_question_has_the_same_levels(self):
        first, second = Gate(self.budget, 10), Gate(self.budget, 10, taken=Gate(self.budget, 10).schedule[:4])
        assert first.schedule == second.schedule
        assert (second.verdict.alpha, second.verdict.beta) == (0.05, 0.05)

    def test_looks_that_were_taken_keep_their_levels_and_later_ones_have_those_of_the_longer_study(self):
        short, long = Gate(self.budget, 10).schedule, Gate(self.budget, 20).schedule
        gate = Gate(self.budget, 20, taken=short)
        assert gate.schedule[:6] == short
        assert [(look.runs, look.alpha, look.beta) for look in gate.schedule[6:]] == [
            (look.runs, look.alpha, look.beta) for look in long[6:]
        ]

    def test_a_threshold_may_err_no_more_where_a_study_is_extended(self):
        gate = Gate(self.budget, 20, taken=Gate(self.budget, 10).schedule[:4])
        assert sum(look.spent for look in gate.schedule) == pytest.approx(1)
        assert sum(look.spent for look in Gate(self.budget, 20, taken=Gate(self.budget, 10).schedule).schedule) <= 1

    def test_what_an_extended_study_may_err_is_said(self):
        gate = Gate(self.budget, 20, taken=Gate(self.budget, 10).schedule)
        verdict = gate.verdict
        assert 0.06 < verdict.alpha < 0.05 + 0.05 * 10 / 19
        assert verdict.alpha == pytest.approx(verdict.beta)

    def test_a_failure_stays_one_though_a_longer_study_would_not_have_seen_it(self):
        low = float(np.nextafter(1, 2))

        class Pivot:  # beyond the budget at the levels of the short study alone
            def low(self, error):
                return low if error >= short.schedule[0].alpha else 0.5

            def high(self, error):
                return 9.0

        short, found = Gate(self.budget, 10), Estimate(2, 0.5, 9, 3, "planted", pivot=Pivot())
        short.look({"accuracy_sd": found})
        assert short.verdict.outcome is Outcome.FAIL
        fresh, again = Gate(self.budget, 30), Gate(self.budget, 30, taken=short.taken)
        for gate in (fresh, again):
            gate.look({"accuracy_sd": found})
        assert fresh.verdict.outcome is Outcome.UNDECIDED
        assert again.verdict.outcome is Outcome.FAIL

    def test_a_shorter_study_adds_no_look_between_those_that_were_taken(self):
        long = Gate(self.budget, 20).schedule
        assert Gate(self.budget, 7, taken=long[:6]).schedule == long[:4]  # and none at 7, which might have passed
        assert [look.runs for look in Gate(self.budget, 7, taken=long[:4]).schedule] == [3, 4, 5, 6, 7]


def outcomes(truth: float, replicates: int, budget: Budget, runs: int = 20) -> tuple[dict[str, float], float]:
    """How often studies with that SD have each outcome, and their mean number of runs."""
    draw, count, used = np.random.default_rng(round(100 * truth)), dict.fromkeys(Outcome, 0), 0
    for scores in truth * draw.normal(size=(replicates, runs)):
        gate = Gate(budget, runs)
        while gate.next_look:
            gate.look({"accuracy_sd": sd_estimate(scores[: gate.next_look])})
        count[gate.verdict.outcome] += 1
        used += gate.runs
    return {outcome.name: number / replicates for outcome, number in count.items()}, used / replicates


class TestErrorRates:
    """2,000 studies each, so a rate near 0.05 is known to 0.005; benchmarks/false_alarms.py has ten times as many."""

    @pytest.fixture(autouse=True)
    def no_bootstrap(self, monkeypatch):
        monkeypatch.setattr(intervals, "_RESAMPLES", 2)  # the "±" is not judged by

    @pytest.mark.slow
    def test_a_model_at_its_budget_is_failed_in_no_more_than_alpha(self):
        share, runs = outcomes(1.0, 2000, Budget(accuracy_sd=1.0))
        assert 0.015 < share["FAIL"] < 0.05
        assert share["UNDECIDED"] == 0
        assert runs < 12

    @pytest.mark.slow
    def test_a_model_at_the_ratio_passes_in_no_more_than_beta(self):
        share, runs = outcomes(2.0, 2000, Budget(accuracy_sd=1.0))
        assert 0.02 < share["PASS"] < 0.06
        assert runs < 8

    @pytest.mark.slow
    def test_a_model_at_half_its_budget_passes_soon(self):
        share, runs = outcomes(0.5, 1000, Budget(accuracy_sd=1.0))
        assert share["PASS"] > 0.999
        assert runs < 6.5

    @pytest.mark.slow
    def test_a_bound_that_ignores_that_it_looks_again_would_be_wrong_too_often(self, monkeypatch):
        monkeypatch.setattr("stabilitykit.verdicts.gate.levels", lambda looks, error: (error,) * len(looks))
        share, _ = outcomes(1.0, 1000, Budget(accuracy_sd=1.0))
        assert share["FAIL"] > 0.1
