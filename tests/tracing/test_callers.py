"""Whose code asked, by the file that it comes from."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest
import torch

import stabilitykit
from stabilitykit.tracing.callers import (
    Caller,
    beyond_python,
    is_foreign,
    is_imported,
    kind_of,
    looks_up_itself,
    modules_imported,
    responsible,
)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        (os.__file__, Caller.PYTHON),
        ("<frozen os>", Caller.PYTHON),
        ("<frozen importlib._bootstrap_external>", Caller.IMPORTER),
        (stabilitykit.__file__, Caller.TOOL),
        (pytest.__file__, Caller.TOOL),
        (torch.__file__, Caller.LIBRARY),
        (np.__file__, Caller.LIBRARY),
        (__file__, Caller.USER),
        ("<string>", Caller.USER),
        ("<ipython-input-3>", Caller.USER),
        ("/venv/lib/python3.11/site-packages/decouple.py", Caller.INSTALLED),
        ("/venv/lib/python3.11/site-packages/numpy/lib/io.py", Caller.LIBRARY),
    ],
)
def test_whose_code_a_file_is(file, kind):
    assert kind_of(file) is kind


def test_the_standard_library_reads_for_its_caller():
    assert responsible(sys._getframe()) is Caller.USER
    assert responsible(None) is Caller.USER


def test_installed_files_are_foreign():
    assert is_foreign(os.__file__)
    assert is_foreign(torch.__file__)
    assert not is_foreign(__file__)


def frame_in(source, file):
    """Return a frame of code that comes from a file, as ``frame()`` in it gives it."""
    found = []
    code = compile(source, file, "exec")
    exec(code, {"frame": lambda: found.append(sys._getframe(1)), "environ": os.environ})
    return found[0]


@pytest.mark.parametrize(
    ("source", "file", "is_own"),
    [
        ("def find(): frame(); environ.get\nfind()", "gettext.py", True),
        ("def start(): frame(); environ\nstart()", "subprocess.py", True),
        ("def run(): frame()\nrun()", "concurrent/futures/thread.py", False),
    ],
)
def test_the_standard_library_looks_up_what_its_own_code_names(source, file, is_own):
    folder = os.path.dirname(os.__file__)  # noqa: PTH120  # a name in a code object
    frame = frame_in(source, f"{folder}/{file}")
    assert looks_up_itself(frame) is is_own
    assert beyond_python(frame).f_code.co_filename == __file__


def test_the_users_code_is_beyond_python():
    assert not looks_up_itself(sys._getframe())
    assert beyond_python(sys._getframe()) is sys._getframe()


def test_modules_are_imported_where_python_imports_them(tmp_path, monkeypatch):
    (tmp_path / "acme_outer.py").write_text("import acme_inner")
    (tmp_path / "acme_inner.py").write_text("import sys\nsys.acme_seen(sys._getframe())")
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = []
    see = lambda frame: seen.append((modules_imported(frame), is_imported(frame)))  # noqa: E731
    monkeypatch.setattr(sys, "acme_seen", see, raising=False)
    __import__("acme_outer")
    del sys.modules["acme_outer"], sys.modules["acme_inner"]
    ((modules, is_foreign_one),) = seen
    assert modules >= {"acme_outer", "acme_inner"}
    assert not is_foreign_one  # it is the user's
    assert modules_imported(sys._getframe()) == frozenset()
