"""The mark of what users import from `stabilitykit`, wherever it is defined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

_Public = TypeVar("_Public", bound=Callable[..., Any])


def public(value: _Public) -> _Public:
    """Let a class or function of the front page say that it is of `stabilitykit`.

    A failure then reads ``stabilitykit.BudgetExceededError``, and a study's key does not change with the module that a
    class lies in. Set where it is defined: a key must not depend on how a name was reached. Above ``@dataclass``, which
    looks up its annotations in the class's own module.
    """
    value.__module__ = "stabilitykit"
    return value
