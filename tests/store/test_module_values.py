"""What counts of modules that a training imports inside its function, and what does not."""

from __future__ import annotations

import argparse
import collections
import functools
import importlib
import pkgutil
import sys
import textwrap
import threading
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from stabilitykit.store.fingerprint import CannotFingerprint, read

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


HELD = """
    import argparse, collections, dataclasses, enum, functools, importlib
    import numpy as np
    from special import *

    RATE = float("0.1")
    NAMED, SWITCH, WIDTH, LAYERS = 0.1, None, 1, [1]
    LR_ADAM = 0.1
    ARGS = argparse.Namespace(rate=0.1)
    QUEUE = collections.deque([1])
    ARRAY = np.zeros(2)
    hidden = 0.0
    STEPS, BEST, LAZY, STATE = 0, 0.0, None, {}

    class Mode(enum.Enum):
        OFF = 0
        ON = 1

    MODE = Mode.OFF

    class Config:
        rate = 0.1
        def __init__(self):
            self.size, self.calls, self.found, self.seen = 1, 0, None, {}
        def look(self, x):
            self.calls += 1
            self.seen[x] = self.calls
            if self.found is None:
                self.found = object()
            return self.size, self.rate

    CONFIG = Config()

    class Layer:
        def __call__(self): return 1
        def __len__(self): return 1
        @staticmethod
        def plain(): return 1
        @property
        def size(self): return 1
        @functools.lru_cache
        def cached(self): return 1
        class Inner:
            depth = int("1")

    class Meta(type):
        pass

    class Made(metaclass=Meta):
        pass

    def decorated_by(function):
        @functools.wraps(function)
        def call(*args): return function(*args)
        return call

    @decorated_by
    def decorated(): return 1

    def named(a=1, *, b=1): return a, b

    def counts():
        global STEPS, LAZY
        STEPS += 1
        LAZY = object() if LAZY is None else LAZY
        STATE["a"] = STEPS
        CONFIG.look(STEPS)

    def reset():
        global WIDTH
        WIDTH = 1

    def add():
        LAYERS.append(2)

    def outer():
        hidden = []
        def inner(): hidden.append(1)
        return inner

    def use(kind="ADAM", name="a"):
        counts(), named(), decorated(), Layer()(), Layer.plain(), Layer().size, Layer().cached(), Layer.Inner.depth
        Made.lr
        importlib.import_module(f"named_{name}").VALUE
        return RATE, NAMED, SWITCH, WIDTH, LAYERS, ARGS.rate, QUEUE, ARRAY, MODE, CONFIG, STEPS, BEST, LAZY, STATE, \\
            hidden
"""
BY_NAME = "import held\ndef by_name(kind='ADAM'): return getattr(held, f'LR_{kind}'), held.star\n"


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module with each kind of value that its import alone tells, imported by a task inside its function."""
    modules = {
        "held": HELD,
        "by_name": BY_NAME,
        "named_a": "VALUE = float('1')\n",
        "special": "star = float('1')\n",
        "test_shared": "VALUE = float('1')\ndef shared(): return VALUE\n",
        "test_other": "VALUE = float('1')\ndef other(): return VALUE\n",
        "test_task": """
            import test_other
            def train(run):
                import by_name
                from held import use
                from test_shared import shared
                return use(), shared()
        """,
    }
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in modules:
        importlib.import_module(name)
    yield tmp_path
    for name in modules:
        del sys.modules[name]


def held_key(root: Path) -> str:
    return read(sys.modules["test_task"].train, root).digest


class Adder:
    def __init__(self, value):
        self.value = value

    def __call__(self, *_):
        return self.value


OTHERS = [np.float64(0.2), Decimal("0.2"), Fraction(1, 5), torch.tensor(0.2), np.ones(1), functools.partial(int, 2)]
SET_LATER = [
    *(("held.RATE", value) for value in OTHERS),
    *(("held.NAMED", value) for value in OTHERS),
    ("held.SWITCH", argparse.Namespace(rate=1)),
    ("held.ARGS", argparse.Namespace(rate=0.2)),
    ("held.ARGS.rate", 0.2),
    ("held.QUEUE", collections.deque([2])),
    ("held.ARRAY", np.ones(2)),
    ("held.CONFIG.size", 2),
    ("held.CONFIG.rate", 2),
    ("held.Config.rate", 2),
    ("held.Config.__init__", lambda self: None),
    ("held.Layer.__call__", lambda self: 2),
    ("held.Layer.__len__", lambda self: 2),
    ("held.Layer.__getitem__", lambda self, i: 2),
    ("held.Layer.plain", mock.Mock(return_value=2)),
    ("held.Layer.plain", staticmethod(functools.partial(int, 2))),
    ("held.Layer.size", mock.PropertyMock(return_value=2)),
    ("held.Layer.cached", mock.Mock(return_value=2)),
    ("held.Layer.Inner.depth", 2),
    ("held.Made.lr", 2),
    ("held.decorated", mock.Mock(return_value=2)),
    ("held.decorated", functools.partial(int, 2)),
    ("held.decorated", Adder(2)),
    ("held.named", Adder(2)),
    ("held.named.__defaults__", (2,)),
    ("held.named.__kwdefaults__", {"b": 2}),
    ("held.named.rate", 2),
    ("held.WIDTH", 2),
    ("held.LAYERS", [2]),
    ("held.hidden", 2.0),
    ("held.BEST", 2.0),
    ("held.LR_ADAM", 0.2),
    ("held.star", 0.2),
    ("named_a.VALUE", 2.0),
    ("test_shared.VALUE", 2.0),
]


@pytest.mark.parametrize(("name", "value"), SET_LATER)
def test_whatever_a_test_puts_in_place_of_what_was_imported_counts(held, name, value, monkeypatch):
    before = held_key(held)
    owner, _, attribute = name.rpartition(".")
    monkeypatch.setattr(pkgutil.resolve_name(owner), attribute, value, raising=False)
    reading = read(sys.modules["test_task"].train, held)
    assert reading.digest != before
    assert any(part.startswith(name) for part in reading.parts)
    monkeypatch.undo()
    assert held_key(held) == before


@pytest.mark.parametrize(
    "change",
    [
        "held.MODE = held.Mode.ON",
        "held.QUEUE[0] = 2",
        "held.ARRAY[0] = 2",
        "held.LAYERS = [1]; held.add()",
        "held.STATE = {'a': 1}",
        "held.STEPS = Decimal(1)",
        "del held.Layer.__len__",
        "del held.NAMED",
        "held.LAZY = None; held.SWITCH = Decimal(1)",
    ],
)
def test_what_is_changed_or_gone_counts(held, change):
    before = held_key(held)
    exec(change, {"held": sys.modules["held"], "Decimal": Decimal})
    assert held_key(held) != before


def test_what_the_modules_own_functions_make_count_and_fill_does_not_count(held):
    before = held_key(held)
    module = sys.modules["held"]
    module.outer()()
    module.reset()
    module.counts()
    module.counts()
    module.Layer().cached()
    assert module.CONFIG.calls == module.STEPS == 2
    assert held_key(held) == before


def test_a_module_is_the_same_whether_it_is_loaded_or_not(held):
    before = held_key(held)
    for name in ("held", "by_name", "named_a", "special", "test_shared"):
        del sys.modules[name]
    assert held_key(held) == before
    importlib.import_module("by_name")
    assert held_key(held) == before
    for name in ("named_a", "test_shared"):
        importlib.import_module(name)


def test_a_module_of_tests_that_no_other_imports_does_not_count(held, monkeypatch):
    (held / "test_alone.py").write_text("VALUE = float('1')\ndef alone(): return VALUE\n")
    importlib.invalidate_caches()
    importlib.import_module("test_alone")
    try:
        before = read(sys.modules["test_task"].train, held, [held / "test_alone.py"]).digest
        monkeypatch.setattr("test_alone.VALUE", 2.0)
        assert read(sys.modules["test_task"].train, held, [held / "test_alone.py"]).digest == before
    finally:
        del sys.modules["test_alone"]


def test_what_cannot_be_hashed_makes_the_study_private(held, monkeypatch):
    monkeypatch.setattr("held.RATE", threading.Lock())
    with pytest.raises(CannotFingerprint, match=r"held\.RATE is a lock"):
        held_key(held)
