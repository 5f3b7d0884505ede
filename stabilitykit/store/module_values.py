"""What the user's loaded modules hold in place of what their source gives them: ``nets.NOISE`` that a test has set.

A module that a training imports inside its function is no part of what the function's globals lead to. Its source
counts as a file; here its names are compared with that source, and with what they held after the import. Where they
agree nothing counts, so that a key is the same whether the module is loaded already or not: in any order of tests, and
in any process.
"""

from __future__ import annotations

import abc
import ast
import enum
import functools
import operator
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .imported_values import classes_in, heard_modules, held_after_import, names_in
from .loaded_files import imported_by_training
from .module_sources import (
    Computed,
    Fills,
    From,
    Function,
    ModuleSource,
    initial_values,
    is_plain,
    items,
    read_source,
)
from .pictures import GONE, NUMBERS, TEXTS, Held, differences

#: Modules of types that tell a time or a process.
_TIMES = frozenset({"datetime", "uuid"})
#: What Python and its library put into classes, when they please.
_OF_PYTHON = frozenset({"__dict__", "__weakref__", "__doc__", "__module__", "__abstractmethods__", "__slotnames__"})


def changed_values(paths: Iterable[Path], real: Callable[[str], Path | None]) -> Iterator[tuple[str, object]]:
    """Yield what loaded modules of ``paths`` hold that their source does not give, by dotted name, in its order.

    Only names count that functions in the files mention, all where these compute names. Functions and classes count
    where they are others, data where the source or the import gave another. Where the files import modules by computed
    names, each of the user's loaded modules is looked at. ``real`` gives the real path of an own file.
    """
    sources = {path: source for path in paths if (source := read_source(path)) is not None}
    static = frozenset(sources)
    if any(source.imports_any for source in sources.values()):
        sources = _heard(real) | sources
    found = sources.values()
    mentioned: frozenset[str] = frozenset().union(*(source.mentioned for source in found))
    fills = functools.reduce(Fills.merged, (sources[path].fills for path in static), Fills())
    takes_any = any(source.takes_any for source in found)
    for path, module in _loaded(sources, real):
        if _is_of_tests(path.stem) and not any(path.stem in one.imported for one in found if one is not sources[path]):
            continue  # what a task reaches of it counts by the names in its code: the rest is of other tests
        changed = _Module(module, path, sources[path], fills, by_source=path in static).changed(
            mentioned, takes_any=takes_any
        )
        for name, value in dict(changed).items():
            yield f"{module.__name__}.{name}", value


def _heard(real: Callable[[str], Path | None]) -> dict[Path, ModuleSource]:
    files = (names_in(module).get("__file__") for module in heard_modules())
    paths = {path for file in files if isinstance(file, str) and (path := real(file)) is not None}
    return {path: source for path in paths if (source := read_source(path)) is not None}


def _loaded(paths: Iterable[Path], real: Callable[[str], Path | None]) -> list[tuple[Path, types.ModuleType]]:
    wanted = set(paths)
    by_name = _by_file_name()
    found: dict[str, tuple[Path, types.ModuleType]] = {}
    for name in {path.name for path in wanted} & by_name.keys():
        for module in by_name[name]:
            scope = names_in(module)
            path = real(scope["__file__"])
            is_lazy = type(module).__getattribute__ is not types.ModuleType.__getattribute__  # nothing was asked of it
            if path is not None and path in wanted and not is_lazy:
                found[scope["__name__"]] = path, module
    return [found[name] for name in sorted(found)]


_listed: list[object] = []  #: the modules of this process when they were last listed
_named: dict[str, list[types.ModuleType]] = {}


def _by_file_name() -> dict[str, list[types.ModuleType]]:
    """Return the loaded modules by the last part of their file's name; a listing holds while all are the same."""
    modules = [*sys.modules.values()]
    if len(modules) != len(_listed) or not all(map(operator.is_, modules, _listed)):
        _listed[:] = modules
        _named.clear()
        for module in modules:
            file = names_in(module).get("__file__") if isinstance(module, types.ModuleType) else None
            if isinstance(file, str):
                _named.setdefault(file.rpartition(os.sep)[2], []).append(module)
    return _named


class _Module:
    """A loaded module beside its source."""

    def __init__(
        self, module: types.ModuleType, path: Path, source: ModuleSource, fills: Fills, *, by_source: bool
    ) -> None:
        """Compare a module with what it held, and ``by_source`` with what its source gives, where a task names it."""
        self.path, self.source, self.scope, self.fills, self.by_source = path, source, vars(module), fills, by_source
        self.package = self.scope.get("__package__") or ""
        self.initial = initial_values(module, source)
        self.counts_outside = not imported_by_training(path)
        self.held = held_after_import(module)

    def changed(self, mentioned: frozenset[str], *, takes_any: bool) -> Iterator[tuple[str, object]]:
        wanted = None if takes_any else mentioned
        yield from self._changed_in(self.scope, "", wanted, takes_more="*" not in self.source.given)
        for name, kind in classes_in(self.scope, self._name):
            node = self.source.given.get(name)
            if issubclass(kind, enum.Enum) or (self.held is None and not isinstance(node, ast.ClassDef)):
                continue
            if not isinstance(node, ast.ClassDef) or not self._is_replaced(node, name, kind):
                takes_more = isinstance(node, ast.ClassDef) and _is_plain_class(node, kind)
                members = {member: value for member, value in vars(kind).items() if member not in _OF_PYTHON}
                yield from self._changed_in(members, f"{name}.", wanted, takes_more=takes_more)

    def _changed_in(
        self, scope: Mapping[str, Any], prefix: str, wanted: frozenset[str] | None, *, takes_more: bool
    ) -> Iterator[tuple[str, object]]:
        """Yield what differs of the ``wanted`` names of a module or class, or of all; special members always count."""
        held = {} if self.held is None else self.held.get(prefix.removesuffix("."), {})
        for name in sorted(scope if wanted is None else wanted & scope.keys()) if self.by_source else ():
            node = self.source.given.get(prefix + name)
            is_known = name in held and (node is None or isinstance(node, (Function, ast.ClassDef)))
            if not is_known and not _is_special(name) and not self._is_exempt(prefix, name, scope[name]):
                yield from self._changed_by_source(prefix + name, scope[name], takes_more=takes_more)
        if self.held is None:
            return
        for name in sorted((held.keys() | scope.keys()) - _OF_PYTHON):
            if not (prefix if _is_special(name) else wanted is None or name in wanted):
                continue
            then, value = held.get(name), scope.get(name, GONE)
            if (then is not None and then.is_untouched(value)) or self._is_exempt(prefix, name, value):
                continue
            if then is not None:
                yield from differences(prefix + name, then, Held(value), self._may_differ)
            elif self._is_set_later(name, value, prefix):
                yield prefix + name, value

    def _changed_by_source(self, name: str, value: object, *, takes_more: bool) -> Iterator[tuple[str, object]]:
        node = self.source.given.get(name)
        is_more = node is None and (name.rpartition(".")[2].startswith("_") or not takes_more)
        if not is_more and self._counts(node, name, value):
            yield name, value

    def _is_exempt(self, prefix: str, name: str, value: object) -> bool:
        """Whether a name holds what code of the user's has made or filled: a cache, a counter."""
        fills, name = (self.fills, f".{name}") if prefix else (self.source.fills, name)
        full = prefix + name.removeprefix(".")
        if self.held is None:
            then = Held(self.initial[full]) if full in self.initial else None
            return name in fills.in_place | fills.counted or (name in fills.made and _is_none(then))
        held = self.held.get(prefix.removesuffix("."), {})
        return _is_filled(fills, name, held.get(name.removeprefix(".")), value)

    def _may_differ(self, attribute: str, then: Held | None, value: object) -> bool:
        return _is_filled(self.fills, f".{attribute}", then, value)

    def _is_set_later(self, name: str, value: object, prefix: str) -> bool:
        """Whether a name that came after the import is of a test; not a submodule, or what was loaded lazily."""
        if isinstance(value, types.ModuleType):
            return False
        if prefix and name.startswith("_"):
            return self._is_brought(value) or (_is_special(name) and _is_mock(value))
        home = sys.modules.get(getattr(value, "__module__", None) or "")
        is_found = home is not None and getattr(home, str(getattr(value, "__qualname__", "")), None) is value
        return not is_found

    def _counts(self, node: object, name: str, value: object) -> bool:
        if isinstance(node, ast.expr):
            return (self._is_other(name, value) and is_plain(value)) or self._is_brought(value)
        if isinstance(node, Computed):
            counts = self._is_other(name, value) or (node.is_outside and self.counts_outside)
            return self._is_brought(value) or (counts and is_plain(value))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return self._is_replaced(node, name.rpartition(".")[2], value)
        if isinstance(node, From):
            return not any(node.name in names for names in self.fills) and self._is_not_from(node, value)
        return is_plain(value) or self._is_brought(value)

    def _is_other(self, name: str, value: object) -> bool:
        """Whether a name holds another value than its expression gives."""
        return name in self.initial and not _is_same(value, self.initial[name])

    def _is_replaced(self, node: Function | ast.ClassDef, name: str, value: object) -> bool:
        """Whether a name holds something else than the function or class that the source defines under it."""
        if isinstance(node, ast.ClassDef):
            is_its = isinstance(value, type) and value.__qualname__ == name and value.__module__ == self._name
            return not is_its and (not node.decorator_list or is_plain(value))
        if isinstance(value, (staticmethod, classmethod)):
            value = value.__func__
        value = value.fget if isinstance(value, property) else value
        if not isinstance(value, types.FunctionType):
            return is_plain(value) or not node.decorator_list
        if node.decorator_list:
            return self._is_brought(value) and not hasattr(value, "__wrapped__")
        return value.__code__.co_name != name or not self._is_here(value)

    @property
    def _name(self) -> str:
        return str(self.scope.get("__name__"))

    def _is_here(self, value: types.FunctionType) -> bool:
        file = value.__code__.co_filename
        return value.__globals__ is self.scope or file == str(self.path) or os.path.realpath(file) == str(self.path)

    def _is_brought(self, value: object) -> bool:
        """Whether a value is a function that lies in no module under its name: a test has made it."""
        if not isinstance(value, types.FunctionType) or self._is_here(value):
            return False
        home = sys.modules.get(value.__module__ or "")
        is_made = "<locals>" in value.__qualname__ or value.__name__ == "<lambda>"
        return is_made and home is not None and _is_test(home)

    def _is_not_from(self, node: From, value: object) -> bool:
        """Whether a name that was imported is no longer what its own module has."""
        if not node.name or isinstance(value, types.ModuleType):
            return is_plain(value)  # a module, if nothing has taken its place
        package = self.package.split(".")
        base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
        home = sys.modules.get(".".join(part for part in (base, node.module) if part))
        there = getattr(home, node.name, value) if home is not None else value
        is_readable = is_plain(value) or isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type))
        return there is not value and is_readable and not _is_same(value, there)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_mock(value: object) -> bool:
    return type(value).__module__ == "unittest.mock"


def _is_none(then: Held | None) -> bool:
    return then is None or then.value is None


def _is_filled(fills: Fills, name: str, then: Held | None, value: object) -> bool:
    """Whether a value is what code of the user's leaves: a counter, the container of the import, one made lazily."""
    if name in fills.counted and (type(value) in NUMBERS or type(value) in TEXTS or type(value).__module__ in _TIMES):
        return True
    if name in fills.in_place and then is not None and value is then.value:
        return True
    return name in fills.made and _is_none(then)


def _is_of_tests(stem: str) -> bool:
    return stem.startswith("test_") or stem.endswith("_test")


def _is_test(module: types.ModuleType) -> bool:
    stem = Path(getattr(module, "__file__", None) or "").stem
    return stem == "conftest" or _is_of_tests(stem)


def _is_plain_class(node: ast.ClassDef, kind: type) -> bool:
    """Whether nothing but its body, and a test, gives members to a class."""
    hooks = [one for one in kind.__mro__[:-1] if "__init_subclass__" in vars(one) and one.__module__ != "typing"]
    return not node.decorator_list and type(kind) in (type, abc.ABCMeta) and not hooks


def _is_same(one: object, other: object) -> bool:
    """Whether two plain values are equal in content and type; others are if they are one object."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (set, frozenset)):
        return one == other
    inner, others = items(one), items(other)
    if inner is None or others is None:
        return (type(one) in NUMBERS or type(one) in TEXTS) and repr(one) == repr(other)
    return len(inner) == len(others) and all(map(_is_same, inner, others))
