"""The example of docs/audit.md gives what the page shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stabilitykit import assert_seed_reaches
from stabilitykit.__main__ import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def without_seconds(text: str) -> str:
    return re.sub(r"in [\d.]+ s:", "in N s:", text)


def test_the_command_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)
    (shown,) = blocks("console")
    command, _, output = shown.partition("\n")
    assert main(command.split()[2:]) == 1
    assert without_seconds(capsys.readouterr().out) == without_seconds(output)


def test_the_assertion_of_the_page_fails_for_its_training() -> None:
    names: dict[str, object] = {}
    exec(blocks("python")[0], names)
    exec(blocks("python")[1], names)
    test = names["test_the_seed_reaches_order_and_parameters"]
    assert callable(test)
    with pytest.raises(AssertionError, match="does not reach shuffle"):
        test()
    assert_seed_reaches(names["main"], "seed", "init", arguments={"epochs": 1})  # type: ignore[arg-type]  # a function


def test_the_commands_of_the_page_are_understood(capsys: pytest.CaptureFixture[str]) -> None:
    for line in blocks("bash")[0].splitlines():
        assert main(line.partition("  #")[0].split()[1:]) == 2
        assert "which does not exist" in capsys.readouterr().err
