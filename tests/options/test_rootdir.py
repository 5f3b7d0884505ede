"""pytest takes the value of an option that it does not know yet for a path, and looks for its project there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.options.conftest import Project

TEST = "def test_it(stability):\n    stability.measure(train, labels=Y, vary='init')\n"
ERROR = "ERROR: Expected --stability-{0}={1} but got --stability-{0} {1}: pytest looks for its rootdir before*"


@pytest.fixture
def elsewhere(project: Project) -> Path:
    """A folder outside the project, with an ini file of its own; the project's test asks for what its ini says."""
    project.tests(TEST)
    project.ini("stability_runs = 3")
    folder = project.path.parent / f"{project.path.name}-elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("above", [".", "below"])
def test_a_store_that_exists_is_not_taken_for_the_project(project: Project, elsewhere: Path, above: str) -> None:
    store = elsewhere / above
    store.mkdir(exist_ok=True)
    result = project.run("--stability-store", store)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [ERROR.format("store", store) + f" Write --stability-store={store}, with an equals sign."]
    )
    assert project.trained() == []


@pytest.mark.slow
def test_with_an_equals_sign_the_ini_file_is_read(project: Project, elsewhere: Path) -> None:
    report = elsewhere / "report.json"
    for _ in range(2):
        project.run(f"--stability-store={elsewhere / 'runs'}", f"--stability-json={report}").assert_outcomes(passed=1)
        assert json.loads(report.read_text())["studies"][0]["runs"] == 3
    assert project.trained() == [0, 1, 2]


@pytest.mark.slow
def test_a_report_elsewhere_changes_no_verdict_from_its_second_use_on(project: Project, elsewhere: Path) -> None:
    report = elsewhere / "report.json"
    project.run("--stability-json", report).assert_outcomes(passed=1)  # it does not exist yet
    result = project.run("--stability-json", report)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([ERROR.format("json", report)])


@pytest.mark.slow
def test_a_baseline_that_is_named_like_a_folder_with_an_ini_file(project: Project, elsewhere: Path) -> None:
    """The value need not be meant as a path at all."""
    (project.path / "main").mkdir()
    (project.path / "main" / "pytest.ini").write_text("[pytest]\n")
    result = project.run("--stability-save", "main")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([ERROR.format("save", "main")])
    project.run("--stability-save=main").assert_outcomes(passed=1)


def test_the_variable_for_options_is_read_too(
    project: Project, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", f"--stability-store {elsewhere}")
    result = project.run()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([ERROR.format("store", elsewhere)])


@pytest.mark.slow
@pytest.mark.parametrize("where", [[], ["test_toy.py"], ["-c", "tox.ini"], ["--rootdir", "."]])
def test_a_value_that_changes_nothing_may_stand_apart(project: Project, where: list[str]) -> None:
    project.tests(TEST)
    project.ini("stability_runs = 3")
    for _ in range(2):
        project.run(*where, "--stability-json", "report.json", "--stability-store", "runs").assert_outcomes(passed=1)
    assert project.trained() == [0, 1, 2]


def test_options_in_a_file_are_read_too(project: Project, elsewhere: Path) -> None:
    project.write("options.txt", f"--stability-store\n{elsewhere}\n")
    result = project.run("@options.txt")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([ERROR.format("store", elsewhere)])


@pytest.mark.parametrize("option", ["--junitxml", "--basetemp"])
def test_the_path_of_an_option_of_pytests_own_is_no_path_of_a_test(
    project: Project, elsewhere: Path, option: str
) -> None:
    """Its value leads pytest nowhere, which knows that option from the start."""
    (project.path / "runs").mkdir()
    value = elsewhere / ("junit.xml" if option == "--junitxml" else "temporary")
    value.touch() if option == "--junitxml" else value.mkdir()
    project.run(option, value, "--stability-store", "runs", "--collect-only").assert_outcomes()
    result = project.run("--confcutdir", "/", "--stability-store", elsewhere)
    assert result.ret == pytest.ExitCode.USAGE_ERROR


def test_the_value_that_leads_elsewhere_is_the_one_that_is_named(project: Project, elsewhere: Path) -> None:
    (project.path / "runs").mkdir()
    (elsewhere / "report.json").touch()
    result = project.run("test_toy.py", "--stability-store", "runs", "--stability-json", elsewhere / "report.json")
    assert "equals sign" not in result.stderr.str(), "pytest finds the same project"
