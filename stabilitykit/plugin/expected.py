"""Failures that a test expects, as ``pytest.raises`` and ``assertRaises`` see them."""

from __future__ import annotations

import functools
import unittest
from collections.abc import Callable
from typing import Any

import pytest

from ..errors import StabilityError

#: The attribute of an error that was expected.
_EXPECTED = "stability_is_expected"


def is_expected(error: BaseException) -> bool:
    """Whether ``pytest.raises`` or ``assertRaises`` has seen an error, or one that was raised from it."""
    return getattr(error, _EXPECTED, False)


def see_expected() -> Callable[[], None]:
    """Let ``pytest.raises`` and ``assertRaises`` mark the errors that they catch; return what undoes that."""
    patch = pytest.MonkeyPatch()
    catchers = pytest.raises(StabilityError), unittest.TestCase().assertRaises(StabilityError)  # noqa: PT027  # of users
    for catcher in (type(one) for one in catchers):
        patch.setattr(catcher, "__exit__", _marking(getattr(catcher, "__exit__")))  # noqa: B009
    return patch.undo


def _marking(leave: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(leave)
    def marking(self: Any, kind: Any, error: BaseException | None, *where: Any) -> Any:
        __tracebackhide__ = True
        is_caught = leave(self, kind, error, *where)
        while is_caught and error is not None:
            setattr(error, _EXPECTED, True)
            error = error.__cause__ or error.__context__
        return is_caught

    return marking
