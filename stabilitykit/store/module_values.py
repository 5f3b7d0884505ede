"""What the user's loaded modules hold in place of what their source gives them: ``nets.NOISE`` that a test has set.

A module that a training imports inside its function is no part of what the function's globals lead to. Its source
counts as a file; here its names are compared with that source. Where they agree nothing counts, so that a key is the
same whether the module is loaded already or not: in any order of tests, and in any process.
"""

from __future__ import annotations

import abc
import ast
import enum
import operator
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from .imported_values import held_after_import
from .loaded_files import imported_by_training
from .module_sources import (
    NUMBERS,
    TEXTS,
    Computed,
    From,
    Function,
    ModuleSource,
    initial_values,
    is_plain,
    items,
    read_source,
)


def changed_values(paths: Iterable[Path], real: Callable[[str], Path | None]) -> Iterator[tuple[str, object]]:
    """Yield what loaded modules of ``paths`` hold that their source does not give, by dotted name, in its order.

    Only names count that functions in the files mention. Data counts if it is plain; functions and classes count where
    the source defines another. ``real`` gives the real path of an own file.
    """
    sources = {path: source for path in paths if (source := read_source(path)) is not None}
    mentioned: frozenset[str] = frozenset().union(*(source.mentioned for source in sources.values()))
    filled: frozenset[str] = frozenset().union(*(source.filled for source in sources.values()))
    for path, module in _loaded(sources, real):
        if path.stem.startswith("test_") or path.stem.endswith("_test"):
            continue  # what a task reaches of it counts by the names in its code: the rest is of other tests
        for name, value in _Module(module, path, sources[path], filled).changed(mentioned):
            yield f"{module.__name__}.{name}", value


def _loaded(paths: Iterable[Path], real: Callable[[str], Path | None]) -> list[tuple[Path, types.ModuleType]]:
    wanted = set(paths)
    by_name = _by_file_name()
    found: dict[str, tuple[Path, types.ModuleType]] = {}
    for name in {path.name for path in wanted} & by_name.keys():
        for module in by_name[name]:
            path = real(str(module.__file__))
            if path is not None and path in wanted:
                found[module.__name__] = path, module
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
            file = vars(module).get("__file__") if isinstance(module, types.ModuleType) else None
            if isinstance(file, str):
                _named.setdefault(file.rpartition(os.sep)[2], []).append(module)
    return _named


class _Module:
    """A loaded module beside its source."""

    def __init__(self, module: types.ModuleType, path: Path, source: ModuleSource, filled: frozenset[str]) -> None:
        self.path, self.source, self.scope, self.filled = path, source, vars(module), filled
        self.package = self.scope.get("__package__") or ""
        self.initial = initial_values(module, source)
        self.counts_outside = not imported_by_training(path)
        self.held = held_after_import(module)

    def changed(self, mentioned: frozenset[str]) -> Iterator[tuple[str, object]]:
        yield from self._changed_in(self.scope, "", mentioned, takes_more="*" not in self.source.given)
        for name, node in self.source.given.items():
            kind = self.scope.get(name)
            if not isinstance(node, ast.ClassDef) or not isinstance(kind, type) or issubclass(kind, enum.Enum):
                continue
            if not self._is_replaced(node, name, kind):
                takes_more = _is_plain_class(node, kind)
                yield from self._changed_in(dict(vars(kind)), f"{name}.", mentioned, takes_more=takes_more)

    def _changed_in(
        self, scope: dict[str, Any], prefix: str, mentioned: frozenset[str], *, takes_more: bool
    ) -> Iterator[tuple[str, object]]:
        for name in sorted(mentioned & scope.keys()):
            if (name.startswith("__") and name.endswith("__")) or name in self.source.filled:
                continue
            node, value = self.source.given.get(prefix + name), scope[name]
            if node is None and (name.startswith("_") or not takes_more):
                continue
            if self._counts(node, prefix + name, value):
                yield prefix + name, value

    def _counts(self, node: object, name: str, value: object) -> bool:
        if isinstance(node, ast.expr):
            return (self._is_other(name, value) and is_plain(value)) or self._is_brought(value)
        if isinstance(node, Computed):
            counts = self._is_other(name, value) or (node.is_outside and self.counts_outside)
            return self._is_brought(value) or (counts and is_plain(value))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return self._is_replaced(node, name.rpartition(".")[2], value)
        if isinstance(node, From):
            return node.name not in self.filled and self._is_not_from(node, value)
        return is_plain(value) or self._is_brought(value)

    def _is_other(self, name: str, value: object) -> bool:
        """Whether a name holds another value than its expression gives, or than it held after the import."""
        known = self.initial if name in self.initial else self.held
        return name in known and not _is_same(value, known[name])

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


def _is_test(module: types.ModuleType) -> bool:
    stem = Path(getattr(module, "__file__", None) or "").stem
    return stem == "conftest" or stem.startswith("test_") or stem.endswith("_test")


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
