"""What a source file gives the names of its module, by reading it."""

from __future__ import annotations

import os
import types
from pathlib import Path

import pytest

from stabilitykit.store.module_sources import Computed, From, ModuleSource, initial_values, is_plain, items, read_source


def source(path: Path, text: str) -> ModuleSource | None:
    path.write_text(text)
    return read_source(path)


NETS = """
import os
from .a import b as c
class Net:
    depth = 3
SEED = os.environ['SEED']
def f(): return RATE
"""


def test_each_name_has_what_gives_it_its_value(tmp_path):
    found = source(tmp_path / "nets.py", NETS)
    assert list(found.given) == ["os", "c", "Net", "Net.depth", "SEED", "f"]
    assert found.given["c"] == From("a", 1, "b")
    assert found.given["SEED"] == Computed(is_outside=True)
    assert found.mentioned >= {"RATE"}


@pytest.mark.parametrize(
    ("body", "filled"),
    [
        ("global N; N += 1", {"N"}),
        ("CACHE[x] = 1", {"CACHE"}),
        ("SEEN.append(x)", {"SEEN"}),
        ("global RATE; RATE = x", set()),
        ("mine = []; mine.append(x)", set()),
    ],
)
def test_what_functions_fill_is_told_from_what_they_set(tmp_path, body, filled):
    fills = source(tmp_path / "nets.py", f"def f(x): {body}\n").fills
    assert {name for names in fills for name in names if not name.startswith(".")} == filled


def test_values_are_those_of_expressions_that_read_numbers_text_and_each_other(tmp_path):
    text = "import time\nA = 2\nB = [A * 2, 'x'.upper()]\nC = time.time()\nD = open\n"
    found = source(tmp_path / "nets.py", text)
    assert initial_values(types.ModuleType("nets"), found) == {"A": 2, "B": [4, "X"]}
    found = source(tmp_path / "more.py", text + "if A:\n    A = 3\n")
    assert initial_values(types.ModuleType("more"), found) == {}


def test_an_edit_of_equal_size_and_time_is_read_anew(tmp_path):
    path = tmp_path / "nets.py"
    source(path, "A = 1\n")
    before = path.stat()
    path.write_text("B = 1\n")
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert list(read_source(path).given) == ["B"]


def test_what_is_no_source_is_none(tmp_path):
    assert source(tmp_path / "nets.py", "def (") is None
    assert source(tmp_path / "nets.so", "A = 1") is None
    assert read_source(tmp_path / "none.py") is None


def test_plain_data_is_what_can_be_compared():
    assert all(map(is_plain, (1, "a", None, [1, (2,)], {"a": {1}}, Path("a"), types.SimpleNamespace(a=1))))
    assert not any(map(is_plain, (object(), [object()], len, {"a": open}, [[[[[[[[1]]]]]]]])))
    assert items({"a": 1}) == ["a", 1]
    assert items(3) is None
