"""Scores alone, as a user's tests meet them: every option works with them, or says why not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

TESTS = """
    import random

    def returns(seed):
        draw = random.Random(seed)
        return {"reward": 450 + draw.gauss(0, 5), "steps": draw.randrange(100, 200)}

    def val_loss(run):
        with run.stream("init"):
            return torch.rand(()) / 100 + 3.2

    def both(run):
        return train(run), {"reward": float(run.plan.init % 1000)}

    def breaks(seed):
        return float("nan")

    def test_measured(stability):
        study = stability.measure(returns, runs=4)
        assert study["reward_sd"].value > 0
        assert_within(study, Budget(reward_sd=1000, reward=at_least(0, share=0.4)))

    def test_checked(stability):
        stability.check(returns, runs=20, budget=Budget(reward_sd=1000, reward=at_least(400)))

    def test_isolated(stability):
        budget = Budget(score=at_most(3.28, mean=True, alpha=0.01))
        study = stability.check(val_loss, vary="init", runs=20, budget=budget)
        assert study.certificate.proven and len(study.records) < 20

    def test_both(stability):
        study = stability.check(both, labels=Y, vary="init", runs=4, budget=Budget(reward_sd=1e6, disagreement=100))
        assert study.accuracy.value > 0 and study["reward"].runs >= 3

    def test_beyond(stability):
        stability.check(returns, runs=20, budget=Budget(reward=at_least(500)))

    def test_open(stability):
        stability.check(returns, runs=6, budget=Budget(reward=at_least(400, share=0.9)))

    def test_misspelt(stability):
        stability.check(returns, runs=4, budget=Budget(rewart_sd=1))

    def test_breaks(stability):
        stability.measure(breaks, runs=2)

    def test_no_predictions(stability):
        stability.measure(returns, runs=4).flips
"""


def said_by(result) -> str:
    """All that pytest printed, as one line: messages are wrapped, and marked with an E."""
    return " ".join(re.sub(r"(?m)^E  ", "", result.stdout.str()).split())


@pytest.mark.slow
def test_each_answer_is_the_same_whichever_worker_trains(project: Project, way: str) -> None:
    project.tests(TESTS)
    result = project.run("--stability-json", "report.json", way=way)
    result.assert_outcomes(passed=4, failed=5)
    said = said_by(result)
    for text in (
        "reward is at least 500 in 0 of 8 runs: shown not to be so in 50 % of all runs or more (error rate 5 %).",
        "in 6 of 6 runs, which shows neither that it is so in 90 % of all runs or more nor that it is not",
        "Budget(rewart_sd=...), which would never be judged. Did you mean reward_sd? The task has reward, reward_sd",
        "the score 'score' is nan",
        "return scores alone, which have no predictions to compare or average",
    ):
        assert text in said, text
    report = json.loads((project.path / "report.json").read_text())
    (study,) = (one for one in report["studies"] if one["test"].endswith("::test_measured"))
    assert study["kind"] == "scores"
    assert study["records"][0]["scores"].keys() == {"reward", "steps"}
    assert study["metrics"].keys() == {"reward", "reward_sd", "steps", "steps_sd"}
    assert study["judgements"][1]["reached"] == 4
    again = project.run("--stability-json", "again.json", way=way)
    again.assert_outcomes(passed=4, failed=5)
    assert (
        json.loads((project.path / "again.json").read_text())["studies"][0]["metrics"]
        == report["studies"][0]["metrics"]
    )


GREEN = """
    import random

    def returns(seed, shift=0):
        return {"reward": 450 + shift + random.Random(seed).gauss(0, 5)}

    def test_returns(stability):
        stability.check(returns, runs=6, budget=Budget(reward_sd=1000))
"""

MEASURED = GREEN.replace("stability.check", "stability.measure")


def test_a_baseline_notices_a_mean_that_moves(project: Project) -> None:
    project.tests(MEASURED)
    project.run("--stability-save", "main").assert_outcomes(passed=1)
    same = project.run("--stability-compare", "main")
    same.assert_outcomes(passed=1)
    assert "both have the same scores" in said_by(same) or "PASS against the baseline main" in said_by(same)
    project.tests(MEASURED.replace("shift=0", "shift=40"))
    moved = project.run("--stability-compare", "main")
    moved.assert_outcomes(passed=0, failed=1)
    assert "the mean of reward changed, beyond error" in said_by(moved)
    assert "Three questions are asked of each score" in said_by(moved)


def test_a_baseline_of_other_outputs_is_refused(project: Project) -> None:
    project.tests(MEASURED)
    project.run("--stability-save", "main").assert_outcomes(passed=1)
    project.tests(MEASURED.replace("return {", "return torch.zeros(64, 2), {").replace("runs=6", "labels=Y, runs=6"))
    refused = project.run("--stability-compare", "main")
    assert "kind of task: scores there, classification here" in said_by(refused)


def test_two_tasks_are_compared_score_by_score(project: Project) -> None:
    project.tests(
        """
        import random

        def returns(seed):
            return {"reward": 450 + random.Random(seed).gauss(0, 5)}

        def better(seed):
            return {"reward": 480 + random.Random(seed + 1).gauss(0, 5)}

        def test_compare(stability):
            found = stability.compare(returns, better, runs=6)
            assert found["reward"].mean.is_more and not found["reward"].spread.is_more
            print(found)

        def test_direction(stability):
            stability.compare(returns, better, runs=6).is_better

        def test_two_kinds(stability):
            stability.compare(returns, Recipe(model=lambda: nn.Linear(4, 2), train=(X, Y), test=(X, Y), epochs=1,
                              batch_size=8, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.1)), runs=3)
        """
    )
    result = project.run("-s")
    result.assert_outcomes(passed=1, failed=2)
    said = said_by(result)
    assert "The mean of reward is higher, by" in said
    assert "which way a score is better is not known" in said
    assert "returns returns scores alone, and the other has labels" in said


def test_a_plan_says_how_many_runs_can_pass(project: Project) -> None:
    project.tests(
        """
        def returns(seed):
            return {"reward": 450.0 + seed % 7}

        def test_returns(stability):
            stability.check(returns, runs=40, budget=Budget(reward=at_least(400, share=0.9), reward_sd=1000))
        """
    )
    result = project.run("--stability-plan")
    assert "reward at_least(400.0, share=0.9) can pass from 29 runs on, if all of them reach it" in said_by(result)


def test_limits_are_calibrated_and_read_from_the_file(project: Project) -> None:
    project.tests(GREEN.replace(", budget=Budget(reward_sd=1000)", ""))
    project.run("--stability-calibrate").assert_outcomes(passed=1)
    file = project.path / "stability-budgets.toml"
    assert "reward_sd = " in file.read_text()
    project.run().assert_outcomes(passed=1)
    file.write_text(file.read_text() + "reward = { at_least = 500 }\n")
    beyond = project.run()
    beyond.assert_outcomes(passed=0, failed=1)
    assert "reward is at least 500 in 0 of" in said_by(beyond)
    project.run("--stability-calibrate", "--stability-update").assert_outcomes(passed=1)
    assert "reward = { at_least = 500 }" in file.read_text()


def test_a_self_test_says_what_it_did(project: Project) -> None:
    project.tests(GREEN)
    result = project.run("--stability-selftest")
    result.assert_outcomes(passed=1)
    assert "self-test: " in said_by(result)


def test_the_cache_shows_the_scores_of_a_run(project: Project) -> None:
    project.tests(GREEN)
    project.run().assert_outcomes(passed=1)
    header = next(path for path in project.path.rglob("0000.json") if path.parent.name == "runs")
    assert json.loads(header.read_text())["record"]["scores"].keys() == {"reward"}
