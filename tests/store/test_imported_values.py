"""What a module held when its import was over is known, however it was computed and whatever has changed since."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import ModuleSpec

import pytest

from stabilitykit.store.imported_values import held_after_import

SOURCE = """
import json
def double(x): return 2 * x
RATE = double(0.1)
SIZES = [double(2), 3]
MODEL = object()
class Net:
    depth = double(3)
    def forward(self): return RATE
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "acme_held.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield importlib.import_module("acme_held")
    del sys.modules["acme_held"]


def test_plain_data_is_kept_as_it_was(module):
    module.RATE, module.Net.depth = 5.0, 7
    module.SIZES.append(9)
    assert dict(held_after_import(module)) == {"RATE": 0.2, "SIZES": [4, 3], "Net.depth": 6}


def test_the_specification_is_pythons_again(module):
    assert type(module.__spec__) is ModuleSpec


def test_a_module_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    (tmp_path / "acme_failing.py").write_text("RATE = 1\nraise OSError('no disk')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(OSError, match="no disk"):
        importlib.import_module("acme_failing")
    assert "acme_failing" not in sys.modules


def test_a_module_of_which_the_import_was_not_heard_has_none():
    assert held_after_import(sys) == {}
