"""The names in a folder that a training lists, without those that the training makes there itself.

What it makes is known by shape, ``exp1`` as ``exp#``: other trainings make ``exp2``, and a date or a random id is
another each time. A name of another shape, such as a new image, counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from .layout import STORE

#: Names that do not count: they appear when Python, pytest or stabilitykit first runs.
_NOT_THE_USERS = frozenset({"__pycache__", ".pytest_cache", STORE})

_UUID = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"

#: An id that may be without a digit, or a word.
_WORD = re.compile(rf"(?P<id>{_UUID}|[0-9a-f]{{16,}})|(?P<start>[A-Za-z]*)(?P<rest>[A-Za-z0-9]*)")

#: What stands for a number, date or id.
NUMBER = "#"


def names_in(folder: Path) -> list[str] | None:
    """Return the names in a folder, in order; None if it cannot be listed."""
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.name not in _NOT_THE_USERS)
    except OSError:
        return None


def names_digest(names: Iterable[str], made: Collection[str] = ()) -> str:
    """Return the digest of names but for those of which the shape is one of ``made``."""
    counted = (name for name in names if not made or shape_of(name) not in made)
    return hashlib.sha256("\0".join(counted).encode(errors="surrogateescape")).hexdigest()


def shape_of(name: str) -> str:
    """Return a name with ``#`` for each number, date or id.

    >>> shape_of("exp12"), shape_of("run-20261130_120001-4fx2d3ea"), shape_of("cache.npy")
    ('exp#', 'run-#_#-#', 'cache.npy')
    """
    return _WORD.sub(_shape_of_word, name)


def _shape_of_word(word: re.Match[str]) -> str:
    start, rest = word["start"] or "", word["rest"] or ""
    if word["id"] or (rest and not rest.isdigit()):
        return NUMBER
    is_id = rest and len(word[0]) >= 4 and re.fullmatch("[0-9a-f]+", word[0])
    return NUMBER if is_id else start + (NUMBER if rest else "")
