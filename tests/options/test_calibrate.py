"""--stability-calibrate, and the checks that read what it wrote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

FILE = "stability-budgets.toml"

CHECKS = """
    @pytest.mark.parametrize("source", ["init", "shuffle"])
    def test_gate(stability, source):
        stability.check(train, labels=Y, vary=source)

    class TestTwo:
        def test_two(self, stability):
            stability.check(train, labels=Y, vary="init", runs=5)
            stability.check(train, labels=Y, vary="none", runs=4, metrics={"first": first})

    def first(logits, labels):
        return (logits.argmax(1) == 0).double().mean()

    def test_own_budget(stability):
        study = stability.check(train, labels=Y, vary="init", budget=Budget(disagreement=100))
        assert len(study.records) < 6
"""
ENTRIES = ["test_gate[init]", "test_gate[shuffle]", "TestTwo::test_two", "TestTwo::test_two"]


def written(project: Project) -> str:
    return (project.path / FILE).read_text()


def undated(text: str) -> str:
    assert re.search(r"^date = \d{4}-\d\d-\d\d$", text, re.MULTILINE)
    return re.sub(r"^date = .*$", "", text, flags=re.MULTILINE)


def test_checks_without_a_budget_train_all_their_runs_and_their_limits_are_written(project: Project, way: str) -> None:
    project.tests(CHECKS)
    result, report = project.study("--stability-calibrate", "--stability-runs", 6, way=way)
    result.assert_outcomes(passed=4)
    assert result.ret == pytest.ExitCode.OK
    assert [study["runs"] for study in report["studies"]][:4] == [6, 6, 5, 4]
    verdicts = [study["verdict"] for study in report["studies"]]
    assert verdicts == [None, None, None, None, "pass"]
    text = written(project)
    assert re.findall(r'^test = "test_toy.py::(.*)"$', text, re.MULTILINE) == ENTRIES
    assert re.findall(r"^study = (.*)$", text, re.MULTILINE) == ["2"]
    assert re.findall(r"^runs = (.*)$", text, re.MULTILINE) == ["6", "6", "5", "4"]
    assert re.findall(r"^first_sd = ", text, re.MULTILINE) == ["first_sd = "]
    high = report["studies"][0]["metrics"]["accuracy_sd"]["high"]
    limit = float(re.findall(r"^accuracy_sd = (\S+) # points; measured ", text, re.MULTILINE)[0])
    assert high <= limit <= 1.01 * high
    assert report["calibrations"][0]["proposals"][0]["limit"] == limit
    result.stdout.fnmatch_lines(
        [
            "=* proposed budgets *=",
            "test * varies * runs  metric * measured * budget  unchanged fails  at the value",
            f"test_gate[[]init[]] *init * 6  accuracy_sd * {limit:g}  * 1.6 % * 27.4 %",
            "written: stability-budgets.toml (4 new); review it, and commit it",
        ]
    )


@pytest.mark.slow
def test_the_file_is_the_same_for_any_number_of_workers(project: Project) -> None:
    project.tests(CHECKS)
    texts = []
    for way in ("plain", "n2"):
        project.run("--stability-calibrate", "--stability-runs", 4, way=way)
        texts.append(undated(written(project)))
        (project.path / FILE).unlink()
    assert texts[0] == texts[1]


@pytest.mark.trains
@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_check_is_judged_by_the_limits_of_the_file(project: Project, way: str) -> None:
    project.tests(CHECKS)
    project.run("--stability-calibrate", "--stability-runs", 6)
    result = project.run("--stability-runs", 12, way=way)
    result.assert_outcomes(passed=4)
    text = written(project)
    (project.path / FILE).write_text(re.sub(r"^cross_entropy_sd = \S+", "cross_entropy_sd = 1e-9", text, flags=re.M))
    result = project.run("--stability-runs", 12, "-k", "test_gate and init", way=way)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *FAIL *cross_entropy_sd * budget of 1e-09 nats*"])


@pytest.mark.slow
def test_the_number_of_the_check_is_kept_under_a_group(project: Project) -> None:
    project.tests("""
        @pytest.mark.xdist_group("one")
        def test_gate(stability):
            stability.check(train, labels=Y, vary="init")
    """)
    project.run("--stability-calibrate", "--stability-runs", 4, "--dist", "loadgroup", way="n2")
    assert '"test_toy.py::test_gate"' in written(project)
    project.run("--dist", "loadgroup", "--stability-runs", 4, way="n2").assert_outcomes(passed=1)


def test_a_check_without_a_budget_anywhere_names_the_command_and_trains_nothing(project: Project) -> None:
    project.tests(CHECKS)
    result = project.run("-k", "test_gate and init")
    result.assert_outcomes(failed=1)
    command = "pytest --stability-calibrate 'test_toy.py::test_gate[[]init[]]'"
    result.stdout.fnmatch_lines([f"E *BudgetError: Expected budget=Budget(...) * does not exist. * {command}"])
    assert project.trained() == []


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_nothing_is_written_for_a_study_that_failed_and_it_is_said(project: Project, way: str) -> None:
    project.tests(CHECKS)
    project.suffer("raise 3")
    result = project.run("--stability-calibrate", "--stability-runs", 4, "-k", "two or own", way=way)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["not written: test_toy.py::TestTwo::test_two: *of train * failed: run 3."])
    assert not (project.path / FILE).exists()


def test_two_runs_are_too_few_to_calibrate_from(project: Project) -> None:
    project.tests(CHECKS)
    result = project.run("--stability-calibrate", "--stability-runs", 2, "-k", "test_gate and init")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *Expected 3 runs or more to calibrate from but got 2: *"])
    assert project.trained() == []


def test_the_environment_of_the_calibration_is_noted_where_it_is_another(project: Project) -> None:
    project.tests(CHECKS)
    project.run("--stability-calibrate", "--stability-runs", 4, "-k", "test_gate and init")
    result = project.run("--stability-runs", 4, "-k", "test_gate and init")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*budget calibrated on*")
    (project.path / FILE).write_text(re.sub(r'"torch [^,]*,', '"torch 1.0,', written(project)))
    result = project.run("--stability-runs", 4, "-k", "test_gate and init")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["note: budget calibrated on torch 1.0, cpu, *; here torch *, cpu, * 1 thread (test_gate*"]
    )


ENTRY = """
format = 1

[[study]]
test = "{test}"
varies = "init"

[study.budgets]
{limit}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("test", "limit", "message"),
    [
        ("test_gone.py::test_gate", "accuracy_sd = 1.0", "test_gone.py does not exist, and *.toml, line 4 *"),
        ("test_toy.py::test_gone", "accuracy_sd = 1.0", "test_toy.py has no such test, and *.toml, line 4 *"),
        ("test_toy.py::test_gate[[]off[]]", "accuracy_sd = 1.0", "test_toy.py has no such test, *, line 4 *"),
        ("test_toy.py::TestTwo::test_gone", "accuracy_sd = 1.0", "TestTwo has no such test, *, line 4 *"),
        ("test_toy.py::test_gate[[]init[]]", "accuracy_sd = true", "In stability-budgets.toml, line 4 *"),
        ("test_toy.py::test_gate[[]init[]]", "accuracy_sd 1", "Expected stability-budgets.toml to be TOML*"),
    ],
)
def test_a_wrong_file_is_one_error_before_anything_trains(
    project: Project, test: str, limit: str, message: str
) -> None:
    project.tests(CHECKS)
    test = test.replace("[[]", "[").replace("[]]", "]")
    project.write(FILE, ENTRY.format(test=test, limit=limit))
    result = project.run("--stability-runs", 4, way="n2" if "TestTwo" in test or "true" in limit else "plain")
    assert result.ret != pytest.ExitCode.OK
    lines = [*result.stdout.lines, *result.stderr.lines]
    pattern = message.replace("*", ".*").replace("[", r"\[")
    assert len([line for line in lines if re.search(pattern, line)]) >= 1
    assert not any("Traceback" in line or "INTERNALERROR" in line for line in lines)
    assert project.trained() == []


@pytest.mark.slow
@pytest.mark.parametrize("selected", [["other"], ["test_toy.py::test_own_budget"], ["-k", "own"]])
def test_an_entry_whose_test_is_not_selected_is_no_error(project: Project, selected: list[str]) -> None:
    project.tests(CHECKS)
    (project.path / "other").mkdir()
    project.write("other/test_it.py", "def test_it():\n    pass\n")
    project.write(
        FILE, ENTRY.format(test="test_toy.py::TestTwo::test_two", limit="accuracy_sd = 99.0" * 0 + "accuracy_sd = 49.0")
    )
    result = project.run("--stability-runs", 4, "--doctest-modules", *selected)
    assert result.ret == pytest.ExitCode.OK


@pytest.mark.parametrize(
    ("budget", "limit", "message"),
    [
        (
            "budget=Budget(accuracy_sd=2)",
            "accuracy_sd = 3.0",
            "Expected one budget for * Budget(accuracy_sd=2.0) and *=3.0*",
        ),
        ("", "acuracy_sd = 3.0", "In stability-budgets.toml, line 4 *: *Budget(acuracy_sd=...)*"),
    ],
)
def test_a_limit_that_does_not_fit_its_check_is_an_error_before_it_trains(
    project: Project, budget: str, limit: str, message: str
) -> None:
    project.tests(f"""
        def test_gate(stability):
            stability.check(train, labels=Y, vary="init", {budget})
    """)
    project.write(FILE, ENTRY.format(test="test_toy.py::test_gate", limit=limit))
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *BudgetError: {message}"])
    assert project.trained() == []


def test_limits_that_were_measured_for_another_source_are_an_error(project: Project) -> None:
    project.tests("""
        def test_gate(stability):
            stability.check(train, labels=Y, vary="shuffle")
    """)
    project.write(FILE, ENTRY.format(test="test_toy.py::test_gate", limit="accuracy_sd = 3.0"))
    result = project.run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *a study that varies shuffle but *, line 4 * was calibrated with init.*"])
    assert project.trained() == []
