"""What functions under `functools.lru_cache` have read: they read once, and trainings get what was kept.

A cache counts its hits: so it is known, when a training is over, whether it got something from it.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FrameType
from typing import Any, TypeAlias

from .earlier_reads import EarlierReads, kept_by

#: Hits by cache.
Hits: TypeAlias = Mapping[Any, int]

#: Wrappers that one function has at most, one around the other.
_MOST_WRAPPERS = 16


class _Filled:
    """What was read since a cache was made, or cleared."""

    def __init__(self) -> None:
        self.reads = EarlierReads()
        self._last = (0, 0)  #: misses, and the frame of the last

    def see(self, cache: Any, frame: FrameType) -> None:
        """Forget what was read before the cache was cleared, which sets its counts to 0."""
        found = cache.cache_info()
        misses, last = self._last
        if found.misses < misses or (found.misses == misses and not found.currsize and id(frame) != last):
            self.reads = EarlierReads()
        self._last = (found.misses, id(frame))


_filled: weakref.WeakKeyDictionary[Any, _Filled] = weakref.WeakKeyDictionary()  #: by cache
_uncached: dict[int, CodeType] = {}  #: codes of functions that have no cache, by their id


def hits() -> Hits:
    """Return how often each cache that has read files has been hit."""
    return {cache: cache.cache_info().hits for cache in list(_filled)}


def read_for(before: Hits) -> EarlierReads:
    """Return what the caches have read, at any time, that were hit since ``before``: more than one hit may need."""
    found = EarlierReads()
    for cache, number in hits().items():
        if number > before.get(cache, 0):
            found.add(_filled[cache].reads)
    return found


def _records(frame: FrameType) -> Iterator[EarlierReads]:
    for cache, running in _caches_of(frame):
        filled = _filled.setdefault(cache, _Filled())
        filled.see(cache, running)
        yield filled.reads


def _caches_of(frame: FrameType | None) -> Iterator[tuple[Any, FrameType]]:
    """Give the caches of the user's functions that are running, each with the frame of its function."""
    from .callers import Caller, kind_of  # here, since it asks Python where its folders are

    while frame is not None:
        code = frame.f_code
        kind = kind_of(code.co_filename)
        if kind is Caller.TOOL:  # it runs tests, or trains: what called it waits for all of that
            return
        if kind is Caller.USER and id(code) not in _uncached:
            cache = _cache_of(frame)
            if cache is not None:
                yield cache, frame
            elif "<locals>" not in code.co_qualname:
                _uncached[id(code)] = code
        frame = frame.f_back


def _cache_of(frame: FrameType) -> Any:
    """Return the cache around the function that runs in a frame; None if it has none, or one that is not found."""
    *owners, name = frame.f_code.co_qualname.split(".")
    if "<locals>" not in owners:
        value = frame.f_globals.get(owners[0] if owners else name)
        for part in [*owners[1:], name] if owners else []:
            value = getattr(value, part, None)
        found = _cache_in(value, frame.f_code)
        return found if found is not None else _first([*_caches_in(frame.f_globals)], frame.f_code)
    caller = frame.f_back
    return None if caller is None else _first([*caller.f_locals.values()], frame.f_code)


def _first(values: Iterable[Any], code: CodeType) -> Any:
    return next((found for value in values if (found := _cache_in(value, code)) is not None), None)


def _caches_in(scope: Mapping[str, Any]) -> Iterator[Any]:
    """Give the caches that stand in a module, and in its classes, under other names than their functions'."""
    for value in [*scope.values()]:
        if isinstance(value, functools._lru_cache_wrapper):
            yield value
        elif isinstance(value, type) and value.__module__ == scope.get("__name__"):
            members = (getattr(member, "__func__", member) for member in [*vars(value).values()])
            yield from (member for member in members if isinstance(member, functools._lru_cache_wrapper))


def _cache_in(value: Any, code: CodeType) -> Any:
    """Return the cache in a value that wraps the function of a code, however often."""
    cache = None
    for _ in range(_MOST_WRAPPERS):
        if isinstance(value, functools._lru_cache_wrapper):
            cache = value
        if getattr(value, "__code__", None) is code or value is None:
            return cache if value is not None else None
        value = getattr(value, "__func__", None) or getattr(value, "__wrapped__", None) or getattr(value, "fget", None)
    return None


kept_by(_records)
