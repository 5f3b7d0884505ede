"""A hash of a task's content: its values, captured values, code, and the files that the code comes from.

Two tasks with equal fingerprints train the same; two that differ in anything that the code can see do not share runs.
A value that cannot be read (an open file, a lock, a running generator) raises `CannotFingerprint`, and the runs of its
study are not kept.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import logging
import random
import sys
import types
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch

from .source_files import is_own, source_digest

#: Types whose `repr` tells a value completely; a subclass may hold more.
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range,
    torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size,
)  # fmt: skip

#: Entries of a class's dict that Python adds, and that do not change how the class acts.
_NOT_MEMBERS = frozenset({
    "__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__",
    "__abstractmethods__", "_abc_impl", "__annotations_cache__",
})  # fmt: skip


class CannotFingerprint(Exception):
    """A task holds a value without content to hash; the message says which value, and where."""


def fingerprint(value: object, rootdir: Path, also: Iterable[Path] = ()) -> str:
    """Return a hash of ``value``, of the own files (below ``rootdir``) that it can reach, and of the files ``also``."""
    rootdir = rootdir.resolve()
    walk = _Walk(rootdir)
    try:
        content = walk.digest(value, type(value).__name__)
    except RecursionError:
        raise CannotFingerprint(f"{type(value).__name__} is nested too deeply to read") from None
    files = {*walk.files, *(path.resolve() for path in also)}
    return hashlib.sha256(content + source_digest(files, rootdir).encode()).hexdigest()


def tensor_digest(tensor: torch.Tensor) -> bytes:
    """Return the hash of one dense tensor: dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.digest()


class _Walk:
    """One walk over the objects that a value reaches; each is hashed once, and a circle is cut where it closes."""

    def __init__(self, rootdir: Path) -> None:
        self.rootdir = rootdir
        self.files: set[Path] = set()
        self._done: dict[int, tuple[bytes, object]] = {}  # with the object, so that its id stays taken
        self._open: dict[int, int] = {}

    def digest(self, value: object, where: str) -> bytes:
        """Return the hash of ``value``; ``where`` is its path, for the message if it cannot be read."""
        if type(value) in _ATOMS or isinstance(value, (PurePath, np.dtype)):
            return _combine(type(value).__qualname__, [repr(value).encode()])
        key = id(value)
        if key in self._done:
            return self._done[key][0]
        if key in self._open:
            return _combine("circle", [str(len(self._open) - self._open[key]).encode()])
        self._open[key] = len(self._open)
        try:
            read = next((read for kind, read in _READERS if isinstance(value, kind)), _Walk._instance)
            result = read(self, value, where)
        finally:
            del self._open[key]
        self._done[key] = (result, value)
        return result

    def all(self, tag: str, values: Iterable[object], where: str) -> bytes:
        return _combine(tag, [self.digest(value, f"{where}[{i}]") for i, value in enumerate(values)])

    def mapping(self, tag: str, items: Iterable[tuple[object, object]], where: str) -> bytes:
        parts: list[bytes] = []
        for key, value in items:
            parts += [self.digest(key, where), self.digest(value, f"{where}.{key}")]
        return _combine(tag, parts)

    def function(self, value: types.FunctionType, where: str) -> bytes:
        """Return the hash of code, defaults and closure; for the user's own functions also of the globals it names."""
        code = value.__code__
        names = ("__module__", "__qualname__", "__defaults__", "__kwdefaults__", "__dict__")
        parts = [*((name, getattr(value, name)) for name in names), ("__code__", self._code(code, where))]
        parts += zip(code.co_freevars, map(_cell, value.__closure__ or ()), strict=True)
        if self._note_file(code.co_filename) or code.co_filename.startswith("<"):
            parts += self._named(_names(code), value.__globals__)
        else:
            parts.append(("__version__", _version_of(value.__module__)))
        return self.mapping("function", parts, f"{where}:{value.__qualname__}")

    def _named(self, names: set[str], scope: dict[str, object]) -> list[tuple[str, object]]:
        """Return the values of ``names`` in ``scope``, and in each own module among them: ``settings.RATE``."""
        found: list[tuple[str, object]] = []
        for name in sorted(names & scope.keys()):
            value = scope[name]
            found.append((name, value))
            if isinstance(value, types.ModuleType) and self._note_file(getattr(value, "__file__", None)):
                found += self._named(names - {name}, vars(value))
        return found

    def _code(self, code: types.CodeType, where: str) -> bytes:
        constants = [self._code(c, where) if isinstance(c, types.CodeType) else c for c in code.co_consts]
        return self.all("code", [code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars], where)

    def class_(self, value: type, where: str) -> bytes:
        """Return the hash of a class: its name and version, or its bases and members if it is the user's own."""
        module = sys.modules.get(value.__module__)
        own = self._note_file(getattr(module, "__file__", None)) or "<locals>" in value.__qualname__
        if not own and value.__module__ != "__main__":
            return self.all("class", [value.__module__, value.__qualname__, _version_of(value.__module__)], where)
        members = {name: member for name, member in vars(value).items() if name not in _NOT_MEMBERS}
        parts = {"__module__": value.__module__, "__qualname__": value.__qualname__, "__bases__": value.__bases__}
        return self.mapping("class", [*parts.items(), *members.items()], f"{where}:{value.__qualname__}")

    def _instance(self, value: object, where: str) -> bytes:
        try:
            state = _state_of(value)
        except Exception as error:  # noqa: BLE001  # each extension type refuses in its own way
            raise CannotFingerprint(f"{where} is a {type(value).__qualname__}: {error}") from None
        parts = [self.digest(type(value), where)]
        parts += [self.mapping("state", p.items(), where) if type(p) is dict else self.digest(p, where) for p in state]
        return _combine("instance", parts)

    def _note_file(self, file: str | None) -> bool:
        """Remember an own source file; say whether it is one."""
        if file is None or file.startswith("<"):
            return False
        path = Path(file).resolve()
        if not is_own(path, self.rootdir):
            return False
        self.files.add(path)
        return True

    def module(self, value: types.ModuleType, where: str) -> bytes:
        """Return the hash of a module's name and version; the user's own counts with its source."""
        own = self._note_file(getattr(value, "__file__", None))
        return self.all("module", [value.__name__, None if own else _version_of(value.__name__)], where)

    def array(self, value: np.ndarray[Any, Any], where: str) -> bytes:
        """Return the hash of dtype, shape and bytes; the items of an object array are hashed one by one."""
        if value.dtype.hasobject:
            return self.all("objects", [value.shape, *value.reshape(-1)], where)
        content = hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.nbytes else b"")
        mask = getattr(value, "mask", None)  # of a masked array
        return self.all("array", [str(value.dtype), value.shape, content.digest(), mask], where)

    def tensor(self, value: torch.Tensor, where: str) -> bytes:
        """Return the hash of a tensor: class, whether it needs a gradient, strides and content."""
        try:
            content = tensor_digest(value)
            stride = value.stride()
        except RuntimeError as error:  # sparse, nested, without content
            raise CannotFingerprint(f"{where} is a tensor that is not dense: {error}") from None
        return self.all("tensor", [type(value).__name__, value.requires_grad, stride, content], where)

    def set_(self, value: set[object] | frozenset[object], where: str) -> bytes:
        """Return the hash of a set: its members in the order of their hashes."""
        digests: list[bytes] = []
        known = len(self._done)
        for member in value:
            digests.append(self.digest(member, where))
            while len(self._done) > known:  # else a hash would depend on which member of a circle came first
                self._done.popitem()
        return _combine(type(value).__name__, sorted(digests))

    def container(self, value: object, where: str, items: bytes) -> bytes:
        """Return the hash of a list, tuple or dict; a subclass also counts with its class and attributes."""
        if type(value) in (list, tuple, dict, types.MappingProxyType):
            return items
        return _combine("subclass", [items, self._instance(value, where)])


def _combine(tag: str, parts: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256(tag.encode())
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()


def _state_of(value: object) -> list[object]:
    """Return the state of an object as pickle would read it, which also finds, or refuses, state held by C code.

    A Python class with hooks for pickle may leave values out; its dict and slots are read instead.
    """
    kind = type(value)
    hooks = (getattr(kind, name, None) for name in ("__reduce_ex__", "__reduce__", "__getstate__"))
    if kind not in copyreg.dispatch_table and any(isinstance(hook, types.FunctionType) for hook in hooks):
        # copyreg's own account of slots, private names included; untyped because it is undocumented.
        slots = [name for name in copyreg._slotnames(kind) if hasattr(value, name)]  # type: ignore[attr-defined]
        return [dict(getattr(value, "__dict__", {})), {name: getattr(value, name) for name in slots}]
    reduced = copyreg.dispatch_table[kind](value) if kind in copyreg.dispatch_table else value.__reduce_ex__(2)
    if isinstance(reduced, str):  # the name of a global, such as a function under lru_cache
        return [reduced, dict(getattr(value, "__dict__", {}))]
    # The fourth and fifth are iterators over the items of a list or dict.
    return [list(part) if i in (3, 4) and part is not None else part for i, part in enumerate(reduced)]


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # a name that the enclosing function has not assigned yet
        return "<empty cell>"


def _names(code: types.CodeType) -> set[str]:
    nested = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, nested))


def _version_of(module: str | None) -> str:
    package = sys.modules.get((module or "").partition(".")[0])
    return str(getattr(package, "__version__", ""))


def _builtin(walk: _Walk, value: types.BuiltinFunctionType, where: str) -> bytes:
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return walk.all("builtin", [value.__module__, value.__qualname__, _version_of(value.__module__)], where)
    return walk.all("builtin method", [owner, value.__name__], where)


#: How to read each kind of object, the most special first.
_READERS: tuple[tuple[Any, Callable[[_Walk, Any, str], bytes]], ...] = (
    (enum.Enum, lambda walk, v, at: walk.all("enum", [type(v), v.name, v.value], at)),
    (type, _Walk.class_),
    (types.FunctionType, _Walk.function),
    (types.MethodType, lambda walk, v, at: walk.all("method", [v.__func__, v.__self__], at)),
    (types.BuiltinFunctionType, _builtin),
    (types.ModuleType, _Walk.module),
    (functools.partial, lambda walk, v, at: walk.all("partial", [v.func, v.args, v.keywords], at)),
    ((classmethod, staticmethod), lambda walk, v, at: walk.all(type(v).__name__, [v.__func__], at)),
    (functools.cached_property, lambda walk, v, at: walk.all("property", [v.func], at)),  # before 3.12 it holds a lock
    (property, lambda walk, v, at: walk.all("property", [v.fget, v.fset, v.fdel], at)),
    (torch.Tensor, _Walk.tensor),
    (np.ndarray, _Walk.array),
    (np.generic, lambda walk, v, at: walk.all("number", [str(v.dtype), v.tobytes()], at)),
    (torch.Generator, lambda walk, v, at: walk.all("generator", [v.get_state()], at)),
    (np.random.Generator, lambda walk, v, at: walk.all("generator", [v.bit_generator.state], at)),
    (np.random.RandomState, lambda walk, v, at: walk.all("generator", [v.get_state()], at)),
    (random.Random, lambda walk, v, at: walk.all("generator", [v.getstate()], at)),
    (logging.Logger, lambda walk, v, at: walk.all("logger", [v.name], at)),
    (weakref.ref, lambda walk, v, at: walk.all("weak", [v()], at)),
    ((list, tuple), lambda walk, v, at: walk.container(v, at, walk.all(type(v).__name__, v, at))),
    ((dict, types.MappingProxyType), lambda walk, v, at: walk.container(v, at, walk.mapping("dict", v.items(), at))),
    ((set, frozenset), _Walk.set_),
)
