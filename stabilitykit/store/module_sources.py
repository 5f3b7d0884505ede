"""What a source file gives the names of its module, by reading it: ``NOISE``, and ``Net.depth`` of a class."""

from __future__ import annotations

import ast
import dataclasses
import functools
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeAlias

from .loaded_files import Stamp, stamp_of
from .pictures import NUMBERS, TEXTS
from .source_files import IMPORTERS

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

#: Names by which code reaches all names of a module or object.
_BY_TEXT = frozenset({"globals", "vars", "__dict__", "attrgetter", "getmembers", "eval", "exec"})
#: Functions that import what a text names.
_IMPORTERS = IMPORTERS | {"locate", "resolve_name"}

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


class Fills(NamedTuple):
    """Names that functions give values beyond them; those of attributes begin with a dot: ``.size``."""

    in_place: frozenset[str] = frozenset()  #: containers that they put something in
    counted: frozenset[str] = frozenset()  #: what is counted up, or set to the time
    made: frozenset[str] = frozenset()  #: what is given another value, but not that of a parameter

    def merged(self, other: Fills) -> Fills:
        """Return these names and others."""
        return Fills(*(one | more for one, more in zip(self, other, strict=True)))


@dataclass(frozen=True)
class ModuleSource:
    """What a source file says of the names of its module: ``NOISE``, and ``Net.depth`` of a class."""

    given: Mapping[str, ast.expr | Function | ast.ClassDef | From | Computed]
    mentioned: frozenset[str]  #: names that its functions read, and texts that may be names
    imported: frozenset[str]  #: the last parts of the names of modules that it imports
    fills: Fills  #: what its functions fill, count up or make
    takes_any: bool  #: whether it takes attributes by names that it computes
    imports_any: bool  #: whether it imports modules by names that it computes


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
    functions = [*_outermost(tree)]
    found: dict[str, set[str]] = {kind: set() for kind in Fills._fields}
    for function in functions:
        for kind, name in _filled_by(function):
            found[kind].update({name} - {""})
    nodes = [*ast.walk(tree)]
    return ModuleSource(
        _given(tree.body),
        frozenset().union(*map(_mentioned, functions), _texts(tree)),
        frozenset(name for node in nodes for name in _modules_of(node)),
        Fills(**{kind: frozenset(names) for kind, names in found.items()}),
        any(map(_takes_any, nodes)),
        any(map(_imports_any, nodes)),
    )


def _outermost(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the functions that lie in no other: what an inner one fills may be a variable of an outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Scope):
            yield child
        else:
            yield from _outermost(child)


def _modules_of(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.rpartition(".")[2] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").rpartition(".")[2], *(alias.name for alias in node.names)]
    return []


def _takes_any(node: ast.AST) -> bool:
    """Whether a node takes a name that stands nowhere: ``getattr(settings, f"LR_{kind}")``, ``globals()``."""
    return getattr(node, "attr", getattr(node, "id", "")) in _BY_TEXT or _is_computed(node, {"getattr"}, 1)


def _imports_any(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        return node.attr == "modules" and getattr(node.value, "id", "") == "sys"
    return _is_computed(node, _IMPORTERS, 0)


def _is_computed(node: ast.AST, functions: Collection[str], position: int) -> bool:
    """Whether a node calls one of some functions with a computed text at a position."""
    if not isinstance(node, ast.Call) or getattr(node.func, "attr", getattr(node.func, "id", "")) not in functions:
        return False
    return not (len(node.args) > position and isinstance(node.args[position], ast.Constant))


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
    parts = (text.split(".") for text in texts if isinstance(text, str) and text.replace(".", "").isidentifier())
    return frozenset(part for found in parts for part in found)


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
                found |= _given(node.body, f"{prefix}{name}.")
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


#: Methods that set up an object: what they set is no later change.
_MAKERS = frozenset({"__init__", "__new__", "__post_init__", "__setstate__"})


def _filled_by(function: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names beyond a function that it fills, with how; to set one from a parameter is no filling."""
    nodes = [*ast.walk(function)]
    declared = {name for node in nodes if isinstance(node, ast.Global) for name in node.names}
    parameters = {node.arg for node in nodes if isinstance(node, ast.arg)} - {"self", "cls"}
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    own = (parameters | stored) - declared
    loads = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    loads += [f".{node.attr}" for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    makes = getattr(function, "name", "") not in _MAKERS
    for node in nodes:
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            read = frozenset() if node.value is None else _mentioned(node.value)
            is_set = isinstance(node, ast.Assign) and not parameters.isdisjoint(read)
            is_counted = isinstance(node, ast.AugAssign) or not read.isdisjoint(_VOLATILE)
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                kind, name, extra = _target(target, declared, own)
                kind = "counted" if is_counted and kind == "made" else kind
                if not (is_set and loads.count(name) <= extra) and (makes or kind != "made"):
                    yield kind, name
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _FILLERS:
            yield "in_place", _reached(node.func.value, own)


def _target(target: ast.AST | None, declared: set[str], own: set[str]) -> tuple[str, str, int]:
    """Return how an assignment changes a name beyond its function, the name, and how often the target reads it."""
    if isinstance(target, ast.Name):
        return "made", target.id if target.id in declared else "", 0
    if isinstance(target, ast.Subscript):
        return "in_place", _reached(target.value, own), 1 if isinstance(target.slice, ast.Constant) else -1
    if isinstance(target, ast.Attribute) and _reached(target.value, own):
        return "made", f".{target.attr}", 0
    return "made", "", 0


def _reached(node: ast.AST, own: set[str]) -> str:
    """Return a name that lies beyond a function, or that of an attribute of such a one; empty for any other."""
    if isinstance(node, ast.Name):
        return "" if node.id in own else node.id
    return f".{node.attr}" if isinstance(node, ast.Attribute) and _reached(node.value, own) else ""


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
