"""What trainings of this process have left in memory: a cache that they filled, a counter, a scaler that they fitted.

A session that finds all runs in the store trains nothing, and so fills nothing. Its keys are those of a session that
trained only if what a training left counts as it was before. What a test or ``conftest.py`` sets counts as it stands,
and so do models and generators: another training that begins with them gives another result.
"""

from __future__ import annotations

import random
import sys
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

#: What counts as it stands, also if a training has changed it.
_BEGUN_WITH = (
    torch.Tensor, np.ndarray, torch.Generator, np.random.Generator, np.random.RandomState, random.Random,
)  # fmt: skip

#: Containers, to which Python has no weak references.
_CONTAINERS = (list, dict, bytearray, types.SimpleNamespace)

_Reference = Callable[[], object]

#: What trainings have changed, by its id, with the hash that counts by the hash that was found after a training.
_left: dict[int, tuple[_Reference, dict[bytes, bytes]]] = {}
#: Names to which trainings have given another value, by the id of the module's dict, each with what it was before.
_renamed: dict[tuple[int, str], tuple[dict[str, Any], list[tuple[object, object]]]] = {}
#: Names of modules that trainings have changed, each with the hash that counts by the one found after a training.
_relisted: dict[str, tuple[_Reference, dict[bytes, bytes | None]]] = {}


class Seen:
    """What one reading of a task sees: the hash of each object, and the value of each name.

    A reading after a training has those of ``before``: what differs counts as it was.
    """

    def __init__(self, before: Seen | None = None) -> None:
        self.hashes: dict[int, tuple[_Reference, bytes]] = {}
        self.names: dict[tuple[int, str], tuple[dict[str, Any], object]] = {}
        self.listed: dict[str, bytes] = {}
        self.before = before
        self._changed: list[tuple[int, _Reference, bytes, bytes]] = []
        self._renamed: list[tuple[tuple[int, str], dict[str, Any], object, object]] = []
        self._relisted: list[tuple[str, _Reference, bytes, bytes | None]] = []
        self._has_new_model = False

    def hash_of(self, value: object, found: bytes) -> bytes:
        """Return the hash that counts for an object of which the hash is now ``found``."""
        key, reference = id(value), _reference(value)
        if reference is None:
            return found
        known = _left.get(key)
        counts = known[1].get(found, found) if known is not None and known[0]() is value else found
        if self.before is not None:
            of_before, was = self.before.hashes.get(key, (None, b""))
            if of_before is None or of_before() is not value:
                self._has_new_model |= _is_model(value)
            elif counts != was and isinstance(value, _BEGUN_WITH):
                self._has_new_model = True
            elif counts != was:
                self._changed.append((key, reference, found, was))
                counts = was
        self.hashes[key] = reference, counts
        return counts

    def value_of(self, scope: dict[str, Any], name: str) -> object:
        """Return the value that counts for a name of a module."""
        key, value = (id(scope), name), scope[name]
        counts = next((was for now, was in _renamed.get(key, (scope, []))[1] if _is(now, value)), value)
        if self.before is not None:
            of_before, was = self.before.names.get(key, (None, counts))
            if of_before is scope and not _is(was, counts):
                self._has_new_model |= any(map(_is_model, (value, *_inside(value))))
                self._renamed.append((key, scope, value, was))
                counts = was
        self.names[key] = scope, counts
        return counts

    def listed_as(self, module: types.ModuleType, name: str, found: bytes) -> bytes | None:
        """Return the hash that counts for what ``name`` holds in place of what its source gives; None for nothing."""
        reference, known = _relisted.get(name, (None, {}))
        counts = known.get(found, found) if reference is not None and reference() is module else found
        if self.before is not None and counts != (was := self.before.listed.get(name)):
            self._relisted.append((name, weakref.ref(module), found, was))
            counts = was
        if counts is not None:
            self.listed[name] = counts
        return counts

    def keep(self) -> None:
        """Let later readings take what differs as it was, unless a model or generator has changed, or is new."""
        for key in [key for key, (reference, _) in _left.items() if _is_gone(reference)]:
            del _left[key]
        if self._has_new_model:
            return
        for key, reference, now, was in self._changed:
            _keep(_left, key, reference, now, was)
        for name, reference, now, unlisted in self._relisted:
            _keep(_relisted, name, reference, now, unlisted)
        for place, scope, value, before in self._renamed:
            _renamed.setdefault(place, (scope, []))[1].append((value, before))


def _keep(
    table: dict[Any, tuple[_Reference, dict[bytes, Any]]], key: object, of: _Reference, now: bytes, was: object
) -> None:
    known = table.get(key)
    if known is None or known[0]() is not of():
        known = table[key] = of, {}
    known[1][now] = was


def _is_model(value: object) -> bool:
    return isinstance(value, torch.nn.Module) or getattr(value, "requires_grad", False) is True


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.values()]
    return [*value] if isinstance(value, (list, tuple, set)) else [*getattr(value, "__dict__", {}).values()]


def _reference(value: object) -> _Reference | None:
    try:
        return weakref.ref(value)
    except TypeError:  # others of these cannot be changed in place: text, a tuple
        return _Strong(value) if isinstance(value, (*_CONTAINERS, *_BEGUN_WITH)) else None


class _Strong:
    """A reference to a container, which `_is_gone` if nothing else has one."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __call__(self) -> object:
        return self.value


def _is_gone(reference: _Reference) -> bool:
    return sys.getrefcount(reference.value) <= 2 if isinstance(reference, _Strong) else reference() is None


def _is(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and isinstance(one, (int, float, complex, str)) and one == other)
