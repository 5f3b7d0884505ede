"""What an object holds that training can see: its attributes and slots, what C keeps of it, the hooks of torch."""

from __future__ import annotations

import copyreg
import functools
import random
import types
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

#: How a type written in C tells what it holds.
_TELLERS = ("__reduce_ex__", "__reduce__", "__getnewargs__", "__getstate__")

#: Types whose objects hold no more than is read of them, unless attributes were set.
_PLAIN = frozenset({
    torch.Tensor, torch.nn.Parameter, np.ndarray, functools.partial, property, set, frozenset,
    torch.Generator, np.random.Generator, np.random.RandomState, random.Random,
})  # fmt: skip

#: Attributes of an array that is mapped from a file: where and how that is open.
_OF_MEMMAP = frozenset({"_mmap", "filename", "offset", "mode"})


def state_of(value: object) -> list[object]:
    """Return the state of an object as pickle would read it, which also finds, or refuses, state held by C code.

    A Python class with hooks for pickle may leave values out; its dict and slots are read instead, and its C type.
    """
    kind = type(value)
    hooks = (getattr(kind, name, None) for name in ("__reduce_ex__", "__reduce__", "__getstate__"))
    if kind not in copyreg.dispatch_table and any(isinstance(hook, types.FunctionType) for hook in hooks):
        attributes = _stable(value, getattr(value, "__dict__", {}))
        return [attributes, _slots(value), *_held_by_c(value)]
    reduced = copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(2)
    if isinstance(reduced, str):  # the name of a global, such as a function under lru_cache
        return [reduced, dict(getattr(value, "__dict__", {}))]
    parts = [_stable(value, part) if isinstance(part, dict) else part for part in _parts(reduced)]
    has_state = len(parts) > 2 and parts[2] is not None
    attributes = {} if has_state else {**_own_attributes(value), **_slots(value)}
    return [*parts, attributes] if attributes else parts  # C code may leave those of a subclass out


def beside(value: object) -> list[object]:
    """Return the class, attributes and slots of an object of which the content is read otherwise; [] of a plain one."""
    attributes, kind = getattr(value, "__dict__", None), type(value)
    if kind in _PLAIN:
        return [kind, attributes] if attributes else []
    if kind in (classmethod, staticmethod, weakref.ref):  # attributes of the first two are those of their function
        return []
    if isinstance(value, np.memmap) and attributes:
        attributes = {name: one for name, one in attributes.items() if name not in _OF_MEMMAP}
    return [kind, attributes, _slots(value)]


def hooks_of(tensor: torch.Tensor) -> list[object]:
    """Return the hooks of a tensor, in their order, and its gradient; [] where it has none."""
    numbered = (getattr(tensor, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks"))
    hooks = [[*by_number.values()] for by_number in numbered if by_number]
    gradient = tensor.grad if tensor.is_leaf else None  # of others torch warns
    return [hooks, gradient] if hooks or gradient is not None else []


def hook_of(handle: RemovableHandle) -> list[object]:
    """Return the hooks that a handle's is one of, and which of them it is."""
    hooks = handle.hooks_dict_ref() or {}
    return [[*hooks.values()], [*hooks].index(handle.id) if handle.id in hooks else None]


def _held_by_c(value: object) -> list[object]:
    """Return what the C type below a Python class tells of itself: a number, a text, the items of a deque."""
    for kind in type(value).__mro__[:-1]:
        for name in _TELLERS:
            tell = vars(kind).get(name)
            if isinstance(tell, types.MethodDescriptorType):
                told = tell(value, 2) if name == "__reduce_ex__" else tell(value)
                return _parts(told) if isinstance(told, tuple) else [told]
    return []


def _parts(reduced: tuple[Any, ...]) -> list[object]:
    # The fourth and fifth are iterators over the items of a list or dict.
    return [list(part) if i in (3, 4) and part is not None else part for i, part in enumerate(reduced)]


def _own_attributes(value: object) -> dict[str, object]:
    try:
        return dict(object.__getattribute__(value, "__dict__"))  # that of `list[int]` is the one of list
    except AttributeError:
        return {}


def _slots(value: object) -> dict[str, object]:
    # copyreg's own account of slots, private names included; untyped because it is undocumented.
    names = copyreg._slotnames(type(value))  # type: ignore[attr-defined]
    return {name: getattr(value, name) for name in names if hasattr(value, name)}


@functools.cache
def _names_of_hooks() -> frozenset[str]:
    return frozenset(name for name, member in vars(torch.nn.Module()).items() if "_hooks" in name)


def _stable(value: object, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as every process has them: no addresses, and hooks by their rank, which torch numbers."""
    addresses = {id(attribute) for attribute in state.values()}
    state = {name: one for name, one in state.items() if type(one) is not int or one not in addresses}
    if isinstance(value, torch.nn.Module):
        state = {name: part for name, part in state.items() if name != "_torchdynamo_wrapper_id"}  # the id of an object
        names = [name for name in _names_of_hooks() if state.get(name)]
    elif isinstance(value, torch.optim.Optimizer):
        names = [name for name, hooks in state.items() if name.startswith("_optimizer_") and isinstance(hooks, dict)]
    else:
        names = []
    numbers = sorted({number for name in names for number in state[name]})
    ranks = {number: rank for rank, number in enumerate(numbers)}
    return {**state, **{name: {ranks[number]: hook for number, hook in state[name].items()} for name in names}}
