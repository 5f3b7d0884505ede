"""A hash of a task's content: its values, captured values, code, and the files that the code comes from.

Two tasks with equal fingerprints train the same; two that differ in anything that the code can see do not share runs.
A value that cannot be read (an open file, a lock, a running generator) raises `CannotFingerprint`, and the runs of its
study are not kept.
"""

from __future__ import annotations

import builtins
import enum
import functools
import hashlib
import inspect
import logging
import os
import random
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from .distributions import Distribution
from .function_state import attributes_of, closure_of, is_profiled_inheritance, made_with, settings_of, without_profile
from .module_sources import is_plain
from .module_values import changed_values
from .object_state import beside, hook_of, hooks_of, state_of
from .provenance import Kind, Provenance
from .source_files import Sources, sources_of
from .temporary_paths import TemporaryPaths

#: Types whose `repr` tells a value completely; a subclass may hold more.
_ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented), range,
    torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size,
)  # fmt: skip

#: Entries of a class's dict that Python adds, and that do not change how the class acts.
_NOT_MEMBERS = frozenset({
    "__dict__", "__weakref__", "__doc__", "__module__", "__firstlineno__", "__static_attributes__",
    "__abstractmethods__", "_abc_impl", "__annotations_cache__", "__slotnames__",  # the last: once it was copied
})  # fmt: skip


#: Names by which code reaches others by text, as in ``getattr(settings, name)``.
_BY_TEXT = frozenset({"getattr", "vars", "globals", "__dict__"})
#: Globals of a module that say where its file lies, which is another place in each clone.
_PLACES = frozenset({"__file__", "__cached__", "__path__", "__spec__", "__loader__", "__builtins__"})

_NUMBERS = (bool, int, float, complex, type(None))

#: Types of most of what stands in modules and classes, which no function hides behind.
_NO_STAND_INS = frozenset({
    *_NUMBERS, str, tuple, list, dict, set, frozenset, type, types.ModuleType, types.BuiltinFunctionType,
    types.WrapperDescriptorType, types.MethodDescriptorType, types.GetSetDescriptorType, types.MemberDescriptorType,
})  # fmt: skip

#: How much of a task is noted by name: the depth of values, the items of a container, parts of one depth and in all,
#: and their lengths.
_DEPTH, _MOST_ITEMS, _MOST_PARTS, _LONGEST_NAME, _SHORT = 8, 16, 256, 120, 12


class CannotFingerprint(Exception):
    """A task holds a value without content to hash; the message says which value, and where."""


@dataclass(frozen=True)
class Reading:
    """A task as it was read for its key."""

    digest: str
    parts: Mapping[str, str]  #: the first values, and all files and packages: a short hash, or a number itself, by name
    sources: Sources
    values: str  #: the hash without the files and packages: of objects and the code that they run


def read(value: object, rootdir: Path | None, also: Iterable[Path] = (), name: str = "") -> Reading:
    """Read ``value``, the user's own code that it can reach wherever it lies, and the files ``also``.

    Names of values begin with ``name``; files are named as seen from ``rootdir``. Where that is None, no file counts.
    """
    provenance = Provenance(None if rootdir is None else rootdir.resolve())
    walk = _Walk(provenance)
    try:
        content = walk.digest(value, name or type(value).__name__)
        if walk.patches:
            content += walk.mapping("patches", sorted(walk.patches.items()), "patched")
    except RecursionError:
        raise CannotFingerprint(f"{type(value).__name__} is nested too deeply to read") from None
    sources = sources_of([*walk.files, *also], provenance, walk.distributions)
    try:
        loaded = walk.loaded(sources.paths)
    except RecursionError:
        raise CannotFingerprint("what a module holds is nested too deeply to read") from None
    if loaded:
        content += loaded
        sources = sources_of([*sources.paths, *walk.files], provenance, walk.distributions)
    in_files = sources.parts()
    digest = hashlib.sha256(content + repr(sorted(in_files.items())).encode()).hexdigest()
    short = {part: text[:_SHORT] if part.startswith("file ") else text for part, text in in_files.items()}
    return Reading(digest, short | walk.parts, sources, hashlib.sha256(content).hexdigest())


def fingerprint(value: object, rootdir: Path | None, also: Iterable[Path] = ()) -> str:
    """Return the hash of what `read` reads."""
    return read(value, rootdir, also).digest


def code_fingerprint(function: Callable[..., Any], rootdir: Path) -> str:
    """Return the hash of what a function computes: the same under another name, in another place of its file."""
    plain = function
    if isinstance(function, types.FunctionType):
        code = function.__code__.replace(co_name="", co_qualname="")
        plain = types.FunctionType(code, function.__globals__, "", function.__defaults__, function.__closure__)
        plain.__kwdefaults__, plain.__module__ = function.__kwdefaults__, ""
    return read(plain, rootdir).values


def tensor_digest(tensor: torch.Tensor) -> bytes:
    """Return the hash of one dense tensor: dtype, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    if flat.numel():
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.digest()


class _Walk:
    """One walk over the objects that a value reaches; each is hashed once, and a circle is cut where it closes."""

    def __init__(self, provenance: Provenance) -> None:
        self.provenance = provenance
        self.files: set[Path] = set()
        self.distributions: set[Distribution] = set()
        self.patches: dict[str, object] = {}  #: functions of the user's that stand in modules of other people's
        self._noted: dict[str, tuple[int, str]] = {}  #: depth and hash of parts, the deepest first
        self._notes = [0] * (_DEPTH + 1)  #: how many there are of each depth
        self._rootdir = "\0" if provenance.rootdir is None else str(provenance.rootdir)
        self._temporary = TemporaryPaths(provenance.rootdir)
        self._quiet = 0  #: above 0, no parts are noted
        self._modules: set[str] = set()
        self._done: dict[int, tuple[bytes, object]] = {}  # with the object, so that its id stays taken
        self._open: dict[int, int] = {}

    def digest(self, value: object, where: str) -> bytes:
        """Return the hash of ``value``; ``where`` is its path, for the message if it cannot be read."""
        if type(value) in _ATOMS or isinstance(value, (PurePath, np.dtype)):
            text = self._path(value) if isinstance(value, (str, PurePath)) else None
            result = _combine(type(value).__qualname__, [(text or repr(value)).encode()])
            if attributes := getattr(value, "__dict__", None):  # of a subclass of Path
                result = _combine("subclass", [result, self.digest([type(value), attributes], where)])
            self._note(where, repr(value) if type(value) in _NUMBERS else result.hex())
            return result
        value = without_profile(value)  # here, since a circle counts by how many objects it goes through
        key = id(value)
        if key in self._done:
            return self._done[key][0]
        if key in self._open:
            return _combine("circle", [str(len(self._open) - self._open[key]).encode()])
        self._open[key] = len(self._open)
        try:
            read = next((read for kind, read in _READERS if isinstance(value, kind)), _Walk._instance)
            result = read(self, value, where)
        except (CannotFingerprint, RecursionError):
            raise
        except Exception as error:  # noqa: BLE001  # as random.SystemRandom, whose state is the system's
            raise CannotFingerprint(f"{where} is a {type(value).__qualname__}: {error}") from None
        finally:
            del self._open[key]
        self._done[key] = (result, value)
        self._note(where, result.hex())
        return result

    def _note(self, where: str, text: str) -> None:
        """Note a part of the whole, so that a difference can be named; of large values only the first."""
        depth = len(self._open)
        if not self._quiet and depth <= _DEPTH and self._notes[depth] < _MOST_PARTS:
            self._notes[depth] += 1
            is_long = len(where) > _LONGEST_NAME
            name = (re.sub(r"[\w.]*<locals>\.", "", where) if is_long else where)[:_LONGEST_NAME]
            self._noted.pop(name, None)  # its class or a key of it: the whole comes last, and stands for them
            self._noted[name] = depth, text[:_SHORT]

    @property
    def parts(self) -> dict[str, str]:
        """The outermost parts, in which all others lie, and as many inner ones as there is room for."""
        depths = sorted(depth for depth, _ in self._noted.values())[:_MOST_PARTS]
        deepest = depths[-1] if len(self._noted) > _MOST_PARTS else _DEPTH
        found = {name: text for name, (depth, text) in self._noted.items() if depth < deepest}
        inner = [(name, text) for name, (depth, text) in self._noted.items() if depth == deepest]
        return dict(inner[: _MOST_PARTS - len(found)]) | found

    def _path(self, value: str | PurePath) -> str | None:
        """Return what counts of a path in its place: the way from the root of the project, or temporary content."""
        text = str(value)
        if text.startswith(self._rootdir) and text[len(self._rootdir) :][:1] in ("", os.sep):
            inside = self._temporary.content_of(text)  # --basetemp may lie in the project
            return inside or f"<rootdir>{text[len(self._rootdir) :]}"
        return self._temporary.content_of(text) if Path(text).is_absolute() else None

    def all(self, tag: str, values: Iterable[object], where: str) -> bytes:
        parts: list[bytes] = []
        for i, value in enumerate(values):
            self._quiet += i == _MOST_ITEMS
            parts.append(self.digest(value, f"{where}[{i}]"))
        self._quiet -= len(parts) > _MOST_ITEMS
        return _combine(tag, parts)

    def mapping(self, tag: str, items: Iterable[tuple[object, object]], where: str) -> bytes:
        parts: list[bytes] = []
        for key, value in items:
            parts += [self.digest(key, where), self.digest(value, f"{where}.{key}")]
        return _combine(tag, parts)

    def function(self, value: types.FunctionType, where: str) -> bytes:
        """Return the hash of code, defaults and closure; for the user's own functions also of the globals it names."""
        code = value.__code__
        is_own = self._note_file(code.co_filename) or code.co_filename.startswith("<")
        if not is_own:
            self._note_module(value.__module__)
            if self.provenance.rootdir is not None:
                return self._others_function(value, where)
        names = ("__module__", "__qualname__", "__defaults__", "__kwdefaults__")
        parts = [*((name, getattr(value, name)) for name in names), ("__dict__", attributes_of(value))]
        parts += [("__code__", self._code(code, where)), *closure_of(value)]
        parts += self._named(_names(code), value.__globals__) if is_own else []
        return self.mapping("function", parts, f"{where}:{value.__qualname__}")

    def _others_function(self, value: types.FunctionType, where: str) -> bytes:
        """Return the hash of a function that is not the user's: its name, and what it was made with if it was made.

        Its code counts with its distribution. What its package keeps on it, or behind its name, does not count.
        """
        parts: list[tuple[str, object]] = [("__module__", value.__module__), ("__qualname__", value.__qualname__)]
        named = [(name, part) for name, part in sorted(attributes_of(value).items()) if name[0] != "_"]
        parts += [(name, part) for name, part in named if is_plain(part) or self._is_stand_in(part)]
        if self._is_stand_in(value) or not self._stands_under_its_name(value):
            parts += [("__defaults__", value.__defaults__), ("__kwdefaults__", value.__kwdefaults__)]
            parts += [("made by", value.__code__.co_name), *made_with(value)]
        return self.mapping("function of others", parts, f"{where}:{value.__qualname__}")

    def _stands_under_its_name(self, value: types.FunctionType) -> bool:
        """Whether a function can be imported by its name from a module that is not the user's."""
        module = sys.modules.get(value.__module__ or "")
        file = getattr(module, "__file__", None)
        if module is None or (file is not None and self._is_own_file(file)):
            return False
        found: object = module
        for name in value.__qualname__.split("."):
            found = inspect.getattr_static(found, name, None)
        found = found.__func__ if isinstance(found, (staticmethod, classmethod)) else found
        return without_profile(found) is value

    def _named(self, names: set[str], scope: dict[str, Any]) -> list[tuple[str, object]]:
        """Return the values of ``names`` in ``scope``, and in each module among them: ``settings.RATE``."""
        found: list[tuple[str, object]] = []
        reached = names & scope.keys() if _BY_TEXT.isdisjoint(names) else _data_in(scope) | (names & scope.keys())
        found += self._named_in_builtins(names - scope.keys())
        for name in sorted(reached - _PLACES):
            value = scope[name]
            found.append((name, value))
            found += self._set_in(value, names)
            if isinstance(value, types.ModuleType):
                if self._note_file(getattr(value, "__file__", None)):
                    found += self._named(names - {name}, vars(value))
                else:
                    found += self._named_elsewhere(names - {name}, value)
        return found

    def _named_elsewhere(self, names: set[str], module: types.ModuleType) -> list[tuple[str, object]]:
        """Return which functions, and which numbers, stand under ``names`` in a module that is not the user's."""
        found: list[tuple[str, object]] = []
        scope = vars(module)
        is_installed = module.__name__.partition(".")[0] not in sys.stdlib_module_names
        self._note_module(module.__name__)
        for name in sorted(name for name in names & scope.keys() if not name.startswith("_")):
            value = scope[name]
            if isinstance(value, types.ModuleType):
                found += self._named_elsewhere(names - {name}, value)
            elif self._is_stand_in(value):
                found.append((f"{module.__name__}.{name}", value))
            elif name == "argv" and module is sys:
                found.append(("sys.argv", _options(value)))
            elif isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)):
                found.append((f"{module.__name__}.{name}", f"{value.__module__}.{value.__qualname__}"))
                found += self._set_in(value, names)
            elif type(value) in _NUMBERS or (is_installed and is_plain(value)):
                found.append((f"{module.__name__}.{name}", value))
        return found

    def _named_in_builtins(self, names: set[str]) -> list[tuple[str, object]]:
        """Return the data and functions that the user has put under ``names`` among those of Python."""
        values = ((name, vars(builtins).get(name, len)) for name in sorted(names) if not name.startswith("_"))
        return [(f"builtins.{name}", value) for name, value in values if is_plain(value) or self._is_stand_in(value)]

    def _set_in(self, kind: object, names: set[str]) -> list[tuple[str, object]]:
        """Return the numbers, and what is the user's, that stand under ``names`` in a class that is not the user's."""
        if self.provenance.rootdir is None or not isinstance(kind, type) or self._is_own_class(kind):
            return []
        members = [(name, vars(kind)[name]) for name in sorted(names & vars(kind).keys()) if name[0] != "_"]
        where = f"{kind.__module__}.{kind.__qualname__}"
        return [(f"{where}.{name}", value) for name, value in members if self._is_set(value)]

    def _is_set(self, value: object) -> bool:
        return type(value) in _NUMBERS or self._is_stand_in(value)

    def _is_stand_in(self, value: object) -> bool:
        """Whether a value is a function of the user's, bound or not, or a mock."""
        if type(value) in _NO_STAND_INS:
            return False
        if isinstance(value, property):
            value = value.fget
        while isinstance(value, (functools.partial, types.MethodType, staticmethod, classmethod)):
            value = value.func if isinstance(value, functools.partial) else value.__func__
        while isinstance(value, types.FunctionType):
            if self._is_own_file(value.__code__.co_filename):
                return True
            value = getattr(value, "__wrapped__", None)  # torch wraps the ``step`` that a test has put there
        return type(value).__module__ == "unittest.mock" and not isinstance(value, type)

    def _code(self, code: types.CodeType, where: str) -> bytes:
        constants = [self._code(c, where) if isinstance(c, types.CodeType) else c for c in code.co_consts]
        self._quiet += 1
        try:
            return self.all("code", [code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars], where)
        finally:
            self._quiet -= 1

    def class_(self, value: type, where: str) -> bytes:
        """Return the hash of a class: its name, or its bases and members if it is the user's own."""
        if not self._is_own_class(value):
            self._note_module(value.__module__)
            return self.all("class", [value.__module__, value.__qualname__, self._patched(value)], where)
        names = [name for name in vars(value) if name not in _NOT_MEMBERS and not is_profiled_inheritance(value, name)]
        members = {name: vars(value)[name] for name in names}
        members |= {} if type(value) is type else {"__class__": type(value)}
        parts = {"__module__": value.__module__, "__qualname__": value.__qualname__, "__bases__": value.__bases__}
        return self.mapping("class", [*parts.items(), *members.items()], f"{where}:{value.__qualname__}")

    def _is_own_class(self, value: type) -> bool:
        module = sys.modules.get(value.__module__)
        if module is None or value.__module__ == "__main__" or "<locals>" in value.__qualname__:
            return True  # the code of its methods names their files
        if self._note_file(getattr(module, "__file__", None)):
            return True
        # A module of that name may be another one; this class is in it if the outermost class around it is.
        is_in_module = hasattr(module, value.__qualname__.partition(".")[0])
        return not is_in_module and bool(self._own_functions(value))

    def _own_functions(self, value: type) -> dict[str, object]:
        functions = {name: member for name, member in vars(value).items() if isinstance(member, types.FunctionType)}
        return {name: member for name, member in functions.items() if self._is_own_file(member.__code__.co_filename)}

    def _patched(self, value: type) -> dict[str, object]:
        """Return the functions of the user's that stand in a class of other people's."""
        members = ((kind, name, member) for kind in value.__mro__ for name, member in [*vars(kind).items()])
        return {f"{kind.__qualname__}.{name}": found for kind, name, found in members if self._is_stand_in(found)}

    def loaded(self, paths: Iterable[Path]) -> bytes:
        """Return the hash of what loaded modules of ``paths`` hold and their source does not give; empty if nothing."""
        parts: list[bytes] = []
        for name, value in changed_values(paths, self.provenance.own_path):
            parts += [name.encode(), self.digest(value, name)]
        return _combine("loaded", parts) if parts else b""

    def _note_module(self, name: str | None) -> None:
        """Remember the distribution of a module of other people's, and functions of the user's that stand in it."""
        module = sys.modules.get(name or "") or sys.modules.get((name or "").partition(".")[0])
        if module is None or module.__name__ in self._modules:
            return
        self._modules.add(module.__name__)
        if self._note_file(getattr(module, "__file__", None)) or self.provenance.rootdir is None:
            return
        for attribute, value in [*vars(module).items()]:
            if self._is_stand_in(value) and not attribute.startswith("__"):
                self.patches[f"{module.__name__}.{attribute}"] = value

    def _instance(self, value: object, where: str) -> bytes:
        try:
            settings = settings_of(value)
            state = state_of(value) if settings is None else [settings]
        except Exception as error:  # noqa: BLE001  # each extension type refuses in its own way
            raise CannotFingerprint(f"{where} is a {type(value).__qualname__}: {error}") from None
        parts = [self.digest(type(value), where)]
        parts += [self.mapping("state", p.items(), where) if type(p) is dict else self.digest(p, where) for p in state]
        return _combine("instance", parts)

    def _is_own_file(self, file: str) -> bool:
        return not file.startswith("<") and self.provenance.of(file) is Kind.OWN

    def _note_file(self, file: str | None) -> bool:
        """Remember an own source file, or the distribution of one; say whether it is the user's own."""
        if file is None or file.startswith("<"):
            return False
        origin, own = self.provenance.of(file), self.provenance.own_path(file)
        if isinstance(origin, Distribution):
            self.distributions.add(origin)
        if own is not None:
            self.files.add(own)
        return own is not None

    def module(self, value: types.ModuleType, where: str) -> bytes:
        """Return the hash of a module's name; the user's own counts with its source, others with their distribution."""
        self._note_module(value.__name__)
        self._note_file(getattr(value, "__file__", None))
        return self.all("module", [value.__name__], where)

    def array(self, value: np.ndarray[Any, Any], where: str) -> bytes:
        """Return the hash of dtype, shape and bytes; the items of an object array are hashed one by one."""
        if value.dtype.hasobject:
            return self.all("objects", [value.shape, *value.reshape(-1)], where)
        content = hashlib.sha256(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data if value.nbytes else b"")
        mask = getattr(value, "mask", None)  # of a masked array
        return self.all("array", [str(value.dtype), value.shape, content.digest(), mask, *beside(value)], where)

    def tensor(self, value: torch.Tensor, where: str) -> bytes:
        """Return the hash of a tensor: class, whether it needs a gradient, strides and content."""
        try:
            content = tensor_digest(value)
            stride = value.stride()
        except RuntimeError as error:  # sparse, nested, without content
            raise CannotFingerprint(f"{where} is a tensor that is not dense: {error}") from None
        parts = [type(value).__name__, value.requires_grad, stride, content, *beside(value), *hooks_of(value)]
        return self.all("tensor", parts, where)

    def set_(self, value: set[object] | frozenset[object], where: str) -> bytes:
        """Return the hash of a set: its members in the order of their hashes."""
        digests: list[bytes] = []
        known = len(self._done)
        for member in value:
            digests.append(self.digest(member, where))
            while len(self._done) > known:  # else a hash would depend on which member of a circle came first
                self._done.popitem()
        return _combine(type(value).__name__, [*sorted(digests), *(self.digest(part, where) for part in beside(value))])

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


def _names(code: types.CodeType) -> set[str]:
    nested = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*map(_names, nested))


def _set_on(member: enum.Enum) -> list[object]:
    attributes = {name: value for name, value in vars(member).items() if not name.startswith("_")}
    return [attributes] if attributes else []


def _data_in(scope: dict[str, Any]) -> set[str]:
    """Return the names of plain data in a module, which its code may reach by text: ``getattr(settings, name)``."""
    plain = (*_NUMBERS, str, bytes, list, tuple, dict, set, frozenset, torch.Tensor, np.ndarray)
    return {name for name, value in scope.items() if isinstance(value, plain) and not name.startswith("__")}


def _options(arguments: list[str]) -> list[str]:
    """Return the options of a command line with their values, without those of stabilitykit and what runs tests."""
    found: list[str] = []
    is_value = False
    for text in map(str, arguments[1:]):
        is_option = text.startswith("--")
        is_value = is_value and not text.startswith("-") and not Path(text.partition("::")[0]).exists()
        counts = is_option and not text.startswith("--stability")
        found += [text] * (counts or is_value)
        is_value = counts and "=" not in text
    return found


#: What pybind11 binds its functions to, in place of their module.
_RECORDS = ("PyCapsule", "pybind11_detail_function_record")


def _builtin(walk: _Walk, value: types.BuiltinFunctionType, where: str) -> bytes:
    owner = value.__self__
    if owner is None or isinstance(owner, types.ModuleType) or type(owner).__name__.startswith(_RECORDS):
        walk._note_module(value.__module__)
        return walk.all("builtin", [value.__module__, value.__qualname__], where)
    return walk.all("builtin method", [owner, value.__name__], where)


#: How to read each kind of object, the most special first.
_READERS: tuple[tuple[Any, Callable[[_Walk, Any, str], bytes]], ...] = (
    (enum.Enum, lambda walk, v, at: walk.all("enum", [type(v), v.name, v.value, *_set_on(v)], at)),
    (type, _Walk.class_),
    (types.FunctionType, _Walk.function),
    (types.MethodType, lambda walk, v, at: walk.all("method", [v.__func__, v.__self__], at)),
    (types.BuiltinFunctionType, _builtin),
    (types.ModuleType, _Walk.module),
    (functools.partial, lambda walk, v, at: walk.all("partial", [v.func, v.args, v.keywords, *beside(v)], at)),
    ((classmethod, staticmethod), lambda walk, v, at: walk.all(type(v).__name__, [v.__func__, *beside(v)], at)),
    (functools.cached_property, lambda walk, v, at: walk.all("property", [v.func], at)),  # before 3.12 it holds a lock
    (property, lambda walk, v, at: walk.all("property", [v.fget, v.fset, v.fdel, *beside(v)], at)),
    (torch.Tensor, _Walk.tensor),
    (np.ndarray, _Walk.array),
    (np.generic, lambda walk, v, at: walk.all("number", [str(v.dtype), v.tobytes()], at)),
    (torch.Generator, lambda walk, v, at: walk.all("generator", [v.get_state(), *beside(v)], at)),
    (np.random.Generator, lambda walk, v, at: walk.all("generator", [v.bit_generator.state, *beside(v)], at)),
    (np.random.RandomState, lambda walk, v, at: walk.all("generator", [v.get_state(), *beside(v)], at)),
    (random.Random, lambda walk, v, at: walk.all("generator", [v.getstate(), *beside(v)], at)),
    (logging.Logger, lambda walk, v, at: walk.all("logger", [v.name], at)),
    (weakref.ref, lambda walk, v, at: walk.all("weak", [v(), *beside(v)], at)),
    (RemovableHandle, lambda walk, v, at: walk.all("handle", hook_of(v), at)),
    ((list, tuple), lambda walk, v, at: walk.container(v, at, walk.all(type(v).__name__, v, at))),
    ((dict, types.MappingProxyType), lambda walk, v, at: walk.container(v, at, walk.mapping("dict", v.items(), at))),
    ((set, frozenset), _Walk.set_),
)
