"""What a source file gives the names of its module, by reading it: ``NOISE``, and ``Net.depth`` of a class."""

from __future__ import annotations

import ast
import dataclasses
import functools
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeAlias

from .loaded_files import Stamp, stamp_of

NUMBERS = (bool, int, float, complex, type(None))
TEXTS = (str, bytes)
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

Function = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class From(NamedTuple):
    """A name that a module imports from another."""

    module: str
    level: int
    name: str


class Computed(NamedTuple):
    """A value that only running the module gives."""

    is_outside: bool  #: whether it depends on variables, arguments or files


@dataclass(frozen=True)
class ModuleSource:
    """What a source file says of the names of its module: ``NOISE``, and ``Net.depth`` of a class."""

    given: Mapping[str, ast.expr | Function | ast.ClassDef | From | Computed]
    mentioned: frozenset[str]  #: names that its functions read, and texts that may be names
    filled: frozenset[str]  #: names that its functions fill or count up


def read_source(path: Path) -> ModuleSource | None:
    """Return what a source file says; None for what is no source file, or cannot be parsed."""
    stamp = stamp_of(path)
    return None if stamp is None or path.suffix != ".py" else _parsed(path, stamp)


@functools.lru_cache(maxsize=1024)
def _parsed(path: Path, stamp: Stamp) -> ModuleSource | None:  # another stamp is another entry
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return None
    functions = [node for node in ast.walk(tree) if isinstance(node, _Scope)]
    classes = {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    filled = frozenset(name for function in functions for name in _filled_by(function, classes))
    return ModuleSource(_given(tree.body), frozenset().union(*map(_mentioned, functions), _texts(tree)), filled)


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
                node = Computed(was_outside and names.isdisjoint(_VOLATILE))
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
        return [(a.asname or a.name, From(statement.module or "", statement.level, a.name)) for a in statement.names]
    if isinstance(statement, ast.Import):
        return [(alias.asname or alias.name.partition(".")[0], From(alias.name, 0, "")) for alias in statement.names]
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


_Known: TypeAlias = tuple[ModuleSource, dict[str, object]]
_known: weakref.WeakKeyDictionary[types.ModuleType, _Known] = weakref.WeakKeyDictionary()


def initial_values(module: types.ModuleType, source: ModuleSource) -> dict[str, object]:
    """Return the values of those names whose expressions read nothing but numbers, text, and each other."""
    known = _known.get(module)
    if known is None or known[0] is not source:
        known = _known[module] = source, _evaluated(source, vars(module))
    return known[1]


def _evaluated(source: ModuleSource, scope: Mapping[str, Any]) -> dict[str, object]:
    """Evaluate expressions in the order of the source; other modules, and data imported from them, are as they are."""
    others = (name for name, node in source.given.items() if isinstance(node, From) and name in scope)
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


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is data that can be compared: numbers, text, and containers or dataclasses of these."""
    if type(value) in NUMBERS or type(value) in TEXTS or isinstance(value, PurePath):
        return True
    inner = items(value)
    return (
        inner is not None and depth < _DEPTH and len(inner) <= _LONGEST and all(is_plain(v, depth + 1) for v in inner)
    )


def items(value: object) -> list[object] | None:
    """Return what a container or dataclass holds, keys as well; None for anything else."""
    if type(value) in _SEQUENCES:
        return list(value)  # type: ignore[call-overload,no-any-return]  # a sequence or set, as was asked
    if isinstance(value, dict) and type(value).__module__ in ("builtins", "collections"):
        return [part for item in value.items() for part in item]
    if type(value) is types.SimpleNamespace or (dataclasses.is_dataclass(value) and not isinstance(value, type)):
        return [part for item in getattr(value, "__dict__", {}).items() for part in item]
    return None
