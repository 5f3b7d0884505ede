"""A Python that has imported torch before it starts: real processes, in a tenth of the time.

``python warm_python.py SOCKET`` imports torch and waits. The launcher that `warm_python` writes is called as Python is,
by ``-m MODULE`` or ``-c CODE``. It hands its arguments, environment, folder and standard streams to that server, which
forks, and ends as the forked process does, by its exit code or its signal. The server has one thread and has run no
operation of torch's, so what it forks is as good as new.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _pytest.config import default_plugins

_LAUNCHER = """\
#!{python} -IS
import json, os, signal, socket, sys

if sys.argv[1] == "-I":  # what supervises a command, which loads nothing: Python itself starts as fast
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = {{"args": sys.argv[1:], "environ": dict(os.environ), "folder": os.getcwd(), "launcher": sys.argv[0]}}
socket.send_fds(server, [json.dumps(asked).encode()], [0, 1, 2])
code = int(server.recv(16) or 70)
if code < 0:
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""

#: What each session of pytest loads, but for plugins: pytest must load these itself, to rewrite their asserts.
_LOADED = [
    *("torch", "torch.optim.sgd", "torch.utils._device", "numpy", "scipy.special", "pytest", "execnet"),
    *("pdb", "statistics", "xml.etree.ElementTree"),
    *(f"_pytest.{plugin}" for plugin in default_plugins),
]

#: One message of a socket; it must hold an environment.
_MESSAGE_BYTES = 2**17


@contextlib.contextmanager
def warm_python(folder: Path) -> Iterator[Path]:
    """Yield the launcher, with a server behind it."""
    address, launcher = folder / "server", folder / "python"
    launcher.write_text(_LAUNCHER.format(python=sys.executable, address=str(address)))
    launcher.chmod(0o755)
    # NumPy's and SciPy's pools of threads would not live in a fork. They read this as they are loaded.
    environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    environ.pop("PYTHONPATH", None)
    command = [sys.executable, __file__, str(address)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield launcher


def main(address: str) -> None:
    """Serve until the standard input ends; in a forked process, be the Python that was asked for."""
    for name in _LOADED:
        __import__(name)
    os.fsync = os.fstat  # type: ignore[assignment]  # as in `tests/conftest.py`: none of these tests cuts the power
    threads = len(list(Path("/proc/self/task").iterdir()))
    assert threads == 1, f"{threads} threads cannot be forked"
    gc.freeze()  # a collection would write to, and so copy, every page that a fork shares
    asked = _serve(address)
    if asked is not None:
        _become(**asked)


def _serve(address: str) -> dict[str, Any] | None:
    """Fork for whoever asks; return what was asked in the forked process, and None in the server at its end."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for a watcher
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while listening in select.select([listening, sys.stdin], [], [])[0]:
        client, _ = listening.accept()
        message, streams, _, _ = socket.recv_fds(client, _MESSAGE_BYTES, 3)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            if pid := os.fork():
                _watch(pid, client, streams)
            client.close()
            for place, stream in enumerate(streams):
                os.dup2(stream, place)
                os.close(stream)
            return json.loads(message)
        client.close()
        for stream in streams:
            os.close(stream)
    return None


def _watch(pid: int, client: socket.socket, streams: list[int]) -> None:
    """Tell the launcher how the process ended; end the process if the launcher has gone."""
    for stream in [0, 1, 2, *streams]:
        os.close(stream)
    select.select([os.pidfd_open(pid), client], [], [])
    os.kill(pid, signal.SIGKILL)  # if it has ended, that changes nothing any more
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with contextlib.suppress(OSError):
        client.send(str(code).encode())
    os._exit(0)


def _become(args: list[str], environ: dict[str, str], folder: str, launcher: str) -> None:
    """Do what Python does between its start and the first line of the program."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.executable = launcher  # xdist starts its workers by it
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(Path(launcher).parent / "bytecode")
    while args[0] in ("-u", "-B"):
        args = args[1:]
    # Ours is the first; `-m` puts the folder there, `-c` whatever the folder is at the time.
    sys.path[:1] = [folder if args[0] == "-m" else "", *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = args[1:] if args[0] == "-m" else ["-c", *args[2:]]
    try:
        if args[0] == "-m":
            runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        else:
            exec(compile(args[1], "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        _exit(ended.code)
    _exit(None)


def _exit(code: object) -> None:
    """End as Python does, but for taking torch's modules apart, which costs most of a second."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls to join them
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    main(sys.argv[1])
