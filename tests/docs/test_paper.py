"""The paper's numbers beside ours: those that were copied, the scales, and the page that is generated."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAPER = json.loads((ROOT / "stability_tests" / "paper.json").read_text())


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_script", ROOT / "benchmarks" / "paper.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_table_of_the_paper_is_there_row_by_row():
    rows = {name: len(table["rows"]) for name, table in PAPER.items()}
    assert rows == {f"table {i}": n for i, n in enumerate((7, 3, 1, 1, 6, 24, 18, 9), start=1)}


@pytest.mark.parametrize("table", PAPER)
def test_every_row_has_a_number_a_column(table):
    columns = PAPER[table]["columns"]
    for numbers in PAPER[table]["rows"].values():
        assert len(numbers) == len(columns)
        of = dict(zip(columns, numbers, strict=True))
        assert 0 <= of["disagreement"] <= 100
        assert 0 < of.get("correlation", 1) <= 1


def test_rows_that_stand_in_two_tables_have_the_same_numbers():
    one, five, seven = (PAPER[f"table {i}"]["rows"] for i in (1, 5, 7))
    assert one["All sources"] == five["Vanilla (N = 1)"] == seven["All sources, rate x 1, epochs x 1"]
    assert one["Data shuffling"] == seven["Data shuffling, rate x 1, epochs x 1"]
    assert one["Parameter initialization"] == seven["Parameter initialization, rate x 1, epochs x 1"]


def test_the_page_is_what_the_script_makes_of_the_json(script):
    folder = ROOT / "docs" / "paper"
    results = script.Results(folder / "small.json")
    assert script.page(results, (folder / "template.md").read_text()) == (ROOT / "docs" / "paper.md").read_text()
    for figure in script.FIGURES:
        assert (folder / f"{figure.replace(' ', '-')}.png").stat().st_size > 1_000


def test_every_row_and_figure_of_the_paper_was_run(script):
    results = script.Results(ROOT / "docs" / "paper" / "small.json")
    assert results.document["scale"] == "small"
    ran = {(row["table"], row["row"]) for row in results.rows}
    assert ran == {(table, row) for table in PAPER for row in PAPER[table]["rows"]}
    assert {"figure 1", "figure 2", "figure 3", "appendix D", "remedies"} <= results.figures.keys()


def test_a_number_is_shown_with_its_interval(script):
    shown = script._shown
    assert shown({"value": 0.2234, "low": 0.11, "high": 1.5}) == "0.22 [0.11, 1.5]"
    assert shown({"value": 0.0, "low": 0.0, "high": 0.0}) == "0"
    assert shown({"value": 2.0, "low": None, "high": None}) == "2"
    assert shown({"value": None, "low": None, "high": None}) == "–"


@pytest.fixture
def paper_tests(pytester: pytest.Pytester) -> pytest.Pytester:
    for name in ("conftest.py", "paper.json"):
        content = (ROOT / "stability_tests" / name).read_text()
        pytester.mkdir("stability_tests") if name == "conftest.py" else None
        (pytester.path / "stability_tests" / name).write_text(content)
    (pytester.path / "stability_tests" / "test_scale.py").write_text(
        "def test_scale(scale, findings):\n"
        "    findings.say(scale.name, scale.runs, scale.few)\n"
        "    findings.figure('figure 9', 'one', {'value': 1})\n"
    )
    return pytester


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "tiny\n10\n10"),
        (("--stability-scale", "small"), "small\n10\n5"),
        (("--stability-scale", "paper"), "paper\n100\n100"),
        (("--stability-scale", "small", "--stability-runs", "4"), "small\n4\n4"),
        (("--stability-scale", "small", "-n", "2"), "small\n10\n5"),
    ],
)
def test_a_scale_says_how_many_runs_where_nobody_else_does(paper_tests, options, said):
    result = paper_tests.runpytest_subprocess("stability_tests", "--paper-json", "found.json", *options)
    assert result.ret == 0
    assert said in result.stdout.str()
    found = json.loads((paper_tests.path / "found.json").read_text())
    assert found["scale"] == said.partition("\n")[0]
    (test,) = found["tests"]
    assert (test["test"], test["outcome"]) == ("test_scale.py::test_scale", "passed")
    assert test["found"][1] == ["figure", {"figure": "figure 9", "series": "one", "values": {"value": 1}}]


def test_a_test_of_another_scale_is_deselected(paper_tests):
    (paper_tests.path / "stability_tests" / "test_scale.py").write_text(
        "import pytest\n"
        "@pytest.mark.scale('small', 'paper')\n"
        "def test_table(): pass\n"
        "@pytest.mark.scale('tiny')\n"
        "def test_finding(): pass\n"
        "def test_both(): pass\n"
    )
    for scale, test in (("tiny", "test_finding"), ("small", "test_table")):
        result = paper_tests.runpytest("stability_tests", "--stability-scale", scale, "-v")
        result.assert_outcomes(passed=2, deselected=1)
        result.stdout.fnmatch_lines_random([f"*{test}*PASSED*", "*test_both*PASSED*"])


def test_a_finding_is_said_with_its_verdict_beside_the_papers_number(paper_tests):
    (paper_tests.path / "stability_tests" / "test_scale.py").write_text(
        "import torch\n"
        "from stabilitykit.testing import fake_study\n"
        "labels = torch.arange(60) % 3\n"
        "noise = torch.randn(4, 60, 3, generator=torch.Generator().manual_seed(0))\n"
        "study = fake_study(2.0 * torch.nn.functional.one_hot(labels, 3) + noise, labels)\n"
        "def test_holds(findings):\n"
        "    findings.row('table 3', 'Random bit change', study)\n"
        "    findings.sentence('A small step matters.')\n"
        "def test_does_not(findings):\n"
        "    findings.sentence('A small step does not.')\n"
        "    assert False\n"
        "def test_learned(learned):\n"
        "    assert learned(study, at_least=30) is study\n"
        "    learned(study, at_least=99)\n"
    )
    result = paper_tests.runpytest("stability_tests")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "*it has not learned its task*",
            "*how far two trainings of a network differ*",
            "ResNet-14*one initial weight, by the least amount*10.6*0.007*",
            "HOLDS  A small step matters.",
            "FAILS  A small step does not.",
        ]
    )
    assert "table 3" not in result.stdout.str()  # every column of the paper: with -v


def test_an_unknown_scale_is_refused(paper_tests):
    result = paper_tests.runpytest_subprocess("stability_tests", "--stability-scale", "huge")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*invalid choice: 'huge'*tiny*small*paper*"])
