"""Whether Python would run an older text of a source file: the one that it has compiled and kept in ``__pycache__``.

It takes a compiled file for that of a source of the same size, written in the same second; one that was made with
``compileall --invalidation-mode unchecked-hash``, for that of any text.
"""

from __future__ import annotations

import functools
import importlib.util
import marshal
import struct
from collections.abc import Mapping
from pathlib import Path

from .loaded_files import Stamp, stamp_of

#: How a compiled file begins: a magic number, flags, and time and size of its source, or a hash of that.
_HEAD = struct.Struct("<4sIII")
_HAS_HASH, _IS_CHECKED, _WORD = 1, 2, 0xFFFF_FFFF


def outdated(sources: Mapping[str, Stamp]) -> list[str]:
    """Return those of the files in which another text stands than the one that importing them would run."""
    return [source for source, stamp in sources.items() if source.endswith(".py") and _is_outdated(source, stamp)]


def _is_outdated(source: str, stamp: Stamp) -> bool:
    compiled = importlib.util.cache_from_source(source)  # pytest compiles test files itself, under other names
    kept = stamp_of(compiled)
    # Python compiles what was written: only a later change of the source can have been overlooked.
    return kept is not None and kept.written_ns < stamp.changed_ns and _is_other(source, stamp, compiled, kept)


@functools.lru_cache(maxsize=4096)
def _is_other(source: str, stamp: Stamp, compiled: str, kept: Stamp) -> bool:  # stamps only keep the cache honest
    try:
        content = Path(compiled).read_bytes()
        magic, flags, written, size = _HEAD.unpack_from(content)
        is_taken = (written, size) == (stamp.written_ns // 10**9 & _WORD, stamp.size & _WORD)
        is_taken = not flags & _IS_CHECKED if flags & _HAS_HASH else is_taken
        if magic != importlib.util.MAGIC_NUMBER or not is_taken:
            return False
        old = marshal.loads(content[_HEAD.size :])
        return bool(old != compile(Path(source).read_bytes(), source, "exec", dont_inherit=True))
    except (OSError, struct.error, EOFError, ValueError, TypeError, SyntaxError):
        return False  # importing it fails, or compiles it anew
