"""A command in a process group of its own, which ends with all that it has started: at its time limit, or with us."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import supervisor

#: Seconds beyond the supervisor's own patience after which it is killed, and the command with it.
_MORE = 5.0


class TimeIsUp(Exception):
    """The command had not ended in its time, and was ended."""


class NotStarted(Exception):
    """The system could not start the command; the message says why."""


def run_supervised(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path, timeout: float | None = None
) -> int:
    """Run a command to its end and return its exit code, negative for a signal; its output goes to ``log``.

    Whatever ends this call, an exception or a signal too, ends the command and all that it has started.
    """
    asked = json.dumps({"command": [*command], "cwd": str(cwd), "log": str(log)})
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", os.fspath(supervisor.__file__), asked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(env),
        start_new_session=True,  # so that Ctrl-C does not end it before the command
    )
    assert process.stdin is not None, "a pipe, as was asked"
    assert process.stdout is not None, "likewise"
    with process.stdout, process.stdin:
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeIsUp from None
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2 * supervisor.GRACE + _MORE)
            process.kill()  # the system then kills the command
            process.wait()
        ended = json.loads(process.stdout.read() or '{"error": "its supervisor was killed"}')
    if "error" in ended:
        raise NotStarted(ended["error"])
    return int(ended["returncode"])
