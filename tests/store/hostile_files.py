"""Bad content for every file of a store: what another program, a full disk or another user may leave in its place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

#: Values of another type than any field has, by name.
WRONG: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "text": "\x1b[31mtext\x07",
    "empty text": "",
    "list": [[1], {"a": 2}],
    "object": {"a": [1]},
    "minus": -1,
    "huge": 10**400,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "half": 0.5,
    "surrogate": "\ud800",
}


class Attack(NamedTuple):
    """One way to spoil a file."""

    name: str
    spoil: Callable[[Path], object]


def _replace(place: Callable[[Path], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        path.unlink()
        place(path)

    return spoil


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10 * 2**30)


def in_place_of_files() -> Iterator[Attack]:
    """Give what may lie where a file should."""
    yield Attack("a pipe", _replace(os.mkfifo))
    yield Attack("a link to /dev/zero", _replace(lambda path: path.symlink_to("/dev/zero")))
    yield Attack("a link to nothing", _replace(lambda path: path.symlink_to("nothing")))
    yield Attack("a link to itself", _replace(lambda path: path.symlink_to(path.name)))
    yield Attack("a folder", _replace(Path.mkdir))
    yield Attack("10 GB of holes", _sparse)
    yield Attack("nothing", Path.unlink)
    yield Attack("an empty file", lambda path: path.write_bytes(b""))


def of_json() -> Iterator[Attack]:
    """Give content that is no JSON object, or no plain one."""
    for name, content in {
        "half": b'{"format": "2", "rec',
        "a list": b"[1, 2]",
        "a number": b"7",
        "null": b"null",
        "no text": b"\xff\xfe\x00\x01",
        "another encoding": '{"format": "2"}'.encode("utf-16"),
        "deep": b"[" * 100_000 + b"]" * 100_000,
        "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "an empty object": b"{}",
        "names twice": b'{"format": "2", "format": "2"}',
        "a number of 5000 digits": b'{"format": ' + b"9" * 5000 + b"}",
    }.items():
        yield Attack(name, lambda path, content=content: path.write_bytes(content))


def of_fields(content: Mapping[str, Any]) -> Iterator[Attack]:
    """Give an object with one field that is missing, or of another type, at any depth."""
    for where in _paths(content):
        name = ".".join(map(str, where))
        yield Attack(f"without {name}", lambda path, where=where: _edit(path, where, missing=True))
        for called, value in WRONG.items():
            yield Attack(f"{name} is {called}", lambda path, where=where, value=value: _edit(path, where, value))


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, part in items:
        yield (*above, name)
        yield from _paths(part, (*above, name))


def _edit(path: Path, where: tuple[Any, ...], value: Any = None, *, missing: bool = False) -> None:
    content = json.loads(path.read_text())
    part = content
    for name in where[:-1]:
        part = part[name]
    if missing:
        del part[where[-1]]
    else:
        part[where[-1]] = value
    path.write_text(json.dumps(content))
