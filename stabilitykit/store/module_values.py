"""What the user's loaded modules hold in place of what their source gives them: ``nets.NOISE`` that a test has set.

A module that a training imports inside its function is no part of what the function's globals lead to. Its source
counts as a file; here its names are compared with that source. Where they agree nothing counts, so that a key is the
same whether the module is loaded already or not: in any order of tests, and in any process.
"""

from __future__ import annotations

import abc
import ast
import dataclasses
import enum
import functools
import operator
import os
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from .loaded_files import Stamp, imported_by_training, stamp_of

_NUMBERS = (bool, int, float, complex, type(None))
_TEXTS = (str, bytes)
_SEQUENCES = (list, tuple, set, frozenset)

#: How deep, and how long, data of a module may be to be compared.
_DEPTH, _LONGEST = 6, 4096

#: Names by which an expression reads what may be another in the next session.
_OUTSIDE = frozenset({
    "environ", "getenv", "argv", "open", "read_text", "read_bytes", "load", "loads", "safe_load",
})  # fmt: skip
#: Names by which an expression asks for what is another in each process, and trains nothing.
_VOLATILE = frozenset({
    "time", "time_ns", "perf_counter", "monotonic", "now", "today", "utcnow", "uuid1", "uuid4", "getpid", "gethostname",
    "mkdtemp", "mkstemp", "gettempdir", "TemporaryDirectory", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST",
})  # fmt: skip

#: Methods by which code fills a container of its own: a cache, a log, a registry.
_FILLERS = frozenset({"append", "appendleft", "add", "extend", "insert", "setdefault", "pop", "popitem", "clear"})

#: Functions of Python that an expression may call and still give the same in each process.
_PURE: dict[str, Callable[..., object]] = {
    kind.__name__: kind
    for kind in (
        bool,
        int,
        float,
        complex,
        str,
        bytes,
        list,
        tuple,
        dict,
        set,
        frozenset,
        len,
        min,
        max,
        sum,
        abs,
        round,
    )
} | {"sorted": sorted, "range": range}
_PURE_NODES = (
    ast.Constant, ast.Name, ast.Load, ast.List, ast.Tuple, ast.Dict, ast.Set, ast.UnaryOp, ast.unaryop, ast.BinOp,
    ast.operator, ast.Call, ast.keyword, ast.Starred, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.IfExp,
    ast.Subscript, ast.Slice, ast.JoinedStr, ast.FormattedValue, ast.Attribute,
)  # fmt: skip

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class _From(NamedTuple):
    """A name that a module imports from another."""

    module: str
    level: int
    name: str


class _Computed(NamedTuple):
    """A value that only running the module gives."""

    is_outside: bool  #: whether it depends on variables, arguments or files


@dataclass(frozen=True)
class _Source:
    """What a source file says of the names of its module: ``NOISE``, and ``Net.depth`` of a class."""

    given: Mapping[str, ast.expr | _Function | ast.ClassDef | _From | _Computed]
    mentioned: frozenset[str]  #: names that its functions read, and texts that may be names
    filled: frozenset[str]  #: names that its functions fill or count up


def changed_values(paths: Iterable[Path], real: Callable[[str], Path | None]) -> Iterator[tuple[str, object]]:
    """Yield what loaded modules of ``paths`` hold that their source does not give, by dotted name, in its order.

    Only names count that functions in the files mention. Data counts if it is plain; functions and classes count where
    the source defines another. ``real`` gives the real path of an own file.
    """
    sources = {path: source for path in paths if (source := _read(path)) is not None}
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

    def __init__(self, module: types.ModuleType, path: Path, source: _Source, filled: frozenset[str]) -> None:
        self.path, self.source, self.scope, self.filled = path, source, vars(module), filled
        self.package = self.scope.get("__package__") or ""
        self.initial = _initial_values(module, source)
        self.counts_outside = not imported_by_training(path)

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
            is_other = name in self.initial and not _is_same(value, self.initial[name])
            return (is_other and is_plain(value)) or self._is_brought(value)
        if isinstance(node, _Computed):
            return self._is_brought(value) or (node.is_outside and self.counts_outside and is_plain(value))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            return self._is_replaced(node, name.rpartition(".")[2], value)
        if isinstance(node, _From):
            return node.name not in self.filled and self._is_not_from(node, value)
        return is_plain(value) or self._is_brought(value)

    def _is_replaced(self, node: _Function | ast.ClassDef, name: str, value: object) -> bool:
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

    def _is_not_from(self, node: _From, value: object) -> bool:
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


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is data that can be compared: numbers, text, and containers or dataclasses of these."""
    if type(value) in _NUMBERS or type(value) in _TEXTS or isinstance(value, PurePath):
        return True
    inner = _items(value)
    return (
        inner is not None and depth < _DEPTH and len(inner) <= _LONGEST and all(is_plain(v, depth + 1) for v in inner)
    )


def _items(value: object) -> list[object] | None:
    if type(value) in _SEQUENCES:
        return list(value)  # type: ignore[call-overload,no-any-return]  # a sequence or set, as was asked
    if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
        return [part for item in value.items() for part in item]
    if type(value) is types.SimpleNamespace or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return [part for item in getattr(value, "__dict__", {}).items() for part in item]
    return None


def _is_same(one: object, other: object) -> bool:
    """Whether two plain values are equal in content and type; others are if they are one object."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, (set, frozenset)):
        return one == other
    inner, others = _items(one), _items(other)
    if inner is None or others is None:
        return (type(one) in _NUMBERS or type(one) in _TEXTS) and repr(one) == repr(other)
    return len(inner) == len(others) and all(map(_is_same, inner, others))


# The source


def _read(path: Path) -> _Source | None:
    stamp = stamp_of(path)
    return None if stamp is None or path.suffix != ".py" else _parsed(path, stamp)


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, stamp: Stamp) -> _Source | None:  # another stamp is another entry
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, _Scope)]
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    filled = frozenset(name for function in functions for name in _filled_by(function, classes))
    return _Source(_given(tree.body), frozenset().union(*map(_mentioned, functions), _texts(tree)), filled)


def _mentioned(function: ast.AST) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.name.rpartition(".")[2] for alias in node.names)
    return frozenset(names)


def _texts(tree: ast.AST) -> frozenset[str]:
    """Return the texts that may be names: ``getattr(settings, "RATE")``."""
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return frozenset(text for text in texts if isinstance(text, str) and text.isidentifier())


def _given(body: list[ast.stmt], prefix: str = "") -> dict[str, Any]:
    """Return what gives each name of a module, or of a class, its value."""
    found: dict[str, Any] = {}
    outside: set[str] = set()
    for statement in _statements(body):
        for name, node in _bindings(statement, in_order=statement in body):
            names = _mentioned(node) | _texts(node) if isinstance(node, ast.AST) else frozenset()
            is_outside = not names.isdisjoint(_OUTSIDE | outside)
            outside |= {name} if is_outside else set()
            is_simple = not isinstance(node, ast.expr) or (_is_pure(node) and not is_outside)
            if node is None or prefix + name in found or not is_simple:
                was_outside = is_outside or getattr(found.get(prefix + name), "is_outside", False)
                node = _Computed(was_outside and names.isdisjoint(_VOLATILE))
            found[prefix + name] = node
            if isinstance(node, ast.ClassDef):
                found |= _given(node.body, f"{name}.")
    return found


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        yield statement
        if not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for block in ("body", "orelse", "finalbody"):
                yield from _statements(getattr(statement, block, []))
            for handler in getattr(statement, "handlers", []):
                yield from _statements(handler.body)


def _bindings(statement: ast.stmt, *, in_order: bool) -> list[tuple[str, Any]]:
    """Return the names that a statement gives a value to, each with the value; None for one that is not simple."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [(statement.name, statement)]
    if isinstance(statement, ast.ImportFrom):
        return [(a.asname or a.name, _From(statement.module or "", statement.level, a.name)) for a in statement.names]
    if isinstance(statement, ast.Import):
        return [(alias.asname or alias.name.partition(".")[0], _From(alias.name, 0, "")) for alias in statement.names]
    if isinstance(statement, ast.AnnAssign) and statement.value is None:
        return []
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    value = getattr(statement, "value", None) if isinstance(statement, (ast.Assign, ast.AnnAssign)) else None
    value = value if in_order else None
    found: list[tuple[str, Any]] = []
    for target in targets:
        if isinstance(target, ast.Name):
            found.append((target.id, value))
        elif isinstance(target, ast.Attribute):
            found.append((f"{getattr(target.value, 'id', '')}.{target.attr}", None))
        elif target is not None:
            found += [(node.id, None) for node in ast.walk(target) if isinstance(node, ast.Name)]
    return found


def _is_pure(node: ast.expr) -> bool:
    parts = [*ast.walk(node)]
    calls = (part.func for part in parts if isinstance(part, ast.Call))
    return all(isinstance(part, _PURE_NODES) for part in parts) and all(map(_is_pure_call, calls))


def _is_pure_call(function: ast.expr) -> bool:
    """Whether a call is of a function by its name, or of a method of a constant: nothing of another module."""
    owner = function.value if isinstance(function, ast.Attribute) else ast.Constant("")
    return isinstance(owner, ast.Constant) or getattr(owner, "id", "") == "types"


def _filled_by(function: ast.AST, classes: set[str]) -> Iterator[str]:
    """Yield the names beyond a function that it fills or counts up; to set one from a parameter is no filling."""
    nodes = [*ast.walk(function)]
    declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own = (parameters | stored) - declared
    loads = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    loads += [node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    for node in nodes:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_set = isinstance(node, ast.Assign) and not parameters.isdisjoint(_mentioned(node.value))
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            for target in targets:
                name, extra = _target(target, declared, own, classes)
                if name and not (is_set and loads.count(name) <= extra):
                    yield name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _FILLERS:
            name = getattr(node.func.value, "id", "")
            if name and name not in own:
                yield name


def _target(target: ast.AST | None, declared: set[str], own: set[str], classes: set[str]) -> tuple[str, int]:
    """Return the name beyond a function that an assignment in it changes, and how often the target itself reads it."""
    if isinstance(target, ast.Name):
        return (target.id, 0) if target.id in declared else ("", 0)
    if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id not in own:
        is_named = isinstance(target.slice, ast.Constant)
        return target.value.id, 1 if is_named else -1
    if (
        isinstance(target, ast.Attribute)
        and isinstance(target.value, ast.Name)
        and target.value.id in {"cls", *classes}
    ):
        return target.attr, 0
    return "", 0


# The values that a source gives

_known: weakref.WeakKeyDictionary[types.ModuleType, tuple[_Source, dict[str, object]]] = weakref.WeakKeyDictionary()


def _initial_values(module: types.ModuleType, source: _Source) -> dict[str, object]:
    """Return the values of those names whose expressions read nothing but numbers, text, and each other."""
    known = _known.get(module)
    if known is None or known[0] is not source:
        known = _known[module] = source, _evaluated(source, vars(module))
    return known[1]


def _evaluated(source: _Source, scope: Mapping[str, Any]) -> dict[str, object]:
    """Evaluate expressions in the order of the source; other modules, and data imported from them, are as they are."""
    others = (name for name, node in source.given.items() if isinstance(node, _From) and name in scope)
    modules = {
        name: scope[name] for name in others if isinstance(scope[name], types.ModuleType) or is_plain(scope[name])
    }
    makers = modules | {name: value for name, value in scope.items() if _is_maker(value)}
    found: dict[str, object] = {}
    for name, node in source.given.items():
        if isinstance(node, ast.expr):
            owner = f"{name.rpartition('.')[0]}."
            outer = {key: value for key, value in found.items() if "." not in key}
            inner = {key.removeprefix(owner): value for key, value in found.items() if key.startswith(owner)}
            names = {"__builtins__": {}} | _PURE | makers | outer | inner
            try:
                value = eval(compile(ast.Expression(node), "<source>", "eval"), names)  # pure, as asked
            except Exception:  # noqa: BLE001  # it reads what only the module has
                continue
            if is_plain(value):
                found[name] = value
    return found


def _is_maker(value: object) -> bool:
    """Whether calling a value makes plain data, and runs no code of the user's."""
    if value is types.SimpleNamespace or value is Path:
        return True
    if not isinstance(value, type) or not dataclasses.is_dataclass(value) or hasattr(value, "__post_init__"):
        return False
    makers = {field.default_factory for field in dataclasses.fields(value)} - {dataclasses.MISSING}
    return value.__dataclass_params__.init and makers <= {list, dict, set}  # type: ignore[attr-defined]
