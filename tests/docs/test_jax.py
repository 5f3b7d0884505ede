"""The example of docs/jax.md gives what the page shows."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="needs the extra `frameworks`")

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jax.md"


def test_the_example_gives_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the store of a script is in the current folder
    failed, tried = doctest.testfile(str(PAGE), module_relative=False, encoding="utf-8")
    assert tried >= 10
    assert failed == 0
