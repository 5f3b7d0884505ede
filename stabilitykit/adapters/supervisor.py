"""Run as a program of its own: starts one command, and ends it with all that it has started when its parent ends.

The parent, `run_supervised`, gives the command as JSON in the only argument, holds the other end of standard input for
as long as it wants the command to run, and reads from standard output how it ended. So the command ends with its parent
however that ends, by SIGKILL too. It loads nothing of stabilitykit, so that it starts in milliseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

#: Seconds that processes have to end by themselves after SIGTERM.
GRACE = 2.0
#: Numbers of prctl(2): the signal at the parent's end, and to be the parent of orphans below.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def main() -> None:
    """Start the command, wait for its end, end what it has left, and write how it ended."""
    asked = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def die_with_parent() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # it may print a secret
    try:
        command = subprocess.Popen(
            asked["command"],
            cwd=asked["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509  # no other thread runs yet
        )
    except OSError as error:
        sys.stdout.write(json.dumps({"error": str(error)}))
        return
    threading.Thread(target=_end_with_parent, args=(command.pid,), daemon=True).start()
    code = command.wait()
    _end_group(command.pid)
    _end_orphans()
    sys.stdout.write(json.dumps({"returncode": code}))


def _end_with_parent(group: int) -> None:
    os.read(0, 1)  # returns when the parent closes its end, or is no more
    _end_group(group)


def _end_group(group: int) -> None:
    """End every process of a group: ask them, wait a little, and kill those that are left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # PermissionError: macOS, of zombies
        os.killpg(group, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while time.monotonic() < until:
            _reap_orphans()
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)


def _reap_orphans() -> None:
    """Forget orphans of the command that have ended, which would count as its group's; not the command itself."""
    for pid in _children():
        with contextlib.suppress(ChildProcessError):
            if os.getpgid(pid) != pid:  # the command leads its group, and is waited for elsewhere
                os.waitpid(pid, os.WNOHANG)


def _end_orphans() -> None:
    """Kill what the command has started in groups of their own, now that it has ended; known on Linux alone."""
    while orphans := _children():
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children() -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path("/proc/self/task").iterdir():
            found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


if __name__ == "__main__":
    main()
