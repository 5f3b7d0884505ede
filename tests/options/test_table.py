"""The table at the end of a session."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

EVERY_KIND = """
    def fails_once(run):
        if run.index == 2:
            raise ValueError("once")
        return train(run)

    def regression(run):
        return train(run)[:, 0]

    def first_class(logits, labels):
        return (logits.argmax(1) == 0).double().mean()

    def test_pass(stability):
        study = stability.measure(train, labels=Y, vary="init", runs=4)
        assert_disagreement(study, at_most=90)

    def test_fail(stability):
        stability.check(train, labels=Y, vary="init", runs=20, budget=Budget(cross_entropy_sd=1e-6))

    def test_not_judged(stability):
        study = stability.measure(train, labels=Y, vary="shuffle", runs=3, metrics={"first": first_class})
        assert study.accuracy_sd.value < 100
        assert study.disagreement.low <= study.disagreement.value <= study.disagreement.high
        assert study["first"].runs == 3

    def test_failed_run(stability):
        stability.measure(fails_once, labels=Y, vary="init", runs=4)

    class TestClass:
        def test_regression(self, stability):
            stability.check(regression, labels=X[:, 0], vary="init", runs=3, budget=Budget(correlation=-1))

    def test_without(stability):
        pass

    def black_box(seed):
        return torch.randn(64, 2, generator=torch.Generator().manual_seed(seed))

    def test_black_box(stability):
        stability.measure(black_box, labels=Y, runs=2)
"""


def table_of(result: pytest.RunResult) -> list[str]:
    lines = result.stdout.lines
    start = next(i for i, line in enumerate(lines) if re.fullmatch(r"=+ stability =+", line))
    end = next(i for i, line in enumerate(lines[start + 1 :], start + 1) if line.startswith("==="))
    return lines[start + 1 : end]


@pytest.mark.trains
@pytest.mark.parametrize("way", ["plain", "n2"])
def test_a_row_for_each_study_in_the_order_of_the_file(project: Project, way: str) -> None:
    project.tests(EVERY_KIND)
    result, report = project.study(way=way)
    result.assert_outcomes(passed=5, failed=2)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    table = table_of(result)
    rows = [cells for cells in (re.split(r"  +", line) for line in table) if len(cells) > 5]
    names = ["test_pass", "test_fail", "test_not_judged", "test_failed_run", "test_black_box"]
    assert [cells[0] for cells in rows] == ["test", *names, "test", "TestClass::test_regression"]
    title, regression = rows[0], rows[-1]
    rows = {cells[0]: cells for cells in rows[1:6]}
    metrics = report["studies"][0]["metrics"]
    row = rows["test_pass"]
    assert title[:3] == ["test", "varies", "runs"]
    assert row[1:3] == ["init", "4"]
    assert float(row[title.index("disagree %")]) == pytest.approx(metrics["disagreement"]["value"], abs=0.005)
    value, error = row[title.index("acc. SD")].split(" ±")
    assert_shown(value, metrics["accuracy_sd"]["value"])
    assert_shown(error, metrics["accuracy_sd"]["sd_of_sd"])
    verdicts = {name: cells[-1] for name, cells in rows.items()}
    assert verdicts["test_pass"] == "PASS"
    assert verdicts["test_fail"] == "FAIL"
    assert verdicts["test_not_judged"] == verdicts["test_black_box"] == "-"
    assert regression[-1] == "PASS"
    assert rows["test_failed_run"][2] == "3/4"
    assert re.fullmatch(r"[3-6] of 20", rows["test_fail"][2])
    assert verdicts["test_failed_run"] == "FAIL"
    assert "first_sd" in title
    assert [line for line in table if "test_black_box" in line and "note: isolation not proven" in line]
    assert [line for line in table if "certificate on kernels" in line and "held: the whole run twice" in line]
    assert table[-1] == "written: report.json"


def assert_shown(text: str, number: float) -> None:
    """The text is the number to as many digits as it shows."""
    assert abs(float(text) - number) <= 0.501 * 10.0 ** -len(text.partition(".")[2])


@pytest.mark.parametrize("way", ["plain", "n2"])
def test_no_table_where_nothing_was_measured(project: Project, way: str) -> None:
    project.write("test_without.py", "def test_without(stability):\n    pass\n")
    result = project.run("--collect-only", way=way)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_re_match_line("=+ stability =+")
    assert not (project.path / ".stabilitykit").exists()
