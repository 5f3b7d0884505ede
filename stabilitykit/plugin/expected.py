"""Failures that a test expects: seen by ``pytest.raises`` or ``assertRaises``, or caught as what they are."""

from __future__ import annotations

import ast
import functools
import linecache
import unittest
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from ..errors import StabilityError

#: The attribute of an error that was expected.
_EXPECTED = "stability_is_expected"


def is_expected(error: BaseException) -> bool:
    """Whether ``pytest.raises`` or ``assertRaises`` has seen an error or one raised from it, or it was caught as such.

    ``except IsolationError:`` and ``except AssertionError:`` are decisions; ``except Exception:`` may be one about
    something else.
    """
    return getattr(error, _EXPECTED, False) or _is_caught_as_such(error)


def _is_caught_as_such(error: BaseException) -> bool:
    """Whether the frame that caught an error names classes that not every exception has."""
    if error.__traceback__ is None:
        return False
    frame, line = error.__traceback__.tb_frame, error.__traceback__.tb_lineno
    try:
        tree = ast.parse("".join(linecache.getlines(frame.f_code.co_filename)))
    except SyntaxError:
        return False
    around = (node for node in ast.walk(tree) if isinstance(node, ast.Try) and _spans(node.body, line))
    named = (handler.type for node in around for handler in node.handlers if handler.type is not None)
    kinds = (_value_of(name, frame) for name in named)
    return any(_is_narrow(kind) and isinstance(error, kind) for kind in kinds)


def _spans(body: list[ast.stmt], line: int) -> bool:
    return body[0].lineno <= line <= (body[-1].end_lineno or 0)


def _value_of(expression: ast.expr, frame: FrameType) -> Any:
    """Return the value of ``name``, ``module.name`` or a tuple of these in a frame; None for anything else."""
    if isinstance(expression, ast.Tuple):
        return tuple(_value_of(one, frame) for one in expression.elts)
    if isinstance(expression, ast.Attribute):
        return getattr(_value_of(expression.value, frame), expression.attr, None)
    if isinstance(expression, ast.Name):
        return {**frame.f_builtins, **frame.f_globals, **frame.f_locals}.get(expression.id)
    return None


def _is_narrow(kind: Any) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return all(isinstance(one, type) and issubclass(one, Exception) and one is not Exception for one in kinds)


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
