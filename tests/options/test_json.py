"""--stability-json."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

QUESTIONS = """
    @pytest.mark.parametrize("source", ["init", "shuffle"])
    def test_source(stability, source):
        stability.measure(train, labels=Y, vary=source, runs=4)

    def test_two_studies(stability):
        study = stability.check(train, labels=Y, perturb="ulp", runs=3, budget=Budget(disagreement=90))
        assert_accuracy_sd(study, at_most=40)
        stability.measure(train, labels=Y, vary="none", runs=2)

    def fails_once(run):
        if run.index == 2:
            raise ValueError("once")
        return train(run)

    def test_a_run_fails(stability):
        stability.measure(fails_once, labels=Y, vary="shuffle+init", runs=4)

    def test_fails(stability):
        stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))
"""
REVERSED = """
    def pytest_collection_modifyitems(items):
        items.reverse()
"""


@pytest.mark.slow
def test_report_is_the_same_in_every_way_and_order(project: Project) -> None:
    project.tests(QUESTIONS)
    project.write("conftest.py", "")
    reports = {}
    for name, way in (("plain", "plain"), ("n0", "n0"), ("n2", "n2"), ("reversed", "plain")):
        if name == "reversed":
            project.write("conftest.py", REVERSED)
        result, report = project.study(way=way)
        result.assert_outcomes(passed=3, failed=2)
        result.stdout.fnmatch_lines(["written: report.json"])
        reports[name] = project.timeless(report)
        project.forget()
    assert reports["plain"] == reports["n0"] == reports["n2"]
    in_file = ["test_source[init]", "test_source[shuffle]", *["test_two_studies"] * 2, "test_a_run_fails", "test_fails"]
    assert [study["test"] for study in reports["plain"]["studies"]] == [f"test_toy.py::{name}" for name in in_file]

    def by_test(report: dict) -> list:
        return sorted(report["studies"], key=lambda study: (study["test"], study["name"]))

    assert by_test(reports["reversed"]) == by_test(reports["plain"])


@pytest.mark.trains
def test_report_has_the_documented_form(project: Project) -> None:
    project.tests(QUESTIONS)
    _, report = project.study("--junitxml=junit.xml", way="plain")
    assert set(report) == {"format", "environment", "studies", "comparisons"}
    assert report["format"] == 1
    assert report["environment"]["device"]
    init, _, ulp, none, failed, beyond = report["studies"]

    assert init["vary"] == ["init"]
    assert init["perturb"] is None
    assert init["task"] == "train"
    assert init["runs"] == init["runs_at_most"] == 4
    assert init["verdict"] is None
    accuracy_sd = init["metrics"]["accuracy_sd"]
    assert set(accuracy_sd) == {"value", "low", "high", "sd_of_sd"}
    assert accuracy_sd["low"] < accuracy_sd["value"] < accuracy_sd["high"]
    assert set(init["metrics"]["disagreement"]) == {"value", "low", "high"}
    assert [record["index"] for record in init["records"]] == [0, 1, 2, 3]
    first = init["records"][0]
    assert first["status"] == "ok"
    assert first["seconds"] > 0
    assert len(first["fingerprint"]) == 64
    assert set(first["seeds"]) == {"init", "shuffle", "augment", "stochastic", "low_level"}
    mean = sum(record["accuracy"] for record in init["records"]) / 4
    assert math.isclose(mean, init["metrics"]["accuracy"]["value"])
    assert first["cross_entropy"] > 0

    assert ulp["vary"] == []
    assert ulp["perturb"] == "ulp"
    assert ulp["verdict"] == "pass"
    assert [judgement["metric"] for judgement in ulp["judgements"]] == [
        *("disagreement", "failed_runs"),
        *("accuracy_sd", "failed_runs"),
    ]
    assert {record["perturbation"]["parameter"] for record in ulp["records"]} == {"0.weight"}
    assert len({record["fingerprint"] for record in none["records"]}) == 1

    assert failed["metrics"] == {}
    assert failed["verdict"] == "fail"
    assert [record["status"] for record in failed["records"]] == ["ok", "ok", "failed", "ok"]
    assert "ValueError: once" in failed["records"][2]["error"]
    assert beyond["verdict"] == "fail"


def test_folders_on_the_way_are_made_and_a_folder_is_refused(project: Project) -> None:
    project.write("test_any.py", "def test_any():\n    pass\n")
    project.run("--stability-json", "a/b/report.json").assert_outcomes(passed=1)
    assert (project.path / "a" / "b" / "report.json").read_text().startswith("{")
    result = project.run("--stability-json", "a/b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert result.stderr.lines[0] == "ERROR: Expected --stability-json to name a file but 'a/b' is a folder."
