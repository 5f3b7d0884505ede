"""What a value was at one moment, to be told from what it is later: data by content, everything else by identity.

Pictures are taken of each name of the user's modules when these are imported, so nothing heavy is loaded for it.
"""

from __future__ import annotations

import collections
import enum
import math
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple, TypeAlias

from .loaded_files import is_foreign

NUMBERS = (bool, int, float, complex, type(None))
TEXTS = (str, bytes)
_ATOMS = frozenset({*NUMBERS, *TEXTS})
#: What stands for a value that is no longer there.
GONE = "<no longer there>"
_SEQUENCES = (list, tuple, collections.deque)
_MAPPINGS = (dict, types.MappingProxyType)
_SETS = (set, frozenset)
#: How deep values lie of which the content is taken, how many of one value, and how many numbers of an array.
_DEPTH, _MOST = 6, 4096
#: Types of the data of numpy and torch, which are told by their names so that neither is loaded.
_ARRAYS = frozenset({("numpy", "ndarray"), ("torch", "Tensor")})
#: What says in which mode torch's module runs: each training sets it.
_MODES = frozenset({"training"})
#: Attributes of functions under which torch's compiler keeps notes.
_NOTES = ("_torchdynamo_", "__dynamo_")

#: Whether an attribute may differ: of its name, what it was, and what it is.
Exemption: TypeAlias = "Callable[[str, Held | None, object], bool]"


class _Same:
    """A value that counts by its identity; it is kept alive, so that no other gets its place."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and other.value is self.value

    def __hash__(self) -> int:
        return id(self.value)


class Held:
    """A value with its picture."""

    __slots__ = ("picture", "value")

    def __init__(self, value: object, depth: int = 0, left: list[int] | None = None) -> None:
        """Take the picture of a value, or, where ``left`` says how many may follow, of a part of another."""
        self.value = value
        self.picture = _picture(value, depth) if left is None else _taken(value, depth, left)
        if issubclass(type(value), types.ModuleType):  # it may be dropped, with all that it holds
            self.value = self.picture if type(self.picture) is str else value

    def __eq__(self, other: object) -> bool:
        return type(other) is Held and self.picture == other.picture

    __hash__ = None  # type: ignore[assignment]  # it has none of its own

    def is_untouched(self, value: object) -> bool:
        """Whether a value is this one without a look at its content; False if only its picture can tell."""
        if value is not self.value:
            return False
        if type(self.picture) is _Same or type(value) in _ATOMS:
            return True
        if type(value) is not types.FunctionType or value.__dict__ or value.__kwdefaults__:
            return False
        then = self.picture.parts  # type: ignore[attr-defined]  # as of each function
        return (
            len(then) == len(_PARTS_OF_FUNCTION)
            and then["__defaults__"].value is value.__defaults__ is None
            and then["__kwdefaults__"].value is value.__kwdefaults__
            and then["__code__"].value is value.__code__
        )


class _Parts(NamedTuple):
    """The picture of a function or an object: what it is, and each of its attributes."""

    of: tuple[object, ...]
    parts: Mapping[str, Held]


class _TooLarge(Exception):
    pass


def differences(name: str, then: Held, now: Held, is_exempt: Exemption) -> Iterator[tuple[str, object]]:
    """Yield what differs of a value, by dotted name: the whole, or the attributes that do."""
    one, other = then.picture, now.picture
    if isinstance(one, _Parts) and isinstance(other, _Parts) and one.of == other.of:
        for part in sorted(one.parts.keys() | other.parts.keys()):
            before, after = one.parts.get(part), other.parts.get(part)
            if before == after or is_exempt(part, before, after and after.value):
                continue
            if before is None or after is None:
                yield f"{name}.{part}", GONE if after is None else after.value
            else:
                yield from differences(f"{name}.{part}", before, after, is_exempt)
    elif one != other and not (then.value is now.value and _Same in (type(one), type(other))):
        # The same object has another picture if it has become too large to compare.
        is_module = type(now.value) is types.ModuleType  # one that a test has made
        yield name, {key: one for key, one in vars(now.value).items() if key[:2] != "__"} if is_module else now.value


def _picture(value: object, depth: int = 0) -> object:
    try:
        return _taken(value, depth, [_MOST])
    except Exception:  # noqa: BLE001  # it is too large, or an attribute or item of the user's raises
        return _Same(value)


def _taken(value: Any, depth: int, left: list[int]) -> object:
    kind = type(value)
    left[0] -= 1
    if left[0] < 0:
        raise _TooLarge
    if kind in _ATOMS:
        return kind, value if kind in TEXTS else repr(value)
    if depth > _DEPTH:
        return _Same(value)
    # The type is asked, and not the value: a proxy answers for another object, and may load it for that.
    if issubclass(kind, types.ModuleType):  # one that was imported anew is the same
        name = str(value.__name__)
        return name if sys.modules.get(name) is value else _Same(value)
    if issubclass(kind, (PurePath, bytearray)):
        return kind, bytes(value)
    content = _content(value, depth + 1, left)
    parts = _parts_of(value)
    if parts is None:
        return _Same(value) if content is None else (kind, content)
    held = {name: Held(part, depth + 1, left if depth else None) for name, part in parts[1].items()}
    return _Parts((*parts[0], content), held)


def _content(value: Any, depth: int, left: list[int]) -> object:
    """Return the items of a container, or the numbers of an array; None of anything else."""
    kind = type(value)
    if issubclass(kind, enum.Enum):
        return None
    if issubclass(kind, _SEQUENCES):
        base: Any = next(one for one in _SEQUENCES if issubclass(kind, one))
        return [_taken(item, depth, left) for item in base.__iter__(value)]
    if issubclass(kind, _MAPPINGS):
        items = dict.items(value) if issubclass(kind, dict) else value.items()
        return [(_taken(key, depth, left), _taken(item, depth, left)) for key, item in items]
    if issubclass(kind, _SETS):
        base = set if issubclass(kind, set) else frozenset  # not as a class of the user's tells it
        return {(_taken(one, depth, left) if type(one) in _ATOMS else _Same(one)) for one in base.__iter__(value)}
    if (kind.__module__, kind.__name__) in _ARRAYS:
        if math.prod(value.shape) > _MOST or getattr(getattr(value, "device", None), "type", "cpu") != "cpu":
            return None
        array = value.detach().numpy() if kind.__name__ == "Tensor" else value
        return str(value.dtype), tuple(value.shape), array.tobytes()
    return (value.tobytes(),) if kind.__module__ == "numpy" and hasattr(kind, "tobytes") else None


_PARTS_OF_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")


def _parts_of(value: Any) -> tuple[tuple[object, ...], dict[str, object]] | None:
    """Return what a value is, and the attributes by which it counts; None if it has none."""
    function = value.__func__ if type(value) in (staticmethod, classmethod) else value
    if type(function) is types.FunctionType:
        noted = {name: part for name, part in vars(function).items() if not name.startswith(_NOTES)}
        return (_Same(value),), {**{name: getattr(function, name) for name in _PARTS_OF_FUNCTION}, **noted}
    kind = type(value)
    if issubclass(kind, (type, enum.Enum)) or not _is_open(kind):
        return None
    slots = [name for one in kind.__mro__ for name in _slots(one)]
    attributes = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    attributes |= object.__getattribute__(value, "__dict__") if hasattr(value, "__dict__") else {}
    if not all(map(_is_known, kind.__mro__)):  # others' code has a part in it
        hidden = {name for name, part in attributes.items() if name.startswith("_") or not _is_data(part)}
        return (_Same(value),), {name: part for name, part in attributes.items() if name not in hidden | _MODES}
    return (kind,), attributes


def _slots(kind: type) -> Iterator[str]:
    slots = vars(kind).get("__slots__", ())
    for name in (slots,) if isinstance(slots, str) else slots:
        if name not in ("__dict__", "__weakref__"):
            hides = name.startswith("__") and not name.endswith("__")
            yield f"_{kind.__name__.lstrip('_')}{name}" if hides else name


def _is_data(value: object) -> bool:
    return type(value) in _ATOMS or issubclass(type(value), (*_SEQUENCES, *_MAPPINGS, *_SETS))


def _is_open(kind: type) -> bool:
    """Whether objects of a class count by their attributes: the user's own, namespaces and dataclasses."""
    is_namespace = kind is types.SimpleNamespace or (kind.__module__, kind.__name__) == ("argparse", "Namespace")
    return is_namespace or hasattr(kind, "__dataclass_fields__") or _is_own(kind) or _is_container(kind)


def _is_container(kind: type) -> bool:
    """Whether a class is made from a container, as those of configurations are, and is no type of Python's."""
    return issubclass(kind, (dict, list)) and kind.__module__ not in ("builtins", "collections")


def _is_own(kind: type) -> bool:
    module = sys.modules.get(kind.__module__)
    file = None if module is None else vars(module).get("__file__")
    return isinstance(file, str) and not is_foreign(file)


def _is_known(kind: type) -> bool:
    return kind.__module__ in ("builtins", "collections", "abc", "typing", "argparse", "types") or _is_own(kind)
