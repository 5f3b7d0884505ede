"""What a module held when its import was over is known, however it was computed and whatever has changed since."""

from __future__ import annotations

import importlib
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from stabilitykit.store.imported_values import heard_modules, held_after_import
from stabilitykit.store.module_values import changed_values
from stabilitykit.store.pictures import Held

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


def test_what_a_module_and_its_classes_held_is_kept_as_it_was(module):
    model, forward = module.MODEL, module.Net.forward
    module.RATE, module.Net.depth, module.MODEL, module.Net.forward = 5.0, 7, object(), len
    module.SIZES.append(9)
    held = held_after_import(module)
    assert held[""].keys() == {"json", "double", "RATE", "SIZES", "MODEL", "Net"}
    assert held[""]["RATE"] == Held(0.2)
    assert held[""]["SIZES"] == Held([4, 3])
    assert held[""]["MODEL"].value is model
    assert held["Net"]["depth"] == Held(6)
    assert held["Net"]["forward"].value is forward


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
    assert held_after_import(sys) is None


LOADERS = {
    "exec_module": "import importlib.util as u; s = u.spec_from_file_location({0!r}, {1!r}); "
    "m = u.module_from_spec(s); s.loader.exec_module(m); import sys; sys.modules[{0!r}] = m",
    "LazyLoader": "import sys, importlib.util as u; s = u.find_spec({0!r}); s.loader = l = u.LazyLoader(s.loader); "
    "sys.modules[{0!r}] = m = u.module_from_spec(s); l.exec_module(m)",
    "exec": "import sys, types; m = types.ModuleType({0!r}); m.__file__ = {1!r}; "
    "import pathlib; exec(compile(pathlib.Path({1!r}).read_bytes(), {1!r}, 'exec'), m.__dict__); "
    "sys.modules[{0!r}] = m",
    "reload": "import importlib; m = importlib.import_module({0!r}); m.RATE = 9; importlib.reload(m)",
    "imported twice": "import importlib, sys; importlib.import_module({0!r}).RATE = 9; del sys.modules[{0!r}]; "
    "importlib.import_module({0!r})",
}


@pytest.mark.parametrize("loader", LOADERS)
def test_each_loader_is_heard_before_anything_can_be_set(loader, tmp_path, monkeypatch):
    file = tmp_path / "acme_loaded.py"
    file.write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    exec(LOADERS[loader].format("acme_loaded", str(file)), {})
    found = sys.modules["acme_loaded"]
    try:
        monkeypatch.setattr("acme_loaded.RATE", 5.0)
        assert held_after_import(found)[""]["RATE"] == Held(0.2)
        assert type(found.__spec__) in (ModuleSpec, types.NoneType)
        assert found in heard_modules()
    finally:
        del sys.modules["acme_loaded"]
    assert found not in heard_modules()


def test_a_module_of_which_something_holds_the_code_is_looked_at_later(tmp_path, monkeypatch):
    file = tmp_path / "acme_kept.py"
    file.write_text(SOURCE)
    code = compile(file.read_text(), str(file), "exec")
    found = types.ModuleType("acme_kept")
    found.__file__ = str(file)
    monkeypatch.setitem(sys.modules, "acme_kept", found)
    exec(code, vars(found))
    assert held_after_import(found)[""]["RATE"] == Held(0.2)


def test_a_lazy_module_is_not_loaded_by_a_look_at_the_modules(tmp_path, monkeypatch):
    (tmp_path / "acme_lazy.py").write_text("raise OSError('loaded')")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    exec(LOADERS["LazyLoader"].format("acme_lazy", ""), {})
    try:
        heard_modules()
        assert [*changed_values([tmp_path / "acme_lazy.py"], Path)] == []
    finally:
        del sys.modules["acme_lazy"]


def test_a_look_from_another_thread_leaves_an_import_alone(tmp_path, monkeypatch):
    (tmp_path / "acme_slow.py").write_text(
        "import threading, sys, stabilitykit.store.imported_values as values\n"
        "looks = threading.Thread(target=values.held_after_import, args=(sys,))\n"
        "looks.start(); looks.join()\nRATE = 1\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    found = importlib.import_module("acme_slow")
    del sys.modules["acme_slow"]
    assert held_after_import(found)[""]["RATE"] == Held(1)
