"""The one reader of files of a store, of budgets and of baselines: what it opens is a regular file, and bounded.

Another program, or another user, may have put anything in the place of a file. A pipe would wait without end, a link
lead elsewhere, a sparse file take all memory. Content that is not as it was written counts as damaged. A file that the
system does not let this process read is no damage, and an error.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import math
import os
import re
import stat
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from ..errors import StoreError

T = TypeVar("T")

#: The most bytes of a file of text: a run's header with the curve of a million epochs is smaller.
MOST_BYTES = 1 << 26

#: Errors of opening a path at which no file of ours is: nothing, a link, a socket, a file where a folder should be.
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR}

#: Characters that do more to a terminal than to be shown, other than the end of a line and a tab.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
#: Text of JSON that may hold such characters.
_MAY_BE_ACTIVE = re.compile("\\\\[bfru]|[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


class Damaged(ValueError):
    """A file is not as stabilitykit writes it; the message says in which way."""


def open_file(path: Path, *, follow: bool = False) -> IO[bytes]:
    """Open a regular file to read it; ``follow`` a link to one.

    Raises FileNotFoundError where there is nothing, `Damaged` where there is something else, and `StoreError` where the
    system does not let this process read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise Damaged(f"{path.name} is no regular file") from None
        raise unreadable(path, error) from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Damaged(f"{path.name} is no regular file")
    return open(handle, "rb")  # noqa: PTH123  # of a handle


def read_bytes(path: Path, most: int | None = MOST_BYTES, *, follow: bool = False) -> bytes:
    """Return the content of a file of ``most`` bytes at most; the errors are those of `open_file`."""
    with open_file(path, follow=follow) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise Damaged(f"{path.name} has {size} bytes, more than the {most} that are read")
        try:
            return file.read(size)
        except OSError as error:
            raise unreadable(path, error) from error


def read_json(path: Path, *, escape: bool = False) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if the file is missing or damaged.

    ``escape`` is for what is shown: characters that act on a terminal become escapes, such as ``\\x1b``.
    """
    try:
        text = read_bytes(path).decode()
        found = json.loads(text, object_pairs_hook=_object)
        if escape and isinstance(found, dict) and _MAY_BE_ACTIVE.search(text):
            found = harmless(found)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def is_there(path: Path) -> bool:
    """Whether anything is at a path, a link that leads nowhere included."""
    return os.path.lexists(path)


def typed(found: object, kind: type[T]) -> T | None:
    """Return a dataclass made from the values of its fields in ``found``; None where one is missing or of another type.

    Values that are no field are left out. Numbers are finite, and integers have 64 bits at most.

    >>> from stabilitykit.store.verdict_files import LookTaken
    >>> typed({"runs": 4, "alpha": 0.1, "beta": 0.2, "more": 1}, LookTaken)
    LookTaken(runs=4, alpha=0.1, beta=0.2, spent=0.0)
    >>> typed({"runs": "4", "alpha": 0.1, "beta": 0.2}, LookTaken)
    """
    if not isinstance(found, Mapping):
        return None
    hints, defaults = _fields(cast("Any", kind))
    values = {}
    for name, wanted in hints.items():
        if name in found:
            if not _is(found[name], wanted):
                return None
            values[name] = found[name]
        elif name not in defaults:
            return None
    return kind(**values)


def harmless(value: Any) -> Any:
    """Return nested values with escapes in place of characters that act on a terminal.

    >>> print(harmless({"task": "a\\x1b[31mb"})["task"])
    a\\x1b[31mb
    """
    if isinstance(value, str):
        return _ACTIVE.sub(lambda active: ascii(active[0])[1:-1], value)
    if isinstance(value, list):
        return [harmless(one) for one in value]
    if isinstance(value, dict):
        return {harmless(key): harmless(one) for key, one in value.items()}
    return value


def unreadable(path: Path | str, error: OSError) -> StoreError:
    """Return the error to raise if the system does not let this process read a file that may be good."""
    return StoreError(
        f"Expected to read {path} but got: {error}. The file may be good, so it stays as it is; let this user read it, "
        f"or name another store."
    )


@functools.cache
def _fields(kind: type) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the types of a dataclass's fields, and the names of those that have a default."""
    missing = dataclasses.MISSING
    fields = dataclasses.fields(cast("Any", kind))
    optional = (field.name for field in fields if field.default is not missing or field.default_factory is not missing)
    return typing.get_type_hints(kind), frozenset(optional)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


@functools.cache
def _parts_of(wanted: Any) -> tuple[Any, tuple[Any, ...]]:
    return typing.get_origin(wanted), typing.get_args(wanted)


def _is(value: object, wanted: Any) -> bool:
    """Whether a value of JSON is of a type, as annotations write it."""
    if wanted is str:
        return isinstance(value, str)
    if wanted is Any:
        return True
    origin, args = _parts_of(wanted)
    if origin in (typing.Union, types.UnionType):
        return any(_is(value, one) for one in args)
    if origin is typing.Literal:
        return value in args
    if origin in (list, Sequence):
        return isinstance(value, list) and all(_is(one, args[0]) for one in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(_is(one, args[1]) for one in value.values())
    if isinstance(value, bool):
        return wanted is bool
    if wanted is float:
        return isinstance(value, (int, float)) and abs(value) < 2**63 and math.isfinite(value)
    if wanted is int:
        return isinstance(value, int) and abs(value) < 2**63
    return value is None if wanted in (None, type(None)) else isinstance(value, wanted)
