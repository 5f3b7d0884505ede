"""`stability.check`: training stops with the verdict, which is the same for any number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .conftest import WAYS

if TYPE_CHECKING:
    from .conftest import Project

CHECK = """
    @pytest.mark.parametrize("limit", [1e-6, 2.0], ids=["red", "green"])
    def test_gate(stability, limit):
        stability.check(train, labels=Y, vary="init", budget=Budget(cross_entropy_sd=limit))
"""
TWO = """
    def test_two(stability):
        stability.check(train, labels=Y, vary="init", budget=Budget(accuracy_sd=25.0))
        stability.check(train, labels=Y, vary="shuffle", budget=Budget(disagreement=50.0))
"""


@pytest.fixture
def verdicts(project: Project):
    def ask(*args, way="plain"):
        result, report = project.study(*args, way=way)
        return result, [(study["verdict"], study["runs"], study["runs_at_most"]) for study in report["studies"]]

    return ask


@pytest.mark.slow
@pytest.mark.trains
def test_a_verdict_that_stands_ends_the_training(project, verdicts, way):
    project.tests(CHECK)
    project.sleep_in_runs(0.3)
    result, found = verdicts("--stability-runs", 20, way=way)
    result.assert_outcomes(passed=1, failed=1)
    assert [verdict for verdict, _, _ in found] == ["fail", "pass"]
    assert all(3 <= runs < 8 and most == 20 for _, runs, most in found)
    # The tests share an experiment, whose runs are trained once. A second worker goes on while the first one looks,
    # which takes a moment, and the 17 runs that are left take five seconds.
    stored = project.stored()
    assert stored == list(range(len(stored)))
    assert max(runs for _, runs, _ in found) <= len(stored) < 20
    result.stdout.re_match_lines([rf"test_gate\[green\] +init +{found[1][1]} of 20 .* PASS"])


def test_reports_are_equal_for_any_way(project):
    project.tests(CHECK + TWO)
    reports = []
    for way in WAYS:
        _, report = project.study("--stability-runs", 12, way=way)
        reports.append(project.timeless(report))
        project.forget()
    assert reports[0] == reports[1] == reports[2]


@pytest.mark.slow
def test_a_second_session_trains_nothing_and_says_the_same(project, verdicts):
    project.tests(CHECK)
    _, first = verdicts("--stability-runs", 20)
    project.ledger()
    _, second = verdicts("--stability-runs", 20, way="n2")
    assert first == second
    assert project.trained() == []


@pytest.mark.slow
@pytest.mark.trains
def test_what_was_decided_stays_so_though_more_runs_are_allowed(project, verdicts):
    project.tests(CHECK)
    _, short = verdicts("--stability-runs", 6)
    _, long = verdicts("--stability-runs", 40)
    assert [(verdict, runs) for verdict, runs, _ in short] == [(verdict, runs) for verdict, runs, _ in long]


@pytest.mark.slow
@pytest.mark.trains
def test_an_open_check_goes_on_in_a_longer_session_and_says_what_it_may_err(project, verdicts):
    # An SD of 0.03 to 0.05 is told from these limits by five or eight runs less often than once in 10,000 times, since
    # each verdict errs in a millionth of studies at most.
    narrow = "cross_entropy_sd=limit, ratio=1.05, alpha=1e-6, beta=1e-6"
    project.tests(CHECK.replace("[1e-6, 2.0]", "[0.04, 0.042]").replace("cross_entropy_sd=limit", narrow))
    result, found = verdicts("--stability-runs", 5)
    assert {verdict for verdict, _, _ in found} == {"undecided"}
    result.stdout.fnmatch_lines(["*UNDECIDED  cross_entropy_sd * over 5 runs is neither shown to be beyond *"])
    project.ledger()
    result, _ = verdicts("--stability-runs", 8)
    assert project.trained() == [5, 6, 7]
    result.stdout.fnmatch_lines(["*error rates: a model within its budget fails in 0.000[12]* % of studies at most*"])


@pytest.mark.slow
def test_too_few_runs_are_one_error_before_training(project, way):
    project.tests(CHECK)
    result = project.run("--stability-runs", 2, way=way)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*Expected at least 3 runs for a check but got 2, too few for its first look.*"])
    assert project.ledger() == []


@pytest.mark.slow
def test_a_run_that_fails_ends_the_check(project, way):
    project.tests(CHECK)
    project.suffer("raise 1")
    result = project.run("--stability-runs", 20, "-k", "green", way=way)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RunsFailedError: *run 1*"])
    assert max(training.index for training in project.ledger()) <= 3


@pytest.mark.slow
def test_some_runs_may_fail(project, way):
    project.tests(CHECK.replace("cross_entropy_sd=limit", "cross_entropy_sd=limit, max_failed_runs=1"))
    project.suffer("raise 1")
    result, report = project.study("--stability-runs", 20, "-k", "green", way=way)
    result.assert_outcomes(passed=1)
    (study,) = report["studies"]
    assert study["records"][1]["status"] == "failed"
    assert "accuracy" not in study["records"][1]
    assert study["judgements"][-1]["reason"].startswith(f"1 of {study['runs']} runs failed, within the 1 that may")
    result.stdout.fnmatch_lines(["note: 1 of * runs failed, as max_failed_runs=1 allows; the numbers are about *"])
