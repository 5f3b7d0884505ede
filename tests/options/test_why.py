"""Runs that are trained again: the report and ``stabilitykit why`` say what differs from the last session."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

TEST = """
def test_it(stability):
    stability.measure(train, vary="init", runs=2, labels=Y)
"""


def notes(report) -> list[str]:
    return [note for study in report["studies"] for note in study["notes"] if "reused" in note]


def why(project, *args: str) -> str:
    command = [sys.executable, "-m", "stabilitykit", "why", *args]
    return subprocess.run(command, cwd=project.path, capture_output=True, text=True, check=True).stdout


def test_an_edited_file_is_named_once_it_trains_again_and_not_before(project):
    project.tests(TEST)
    for trains, edited in ((True, False), (False, False), (True, True)):
        if edited:
            project.write("toy.py", (project.path / "toy.py").read_text() + "\n# edited\n")
        _, report = project.study()
        assert notes(report) == ["no run of the last session was reused: file toy.py was edited"] * edited
        assert project.trained() == [0, 1] * trains
    out = why(project, "test_toy.py::test_it")
    assert re.findall(r"(file toy.py was edited|nothing was kept of this study before)", out) == [
        "file toy.py was edited",
        "nothing was kept of this study before",
    ]


def test_data_without_a_seed_is_named(project):
    project.tests(
        """
        def test_it(stability):
            Z = X + torch.tensor(list(os.urandom(4))).float().mean()

            def other(run):
                return train(run) + 0 * Z.sum()

            stability.measure(other, vary="init", runs=2, labels=Y)
        """
    )
    assert notes(project.study()[1]) == []
    (note,) = notes(project.study()[1])
    assert note.startswith("no run of the last session was reused: other.Z")
    assert "a generator without a seed" in note


@pytest.mark.parametrize("option", ["--stability-cache=off", "--stability-cache=refresh"])
def test_nothing_is_said_where_nothing_was_to_be_reused(project, option):
    project.tests(TEST)
    project.study()
    project.write("toy.py", (project.path / "toy.py").read_text() + "\n# edited\n")
    assert notes(project.study(option)[1]) == []


def test_two_workers_say_it_once(project):
    project.tests(TEST)
    project.study(way="n2")
    project.write("toy.py", (project.path / "toy.py").read_text() + "\n# edited\n")
    assert len(notes(project.study(way="n2")[1])) == 1


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ('open("lr.json").read()', "file lr.json, which it reads, was edited"),
        ('os.environ.get("LR")', "variable LR, which it reads, was set"),
        ('__import__("importlib").import_module("lr" + "s")', "module lrs, which it reads, was edited"),
    ],
)
def test_what_a_training_reads_is_named(project, monkeypatch, read, said):
    project.tests(
        f"""
        def other(run):
            {read}
            return train(run)

        def test_it(stability):
            stability.measure(other, vary="init", runs=2, labels=Y)
        """
    )
    for content in ("1", "22"):
        project.write("lr.json", content)
        project.write("lrs.py", content)
        _, report = project.study()
        monkeypatch.setenv("LR", content)
    assert said.partition(",")[0] in str([study["notes"] for study in report["studies"]])
    assert said in why(project, "test_toy.py::test_it")
