"""What a training reads counts for the stored runs, whichever run reads it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .conftest import Project

#: How a late run comes to a file: each line is a reader of config number k, of those that are there.
LATE = """
    import json
    import os
    from pathlib import Path

    HERE = Path(__file__).parent

    def read_at_random(run):
        with run.stream("shuffle"):
            number = int(torch.randint(0, 12, (1,)))
        return (HERE / f"parts/{number}.txt").read_text()

    def read_late(run):
        return (HERE / "parts/3.txt").read_text() if run.index == 2 else "0"

    def list_late(run):
        return str(len(os.listdir(HERE / "parts"))) if run.index == 2 else "0"

    def ask_late(run):
        return os.environ.get("ACME_LATE", "1") if run.index == 2 else "0"

    def import_late(run):
        if run.index < 2:
            return "0"
        import importlib
        return importlib.import_module("acme_" + "late").VALUE

    @pytest.mark.parametrize("read", [read_at_random, read_late, list_late, ask_late, import_late])
    def test_late(stability, read):
        def reading(run):
            value = float(read(run))
            outputs = train(run)
            return torch.cat([outputs, outputs.new_full((len(outputs), 1), value)], dim=1)

        study = stability.measure(reading, labels=Y, vary="shuffle", runs=3)
        print("read", read.__name__, [int(record.logits[0, -1]) for record in study.records])
"""


def read_by(result: pytest.RunResult) -> dict[str, list[int]]:
    lines = [line.split(maxsplit=2) for line in result.stdout.lines if line.startswith("read ")]
    return {name: json.loads(values) for _, name, values in lines}


def write_parts(project: Project, value: int, more: int = 0) -> None:
    (project.path / "parts").mkdir(exist_ok=True)
    for number in range(12 + more):
        project.write(f"parts/{number}.txt", f"{value}\n")
    project.write("acme_late.py", f"VALUE = {value}\n" + "#\n" * value)


@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("plain", ()),
        pytest.param("plain", ("--stability-isolation", "process"), marks=pytest.mark.slow),
        pytest.param("n2", (), marks=pytest.mark.slow),
    ],
    indirect=["way"],
)
def test_what_only_a_later_run_reads_is_read_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, way: str, options: tuple[str, ...]
) -> None:
    project.tests(LATE)
    write_parts(project, 1)
    first = read_by(project.run("-rP", *options, way=way))
    assert first == {
        "read_at_random": [1, 1, 1],
        "read_late": [0, 0, 1],
        "list_late": [0, 0, 12],
        "ask_late": [0, 0, 1],
        "import_late": [0, 0, 1],
    }
    assert project.trained()
    assert read_by(project.run("-rP", *options, way=way)) == first
    assert project.trained() == [], "nothing was edited"
    write_parts(project, 2, more=1)
    monkeypatch.setenv("ACME_LATE", "2")
    result = project.run("-rP", *options, way=way)
    assert read_by(result) == {
        "read_at_random": [2, 2, 2],
        "read_late": [0, 0, 2],
        "list_late": [0, 0, 13],
        "ask_late": [0, 0, 2],
        "import_late": [0, 0, 2],
    }
    result.stdout.fnmatch_lines([
        "*no stored run read what is there now: file parts/3.txt (edited)*",
        "*no stored run read what is there now: folder parts/ (other names in it)*",
        "*no stored run read what is there now: variable ACME_LATE*",
        "*no stored run read what is there now: module acme_late*",
    ], consecutive=False)  # fmt: skip
    assert project.trained()
    for number in range(2):
        assert read_by(project.run("-rP", *options, way=way)) == read_by(result)
        assert project.trained() == [], number


def test_why_names_what_a_later_run_reads(project: Project) -> None:
    project.tests("""
        def test_it(stability):
            def reads(run):
                if run.index == 2:
                    Path("late.json").read_text()
                return train(run)

            stability.measure(reads, vary="init", runs=3, labels=Y)
    """)
    for content in ("1", "2"):
        project.write("late.json", content)
        project.run().assert_outcomes(passed=1)
    command = [sys.executable, "-m", "stabilitykit", "why", "test_toy.py::test_it"]
    said = subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=True).stdout
    assert "file late.json, which it reads, was edited" in " ".join(said.split())
