"""``stability.compare``, and --stability-compare NAME: hold the studies of a session against a baseline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

MODELS = """
    def slow(run):
        return train(run, 0.001)

    def fast(run):
        return train(run, 0.5)

    def test_fast_is_better(stability):
        comparison = stability.compare(slow, fast, labels=Y, vary="init+shuffle", runs=10)
        assert comparison.is_better
        assert comparison.paired

    def test_slow_is_not(stability):
        assert stability.compare(fast, slow, labels=Y, vary="init", runs=10).is_better
"""

#: The rate of a model is what a later commit changes. At 0.5 the toy is right about 92 % (SD 6), at 0.0005 about 50 %
#: (SD 11), under three base seeds: by the noncentral t distribution ten pairs of runs miss that once in 10^10 times.
COMMIT = """
    from model import RATE

    def net(run):
        return train(run, RATE)

    def test_measure(stability):
        stability.measure(net, labels=Y, vary="init+shuffle", runs=10)

    def test_check(stability):
        stability.check(net, labels=Y, vary="init", runs=5, budget=Budget(disagreement=90, beta=0.2))
"""


def commit(project: Project, rate: float) -> None:
    project.write("model.py", f"RATE = {rate}\n")


@pytest.mark.slow
@pytest.mark.trains
def test_two_models_are_trained_and_the_answer_is_reported(project: Project) -> None:
    project.tests(MODELS)
    reports = {}
    for way in ("plain", "n0", "n2"):
        result, report = project.study(way=way)
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            [
                "E*Comparison(The candidate is worse by *).is_better",
                "test_fast_is_better: fast against slow [[]init+shuffle[]]. The candidate is better by * points*",
                "test_slow_is_not: slow against fast [[]init[]]. The candidate is worse by * points*",
            ]
        )
        reports[way] = project.timeless(report)
        assert sorted(set(project.trained())) == list(range(10))
        project.forget()
    assert reports["plain"] == reports["n0"] == reports["n2"]
    better, worse = reports["plain"]["comparisons"]
    assert better["test"] == "test_toy.py::test_fast_is_better"
    assert better["is_better"]
    assert worse["is_worse"]
    assert (better["baseline"]["task"], better["candidate"]["task"]) == ("slow", "fast")
    assert [study["task"] for study in reports["plain"]["studies"]] == ["slow", "fast", "fast", "slow"]


def test_what_cannot_be_compared_is_refused_before_anything_trains(project: Project) -> None:
    project.tests("""
        from stabilitykit.training.task import LoopTask

        def test_labels(stability):
            stability.compare(LoopTask(train, Y), LoopTask(train, 1 - Y), runs=2)

        def test_budget(stability):
            stability.compare(train, train, labels=Y, runs=2, budget=Budget(disagreement=9))
    """)
    result = project.run()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E*TaskError: Expected two models of one test set but 64 of 64 test labels differ.*",
            "E*BudgetError: Expected no budget in a comparison*",
        ]
    )
    assert project.trained() == []


@pytest.mark.trains
@pytest.mark.parametrize("way", ["plain", pytest.param("n2", marks=pytest.mark.slow)])
def test_what_is_worse_than_its_baseline_fails_and_what_is_the_same_does_not(project: Project, way: str) -> None:
    project.tests(COMMIT)
    commit(project, 0.5)
    project.run("--stability-save", "main").assert_outcomes(passed=2)

    result, report = project.study("--stability-compare", "main", way=way)
    result.assert_outcomes(passed=2)
    same = "PASS against the baseline main [[]{}[]]: run for run the same answers"
    result.stdout.fnmatch_lines(
        [
            f"test_measure: {same.format('init+shuffle')}",
            f"test_check: {same.format('init')}",
        ]
    )
    assert [c["baseline"]["saved"] for c in report["comparisons"]] == ["main", "main"]

    commit(project, 0.0005)
    result, report = project.study("--stability-compare", "main", way=way)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    text = result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "Expected test_toy.py::test_measure to be no worse than *but the mean got worse*",
            "mean accuracy %*worse (p*",
            "test_measure: FAIL against the baseline main [[]init+shuffle[]]. The candidate is worse by *",
            "FAILED test_toy.py::test_measure - stabilitykit.BaselineExceededError*",
        ]
    )
    assert "the baseline 'main' (10 runs, kept on " in text
    assert "alpha = 0.05 is shared" in text
    assert "errs in 1.7 %" in text
    assert "site-packages" not in text, "no line of pytest is to blame"
    assert report["comparisons"][0]["alpha"] == pytest.approx(0.05 / 3)
    assert report["comparisons"][0]["is_worse"]


@pytest.mark.slow
def test_unlike_things_are_refused_with_every_reason_before_anything_trains(project: Project) -> None:
    project.tests("""
        from model import *
        from stabilitykit.training.task import LoopTask

        def test_study(stability):
            recipe = Recipe(
                model=lambda: nn.Linear(4, 2),
                train=(X + SHIFT, Y),
                test=(X, Y if not SHIFT else 1 - Y),
                epochs=EPOCHS,
                batch_size=32,
                optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
            )
            stability.measure(recipe, vary=VARY, runs=2)
    """)
    project.write("model.py", "SHIFT, EPOCHS, VARY = 0, 1, 'init'\n")
    project.run("--stability-save", "main").assert_outcomes(passed=1)
    runs = project.stored()
    project.write("model.py", "SHIFT, EPOCHS, VARY = 1, 2, 'shuffle'\n")
    result = project.run("--stability-compare", "main", "--stability-threads", "2")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E*BaselineError: Expected test_toy.py::test_study to be comparable with the baseline 'main' but the test*",
        ]
    )
    assert (
        "but the test labels differ; the test data differ; the training data differ; epochs: 1 there, 2 here; "
        "what varies: init there, shuffle here; threads: 1 there, 2 here"
    ) in result.stdout.str()
    assert project.stored() == runs


@pytest.mark.slow
def test_a_baseline_that_is_not_there_is_refused_and_the_others_are_listed(project: Project, way: str) -> None:
    project.tests(COMMIT)
    commit(project, 0.5)
    for name in ("one", "two"):
        project.run("--stability-save", name, "-k", "measure").assert_outcomes(passed=1)
    project.trained()
    result = project.run("--stability-compare", "tow", "--stability-seed", "3", way=way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: Expected --stability-compare to name a baseline but *.stabilitykit has no 'tow'. There are: one, two*"]
    )
    assert project.trained() == []
    result = project.run("--stability-compare", "one", "--stability-save", "one", "--stability-update", way=way)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: Expected --stability-save and --stability-compare to name two baselines *"])


def test_a_test_without_an_entry_is_a_note(project: Project) -> None:
    project.tests(COMMIT)
    commit(project, 0.5)
    project.run("--stability-save", "main", "-k", "measure").assert_outcomes(passed=1)
    result = project.run("--stability-compare", "main", "--stability-save", "next")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["note: no baseline of this test in main (test_check)"])
    assert len(list(project.path.glob(".stabilitykit/baselines/next/*.json"))) == 2


@pytest.mark.slow
def test_neither_a_rerun_nor_a_skip_makes_it_green(project: Project) -> None:
    project.tests("""
        from model import RATE

        def net(run):
            return train(run, RATE)

        @pytest.fixture(scope="module")
        def study(stability):
            return stability.measure(net, labels=Y, vary="init+shuffle", runs=10)

        def test_rerun(study):
            pass

        def test_skip(stability):
            stability.measure(net, labels=Y, vary="init+shuffle", runs=10)
            pytest.skip("undecided")
    """)
    commit(project, 0.5)
    project.run("--stability-save", "main").assert_outcomes(passed=1, skipped=1)
    commit(project, 0.0005)
    result = project.run("-p", "rerunfailures", "--reruns", "1", "--stability-compare", "main")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"2 failed, 2 rerun", result.stdout.str())


SHARED = """
    from model import RATE

    def net(run):
        return train(run, RATE)

    @pytest.fixture(scope="{scope}")
    def study(stability):
        return stability.measure(net, labels=Y, vary="init+shuffle", runs=10)

    def test_a(study):
        pass

    def test_b(study, stability):
        stability.measure(net, labels=Y, vary="init", runs=10)
"""


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["session", "module"])
def test_the_study_of_a_wider_fixture_is_found_whichever_test_comes_first(project: Project, scope: str) -> None:
    project.tests(SHARED.format(scope=scope))
    commit(project, 0.5)
    project.run("--stability-save", "main").assert_outcomes(passed=2)
    result = project.run("--stability-compare", "main", "-k", "test_b")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*no baseline of this test*")
    commit(project, 0.0005)
    for one in ("test_a", "test_b"):
        result = project.run("--stability-compare", "main", "-k", one)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*Expected test_toy.py::study (a fixture) to be no worse than the baseline*"])


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["a verdict that skips", "a fixture that skips", "the end of a fixture"])
def test_what_got_worse_is_red_in_every_phase(project: Project, phase: str) -> None:
    measure = "stability.measure(net, labels=Y, vary='init+shuffle', runs=10)"
    lines = {
        "a verdict that skips": [
            "study = " + measure,
            "assert_within(study, Budget(cross_entropy_sd=study['cross_entropy_sd'].value / 1.05, ratio=1.1))",
            "yield",
        ],
        "a fixture that skips": [measure, "pytest.skip('no')", "yield"],
        "the end of a fixture": ["yield", measure],
    }[phase]
    body = "\n        ".join(lines)
    project.tests(f"""
    from model import RATE

    def net(run):
        return train(run, RATE)

    @pytest.fixture
    def study(stability):
        {body}

    def test_it(study):
        pass
    """)
    commit(project, 0.5)
    assert project.run("--stability-save", "main", "--stability-undecided", "skip").ret == pytest.ExitCode.OK
    commit(project, 0.0005)
    result = project.run("--stability-compare", "main", "--stability-undecided", "skip")
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str()
    result.stdout.fnmatch_lines(["*to be no worse than the baseline*"])


@pytest.mark.slow
def test_a_comparison_that_compares_nothing_is_an_error(project: Project) -> None:
    project.tests(COMMIT)
    commit(project, 0.5)
    project.run("--stability-save", "main", "-k", "measure").assert_outcomes(passed=1)
    for way in ("plain", "n2"):
        result = project.run("--stability-compare", "main", "-k", "check", way=way)
        assert result.ret == pytest.ExitCode.TESTS_FAILED
        result.stdout.fnmatch_lines(["*Expected to compare with the baseline 'main' but it has an entry for none of*"])
    assert project.run("--stability-compare", "main").ret == pytest.ExitCode.OK


def test_studies_that_are_there_are_sent_to_the_function(project: Project) -> None:
    project.tests("""
        def test_any(stability):
            study = stability.measure(train, labels=Y, vary="init", runs=2)
            stability.compare(study, train, labels=Y, vary="init", runs=2)
    """)
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *Expected two tasks to train but got Study('train', *stabilitykit.compare(*"])


@pytest.mark.slow
@pytest.mark.trains
def test_the_example_of_the_documentation_runs(project: Project) -> None:
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(# test_improvement\.py\n.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    project.write("test_improvement.py", example)
    result = project.run("-s")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        [
            "mean accuracy %*better (p*",
            "test_a_wider_layer_helps: width 32 against width 2 [[]all[]]. The candidate is better by *",
        ]
    )
