"""What a value was at one moment is told from what it is later."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import decimal
import enum
import functools
import types
import typing
from pathlib import Path

import numpy as np
import pytest
import torch

from stabilitykit.store.pictures import GONE, Held, differences


class Config:
    def __init__(self, rate):
        self.rate = rate


class Options(dict):
    pass


class Net(torch.nn.Module):
    width = 3

    def __init__(self):
        super().__init__()
        self.depth, self.part = 2, torch.nn.Linear(2, 2)


@dataclasses.dataclass
class Slotted:
    __slots__ = ("rate",)
    rate: float


class Pair(typing.NamedTuple):
    rate: float


class Mode(enum.IntEnum):
    OFF = 0
    ON = 1


class Secret:
    __slots__ = ("__rate",)

    def __init__(self):
        self.__rate = 1


def named(rate=0.1, *, decay=0.1):
    return rate, decay


def never(*_):
    return False


def changed(then: Held, value: object) -> list[str]:
    return [name for name, _ in differences("it", then, Held(value), never)]


SAME = [
    lambda: 0.1,
    lambda: "a",
    lambda: Path("a"),
    lambda: [1, (2, None), {"a": {3}}],
    lambda: collections.deque([1]),
    lambda: collections.OrderedDict(a=1),
    lambda: types.MappingProxyType({"a": 1}),
    lambda: bytearray(b"a"),
    lambda: np.float64(0.1),
    lambda: np.arange(3),
    lambda: torch.arange(3.0),
    lambda: argparse.Namespace(rate=[1]),
    lambda: Config(Config(1)),
    lambda: Options(rate=1),
    lambda: Slotted(1),
    lambda: Pair(1),
    lambda: float("nan"),
    Secret,
]


@pytest.mark.parametrize("make", SAME)
def test_data_of_equal_content_is_the_same(make):
    assert changed(Held(make()), make()) == []


OTHER = [
    (0, 0.0),
    (0.0, -0.0),
    (0.1, np.float64(0.1)),
    (0.1, torch.tensor(0.1)),
    ([1], (1,)),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1}, {2}),
    (np.zeros(2), np.ones(2)),
    (np.zeros(2), np.zeros(2, np.float32)),
    (torch.zeros(2), torch.ones(2)),
    (decimal.Decimal(1), decimal.Decimal(2)),
    (Mode.OFF, Mode.ON),
    (Pair(1), Pair(2)),
    (functools.partial(named, 1), functools.partial(named, 2)),
    (torch.float32, torch.float64),
    (range(2), range(3)),
    (Config(1), Options(rate=1)),
    (len, max),
    (types.ModuleType("math"), types),
    (object(), object()),
    (Net(), Net()),
]


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_another_value_is_told(one, other):
    assert changed(Held(one), other) == ["it"]
    assert changed(Held(other), one) == ["it"]


@pytest.mark.parametrize(
    ("value", "change", "name"),
    [
        (Config(1), "it.rate = 2", "it.rate"),
        (Config(1), "del it.rate", "it.rate"),
        (Config(1), "it.more = 2", "it.more"),
        (Config(Config(1)), "it.rate.rate = 2", "it.rate.rate"),
        (argparse.Namespace(rate=[1]), "it.rate[0] = 2", "it.rate"),
        (Slotted(1), "it.rate = 2", "it.rate"),
        (Secret(), "it._Secret__rate = 2", "it._Secret__rate"),
        (Options(rate=1), "it['rate'] = 2", "it"),
        (Net(), "it.depth = 3", "it.depth"),
        (collections.deque([1]), "it[0] = 2", "it"),
        (np.zeros(2), "it[0] = 2", "it"),
        (torch.zeros(2), "it[0] = 2", "it"),
        (bytearray(b"a"), "it[0] = 2", "it"),
    ],
)
def test_a_change_in_place_has_the_name_of_the_attribute(value, change, name):
    then = Held(value)
    assert changed(then, value) == []
    exec(change, {"it": value})
    assert changed(then, value) == [name]
    assert not then.is_untouched(value)


@pytest.mark.parametrize("attribute", ["__defaults__", "__kwdefaults__", "__code__", "rate"])
def test_what_is_set_on_a_function_has_its_name(attribute, monkeypatch):
    then = Held(named)
    assert then.is_untouched(named) or named.__defaults__
    value = {"__defaults__": (0.2,), "__kwdefaults__": {"decay": 0.2}, "__code__": never.__code__}.get(attribute, 0.2)
    monkeypatch.setattr(named, attribute, value, raising=False)
    assert changed(then, named) == [f"it.{attribute}"]


def test_the_notes_of_torchs_compiler_on_a_function_are_no_change(monkeypatch):
    then = Held(named)
    monkeypatch.setattr(named, "_torchdynamo_disable", True, raising=False)
    assert changed(then, named) == []


def test_what_others_code_keeps_in_an_object_of_the_users_is_no_change():
    net = Net()
    then = Held(net)
    net.eval()
    net.part.weight.data.zero_()
    assert changed(then, net) == []


def test_circles_and_deep_and_long_values_end():
    circle = Config(1)
    circle.rate = [circle]
    deep = []
    for _ in range(5000):
        deep = [deep]
    for value in (circle, deep, [0] * 1_000_000, {"a": [[0] * 5000] * 5000}):
        assert changed(Held(value), value) == []


def test_what_has_become_too_long_to_compare_is_the_same_object():
    value = [0]
    then = Held(value)
    value.extend(range(10_000))
    assert changed(then, value) == []
    assert changed(then, [*value]) == ["it"]


def test_an_attribute_that_is_exempt_or_gone():
    value = Config(1)
    then = Held(value)
    value.rate = 2
    assert [
        *differences("it", then, Held(value), lambda name, before, now: (name, before.value, now) == ("rate", 1, 2))
    ] == []
    del value.rate
    assert [*differences("it", then, Held(value), never)] == [("it.rate", GONE)]


def test_an_object_that_raises_counts_by_what_it_is():
    class Raising(list):
        def __getattribute__(self, name):
            raise OSError(name)

    value = Raising()
    assert changed(Held(value), value) == []
    assert changed(Held(value), Raising()) == ["it"]


def test_a_module_that_a_test_has_made_counts_by_its_names():
    fake = types.ModuleType("math")
    fake.RATE = 2
    assert [*differences("it", Held(types), Held(fake), never)] == [("it", {"RATE": 2})]
    assert changed(Held(types), types) == []


def test_a_proxy_is_not_asked_for_what_it_stands_for():
    class Proxy:
        @property
        def __class__(self):
            raise OSError("loaded")

    value = Proxy()
    assert changed(Held(value), value) == []
