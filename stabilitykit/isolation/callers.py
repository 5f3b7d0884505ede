"""Which line of the user's led to a call, and through which function of a library."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from ..errors import is_ours


def caller(called: str) -> tuple[str, str]:
    """Return the function of a library's that calls, else ``called`` itself, and the user's line that led to it."""
    first = next(_frames(), None)
    theirs = next((frame for frame in _frames() if not _is_installed(frame)), first)
    if first is None or theirs is None:
        return called, "?"
    if first is not theirs:
        called = f"{str(first.f_globals.get('__name__')).partition('.')[0]}.{first.f_code.co_name}"
    return called, f"{Path(theirs.f_code.co_filename).name}:{theirs.f_lineno}"


def _frames() -> Iterator[FrameType]:
    """Yield the frames that led here, the innermost first, without ours and torch's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_ours(frame) and str(frame.f_globals.get("__name__")).partition(".")[0] != "torch":
            yield frame
        frame = frame.f_back


_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def _is_installed(frame: FrameType) -> bool:
    file = frame.f_code.co_filename
    return file.startswith((*_INSTALLED, "<frozen")) or "site-packages" in Path(file).parts
