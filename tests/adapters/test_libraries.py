"""Libraries that adapters are for: a missing one is named, with the extra that brings it."""

from __future__ import annotations

import sys

import pytest

from stabilitykit.adapters.libraries import library
from stabilitykit.errors import MissingModuleError


def test_a_library_is_its_module() -> None:
    assert library("json") is sys.modules["json"]


def test_a_missing_one_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingModuleError) as found:
        library("sklearn", "scikit-learn", "it clones")
    assert str(found.value) == (
        "Expected scikit-learn to be installed but there is no module 'sklearn': it clones. Install it with the extra "
        "`sklearn`: pip install 'stabilitykit[sklearn]'"
    )
