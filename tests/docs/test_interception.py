"""The example of docs/interception.md gives what the page shows."""

from __future__ import annotations

import doctest
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interception.md"


def test_the_example_gives_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the store of a script
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert tried >= 9
    assert failed == 0
