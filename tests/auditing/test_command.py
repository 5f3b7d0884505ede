"""The command ``stabilitykit audit``: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stabilitykit.__main__ import main
from tests.auditing.test_subjects import _TRAINING


@pytest.fixture(autouse=True)
def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.py").write_text(_TRAINING)
    (tmp_path / "right.py").write_text(_TRAINING.replace(", generator=drawn_once", "") + "print('trained')\n")
    (tmp_path / "beside.py").write_text("CALLS = []\n")
    monkeypatch.chdir(tmp_path)


def test_a_table_and_exit_code_1_where_a_seed_does_not_reach(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "train.py::main", "--set", "epochs=1", "--knob", "seed=3,5"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("seed audit of train.py::main: seed 3 or 5\n")
    assert "! seed never reaches the order of examples (RandomSampler, train.py:13): " in said.out
    assert "order of examples  RandomSampler  train.py:13  1 pass     NO KNOB   -" in said.out
    assert "stabilitykit audit: seed moved, " in said.err


def test_json_alone_on_stdout_and_exit_code_0_where_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "right.py", "--json", "--steps", "9", "--", "--seed", "{seed}"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["format"] == 1
    assert found["findings"] == []
    assert {row["source"]: row["moved_by"] for row in found["rows"]} == {"init": ["seed"], "shuffle": ["seed"]}
    assert "trained" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.py::main"], "does not exist"),
        (["train.py"], "Expected {seed} among the arguments"),
        (["train.py::main", "--knob", "sed"], "Did you mean 'seed'?"),
        (["train.py::main", "--knob", "seed=1"], "Expected two values, --knob seed=0,1"),
        (["train.py::main", "--knob", "seed=1,2", "--knob", "epochs"], "for each --knob or for none"),
        (["train.py::main", "--set", "epochs"], "Expected --set NAME=VALUE"),
        (["train.py::main", "--set", "epoch=1"], "Did you mean 'epochs'?"),
        (["train.py::main", "--steps", "0"], "Expected steps >= 1"),
        (["train.py::main", "--", "--seed", "1"], "they are of a script"),
        (["train.py", "--set", "epochs=1", "--", "--seed", "{seed}"], "only beside FILE::FUNCTION"),
    ],
)
def test_exit_code_2_where_nothing_can_be_audited(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *arguments]) == 2
    written = capsys.readouterr()
    assert said in written.err
    assert not written.out
