"""Passes: which of several loaders or samplers is gone through, and for which time."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any


class Passes:
    """Numbers objects in the order of their first pass, and the passes of each.

    What else is gone through in between, such as an evaluation, does not move the passes of an object.

    >>> class Loader:
    ...     pass
    >>> one, other, passes = Loader(), Loader(), Passes()
    >>> [passes.begin(loader) for loader in (one, other, one)]
    [(0, 0), (1, 0), (0, 1)]
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Callable[[], Any], int]] = {}
        self._passes: list[int] = []

    def begin(self, owner: Any) -> tuple[int, int]:
        """Begin a pass of ``owner``; return its number and that of the pass, both from 0."""
        refers_to, number = self._known.get(id(owner), (None, 0))
        if refers_to is None or refers_to() is not owner:  # another object may have had this id
            number = len(self._passes)
            self._passes.append(0)
            self._known[id(owner)] = _reference(owner), number
        self._passes[number] += 1
        return number, self._passes[number] - 1


def _reference(owner: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(owner)  # a loader made for each epoch should not stay in memory with its data
    except TypeError:
        return lambda: owner
