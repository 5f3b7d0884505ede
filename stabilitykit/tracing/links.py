"""Symbolic links of which the target is asked for, as `Path.resolve` does: Python has no audit event for that."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any

from ..store.audit_events import tell

#: Event: the target of a link was asked for, with its path.
READ = "link read"

_readlink = os.readlink


@functools.wraps(_readlink)
def _heard(path: Any, *, dir_fd: int | None = None) -> Any:
    target = _readlink(path, dir_fd=dir_fd)
    if dir_fd is None:  # else the path is seen from a folder, of which only the number is known
        tell(READ, sys._getframe(1), path)
    return target


os.readlink = _heard
if _readlink in os.supports_dir_fd:
    os.supports_dir_fd.add(_heard)
