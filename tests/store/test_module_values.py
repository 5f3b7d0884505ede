"""What counts of modules that a training imports inside its function, and what does not."""

from __future__ import annotations

import importlib
import sys
import textwrap
from pathlib import Path

import pytest

from stabilitykit.store.fingerprint import read

NETS = """
    import dataclasses
    import functools
    import os
    import re
    import threading
    import time
    import types

    import layers
    from layers import DEEP

    @dataclasses.dataclass
    class Config:
        rate: float = 0.1
        names: list = dataclasses.field(default_factory=list)

    NOISE = 0.0
    WIDTHS = [4, 2 * 4]
    TABLE = {"a": (1, 2), "b": {"c": None}}
    CONFIG = Config(rate=0.2)
    SPACE = types.SimpleNamespace(depth=3)
    BOTH = layers.WIDTH + len(WIDTHS)
    STARTED = time.time()
    LOCK, PATTERN = threading.Lock(), re.compile("a")
    CACHE, SEEN, CALLS, REGISTRY, LAST = {}, [], 0, {}, None
    FILLED: dict = {}
    SETTING = None
    UNNAMED = 1

    COMPUTED = re.sub("a", "1", "aa")

    def computed(): return COMPUTED

    def configure(setting):
        global SETTING
        SETTING = setting

    def register(name):
        def wrap(function):
            REGISTRY[name] = function
            return function
        return wrap

    @register("small")
    def small():
        return width()

    def width():
        global CALLS, LAST
        CALLS += 1
        LAST = NOISE
        SEEN.append(NOISE)
        if "x" not in FILLED:
            FILLED["x"] = 1
        return [NOISE, WIDTHS, TABLE, CONFIG, SPACE, BOTH, STARTED, LOCK, PATTERN, CACHE, REGISTRY, LAST, DEEP, SETTING]

    @functools.lru_cache
    def cached(n):
        CACHE[n] = n
        return n

    class Net:
        depth = 1
        made = 0

        def __init__(self):
            Net.made += 1
            self.size = [Net.depth, self.forward()]

        def forward(self):
            return width()
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A project whose task imports a module inside its function."""
    modules = {
        "nets": NETS,
        "layers": "WIDTH = 2\nDEEP = 7\ndef helper(): return WIDTH, DEEP\n",
        "outside": """
            import json, os
            from pathlib import Path
            V = float(os.environ.get("SK_V", "1"))
            FILE = json.loads((Path(__file__).parent / "v.json").read_text())
            def value(): return V, FILE
        """,
        "task": """
            def train(run):
                from nets import Net
                import outside
                return Net(), outside.value()
        """,
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "v.json").write_text("1")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in modules:
        sys.modules.pop(name, None)


def key(root: Path) -> str:
    return read(importlib.import_module("task").train, root).digest


def test_a_loaded_module_counts_as_one_that_is_not_loaded(files):
    before = key(files)
    nets = importlib.import_module("nets")
    assert key(files) == before
    nets.Net()
    nets.cached(3)
    nets.small()
    assert nets.CALLS == 2
    assert key(files) == before


SET = [
    ("nets.NOISE", 5.0),
    ("nets.NOISE", 0),
    ("nets.WIDTHS", [4, 9]),
    ("nets.TABLE", {"a": (1, 2), "b": {"c": 1}}),
    ("nets.BOTH", 5),
    ("nets.DEEP", 8),
    ("nets.COMPUTED", "12"),
    ("nets.Net.depth", 2),
    ("nets.Net", int),
    ("nets.width", lambda: 1),
    ("nets.small", lambda: 1),
    ("nets.Net.forward", lambda self: 1),
    ("nets.width", len),
    ("layers.WIDTH", 3),
]


@pytest.mark.parametrize(("name", "value"), SET)
def test_what_a_test_sets_counts_and_has_its_name(files, name, value, monkeypatch):
    importlib.import_module("nets")
    before = key(files)
    monkeypatch.setattr(name, value)
    reading = read(sys.modules["task"].train, files)
    assert reading.digest != before
    assert name in [part.partition(":")[0] for part in reading.parts]
    monkeypatch.undo()
    assert key(files) == before


@pytest.mark.parametrize(
    "change",
    [
        "nets.WIDTHS.append(3)",
        "nets.TABLE['b']['c'] = 3",
        "nets.CONFIG.rate = 0.3",
        "nets.SPACE.depth = 4",
        "nets.configure(0.5)",
        "nets.Net.depth += 1",
    ],
)
def test_what_is_changed_in_place_counts(files, change):
    nets = importlib.import_module("nets")
    before = key(files)
    exec(change, {"nets": nets})
    assert key(files) != before


@pytest.mark.parametrize("change", ["nets.UNNAMED = 2", "nets.LAST = 3", "nets.REGISTRY['b'] = 1", "nets.CALLS = 7"])
def test_what_no_function_names_or_what_functions_fill_does_not_count(files, change):
    nets = importlib.import_module("nets")
    before = key(files)
    exec(change, {"nets": nets})
    assert key(files) == before


def test_what_an_import_before_the_training_read_outside_counts(files, monkeypatch):
    keys = []
    for value in ("1", "2", "1"):
        monkeypatch.setenv("SK_V", value)
        sys.modules.pop("outside", None)
        importlib.import_module("outside")
        keys.append(key(files))
    (files / "v.json").write_text("2")
    sys.modules.pop("outside")
    importlib.import_module("outside")
    assert keys[0] == keys[2] != keys[1]
    assert key(files) not in keys


def test_what_a_training_itself_imported_is_traced_and_does_not_count(files, monkeypatch):
    before = key(files)
    folder = Path(read.__code__.co_filename).parents[1] / "training"
    train = compile("__import__('outside')", str(folder / "trainer.py"), "exec")
    exec(train)
    assert key(files) == before


def test_what_a_test_sets_counts_in_a_module_that_a_training_has_imported(files, monkeypatch):
    folder = Path(read.__code__.co_filename).parents[1] / "training"
    exec(compile("__import__('outside')", str(folder / "trainer.py"), "exec"))
    before = key(files)
    monkeypatch.setattr("outside.V", "set by a test")
    assert key(files) != before
    monkeypatch.undo()
    assert key(files) == before
