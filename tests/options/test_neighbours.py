"""Other plugins beside ours: nothing is trained twice, and no retry turns red to green."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

STUDIES = """
    def test_passes(stability):
        stability.measure(train, labels=Y, vary="init", runs=4)

    def test_is_beyond(stability):
        stability.check(train, labels=Y, vary="init", runs=4, budget=Budget(cross_entropy_sd=1e-6))

    def fails_at_first(run):
        if run.index == 2 and not os.path.exists("failed"):
            open("failed", "w").close()
            raise ValueError("only once")
        return train(run)

    def test_fails_at_first(stability):
        stability.measure(fails_at_first, labels=Y, vary="init", runs=4)

    LEAKY = torch.Generator()

    def leaks_at_first(run):
        logits = train(run)
        return logits + (torch.randn(1, generator=LEAKY) if run.index == 0 and not os.path.exists("leaked") else 0)

    def test_leaks_at_first(stability):
        try:
            stability.measure(leaks_at_first, labels=Y, vary="init", runs=2, control="full")
        finally:
            open("leaked", "w").close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_with_all_of_them_at_once_a_rerun_changes_no_verdict(project: Project, way: str) -> None:
    for name in ("pytest_rerunfailures", "pytest_randomly", "pytest_cov", "pytest_html", "pytest_timeout"):
        pytest.importorskip(name)
    project.ini("""
        timeout = 7
        markers =
            timeout: of pytest-timeout
    """)
    project.tests(STUDIES)
    project.sleep_in_runs(2)  # a study of four takes longer than the timeout of a test, and all else far less
    names = ("rerunfailures", "randomly", "pytest_cov", "metadata", "html", "html_fixtures", "timeout")
    plugins = [word for name in names for word in ("-p", name)]
    more = ["--reruns", "2", "--cov", ".", "--html", "report.html", "--junitxml", "junit.xml"]
    result = project.run(*plugins, *more, "-W", "ignore", way=way)
    outcomes = result.parseoutcomes()
    assert (outcomes["passed"], outcomes["failed"], outcomes["rerun"]) == (1, 3, 6), result.stdout.str()
    result.stdout.no_fnmatch_line("*Timeout*")
    # Each task repeats its base run. test_is_beyond shares the runs of test_passes; the leak shows at the first look.
    trained = (4 + 1) + (3 + 1)
    # Where both workers meet a task at once, each trains its base run, and its repetition is no longer the last.
    at_most = trained + (way == "n2") * 4
    assert trained <= len(project.in_ledger()) <= at_most
    cases = ElementTree.parse(project.path / "junit.xml").iter("testcase")
    verdicts = {
        case.get("name"): found.get("value")
        for case in cases
        for found in case.iter("property")
        if found.get("name") == "stability_verdict"
    }
    assert verdicts["test_is_beyond"] == "fail"
    assert (project.path / "report.html").exists()
