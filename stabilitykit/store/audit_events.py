"""Python's audit events, for whatever asks for some of them: one hook for a process, since Python removes none.

A process causes thousands of events a second, so the hook does nothing but to look up which functions asked for one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeAlias

#: A function of the frame that caused an event, and of the event's arguments.
Listener: TypeAlias = Callable[[FrameType, tuple[Any, ...]], None]

_listeners: dict[str, list[Listener]] = {}


def listen(event: str, listener: Listener) -> None:
    """Call ``listener`` at each event of that name, to the end of this process."""
    _listeners.setdefault(event, []).append(listener)


def tell(event: str, frame: FrameType, *arguments: Any) -> None:
    """Tell of an event of our own, which no hook of other people's hears."""
    for listener in _listeners.get(event, ()):
        listener(frame, arguments)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    for listener in _listeners.get(event, ()):
        listener(sys._getframe(1), arguments)


sys.addaudithook(_hear)
