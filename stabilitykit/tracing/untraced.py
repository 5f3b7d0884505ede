"""Sentences on what the user's code reads that cannot be compared later: the network, programs, all variables."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from . import variables


def _is_for_itself(frame: FrameType) -> bool:
    """Whether a program or connection is not the training's."""
    from .callers import Caller, responsible  # here, since it asks Python where its folders are

    return responsible(frame) in (Caller.IMPORTER, Caller.TOOL, Caller.LIBRARY)


def _of_program(frame: FrameType, program: object, *_: object) -> str:
    if _is_for_itself(frame):
        return ""
    name = Path(os.fsdecode(program)).name if isinstance(program, str | bytes) else "unknown"
    return f"It starts another program ({name}): what that reads is not traced."


def _of_connection(frame: FrameType, connection: object, address: object) -> str:
    if not isinstance(address, tuple) or _is_for_itself(frame):
        return ""  # a socket of this machine, by which processes of one program talk
    return f"It reads the network ({address[0]}:{address[1]}): what is answered is not traced."


def _of_all_variables(frame: FrameType) -> str:
    from .callers import Caller, responsible

    is_users = responsible(frame) is Caller.USER
    return "It reads all environment variables at once: they are not traced." if is_users else ""


def _of_shared_variable(frame: FrameType, name: str) -> str:
    from .callers import Caller, responsible

    is_users = responsible(frame) is Caller.USER and variables.is_asked_for(frame)
    return f"It reads variable {name}, which the training of another task has set, once in this process." * is_users


#: What gives the sentence for an event by its frame and arguments; an empty one says that nothing was read.
SENTENCES: dict[str, Callable[..., str]] = {
    "subprocess.Popen": _of_program,
    "os.posix_spawn": _of_program,
    "os.system": _of_program,
    "os.exec": _of_program,
    "socket.connect": _of_connection,
    variables.ALL: _of_all_variables,
    variables.SHARED: _of_shared_variable,
}
