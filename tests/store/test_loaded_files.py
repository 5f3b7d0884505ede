"""From which state of its file a module was imported."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest

from stabilitykit.store.loaded_files import changed_since_import, imported_for, imported_otherwise, stamp_of


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest):
    """A module of a name that is used once, imported."""
    name = f"loaded_{request.node.name.replace('[', '_').rstrip(']')}"
    file = tmp_path.resolve() / f"{name}.py"
    file.write_text("RATE = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    loaded = importlib.import_module(name)
    yield loaded, file
    sys.modules.pop(name)


def edit(file: Path, text: str) -> None:
    before = file.stat()
    file.write_text(text)
    os.utime(file, ns=(before.st_mtime_ns + 10**9, before.st_mtime_ns + 10**9))


def test_a_file_that_was_edited_after_its_import_is_known(module):
    _, file = module
    assert changed_since_import([file]) == []
    edit(file, "RATE = 2\n")
    assert changed_since_import([file]) == [file]


def test_a_file_that_was_removed_has_changed(module):
    _, file = module
    file.unlink()
    assert changed_since_import([file]) == [file]


def test_importing_anew_takes_the_new_text(module):
    loaded, file = module
    edit(file, "RATE = 2\n")
    importlib.reload(loaded)
    assert changed_since_import([file]) == []


def test_a_file_that_was_never_imported_may_change(tmp_path):
    file = tmp_path / "never.py"
    file.write_text("RATE = 1\n")
    edit(file, "RATE = 2\n")
    assert changed_since_import([file, tmp_path / "none.py"]) == []


def test_a_module_whose_import_was_not_heard_must_be_older_than_stabilitykit(module, monkeypatch):
    loaded, file = module
    from stabilitykit.store import loaded_files

    monkeypatch.delitem(loaded_files._loaded, str(file))
    assert changed_since_import([file]) == [file]  # written after this process began
    monkeypatch.setattr(loaded_files, "_started", file.stat().st_ctime_ns + 10**9)
    assert changed_since_import([file]) == []
    monkeypatch.delattr(loaded, "__file__")
    assert changed_since_import([file]) == []


def test_an_import_in_another_state_than_expected_is_told(module):
    _, file = module
    was = stamp_of(file)
    assert imported_otherwise({str(file): was, "/never/imported.py": (0, 0, 0)}) == []
    edit(file, "RATE = 22\n")
    assert imported_otherwise({str(file): stamp_of(file)}) == [str(file)]
    assert stamp_of(file.parent / "none.py") is None


def test_a_copy_of_equal_size_and_time_is_another_state(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    before = stamp_of(one)
    other.write_text("2")
    os.utime(other, ns=(before.written_ns, before.written_ns))
    other.rename(one)
    assert stamp_of(one)[:2] == before[:2]
    assert stamp_of(one) != before


def test_what_a_module_has_imported_is_known_by_whatever_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "acme_chooses.py").write_text("import importlib\nimportlib.import_module('acme_' + 'chosen')\n")
    (tmp_path / "acme_chosen.py").write_text("import json\n")
    importlib.invalidate_caches()
    importlib.import_module("acme_chooses")
    assert imported_for([tmp_path / "acme_chooses.py"]) == [(tmp_path / "acme_chosen.py").resolve()]
    assert imported_for([tmp_path / "acme_chosen.py"]) == []
    for name in ("acme_chooses", "acme_chosen"):
        del sys.modules[name]
