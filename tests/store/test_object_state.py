"""What an object holds beside its content counts, wherever C or torch keeps it."""

from __future__ import annotations

import collections
import decimal
import enum
import functools
import io
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stabilitykit.store.fingerprint import fingerprint


def of(value: object) -> str:
    return fingerprint(value, Path(__file__).parent)


def with_hook(reduce: str):
    """Make a class of another one, with a hook for pickle that leaves its value out."""

    def made(kind: type, value: object) -> object:
        members = {reduce: lambda self, *_: (made, ()), "__module__": __name__}
        return type("Value", (kind,), members)(value)

    return made


@pytest.mark.parametrize("reduce", ["__reduce__", "__reduce_ex__"])
@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (float, 0.1, 0.2),
        (int, 1, 2),
        (complex, 1j, 2j),
        (str, "a", "b"),
        (bytes, b"a", b"b"),
        (bytearray, b"a", b"b"),
        (list, [1], [2]),
        (tuple, [1], [2]),
        (dict, {"a": 1}, {"a": 2}),
        (set, [1], [2]),
        (frozenset, [1], [2]),
        (collections.deque, [1], [2]),
        (collections.OrderedDict, {"a": 1}, {"a": 2}),
        (Exception, 1, 2),
        (io.BytesIO, b"a", b"b"),
        (random.Random, 1, 2),
        (torch.Tensor, [1.0], [2.0]),
    ],
)
def test_what_a_subclass_leaves_out_of_a_pickle_counts(reduce, kind, one, other):
    make = with_hook(reduce)
    assert of(make(kind, one)) != of(make(kind, other))
    assert of(make(kind, one)) == of(make(kind, one))


class SlottedTensor(torch.Tensor):
    __slots__ = ("rate",)


class SlottedFloat(float):
    __slots__ = ("rate",)


class SlottedArray(np.ndarray):
    __slots__ = ("rate",)


class OwnRandom(random.Random):
    rate = 0


class OwnSet(set):  # type: ignore[type-arg]
    rate = 0


class OwnProperty(property):
    rate = 0


class OwnMethod(classmethod):  # type: ignore[type-arg]
    rate = 0


class OwnDecimal(decimal.Decimal):
    rate = 0


class SlottedDecimal(decimal.Decimal):
    __slots__ = ("rate",)


class OwnDefaults(collections.defaultdict):  # type: ignore[type-arg]
    rate = 0


class OwnPath(type(Path())):  # type: ignore[misc]
    rate = 0


class SlottedReference(weakref.ref):  # type: ignore[type-arg]
    __slots__ = ("rate",)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.ones(1).as_subclass(SlottedTensor),
        lambda: SlottedFloat(1),
        lambda: np.ones(1).view(SlottedArray),
        lambda: functools.partial(len),
        lambda: OwnRandom(1),
        lambda: OwnSet([1]),
        lambda: OwnProperty(len),
        lambda: OwnMethod(len),
        lambda: OwnDecimal(1),
        lambda: SlottedDecimal(1),
        lambda: OwnDefaults(list),
        lambda: OwnPath("a"),
        lambda: SlottedReference(of),
        lambda: enum.Enum("Mode", {"FAST": 1}).FAST,
        lambda: nn.Parameter(torch.ones(1)),
    ],
)
def test_an_attribute_of_any_subclass_counts(make):
    def at(rate):
        value = make()
        value.rate = rate
        return of(value)

    assert at(1) != at(2)
    assert at(1) == at(1)


def hooked(register: str, rate: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.ones(2))
    getattr(parameter, register)(lambda gradient: gradient * rate)
    return parameter


@pytest.mark.parametrize("register", ["register_hook", "register_post_accumulate_grad_hook"])
def test_hooks_on_a_tensor_count_by_what_they_do(register):
    assert of(hooked(register, 2)) != of(hooked(register, 3))
    assert of(hooked(register, 2)) != of(nn.Parameter(torch.ones(2)))
    assert of(hooked(register, 2)) == of(hooked(register, 2))  # torch numbers all hooks of a process


def test_a_gradient_counts():
    def parameter(gradient):
        made = nn.Parameter(torch.ones(2))
        made.grad = gradient
        return of(made)

    assert len({parameter(None), parameter(torch.ones(2)), parameter(torch.zeros(2))}) == 3


def module_with_hooks(rate: float, *more: float, **options: bool) -> nn.Module:
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    for scale in (rate, *more):
        module.handle = module.register_forward_hook(lambda *args, scale=scale: args[-1] * scale, **options)
    return module


def test_hooks_of_a_module_count_by_what_they_do_and_not_by_their_number():
    """Torch numbers the hooks of a process: another test before it would give a task another key."""
    assert of(module_with_hooks(1, 2)) == of(module_with_hooks(1, 2))
    others = [module_with_hooks(1), module_with_hooks(2, 1), module_with_hooks(1, 2, with_kwargs=True)]
    assert len({of(one) for one in (module_with_hooks(1, 2), *others)}) == 4
    optimizers = [torch.optim.SGD(module_with_hooks(1).parameters(), 0.1) for _ in range(3)]
    for optimizer, rate in zip(optimizers, (1, 1, 2), strict=True):
        optimizer.register_step_pre_hook(lambda *args, rate=rate: rate)
    assert of(optimizers[0]) == of(optimizers[1]) != of(optimizers[2])


class Addressed:
    """Keeps whether an attribute is still the same object, as scikit-learn's vectorizers do."""

    def __init__(self, words: list[str], number: int = 0) -> None:
        self.words, self.number, self._words_id = words, number, id(words)


class AddressedForPickle(Addressed):
    def __getstate__(self) -> dict[str, object]:
        return vars(self)


@pytest.mark.parametrize("kind", [Addressed, AddressedForPickle])
def test_an_address_is_another_one_in_each_process_and_does_not_count(kind):
    one, other = kind(["a"]), kind(["a"])
    assert one._words_id != other._words_id
    assert of(one) == of(other)
    assert of(one) != of(kind(["b"]))
    assert of(one) != of(kind(["a"], number=10**15))


def test_a_vectorizer_has_the_same_state_once_it_is_fitted_again():
    text = pytest.importorskip("sklearn.feature_extraction.text")
    one, other = (text.TfidfVectorizer(stop_words=["the"]).fit(["the stable model", "another seed"]) for _ in range(2))
    assert of(one) == of(other)


def test_an_array_in_a_file_counts_by_its_content(tmp_path):
    for name, number in (("one", 1), ("same", 1), ("other", 2)):
        np.save(tmp_path / f"{name}.npy", np.full(3, number))
    one, same, other = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("one", "same", "other"))
    assert of(one) == of(same)
    assert of(one) != of(other)
