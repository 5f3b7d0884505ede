"""The environment variables of this process, for whatever asks to hear of them: Python has no audit event for them.

`os.environ` stays the object that it is, for all who hold it. From the import of stabilitykit on its class is one that
tells of what is read and set.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from types import CodeType, FrameType
from typing import Any

from ..store.audit_events import listen, tell
from ..store.imported_variables import set_by_import

#: Events: a variable was read, with its name and value (None if it is not set); one was set or removed, with its name
#: and the value before; all were read.
READ, SET, ALL = "variable read", "variable set", "variables read"


class _Heard(os._Environ):  # type: ignore[type-arg]  # of text, or of bytes
    def __getitem__(self, name: Any) -> Any:
        try:
            value = super().__getitem__(name)
        except KeyError:
            tell(READ, sys._getframe(1), name, None)
            raise
        tell(READ, sys._getframe(1), name, value)
        return value

    def __setitem__(self, name: Any, value: Any) -> None:
        before = self._value(name)
        super().__setitem__(name, value)
        tell(SET, sys._getframe(1), name, before)

    def __delitem__(self, name: Any) -> None:
        before = self._value(name)
        super().__delitem__(name)
        tell(SET, sys._getframe(1), name, before)

    def __iter__(self) -> Iterator[Any]:
        if (instruction := _instruction(sys._getframe(1))) is not None:
            _reading_all.add(instruction)
        tell(ALL, sys._getframe(1))
        return super().__iter__()

    def _value(self, name: Any) -> Any:
        try:
            return super().__getitem__(name)
        except KeyError:
            return None


#: Functions that read one variable, by a name that they are given.
_READING_ONE = frozenset(
    function.__code__
    for function in (
        Mapping.get,
        Mapping.__contains__,
        MutableMapping.pop,
        os._Environ.setdefault,
        os.path.expanduser,
        os.path.expandvars,
    )
)

#: Instructions that read all variables, ``dict(os.environ)``: each of these reads is a part of that.
_reading_all: set[tuple[CodeType, int]] = set()


def is_asked_for(frame: FrameType) -> bool:
    """Whether a read of a variable is one by its name, and not by a function of Python's that names it itself."""
    from .callers import looks_up_itself  # here, since it asks Python where its folders are

    is_one = frame.f_code in _READING_ONE or _instruction(frame) not in _reading_all
    return is_one and not looks_up_itself(frame)


def _instruction(frame: FrameType) -> tuple[CodeType, int] | None:
    from .callers import beyond_python

    asking = beyond_python(frame)
    return None if asking is None else (asking.f_code, asking.f_lasti)


#: What each block of `put_back` will put back.
_before: list[dict[str, str | None]] = []


@contextlib.contextmanager
def put_back() -> Iterator[None]:
    """Put each variable back, after a block, to what it was; what an import set stays, as the module does."""
    before: dict[str, str | None] = dict(os.environ)
    _before.append(before)
    try:
        yield
    finally:
        _before[:] = [other for other in _before if other is not before]
        for name in {*before, *os.environ}:
            value = before.get(name)
            if os.environ.get(name) == value:
                continue
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _see_import(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    from .callers import modules_imported

    if modules := modules_imported(frame):
        name, was = os.fsdecode(arguments[0]), None if arguments[1] is None else os.fsdecode(arguments[1])
        now = os.environ.get(name)
        set_by_import(name, _before[0].get(name) if _before else was, now, modules)
        for before in _before:
            before[name] = now


listen(SET, _see_import)

for variables in (os.environ, getattr(os, "environb", os.environ)):  # Windows has no bytes
    variables.__class__ = _Heard
