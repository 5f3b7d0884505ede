"""The environment variables of this process, for whatever asks to hear of them: Python has no audit event for them.

`os.environ` stays the object that it is, for all who hold it. From the import of stabilitykit on its class is one that
tells of what is read and set.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from ..store.audit_events import tell

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


for variables in (os.environ, os.environb):
    variables.__class__ = _Heard
