"""Attributes of modules and classes that have another value for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple


class Replacement(NamedTuple):
    """One attribute, and what makes its value for a while out of the one that it has."""

    owner: Any  #: a module or a class
    name: str
    make: Callable[[Any], Any]


class Replacements:
    """Several attributes, replaced together and put back together.

    >>> import math
    >>> one = Replacements([Replacement(math, "sqrt", lambda old: lambda x: -old(x))])
    >>> one.put()
    >>> math.sqrt(4)
    -2.0
    >>> one.put_back()
    >>> math.sqrt(4)
    2.0
    """

    def __init__(self, replacements: Iterable[Replacement]) -> None:
        self._replacements = list(replacements)
        self._before: list[tuple[Any, str, Any]] = []

    def put(self) -> None:
        """Replace each attribute."""
        for owner, name, make in self._replacements:
            before = vars(owner)[name]
            self._before.append((owner, name, before))
            setattr(owner, name, make(before))

    def put_back(self) -> None:
        """Give each attribute the value that it had."""
        while self._before:
            owner, name, before = self._before.pop()
            setattr(owner, name, before)
