"""The environment variables of this process, for whatever asks to hear of them: Python has no audit event for them.

`os.environ` stays the object that it is, for all who hold it. From the import of stabilitykit on its class is one that
tells of what is read and set.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from ..store.audit_events import listen, tell
from ..store.imported_variables import set_by_import
from .callers import modules_imported

#: Events: a variable was read, with its name and value (None if it is not set); one was set or removed; all were read.
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
        super().__setitem__(name, value)
        tell(SET, sys._getframe(1), name)

    def __delitem__(self, name: Any) -> None:
        super().__delitem__(name)
        tell(SET, sys._getframe(1), name)

    def __iter__(self) -> Iterator[Any]:
        tell(ALL, sys._getframe(1))
        return super().__iter__()


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
    if _before and (modules := modules_imported(frame)):
        name = os.fsdecode(arguments[0])
        now = os.environ.get(name)
        set_by_import(name, _before[0].get(name), now, modules)
        for before in _before:
            before[name] = now


listen(SET, _see_import)

for variables in (os.environ, os.environb):
    variables.__class__ = _Heard
