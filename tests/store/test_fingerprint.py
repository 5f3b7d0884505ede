"""What makes two tasks one: every difference that training could see changes the fingerprint, and nothing else does."""

from __future__ import annotations

import array
import builtins
import collections
import copy
import dataclasses
import datetime
import enum
import functools
import importlib.util
import io
import itertools
import os
import random
import re
import subprocess
import sys
import threading
import types
import weakref
from pathlib import Path
from textwrap import dedent
from unittest import mock

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from torch import nn

from stabilitykit.store.fingerprint import CannotFingerprint, fingerprint, read, tensor_digest
from stabilitykit.store.function_state import without_profile

HERE = Path(__file__).parent


def of(value: object) -> str:
    return fingerprint(value, HERE)


def closing_over(value: object) -> types.FunctionType:
    def train():
        return value

    return train


def with_default(value: object) -> types.FunctionType:
    def train(run, value=value):
        return value

    return train


def with_keyword(value: object) -> types.FunctionType:
    def train(*, value=value):
        return value

    return train


def with_attribute(value: object) -> types.FunctionType:
    def train():
        return train.value

    train.value = value
    return train


def local_class(value: object) -> type:
    class Net:
        width = value

    return Net


class Holder:
    def __init__(self, value: object) -> None:
        self.value = value

    def train(self, run):
        return self.value


class Slots:
    __slots__ = ("__hidden", "value")

    def __init__(self, value: object) -> None:
        self.value, self.__hidden = 0, value


@dataclasses.dataclass(frozen=True)
class Settings:
    value: object
    notes: int | None = None
    names: list[str] = dataclasses.field(default_factory=list)


class WithMembers:
    """One of every kind of member that a class of the user's may have."""

    width: int | None = 3
    pattern = re.compile("a+")

    def __init__(self, value: object) -> None:
        self.value = value

    @property
    def one(self):
        return self.value

    @functools.cached_property
    def two(self):
        return self.value

    @staticmethod
    def three():
        return 3

    @classmethod
    def four(cls):
        return cls


class Tuned(dict):
    """A dict with an attribute."""


HOLDERS = [
    closing_over,
    with_default,
    with_keyword,
    with_attribute,
    local_class,
    Holder,
    Slots,
    Settings,
    WithMembers,
    lambda value: Holder(value).train,
    lambda value: functools.partial(closing_over(1), value),
    lambda value: functools.partial(closing_over(1), rate=value),
    lambda value: functools.lru_cache(closing_over(value)),
    lambda value: functools.wraps(closing_over(1))(closing_over(value)),
    lambda value: [1, value],
    lambda value: (value,),
    lambda value: {"rate": value},
    lambda value: {value: 1},
    lambda value: {value, "x"},
    lambda value: types.MappingProxyType({"a": value}),
    lambda value: collections.OrderedDict(a=value),
    lambda value: collections.defaultdict(list, a=value),
    lambda value: collections.deque([value]),
    lambda value: collections.Counter([value]),
    lambda value: Tuned(a=value),
    lambda value: types.SimpleNamespace(a=value),
    slice,
    ValueError,
    lambda value: enum.Enum("Mode", {"FAST": value}).FAST,
    lambda value: np.array([None, value], dtype=object),
    lambda value: closing_over(closing_over(value)),
    lambda value: iter([value]),
    lambda value: type("Made", (), {"value": value}),
]


@pytest.mark.slow
@pytest.mark.parametrize("hold", HOLDERS)
@pytest.mark.parametrize(("one", "other"), [(0.1, 0.2), (1, 2), (1, 1.0), (True, 1), ("a", "b"), ("1", 1), (None, 0)])
def test_a_captured_value_counts_wherever_it_is_held(hold, one, other):
    assert of(hold(one)) != of(hold(other))
    assert of(hold(one)) == of(hold(one))


def test_an_attribute_beside_a_containers_items_counts():
    plain, tuned = Tuned(a=1), Tuned(a=1)
    tuned.rate = 0.1
    assert of(plain) != of(tuned)
    text = type("Name", (str,), {})("a")
    before = of(text)
    text.rate = 0.1
    assert of(text) != before


def ones(**options: object) -> torch.Tensor:
    return torch.ones(2, 3, 4, 5, **options)


def changed(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.clone()
    tensor.view(-1)[-1] += 1
    return tensor


@pytest.mark.parametrize(
    "other",
    [
        changed(ones()),
        ones(dtype=torch.float64),
        ones().reshape(6, 20),
        ones().requires_grad_(),
        nn.Parameter(ones()),
        ones().contiguous(memory_format=torch.channels_last),  # other kernels, and so other bits
        np.ones((2, 3, 4, 5), dtype=np.float32),
    ],
)
def test_a_captured_tensor_counts_with_all_that_a_model_sees_of_it(other):
    assert of(closing_over(ones())) != of(closing_over(other))
    assert of(closing_over(ones())) == of(closing_over(ones()))


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.complex64],
)
def test_tensors_of_every_dtype_count_by_their_bytes(dtype):
    tensor = torch.zeros(3, dtype=dtype)
    other = tensor.clone()
    other[2] = 1
    assert tensor_digest(tensor) == tensor_digest(tensor.clone())
    assert tensor_digest(tensor) != tensor_digest(other)
    assert tensor_digest(tensor[:2]) == tensor_digest(other[:2])
    assert tensor_digest(tensor[:0]) != tensor_digest(tensor[:0].reshape(0, 1))


@pytest.mark.parametrize(
    "dtype", ["?", "u1", "f2", ">f8", "c16", "U3", "S2", "M8[D]", "m8[s]", [("a", "f4"), ("b", "i2")], object]
)
def test_arrays_of_every_dtype_count_by_their_content(dtype):
    one, other = np.zeros((2, 2), dtype=dtype), np.zeros((2, 2), dtype=dtype)
    other[1, 1] = 1
    assert of(one) == of(one.copy())
    assert of(one) != of(other)
    assert of(one) == of(np.asfortranarray(one))
    assert of(one[:0]) != of(one)


def test_a_masked_array_counts_with_its_mask():
    assert of(np.ma.array([1, 2], mask=[0, 1])) != of(np.ma.array([1, 2], mask=[1, 0]))


def mutated(make, change):
    value = make()
    change(value)
    return value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (io.BytesIO(b"a"), io.BytesIO(b"b")),
        (io.StringIO("a"), io.StringIO("b")),
        (re.compile("a"), re.compile("b")),
        (re.compile("a"), re.compile("a", re.I)),
        (bytearray(b"a"), bytearray(b"b")),
        (array.array("i", [1]), array.array("i", [2])),
        (datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)),
        (Path("a"), Path("b")),
        (range(3), range(4)),
        (np.float32(1), np.float64(1)),
        (np.dtype("f4"), np.dtype("f8")),
        (torch.float32, torch.float64),
        (torch.device("cpu"), torch.device("meta")),
        (torch.relu, torch.sigmoid),
        (nn.functional.relu, nn.functional.gelu),
        (nn.ReLU, nn.GELU),
        (np.exp, np.log),
        (np.mean, np.sum),
        (len, sum),
        (str.lower, str.upper),
        ([1].index, [2].index),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
        (np.random.default_rng(1), np.random.default_rng(2)),
        (np.random.RandomState(1), np.random.RandomState(2)),
        (random.Random(1), random.Random(2)),
        (nn.Linear(2, 2), nn.Linear(2, 2)),
        (mutated(lambda: nn.Dropout(0.1), nn.Module.train), mutated(lambda: nn.Dropout(0.1), nn.Module.eval)),
        (int | None, int | str),
        (itertools, functools),
    ],
)
def test_objects_of_every_kind_count_by_their_content(one, other):
    assert of(one) != of(other)
    assert of(one) == of(one)


def test_a_class_is_the_same_once_an_object_of_it_was_copied():
    class Local:
        pass

    before = of(Local)
    copy.copy(Local())  # whereupon Python notes its slots in it
    assert "__slotnames__" in vars(Local)
    assert of(Local) == before


def test_equal_content_in_other_objects_is_equal():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    assert of(model) == of(copy.deepcopy(model))
    one, same, other = (torch.optim.SGD(model.parameters(), lr=lr) for lr in (0.1, 0.1, 0.2))
    assert of(one) == of(same) != of(other)


def test_code_counts():
    assert of(lambda x: x + 1) != of(lambda x: x + 2)
    assert of(lambda x: x + 1) != of(lambda x: x - 1)
    assert of(lambda x: torch.sin(x + 1)) != of(lambda x: torch.cos(x + 1))
    nested = [lambda: [y for y in range(3) if y > 1], lambda: [y for y in range(3) if y > 2]]
    assert of(nested[0]) != of(nested[1])


def test_a_circle_is_read_and_still_counts():
    def ring(value):
        one, two = Holder(value), Holder(None)
        one.other, two.other = two, one
        two.itself = [two]
        return one

    assert of(ring(1)) == of(ring(1))
    assert of(ring(1)) != of(ring(2))
    endless: list[object] = []
    endless.append(endless)
    assert of(endless) == of(endless)


def test_the_order_of_a_dict_counts_and_that_of_a_set_does_not():
    assert of({"a": 1, "b": 2}) != of({"b": 2, "a": 1})
    words = [f"word {i}" for i in range(50)]
    backwards = words[::-1]
    assert of(set(words)) == of(set(backwards))
    assert of(frozenset(words)) != of(set(words))


def test_members_of_a_set_that_hold_each_other_have_no_order_either():
    def pair():
        one, two = Holder("one"), Holder("two")
        one.other, two.other = two, one
        return one, two

    # A set of objects is ordered by their addresses: both orders of the same two must agree.
    prints = set()
    for _ in range(20):
        one, two = pair()
        prints |= {of({one, two}), of([{two, one}][0])}
        kept.append((one, two))
    assert len(prints) == 1


kept: list[object] = []  # so that no address is used twice


def generator():
    yield 1


@pytest.mark.parametrize(
    "make",
    [
        threading.Lock,
        threading.RLock,
        threading.local,
        generator,
        lambda: open(__file__),  # noqa: SIM115, PTH123  # closed by the test
        lambda: memoryview(b"a"),
        sys._getframe,
        lambda: torch.ones(2, 2).to_sparse(),
        lambda: torch.ones(2, device="meta"),
    ],
)
def test_what_has_no_content_to_read_is_refused_by_its_path(make):
    value = make()
    task = closing_over(Holder({"inner": [value]}))
    with pytest.raises(CannotFingerprint) as refusal:
        of(task)
    assert str(refusal.value).startswith("function:closing_over.<locals>.train.value.value.inner[0] is a")
    if hasattr(value, "close"):
        value.close()


def test_what_is_nested_too_deeply_is_refused():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(CannotFingerprint, match="nested too deeply"):
        of(deep)


# The user's files


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write modules, import them afresh, and take a fingerprint of a function in the first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    clock = itertools.count(1_700_000_000 * 10**9, 10**6)

    def write(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(text))
            now = next(clock)
            os.utime(path, ns=(now, now))

    def load(name: str = "test_a", rootdir: Path = tmp_path) -> types.ModuleType:
        for known in [k for k, m in sys.modules.items() if str(tmp_path) in str(getattr(m, "__file__", None))]:
            monkeypatch.delitem(sys.modules, known)
        importlib.invalidate_caches()
        spec = importlib.util.spec_from_file_location(name, rootdir / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    def print_of(files: dict[str, str] | None = None, name: str = "train") -> str:
        write(files or {})
        return fingerprint(getattr(load(), name), tmp_path)

    return types.SimpleNamespace(write=write, load=load, print_of=print_of, root=tmp_path)


@pytest.mark.parametrize(
    ("test_file", "edited"),
    [
        ("import helper\ndef train(run): return helper.rate", "helper.py"),
        ("from helper import rate\ndef train(run): return rate", "helper.py"),
        ("def train(run):\n    import helper\n    return helper.rate", "helper.py"),
        ("def train(run):\n    from pkg.sub import leaf\n    return leaf.rate", "pkg/sub/leaf.py"),
        ("def train(run):\n    from pkg.sub import leaf\n    return leaf.rate", "pkg/__init__.py"),
        ("def train(run):\n    from pkg.sub import leaf\n    return leaf.rate", "pkg/near.py"),
        ("from helper import Net\ndef train(run): return Net()", "base.py"),
        ("def train(run): return 1", "conftest.py"),
        ("def train(run): return 1", "test_a.py"),
    ],
)
def test_editing_a_file_that_the_task_reaches_retrains(project, test_file, edited):
    files = {
        "test_a.py": test_file,
        "helper.py": "from base import Base\nrate = 1\nclass Net(Base): pass",
        "base.py": "class Base: pass",
        "pkg/__init__.py": "",
        "pkg/near.py": "rate = 1",
        "pkg/sub/__init__.py": "",
        "pkg/sub/leaf.py": "from ..near import rate",
        "conftest.py": "",
        "unrelated.py": "",
    }
    before = project.print_of(files)
    assert project.print_of({"unrelated.py": "import os"}) == before
    assert project.print_of({edited: files[edited] + "\n# edited\n"}) != before


def test_further_files_count_where_they_are_named(project):
    project.write({"test_a.py": "def train(run): return 1", "plugin.py": ""})
    train = project.load().train
    without, named = fingerprint(train, project.root), fingerprint(train, project.root, [project.root / "plugin.py"])
    project.write({"plugin.py": "import os"})
    assert fingerprint(train, project.root) == without
    assert fingerprint(train, project.root, [project.root / "plugin.py"]) != named


@pytest.mark.parametrize(
    "text",
    [
        "RATE = {}\ndef train(run): return RATE",
        "RATE = [{}]\ndef inner(): return RATE\ndef train(run): return inner()",
        "class Net:\n    rate = {}\ndef train(run): return Net.rate",
        "class Base:\n    rate = {}\nclass Net(Base): pass\ndef train(run): return Net()",
        "RATE = {}\nclass Net:\n    def forward(self): return RATE\ndef train(run): return Net()",
        "RATE = {}\ntrain = lambda run: [RATE for _ in range(3)]",
        "import settings\nsettings.RATE = {}\ndef train(run): return settings.RATE",
        "import pkg.settings\npkg.settings.RATE = {}\ndef train(run): return pkg.settings.RATE",
        "from enum import Enum\nclass Mode(Enum):\n    FAST = {}\ndef train(run): return Mode.FAST",
    ],
)
def test_a_global_that_the_code_names_counts_by_its_value(project, text, monkeypatch):
    project.write({"settings.py": "RATE = 0", "pkg/__init__.py": "", "pkg/settings.py": "RATE = 0"})
    # The value alone: the file stays as it is, as where a test or the environment sets it.
    project.write({"test_a.py": text.format("float(__import__('os').environ['SK_RATE'])")})
    prints = []
    for rate in ("0.1", "0.2", "0.1"):
        monkeypatch.setenv("SK_RATE", rate)
        prints.append(project.print_of())
    assert prints[0] == prints[2] != prints[1]


def test_a_module_and_itself_may_name_each_other(project):
    project.write({"a.py": "import b\nRATE = 1", "b.py": "import a\nRATE = 2"})
    text = "import a\ndef train(run): return a.b.a.b.RATE"
    assert project.print_of({"test_a.py": text}) == project.print_of()


def test_a_global_that_nothing_names_does_not_count(project, monkeypatch):
    project.write({"test_a.py": "import os\nSEEN = os.environ.get('SK_SEEN')\ndef train(run): return 1"})
    before = project.print_of()
    monkeypatch.setenv("SK_SEEN", "x")
    assert project.print_of() == before


def test_a_root_reached_through_a_link_is_the_same_root(project, tmp_path_factory):
    project.write({"test_a.py": "RATE = 1\ndef train(run): return RATE", "conftest.py": ""})
    link = tmp_path_factory.mktemp("links") / "project"
    link.symlink_to(project.root)
    plain = fingerprint(project.load().train, project.root, [project.root / "conftest.py"])
    linked = project.load(rootdir=link).train
    assert fingerprint(linked, link, [link / "conftest.py"]) == plain
    linked.__globals__["RATE"] = 2
    assert fingerprint(linked, link, [link / "conftest.py"]) != plain


@pytest.mark.parametrize(
    "text",
    [
        "def train(run): return getattr(settings, 'RA' + 'TE')",
        "def train(run): return vars(settings)['RATE']",
        "def train(run): return settings.__dict__['RATE']",
        "RATE = settings.RATE\ndef train(run): return globals()['RATE']",
    ],
)
def test_data_of_a_module_that_code_reaches_by_text_counts(project, text, monkeypatch):
    monkeypatch.delitem(sys.modules, "settings", raising=False)  # of another test
    text_of_settings = "import os, threading\nRATE = float(os.environ['SK_RATE'])\nLOCK = threading.Lock()"
    project.write({"settings.py": text_of_settings})
    project.write({"test_a.py": f"import settings\n{text}"})
    prints = []
    for rate in ("0.1", "0.2", "0.1"):
        monkeypatch.setenv("SK_RATE", rate)
        prints.append(project.print_of())
    assert prints[0] == prints[2] != prints[1]


class Marked(torch.Tensor):
    """A tensor of a class of the user's."""


class MarkedArray(np.ndarray):
    """An array of a class of the user's."""


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_the_class_and_the_attributes_of_a_tensor_or_array_count():
    plain, marked = torch.ones(2), torch.ones(2).as_subclass(Marked)
    prints = [of(plain), of(marked)]
    marked.rate = 0.1
    prints.append(of(marked))
    plain.rate = 0.1
    prints.append(of(plain))
    assert len(set(prints)) == 4
    array, view = np.ones((2, 2)), np.ones((2, 2)).view(MarkedArray)
    prints = [of(array), of(view), of(np.asmatrix(array))]
    view.rate = 0.1
    assert len({*prints, of(view)}) == 4


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("from torch.optim import SGD\ndef train(run): return SGD", torch.optim.SGD, "step"),
        ("from torch import nn\nclass Net(nn.Linear): pass\ndef train(run): return Net", nn.Module, "zero_grad"),
        ("from torch.nn import functional as F\ndef train(run): return F.relu", nn.functional, "relu"),
        ("import torch\ndef train(run): return torch.nn.functional.relu", nn.functional, "relu"),
        ("from torch.nn import functional as F\ndef train(run): return F.gelu", nn.functional, "relu"),
    ],
)
def test_a_function_of_the_users_in_place_of_a_librarys_counts(project, text, place, name, monkeypatch):
    before = project.print_of({"test_a.py": text})
    assert project.print_of() == before
    monkeypatch.setattr(place, name, lambda *args, **kwargs: None)
    assert project.print_of() != before
    monkeypatch.undo()


def test_one_function_of_a_library_in_place_of_another_counts(project, monkeypatch):
    before = project.print_of({"test_a.py": "from torch.nn import functional as F\ndef train(run): return F.relu(run)"})
    monkeypatch.setattr(nn.functional, "relu", nn.functional.gelu)
    assert project.print_of() != before


def bound(function):
    return types.MethodType(function, 3)


@pytest.mark.parametrize(
    ("text", "place", "name", "make"),
    [
        ("import pytest\ndef train(run): return pytest.acme['v']", pytest, "acme", lambda v: {"v": v}),
        ("import pytest\ndef train(run): return pytest.acme", pytest, "acme", lambda v: "x" * v),
        ("def train(run): return ACME", builtins, "ACME", lambda v: [v]),
        ("import sys\ndef train(run): return sys.argv", sys, "argv", lambda v: ["pytest", "test_a.py", f"--v={v}"]),
        ("import sys\ndef train(run): return sys.argv", sys, "argv", lambda v: ["pytest", "--v", str(v)]),
        (
            "import torch\ndef train(run): return torch.optim.SGD",
            torch.optim,
            "acme",
            lambda v: functools.partial(closing_over(v)),
        ),
        ("from torch.optim import SGD\ndef train(run): return SGD.acme", torch.optim.SGD, "acme", lambda v: v),
        ("from torch import optim\ndef train(run): return optim.SGD.acme", torch.optim.SGD, "acme", lambda v: v),
        (
            "from torch.optim import SGD\ndef train(r): return SGD",
            torch.optim.SGD,
            "acme",
            lambda v: property(lambda s: v),
        ),
        ("from torch.optim import SGD\ndef train(r): return SGD", torch.optim.SGD, "acme", lambda v: mock.Mock(v=v)),
        ("import torch\ndef train(run): return torch.optim.SGD.acme", torch.optim.SGD, "acme", closing_over),
        ("import torch\ndef train(run): return torch.acme()", torch, "acme", lambda v: bound(closing_over(v))),
    ],
)
def test_what_the_user_puts_in_a_module_or_class_of_others_counts(project, text, place, name, make, monkeypatch):
    project.write({"test_a.py": text})
    prints = []
    for value in (1, 2, 1):
        monkeypatch.setattr(place, name, make(value), raising=False)
        prints.append(project.print_of())
    assert prints[0] == prints[2] != prints[1]


def test_the_command_line_counts_only_by_name_and_without_what_runs_the_tests(project, monkeypatch):
    project.write({"test_a.py": "import os, sys\ndef train(run): return os.path, sys.platform"})
    before = project.print_of()
    monkeypatch.setattr(sys, "argv", ["pytest", "--v=3"])
    assert project.print_of() == before
    project.write({"test_a.py": "import sys\ndef train(run): return sys.argv"})
    prints = []
    for more in ([], ["-n", "2"], ["--stability-runs", "30"], ["test_a.py"]):
        monkeypatch.setattr(sys, "argv", ["pytest", "--v=3", *more])
        prints.append(project.print_of())
    assert len(set(prints)) == 1


def test_a_script_that_is_loaded_by_its_path_counts_with_its_source(project, tmp_path):
    project.write({"scripts/net.py": "class Net:\n    def forward(self): return 1\n"})

    def loaded(name):
        spec = importlib.util.spec_from_file_location(name, tmp_path / "scripts/net.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Net

    for name in ("a_script", "json"):  # in no list of modules, or under the name of another one
        before = fingerprint(loaded(name), tmp_path)
        assert fingerprint(loaded(name), tmp_path) == before
        project.write({"scripts/net.py": f"class Net:\n    def forward(self): return {name!r}\n"})
        assert fingerprint(loaded(name), tmp_path) != before


def test_a_cell_of_a_notebook_counts_by_its_code():
    def cell(number, text):
        scope = {"__name__": "__main__"}
        exec(compile(text, f"<ipython-input-{number}-0>", "exec"), scope)
        return scope["train"]

    one = "RATE = 1\nclass Net:\n    width = 3\ndef train(run): return Net(), RATE"
    assert of(cell(1, one)) == of(cell(7, one))
    assert of(cell(1, one)) != of(cell(1, one.replace("3", "4")))
    assert of(cell(1, one)) != of(cell(1, one.replace("1", "2")))


def test_the_place_of_a_project_does_not_count(project, tmp_path_factory):
    text = """
        from pathlib import Path
        HERE = Path(__file__).parent
        DATA = str(HERE / "data")
        def train(run): return HERE, DATA, __file__
    """
    prints = set()
    for place in ("one", "two"):
        root = tmp_path_factory.mktemp(place)
        (root / "test_a.py").write_text(dedent(text))
        prints.add(fingerprint(project.load(rootdir=root).train, root))
    assert len(prints) == 1


def test_the_parts_of_a_task_are_kept_by_name_and_few(project):
    project.write(
        {"test_a.py": "import torch\nRATE = 0.1\nMANY = list(range(1000))\ndef train(run): return RATE, MANY, torch"}
    )
    reading = read({"function": project.load().train}, project.root, name="Task")
    assert reading.parts["Task.function:train.RATE"] == "0.1"
    assert reading.parts["file test_a.py"] != reading.parts["Task.function:train.__code__"]
    assert reading.parts["package torch"].startswith(torch.__version__.partition("+")[0])
    assert len([name for name in reading.parts if ".MANY[" in name]) == 16
    assert len(reading.parts) < 330


@pytest.mark.slow
def test_the_same_task_has_the_same_fingerprint_in_any_process(project):
    project.write(
        {
            "helper.py": "RATE = 0.1\nNAMES = {'a', 'b', 'c', 'd'}",
            "test_a.py": """
                import dataclasses, enum, functools, typing
                import numpy as np, torch
                from torch import nn
                import helper

                class Mode(enum.Enum):
                    FAST = "fast"
                    SLOW = {"x", "y", "z"}

                @dataclasses.dataclass
                class Settings:
                    rate: float = helper.RATE
                    tags: frozenset[str] = frozenset({"p", "q", "r", "s"})
                    more: typing.Optional[int] = None

                class Net(nn.Module):
                    modes = {Mode.FAST, Mode.SLOW}

                    def __init__(self):
                        super().__init__()
                        self.fc = nn.Linear(2, 2)

                    def forward(self, x):
                        return even(x.sum()) if x.dtype in {torch.float32, torch.float64} else self.fc(x)

                def even(n): return True if n == 0 else odd(n - 1)
                def odd(n): return False if n == 0 else even(n - 1)

                BOTH = {even, odd, Net}

                def train(run, settings=Settings(), weights=np.arange(3.0)):
                    return Net(), BOTH, helper.NAMES, "x" in {"a", "b", "c"}, functools.partial(even, 3)
            """,
        }
    )
    code = f"""
import sys; sys.path.insert(0, {str(project.root)!r})
from pathlib import Path
import test_a
from stabilitykit.store.fingerprint import fingerprint
print(fingerprint(test_a.train, Path({str(project.root)!r})))
"""
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1")
    }
    assert len(prints) == 1
    assert len(prints.pop().strip()) == 64


def test_a_difference_in_a_task_of_many_values_is_named_by_what_it_lies_in():
    def task(last: object, *, small: bool = False) -> object:
        settings = {f"part {i}": {"sizes": [i] * 10} for i in range(0 if small else 60)}

        def train(run):
            return settings, last

        return Holder({"function": train})

    def differing(one: object, other: object) -> list[str]:
        before, after = (read(value, HERE, (), "Task").parts for value in (one, other))
        assert sum(name.startswith("Task") for name in before) <= 256
        return [name for name in after if before.get(name) != after[name]]

    for small in (True, False):
        name = differing(task([1], small=small), task([2], small=small))[0]
        assert name.rpartition(".")[2] in ("last", "last[0]"), name
    assert differing(task(1), task(2))[0].endswith(".last")


def of_meta(rate: float) -> type:
    meta = type("Meta", (type,), {"rate": rate})
    return meta("Net", (), {})


def test_a_metaclass_counts():
    assert of(of_meta(1)) != of(of_meta(2))
    assert of(of_meta(1)) == of(of_meta(1))


def weak(kind: str, rate: float) -> object:
    holder = Holder(rate)
    keep.append(holder)
    if kind == "proxy":
        return weakref.proxy(holder)
    if kind == "method":
        return weakref.WeakMethod(holder.train)
    if kind == "set":
        return weakref.WeakSet([holder])
    if kind == "values":
        return weakref.WeakValueDictionary({"a": holder})
    if kind == "keys":
        return weakref.WeakKeyDictionary({holder: 1})
    return weakref.ref(holder)


keep: list[object] = []  #: what only weak references of these tests hold


@pytest.mark.parametrize("kind", ["ref", "proxy", "method", "set", "values", "keys"])
def test_what_a_weak_reference_leads_to_counts(kind):
    assert of(weak(kind, 1)) != of(weak(kind, 2))
    assert of(weak(kind, 1)) == of(weak(kind, 1))


# What torch and Python write on functions and classes


def tripled(x):
    return x.relu() * 3


def as_it_is(graph, example):
    return graph


MADE = {
    "compiled": lambda: torch.compile(tripled, backend="eager"),
    "a lambda compiled": lambda: torch.compile(lambda x: x.relu(), backend="eager"),
    "dynamic": lambda: torch.compile(tripled, backend="eager", dynamic=True),
    "whole": lambda: torch.compile(tripled, backend="eager", fullgraph=True),
    "another backend": lambda: torch.compile(tripled, backend="aot_eager"),
    "a backend of one's own": lambda: torch.compile(tripled, backend=as_it_is),
    "not compiled": lambda: torch.compiler.disable(tripled),
    "no_grad": lambda: torch.no_grad()(tripled),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16)(tripled),
    "another autocast": lambda: torch.autocast("cpu", dtype=torch.float16)(tripled),
    "autocast off": lambda: torch.autocast("cpu", dtype=torch.float16, enabled=False)(tripled),
    "dispatched": lambda: functools.singledispatch(tripled),
    "vmapped": lambda: torch.vmap(tripled),
    "vmapped otherwise": lambda: torch.vmap(tripled, out_dims=1),
    "a model compiled": lambda: torch.compile(nn.Identity(), backend="eager"),
}
NOT_CALLED = {
    "inductor": lambda: torch.compile(tripled),
    "inductor with a mode": lambda: torch.compile(tripled, mode="max-autotune"),
    "inductor with options": lambda: torch.compile(tripled, options={"shape_padding": True}),
    "plain": lambda: tripled,
}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_what_an_installed_decorator_keeps_between_calls_does_not_count(make):
    made, again = make(), make()
    before = of(made)
    made(torch.ones(2, 2))
    assert of(made) == before == of(again)


def test_how_an_installed_decorator_was_asked_for_counts():
    made = MADE | NOT_CALLED
    assert len({of(make()) for make in made.values()}) == len(made)


@pytest.mark.parametrize("decorator", ["torch.compile(backend='eager')", "torch.compiler.disable", "torch.no_grad()"])
@pytest.mark.parametrize("indent", ["", "    "])
def test_the_function_that_an_installed_decorator_wraps_counts(project, decorator, indent):
    head = "class Net:\n" if indent else ""
    text = (
        f"import torch\n{head}{indent}@{decorator}\n{indent}def made(x): return x * RATE\ndef train(run): return made"
    )
    text = text.replace("return made", "return Net") if indent else text
    project.write({"test_a.py": f"{text}\nRATE = 1"})
    loaded = project.load()
    before = fingerprint(loaded.train, project.root)
    loaded.RATE = 2  # the file stays as it is
    assert fingerprint(loaded.train, project.root) != before
    assert project.print_of() == before


def optimizer_classes() -> dict[str, type]:
    class Own(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        @torch.no_grad()
        def step(self, closure=None):
            return None

    class AsItIs(torch.optim.SGD):
        pass

    class WithoutGuard(torch.optim.Adam):
        def step(self, closure=None):
            return super().step(closure)

    return {"Own": Own, "AsItIs": AsItIs, "WithoutGuard": WithoutGuard}


@pytest.mark.parametrize("name", ["Own", "AsItIs", "WithoutGuard"])
def test_that_torch_wraps_the_step_of_a_class_of_optimizers_does_not_count(name, monkeypatch):
    kind = optimizer_classes()[name]
    if kind.__base__ is torch.optim.SGD:  # which another test has made one of
        monkeypatch.setattr(torch.optim.SGD, "step", without_profile(torch.optim.SGD.step))
    before = of(kind)
    kind([nn.Parameter(torch.ones(1))])
    assert kind.step.hooked
    assert of(kind) == before
    kind.step = lambda self, closure=None: closure
    mine = of(kind)
    assert mine != before
    kind([nn.Parameter(torch.ones(1))])
    assert of(kind) == mine


def test_a_step_that_a_test_puts_in_an_optimizer_of_torch_counts_before_and_after_torch_has_wrapped_it(monkeypatch):
    before = of(torch.optim.Rprop)
    monkeypatch.setattr(torch.optim.Rprop, "step", lambda self, closure=None: None)
    mine = of(torch.optim.Rprop)
    torch.optim.Rprop([nn.Parameter(torch.ones(1))])
    assert torch.optim.Rprop.step.hooked
    assert of(torch.optim.Rprop) == mine != before


def test_an_installed_function_counts_by_its_name_and_by_what_the_user_puts_on_it():
    checkpoint = torch.utils.checkpoint.checkpoint
    before = of(checkpoint)
    model = nn.Linear(2, 2)
    vars(checkpoint.__wrapped__).pop("__dynamo_disable", None)
    assert of(checkpoint) == before
    checkpoint(model, torch.ones(2), use_reentrant=False)
    assert of(checkpoint) == before
    for value in (1, tripled):
        checkpoint.scale = value
        try:
            assert of(checkpoint) != before
        finally:
            del checkpoint.scale
    assert of(checkpoint) == before != of(torch.utils.checkpoint.checkpoint_sequential)


def test_further_functions_of_a_dispatched_one_count():
    plain, more = functools.singledispatch(tripled), functools.singledispatch(tripled)
    more.register(int, lambda x: x + 1)
    assert of(plain) != of(more)
