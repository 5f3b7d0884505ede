"""What a file is opened for, and which file a database lies in, by what Python's audit events tell."""

from __future__ import annotations

import enum
import os
from urllib.parse import unquote, urlsplit


class Use(enum.Enum):
    """What a file is opened for."""

    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = enum.auto()  #: whether it is written is known by its stamp when the block is over


def use_of(path: str, flags: int) -> Use:
    """Return what a file is opened for; one that is made, or emptied, holds nothing that could be read."""
    if flags & os.O_ACCMODE == os.O_RDONLY:
        return Use.READ
    is_new = flags & os.O_CREAT and not os.path.lexists(path)
    return Use.WRITE if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_TRUNC or is_new else Use.BOTH


def database_of(name: object) -> str:
    """Return the path of the database that SQLite connects to by a path or URI; empty for one in memory.

    >>> database_of("file:runs.db?mode=ro"), database_of(":memory:")
    ('runs.db', '')
    """
    path = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    if path.startswith("file:"):
        uri = urlsplit(path)
        path = "" if "mode=memory" in uri.query else unquote(uri.path)
    return "" if path == ":memory:" else path
