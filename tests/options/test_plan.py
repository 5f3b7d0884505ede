"""--stability-plan, and `stabilitykit plan`: what a session would train, and nothing trained."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

TESTS = """
    def test_gate(stability):
        stability.check(train, labels=Y, vary="init", runs=20, budget=Budget(accuracy_sd=4.0))
        stability.check(train, labels=Y, vary="shuffle", runs=8, budget=Budget(accuracy_sd=4.0, disagreement=40))

    def test_fixed(stability):
        study = stability.measure(train, labels=Y, vary="init", runs=14)
        assert_accuracy_sd(study, at_most=4.0)
        assert_ensemble_delta(study, at_most=9)

    def test_by_hand(stability):
        study = stability.measure(train, labels=Y, perturb="ulp")
        assert study.accuracy_sd.high < 1
        stability.measure(train, labels=Y, vary="none")

    def test_nothing_to_do_with_it():
        raise AssertionError("entered")
"""


def trained_nothing(project: Project) -> bool:
    return project.trained() == project.stored() == project.claims() == []


@pytest.mark.slow
def test_nothing_trains_and_each_question_is_planned(project: Project, way: str) -> None:
    project.tests(TESTS)
    result, report = project.study("--stability-plan", "-rs", way=way)
    assert result.ret == pytest.ExitCode.OK
    result.assert_outcomes(skipped=3, **({"deselected": 1} if way != "n2" else {}))
    assert trained_nothing(project)
    assert report["studies"] == []
    assert [(p["test"].partition("::")[2], p["name"], p["runs"]) for p in report["plan"]] == [
        ("test_gate", "init", 20),
        ("test_gate", "shuffle", 8),
        ("test_fixed", "init", 14),
        ("test_by_hand", "ulp", 10),
    ]
    gate, both, fixed, by_hand = report["plan"]
    assert [limit["metric"] for limit in both["limits"]] == ["accuracy_sd", "disagreement"]
    assert [limit["metric"] for limit in fixed["limits"]] == ["accuracy_sd", "ensemble_delta"]
    assert by_hand["limits"] == []
    sd = gate["limits"][0]
    assert (sd["fixed_runs"], sd["most_runs"], sd["sequential"]) == (14, 20, True)
    assert [round(prospect["runs"], 1) for prospect in sd["prospects"]] == [5.8, 11.2, 12.9, 11.2, 7.1]
    assert gate["workers"] == (2 if way == "n2" else 1)
    result.stdout.fnmatch_lines(
        [
            "*= stability plan =*",
            "test *varies *limit *excludes *runs needed *sequential *R *runs to a verdict *P(FAIL) beyond *minutes",
            "test_gate *init *accuracy_sd <= 4 *2 x *14 *20 *20 * 5.8 / 11.2 / 7.1 *0.?? / 0.?? / 0.95 *[?]",
            "test_gate *shuffle *accuracy_sd <= 4 *8, too few*",
            "test_gate *shuffle *disagreement <= 40 *1.25 x*",
            "test_fixed *init *accuracy_sd <= 4 *2 x *14 *20 *14 * 14 *",
            "test_by_hand *ulp *none * 10 * 10 *",
            "warning: 8 runs are too few for accuracy_sd: UNDECIDED in * % of studies of a model at 1* times the *",
            "note: accuracy_sd assumes normal scores (test_gate, test_fixed)",
            "note: no run stored yet: seconds unknown (*)",
            "note: planned; * no further: study.accuracy_sd has no value before runs are trained (test_by_hand)",
            "at most 38 runs to train, 0 stored: unknown time with *, and the controls*",
        ],
        consecutive=False,
    )
    result.stdout.fnmatch_lines(["SKIPPED [[]*[]] test_toy.py:*: planned"])


@pytest.mark.trains
@pytest.mark.slow
def test_stored_runs_cost_nothing_and_tell_the_seconds_and_the_spread(project: Project) -> None:
    project.sleep_in_runs(1.5)  # less than a tenth of a minute would be shown in other words
    project.tests("""
        @pytest.mark.parametrize("vary", ["init", "shuffle"])
        def test_gate(stability, vary):
            stability.check(train, labels=Y, vary=vary, budget=Budget(accuracy_sd=20.0, disagreement=100))
    """)
    project.run("--stability-runs", 4, "-k", "init", "--stability-undecided", "pass")
    trained = project.trained()
    assert trained[:3] == [0, 1, 2]
    _, alone = project.study("--stability-plan", "--stability-runs", 20)
    result, shared = project.study("--stability-plan", "--stability-runs", 20, way="n2")
    assert project.trained() == []
    init, shuffle = alone["plan"]
    assert init["stored"] == len(trained)
    assert shuffle["stored"] == 0
    assert init["seconds_a_run"] == pytest.approx(shuffle["seconds_a_run"], rel=0.1)
    assert init["seconds_a_run"] > 0.5
    assert init["limits"][1]["assumes"].endswith(f"of {len(trained)} stored runs")
    assert 0 < init["limits"][1]["stored_share"] < 1
    missing = 20 if init["verdict"] else 40 - len(trained)
    minutes = missing * init["seconds_a_run"] / 60 / 2
    assert [plan | {"workers": 1} for plan in shared["plan"]] == alone["plan"]
    result.stdout.fnmatch_lines(
        [
            "note: the stored runs say disagreement *, 0.?? of the budget's spread (test_gate[[]init[]])",
            "note: seconds a run are those of this task's runs under other protocols (test_gate[[]shuffle[]])",
            f"at most {missing} runs to train, {len(trained)} stored: {minutes:.1f} minutes with 2 workers, *",
        ]
    )


@pytest.mark.slow
@pytest.mark.trains
def test_a_verdict_that_stands_trains_nothing_more(project: Project) -> None:
    project.tests("""
        def test_gate(stability):
            stability.check(train, labels=Y, vary="init", runs=20, budget=Budget(accuracy_sd=20.0))
    """)
    project.run().assert_outcomes(passed=1)
    looks = {path: path.read_bytes() for path in (project.path / ".stabilitykit" / "v2").rglob("*look*")}
    assert len(project.trained()) < 20
    result = project.run("--stability-plan")
    assert project.trained() == []
    result.stdout.fnmatch_lines(
        [
            "test_gate *init *accuracy_sd <= 20 * 0 / 0 / 0",
            "note: the stored runs have its verdict: PASS (test_gate)",
            "at most 0 runs to train, * stored: 0 minutes with 1 worker, *",
        ]
    )
    assert looks == {path: path.read_bytes() for path in (project.path / ".stabilitykit" / "v2").rglob("*look*")}


def test_a_budget_that_no_runs_can_reach_is_said(project: Project) -> None:
    project.tests("""
        def test_under_two_examples(stability):
            stability.check(train, labels=Y, budget=Budget(accuracy_sd=3.0))

        def test_under_the_floor(stability):
            stability.check(train, labels=Y, budget=Budget(accuracy_sd=3.5, disagreement=40))

        def test_no_difference_at_all(stability):
            stability.check(train, labels=Y, vary="none", budget=Budget(disagreement=0, correlation=1))
    """)
    result = project.run("--stability-plan", "--stability-runs", "20")
    result.assert_outcomes(skipped=3)
    result.stdout.fnmatch_lines(
        [
            "test_no_difference_at_all *none *disagreement <= 0 * - * - *20*",
            "test_no_difference_at_all *none *correlation >= 1 *",
            "warning: accuracy_sd=3 points are 1.9 of 64 test examples*3.1 points or more*(test_under_two_examples)",
            (
                "warning: accuracy_sd=3.5 points are unreachable on 64 test examples unless errors are negatively "
                "correlated: a disagreement * 40 % brings up to 5.6 points. N >= 164 * (test_under_the_floor)"
            ),
        ]
    )


def test_what_stands_around_a_question_does_not_keep_it_from_being_planned(project: Project) -> None:
    project.tests("""
        @pytest.fixture(scope="module")
        def study(stability):
            return stability.measure(train, labels=Y, vary="init", runs=6)

        def test_first(study):
            assert_accuracy_sd(study, at_most=4.0)

        def test_second(study):
            assert_disagreement(study, at_most=40)

        @pytest.fixture(scope="module")
        def number(study):
            return study.accuracy.value

        def test_number(number):
            pass

        @pytest.mark.xfail(strict=True)
        def test_known_to_vary(stability):
            stability.check(train, labels=Y, vary="shuffle", budget=Budget(accuracy_sd=4.0))

        def test_compare(stability):
            assert stability.compare(train, lambda run: train(run, 0.2), labels=Y, vary="shuffle", runs=5).is_better

        def test_alike(study, stability):
            assert_alike([study, stability.measure(train, labels=Y, vary="shuffle")], measures=["disagreement"])
            assert_reduction(stability.measure(train, labels=Y, vary="shuffle"), study, at_least=10)

        def test_must_be_beyond(stability):
            with pytest.raises(BudgetExceededError):
                stability.check(train, labels=Y, vary="shuffle", budget=Budget(accuracy_sd=4.0))
    """)
    result, report = project.study("--stability-plan")
    result.assert_outcomes(skipped=7)
    assert trained_nothing(project)
    planned = {p["test"].partition("::")[2]: [limit["metric"] for limit in p["limits"]] for p in report["plan"]}
    assert planned["test_second"] == ["accuracy_sd", "disagreement"], "all that is asked of the study so far"
    assert planned["test_known_to_vary"] == planned["test_must_be_beyond"] == ["accuracy_sd"]
    result.stdout.fnmatch_lines(["note: planned; * no further: DID NOT RAISE *BudgetExceededError* (test_must_be_*)"])
    # init 6, shuffle 10 (the baseline of the comparison is among them), and the 5 of its candidate
    result.stdout.fnmatch_lines(["at most 21 runs to train*"])


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_bad_input_fails_as_it_would_in_earnest(project: Project, way: str) -> None:
    project.tests("""
        def test_unknown_metric(stability):
            stability.check(train, labels=Y, budget=Budget(acuracy_sd=1))

        def test_unknown_in_an_assertion(stability):
            assert_within(stability.measure(train, labels=Y), Budget(acuracy_sd=1))

        def test_alike_in_what(stability):
            assert_alike([stability.measure(train, labels=Y)] * 2, measures=["f1_sd"])

        def test_no_labels(stability):
            stability.measure(train, outputs="logits")

        def test_too_few_runs(stability):
            stability.check(train, labels=Y, runs=2, budget=Budget(accuracy_sd=4))

        def test_not_a_budget(stability):
            stability.check(train, labels=Y, budget=Budget(accuracy_sd=4, ratio=1))
    """)
    result = project.run("--stability-plan", way=way)
    result.assert_outcomes(failed=6)
    assert trained_nothing(project)
    text = " ".join(result.stdout.str().split())
    for said in (
        "Budget(acuracy_sd=...), which would never be judged",
        "too few for its first look",
        "ratio > 1",
        "each study has but got 'f1_sd'",
    ):
        assert said in text
    assert text.count("Budget(acuracy_sd=...), which would never be judged") >= 2


def test_a_plan_does_nothing_else(project: Project) -> None:
    project.tests("def test_any(stability):\n    pass\n")
    result = project.run("--stability-plan", "--stability-selftest")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: Expected --stability-plan alone*"])


@pytest.mark.slow
def test_the_command_is_pytest_with_the_plan(project: Project) -> None:
    project.tests(TESTS)
    command = [sys.executable, "-m", "stabilitykit"]
    arguments = ["plan", "-k", "fixed", "-p", "no:xdist", "--stability-json", "plan.json"]
    done = subprocess.run([*command, *arguments], cwd=project.path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "= stability plan =" in done.stdout
    assert [plan["runs"] for plan in json.loads((project.path / "plan.json").read_text())["plan"]] == [14]
    assert trained_nothing(project)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 0, "stabilitykit plan test_model.py -k init"),
        (["--help"], 0, "stability-cache"),
        (["plan", "--help"], 0, "Trains nothing."),
        (["--version"], 0, "stabilitykit "),
        (["train"], 2, "invalid choice: 'train'"),
    ],
)
def test_the_command_explains_itself(arguments: list[str], code: int, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stabilitykit", *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
