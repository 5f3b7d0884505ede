"""The examples of docs/sklearn.md give what the page shows."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "sklearn.md"


def test_the_examples_give_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the store of a script is in the current folder
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert tried >= 14
    assert failed == 0


def test_the_test_on_the_page_is_that_of_the_example() -> None:
    (shown,) = re.findall(r"^# test_stability\.py\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    example = (ROOT / "examples" / "sklearn" / "test_stability.py").read_text(encoding="utf-8")
    lines = {line.partition("  #")[0].strip() for line in shown.splitlines()}
    assert lines <= {line.partition("  #")[0].strip() for line in example.splitlines()}
