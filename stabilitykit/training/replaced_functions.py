"""Functions and classes of torch in whose place a test, or a conftest, has put its own."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, compress
from operator import attrgetter, is_, is_not
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

import torch

from ..errors import UsageError
from ..store.fingerprint import CannotFingerprint, fingerprint
from ..tracing.callers import Caller, kind_of

#: Modules of torch whose functions and classes a training calls; of the last ones, all that lie in them.
_WATCHED = frozenset({
    "torch", "torch._tensor", "torch.functional", "torch.random", "torch.autograd", "torch.nn.functional",
    "torch.nn.init", "torch.nn.parameter", "torch.utils.data.dataloader", "torch.utils.data.dataset",
    "torch.utils.data.sampler", "torch.amp.grad_scaler",
})  # fmt: skip
_WATCHED_WITHIN = ("torch.nn.modules.", "torch.optim.")

#: Where the code of nearly all of torch's functions is.
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"

#: What a class holds in place of a function, which must be looked into.
_WRAPPERS = (staticmethod, classmethod, property)

#: What binds arguments to a function: none of it stands in those modules of torch.
_BINDERS = (functools.partial, functools.partialmethod, MethodType)

#: Functions that carry the name under which torch keeps them.
_NAMED = (FunctionType, BuiltinFunctionType, MethodDescriptorType)

#: Classes whose values replace nothing, as this process has met them: a thousand functions are asked for each study.
_plain: set[type] = set()

#: Packages of which torch takes functions, or wrappers around its own, as they are.
_LENDERS = ("typing_extensions", "tqdm", "sympy")


def find(rootdir: Path) -> tuple[dict[str, str], dict[str, object]]:
    """Return, by dotted name, the content hash of each replaced function of torch, and what stands in its place.

    Raises `UsageError` for one whose content cannot be hashed.
    """
    hashes, values = {}, {}
    for name, value in _replaced():
        try:
            hashes[name] = fingerprint(value, rootdir)[:16]
        except CannotFingerprint as error:
            raise UsageError(
                f"Expected {name} to be torch's own, or a function of Python that can be read, but got {value!r}: "
                f"{error}. Runs with it could not be told from runs without it. Replace it inside the train function."
            ) from None
        values[name] = value
    return hashes, values


def put(values: Mapping[str, object]) -> None:
    """Replace functions of torch in this process as they are in another."""
    for name, value in values.items():
        module = next(part for part in _beginnings(name) if part in sys.modules)
        owner: Any = sys.modules[module]
        *path, last = name[len(module) + 1 :].split(".")
        for part in path:
            owner = getattr(owner, part)
        setattr(owner, last, value)


def _beginnings(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1))


class _Look(NamedTuple):
    """What stood in torch's modules and classes when this process last went through them all, and what was found."""

    owners: list[ModuleType | type]
    members: list[object]  #: of all owners, one after the other
    functions: list[FunctionType]  #: those members that are written in Python
    code: list[CodeType]  #: of the functions
    found: list[tuple[str, object]]

    def is_current(self) -> bool:
        """Whether all members but numbers are the same objects still: there are thousands, and each study asks."""
        members = _members(self.owners)
        if len(members) != len(self.members):
            return False
        changed = compress(zip(members, self.members, strict=True), map(is_not, members, self.members))
        if not all(type(new) is type(old) is int for new, old in changed):  # torch counts hooks in one
            return False
        return all(map(is_, map(_code, self.functions), self.code))


_code = attrgetter("__code__")
_looks: dict[tuple[ModuleType, ...], _Look] = {}  #: by the modules that were loaded
_loaded: list[str] = []  #: the names of all modules when they were last looked through
_watched: list[str] = []  #: those among them whose functions count


def _watched_names() -> list[str]:
    loaded = [*sys.modules]
    if loaded != _loaded:
        _loaded[:] = loaded
        _watched[:] = sorted(name for name in loaded if name in _WATCHED or name.startswith(_WATCHED_WITHIN))
    return _watched


def _replaced() -> list[tuple[str, object]]:
    names = _watched_names()
    modules = tuple(sys.modules[name] for name in names)
    look = _looks.get(modules)
    if look is None or not look.is_current():
        owners: dict[ModuleType | type, str] = dict(zip(modules, names, strict=True))
        classes = [member for member in _members(modules) if isinstance(member, type) and _is_torchs(member)]
        owners.update((cls, f"{cls.__module__}.{cls.__qualname__}") for cls in classes)
        members = _members(owners)
        functions = [member for member in members if isinstance(member, FunctionType)]
        found = [pair for owner, name in owners.items() for pair in _replaced_in(owner, name)]
        _looks[modules] = look = _Look([*owners], members, functions, [*map(_code, functions)], found)
    return look.found


def _members(owners: Iterable[ModuleType | type]) -> list[object]:
    return list(chain.from_iterable(vars(owner).values() for owner in owners))


def _is_torchs(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "torch" and "<locals>" not in cls.__qualname__


def _replaced_in(owner: ModuleType | type, name: str) -> Iterator[tuple[str, object]]:
    for member, value in list(vars(owner).items()):
        found = _replacement(member, value)
        if found is not None:
            yield f"{name}.{member}", found


def _replacement(member: str, value: object) -> object | None:
    """Return what a user has put in the place of a member of torch's, or within it; None where all is torch's."""
    if isinstance(value, type):
        return None if _is_torchs(value) or not _is_theirs(value) else value
    plain = value.__func__ if isinstance(value, staticmethod | classmethod) else value
    plain = plain.fget if isinstance(plain, property) else plain
    found = plain if isinstance(plain, _BINDERS) else _theirs(plain)
    if found is None and _is_of_another_name(member, plain):
        found = plain
    return value if found is plain and found is not None else found


def _is_of_another_name(member: str, value: object) -> bool:
    """Whether a public name of torch's leads to a public function of another: ``relu`` to ``gelu``."""
    name = value.__name__ if isinstance(value, _NAMED) else ""  # a getter of C++ has none
    is_public = bool(name) and not name.startswith("_") and not member.startswith("_")
    return is_public and member.replace("_", "") != name.replace("_", "")


def _theirs(value: object) -> object | None:
    """Return the user's function in a value: the value, or what torch has wrapped; None where all is torch's."""
    kind = type(value)
    while kind is FunctionType:
        file = value.__code__.co_filename  # type: ignore[attr-defined]  # a function, as was asked
        if not file.startswith(_TORCH) and _is_users_file(file):
            return value
        value = value.__dict__.get("__wrapped__")
        kind = type(value)
    if kind in _plain:
        return None
    if kind.__module__ in ("builtins", "typing") or kind.__module__.startswith("torch"):
        if kind not in _WRAPPERS:
            _plain.add(kind)
        return None
    return value if _is_stand_in(value) else None


def _is_users_file(file: str) -> bool:
    return (
        kind_of(file) in (Caller.USER, Caller.INSTALLED)
        and not file.startswith("<")
        and Path(file).stem not in _LENDERS
    )


def _is_theirs(cls: type) -> bool:
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return file is not None and _is_users_file(file)


def _is_stand_in(value: object) -> bool:
    """Whether a value is an object that can be called, of a class that is the user's or a mock's."""
    kind = type(value)
    return callable(value) and not isinstance(value, type) and (_is_theirs(kind) or kind.__module__ == "unittest.mock")
