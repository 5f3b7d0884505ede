"""Limits on scores: what they refuse, how they judge, and how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stabilitykit import Budget, at_least, at_most
from stabilitykit.errors import BudgetError
from stabilitykit.estimates.intervals import mean_estimate, sd_estimate
from stabilitykit.verdicts.gate import Gate
from stabilitykit.verdicts.judgement import Outcome
from stabilitykit.verdicts.thresholds import threshold_of


def measures(scores):
    return {"reward": mean_estimate(scores), "reward_sd": sd_estimate(scores, resamples=0)}


def judge(limit, scores, failed=0, **options):
    (judgement,) = Budget(reward=limit, **options).judge(measures(scores), failed).judgements
    return judgement


class TestMaking:
    @pytest.mark.parametrize(
        ("limit", "written"),
        [
            (at_most(3.28), "at_most(3.28)"),
            (at_most(3.28, alpha=0.01), "at_most(3.28, alpha=0.01)"),
            (at_least(450, share=0.9), "at_least(450.0, share=0.9)"),
            (at_least(450, mean=True), "at_least(450.0, mean=True)"),
        ],
    )
    def test_one_is_written_as_it_was_made(self, limit, written):
        assert repr(limit) == written
        assert eval(written) == limit
        assert repr(Budget(reward=limit, loss_sd=0.1)) == f"Budget(loss_sd=0.1, reward={written})"

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: at_most(math.nan), r"Expected at_most\(...\) of a finite number but got at_most\(nan\)"),
            (lambda: at_least("450"), "of a finite number"),
            (lambda: at_least(450, share=1.0), "That all runs reach it, no number of runs can show"),
            (lambda: at_least(450, share=90), "0 < share < 1"),
            (lambda: at_least(450, share=0.9, mean=True), "Leave one of them out"),
            (lambda: at_least(450, mean="no"), "mean='no'"),
            (lambda: at_least(450, alpha=0), "Expected alpha between 0 and 0.5"),
        ],
    )
    def test_a_wrong_one_is_refused(self, make, message):
        with pytest.raises(BudgetError, match=message):
            make()

    @pytest.mark.parametrize("name", ["accuracy_sd", "reward_sd", "disagreement", "correlation", "ensemble_delta"])
    def test_a_spread_has_none(self, name):
        with pytest.raises(BudgetError, match=rf"but got Budget\({name}=...\), which says how far runs differ"):
            Budget(**{name: at_most(1)})

    def test_a_number_for_a_score_is_told_the_way_out(self):
        with pytest.raises(BudgetError, match=r"reward=at_most\(...\) or at_least\(...\)"):
            Budget(reward=3).judge(measures([1.0, 2.0]))

    def test_a_score_of_the_task_itself_may_have_one(self):
        scores = mean_estimate([92.0] * 6)
        budget = Budget(accuracy=at_least(91))
        assert budget.judge({"accuracy": scores, "accuracy_sd": scores}).outcome is Outcome.PASS


class TestShares:
    def test_enough_runs_pass(self):
        got = judge(at_least(450, share=0.9), [500.0] * 29)
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            "reward is at least 450 in 29 of 29 runs: shown to be so in 90 % of all runs or more (error rate 5 %)."
        )
        assert judge(at_least(450, share=0.9), [500.0] * 28).outcome is Outcome.UNDECIDED

    def test_the_limit_itself_is_reached_from_either_side(self):
        assert judge(at_least(450), [450.0] * 5).outcome is Outcome.PASS
        assert judge(at_most(450), [450.0] * 5).outcome is Outcome.PASS
        assert judge(at_most(450), [math.nextafter(450, 500)] * 5).outcome is Outcome.FAIL

    def test_too_few_fail(self):
        got = judge(at_most(3.28), [3.4, 3.5, 3.3, 3.29, 3.6])
        assert got.outcome is Outcome.FAIL
        assert got.reason == (
            "reward is at most 3.28 in 0 of 5 runs: shown not to be so in 50 % of all runs or more (error rate 5 %)."
        )

    def test_what_is_open_says_how_many_runs_would_do(self):
        got = judge(at_least(450, share=0.9), [500.0] * 10)
        assert got.reason.startswith(
            "reward is at least 450 in 10 of 10 runs, which shows neither that it is so in 90 % of all runs or more "
            "nor that it is not; about 29 runs would settle it: "
        )
        assert got.runs_to_settle == 29

    def test_a_smaller_alpha_needs_more_runs(self):
        assert judge(at_most(3.28, alpha=0.01), [3.0] * 6).outcome is Outcome.UNDECIDED
        assert judge(at_most(3.28, alpha=0.01), [3.0] * 7).outcome is Outcome.PASS

    def test_a_failed_run_has_not_reached_it(self):
        assert judge(at_least(450), [500.0] * 8).outcome is Outcome.PASS
        got = judge(at_least(450), [500.0] * 6, failed=2)
        assert got.outcome is Outcome.UNDECIDED
        assert got.reason.startswith("reward is at least 450 in 6 of 8 runs (2 failed), which shows neither")

    def test_limits_of_one_budget_share_the_error_rate_of_a_fail(self):
        budget = Budget(reward=at_least(450), reward_sd=100)
        assert judge(at_least(450), [1.0, 2.0, 3.0, 4.0, 5.0]).outcome is Outcome.FAIL
        verdict = budget.judge(measures([1.0, 2.0, 3.0, 4.0, 5.0]))
        assert [one.outcome for one in verdict.judgements] == [Outcome.PASS, Outcome.UNDECIDED]

    def test_json_has_what_was_asked_and_found(self):
        found = judge(at_least(450, share=0.8), [500.0, 400.0], failed=1).to_json()
        wanted = {"metric": "reward", "limit": 450.0, "ratio": None, "runs": 3, "at": "least", "share": 0.8}
        assert found.items() >= (wanted | {"alpha": 0.05, "reached": 1, "failed": 1, "outcome": "undecided"}).items()

    def test_error_rates_are_said_to_be_its_own(self):
        assert "a limit on a score" in Budget(reward=at_least(1)).judge(measures([1.0, 2.0])).error_rates()
        assert "a limit on a score" not in Budget(reward_sd=1).judge(measures([1.0, 2.0])).error_rates()


class TestMeans:
    scores = (3.271, 3.274, 3.269, 3.273, 3.27, 3.272)

    def test_a_mean_that_is_surely_below_passes_and_says_what_it_assumes(self):
        got = judge(at_most(3.28, mean=True, alpha=0.01), self.scores)
        assert got.outcome is Outcome.PASS
        assert got.reason == (
            "the mean of reward, 3.2715 [3.2700, 3.2730] over 6 runs, is shown to be below 3.28 (error rate 1 % for "
            "scores without rare outliers)."
        )

    def test_a_mean_that_is_surely_above_fails(self):
        got = judge(at_most(3.26, mean=True), self.scores)
        assert got.outcome is Outcome.FAIL
        assert "is shown to be above 3.26" in got.reason
        assert judge(at_least(3.28, mean=True), self.scores).reason.count("is shown to be below 3.28") == 1

    def test_a_mean_near_the_limit_is_open(self):
        got = judge(at_most(3.272, mean=True), self.scores)
        assert got.outcome is Outcome.UNDECIDED
        assert "neither below 3.272 nor above it; about " in got.reason

    def test_few_runs_show_no_mean(self):
        assert judge(at_most(9, mean=True), self.scores[:4]).outcome is Outcome.UNDECIDED

    def test_a_failed_run_leaves_the_mean_unknown(self):
        assert judge(at_most(3.28, mean=True), self.scores, failed=1).outcome is Outcome.UNDECIDED
        assert judge(at_most(3.26, mean=True), self.scores, failed=1).outcome is Outcome.FAIL

    def test_equal_runs_are_their_mean(self):
        assert judge(at_most(3, mean=True), [2.0] * 5).outcome is Outcome.PASS
        assert judge(at_most(2, mean=True), [2.0] * 5).outcome is Outcome.UNDECIDED
        assert judge(at_most(1, mean=True), [2.0] * 5).outcome is Outcome.FAIL


class TestGate:
    def test_it_ends_as_soon_as_a_share_is_shown(self):
        gate, scores = Gate(Budget(reward=at_least(450)), 20), [500.0] * 20
        while gate.next_look:
            gate.look(measures(scores[: gate.next_look]))
        assert (gate.verdict.outcome, gate.runs) == (Outcome.PASS, 8)

    def test_failed_runs_count_at_each_look(self):
        gate = Gate(Budget(reward=at_least(450), max_failed_runs=9), 8)
        while gate.next_look:
            failed = gate.next_look // 2
            gate.look(measures([500.0] * (gate.next_look - failed)), failed)
        assert gate.verdict.outcome is Outcome.UNDECIDED

    def test_an_open_one_is_advised(self):
        gate = Gate(Budget(reward=at_least(450, share=0.9)), 10)
        while gate.next_look:
            gate.look(measures([500.0] * gate.next_look))
        assert gate.verdict.outcome is Outcome.UNDECIDED
        assert "about 30 runs would settle it" in gate.verdict.summary()


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, size: rng.normal(size=size),
        lambda rng, size: rng.lognormal(size=size),
        lambda rng, size: rng.normal(size=size) + 20 * (rng.uniform(size=size) < 0.1),
    ],
    ids=["normal", "lognormal", "one run in ten diverges"],
)
@pytest.mark.parametrize("share", [0.5, 0.8])
def test_a_share_errs_no_more_than_it_may_whatever_the_distribution(draw, share):
    rng = np.random.default_rng(3)
    value = float(np.quantile(draw(rng, 400_000), share))
    budget = Budget(reward=at_most(value, share=share), alpha=0.05)
    fixed, stopped = [], []
    for scores in draw(rng, (600, 20)):
        fixed.append(budget.judge(measures(scores)).outcome)
        gate = Gate(budget, 20)
        while gate.next_look:
            gate.look(measures(scores[: gate.next_look]))
        stopped.append(gate.verdict.outcome)
    for outcomes in (fixed, stopped):
        for outcome in (Outcome.PASS, Outcome.FAIL):
            assert outcomes.count(outcome) / 600 < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 600)


def test_the_mean_of_normal_scores_errs_no_more_than_it_may():
    rng = np.random.default_rng(4)
    budget = Budget(reward=at_most(0, mean=True))
    outcomes = [budget.judge(measures(scores)).outcome for scores in rng.normal(size=(1000, 8))]
    for outcome in (Outcome.PASS, Outcome.FAIL):
        assert 0.02 < outcomes.count(outcome) / 1000 < 0.07


def test_a_table_of_a_file_names_one_limit():
    assert threshold_of({"at_most": 3.28, "alpha": 0.01}) == at_most(3.28, alpha=0.01)
    for wrong in ({}, {"at_most": 1, "at_least": 0}, {"at_most": 1, "shares": 0.5}):
        with pytest.raises(BudgetError, match="Expected a limit such as"):
            threshold_of(wrong)
