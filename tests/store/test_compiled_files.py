"""Python may run an older text of a source file than the one that stands there."""

from __future__ import annotations

import compileall
import os
import py_compile
from pathlib import Path

import pytest

from stabilitykit.store.compiled_files import outdated
from stabilitykit.store.loaded_files import stamp_of

OLD, NEW = "def value(): return 1\n", "def value(): return 2\n"


def found(*paths: Path) -> list[Path]:
    return [Path(source) for source in outdated({str(path): stamp_of(path) for path in paths})]


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    """A module that Python has compiled."""
    path = tmp_path / "nets.py"
    path.write_text(OLD)
    py_compile.compile(str(path))
    return path


def edit(path: Path, text: str, *, keeps_time: bool = True) -> None:
    before = path.stat()
    path.write_text(text)
    if keeps_time:
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    else:
        os.utime(path, (before.st_mtime + 2, before.st_mtime + 2))


def test_what_python_compiled_is_the_text_that_stands_there(nets, tmp_path):
    never = tmp_path / "never.py"
    never.write_text(OLD)
    assert found(nets, never) == []


def test_an_edit_of_equal_size_and_time_is_overlooked_by_python_and_found(nets):
    edit(nets, NEW)
    assert found(nets) == [nets]
    edit(nets, OLD)
    assert found(nets) == []


@pytest.mark.parametrize(("text", "keeps_time"), [(NEW, False), (NEW + "# more\n", True)])
def test_an_edit_that_python_sees_is_compiled_anew(nets, text, keeps_time):
    edit(nets, text, keeps_time=keeps_time)
    assert found(nets) == []


def test_a_comment_of_equal_length_changes_nothing_that_runs(nets):
    for text in (OLD + "# one\n", OLD + "# two\n"):
        edit(nets, text)
        py_compile.compile(str(nets)) if "one" in text else None
    assert found(nets) == []


@pytest.mark.parametrize(("mode", "is_found"), [("UNCHECKED_HASH", True), ("CHECKED_HASH", False)])
def test_a_compiled_file_that_is_taken_for_any_text_is_found(nets, mode, is_found):
    py_compile.compile(str(nets), invalidation_mode=getattr(py_compile.PycInvalidationMode, mode))
    assert found(nets) == []
    edit(nets, NEW + "# more\n", keeps_time=False)
    assert found(nets) == [nets] * is_found


@pytest.mark.parametrize("damage", [b"", b"abc", None])
def test_a_damaged_compiled_file_is_none(nets, damage):
    (compiled,) = (nets.parent / "__pycache__").iterdir()
    content = compiled.read_bytes()
    edit(nets, NEW)
    compiled.write_bytes(content[:20] if damage is None else damage)
    os.utime(compiled, (1, 1))
    assert found(nets) == []


def test_a_tree_that_was_copied_with_what_is_compiled_is_read_and_is_well(nets, tmp_path):
    compileall.compile_dir(tmp_path, quiet=2)
    for path in (nets, *(tmp_path / "__pycache__").iterdir()):
        os.utime(path, (1_700_000_000, 1_700_000_000))
    py_compile.compile(str(nets))
    (compiled,) = (tmp_path / "__pycache__").iterdir()
    os.utime(compiled, (1_700_000_000, 1_700_000_000))  # older than when the copy was made
    assert found(nets) == []
    edit(nets, NEW)
    assert found(nets) == [nets]
