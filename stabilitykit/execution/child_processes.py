"""A child process for each run: it may crash or hang, and nothing but its run is lost.

A child is forked from a server that has torch loaded (``forkserver``: milliseconds), or is a new interpreter
(``spawn``: seconds, but with a hash seed and memory layout of its own). It reads the task from an open file, trains one
plan, sends its record through a pipe, and ends. The claim on the run stays with this process, the child's parent. The
child dies with its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing import (
    connection,
    context,
    forkserver,
    get_context,
    get_start_method,
    parent_process,
    set_start_method,
)
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import torch

from ..errors import StabilityError
from ..protocol import RunPlan
from ..store.layout import task_log
from ..store.ownership import remove
from ..store.record import RunRecord
from ..training.trainer import Trainer
from .executor import Died, Executor, ProcessDied, Training, timed_out
from .payload import Payload, SentPayload
from .variables import VariableChanges

StartMethod = Literal["forkserver", "spawn"]

#: The end of a child's output that is shown with a failed run: lines, and characters of each.
_LOG_LINES, _LOG_WIDTH = 30, 200
#: Seconds that a child has to end by itself, once it has sent its record.
_TIDY_SECONDS = 2.0
#: The signal that makes a child write its stack to its log, and the seconds that this may take.
_TELL, _TELL_SECONDS = signal.SIGUSR1, 0.1
#: Linux's number for the signal that a process gets when its parent ends (prctl(2)).
_PR_SET_PDEATHSIG = 1

#: The environment that each server of children began with, by its process id; a server of other code is not in it.
_variables_of_servers: dict[int | None, dict[str, str]] = {}


class ChildProcesses(Executor):
    """Trains each run in a child of its own, one at a time on each of its devices."""

    def __init__(
        self,
        trainer: Trainer,
        rootdir: Path,
        folder: Path,
        *,
        devices: Sequence[str],
        time_limit: float | None = None,
        method: StartMethod = "forkserver",
    ) -> None:
        """Prepare the task; raise `CannotSend` where no other process can have it. ``folder`` is for logs."""
        self.slots, self.time_limit = len(devices), time_limit
        self._free = list(devices)  #: a device that two children may share is there twice
        self._payload = Payload(trainer, rootdir)
        self._method, self._context = method, _context_of(method)
        self._log = task_log(folder, id(self))

    def start(self, plan: RunPlan, *, log: str, attempt: int = 1) -> Training:
        device = self._free.pop(0)
        return _Child(plan, device, self._process(Trainer.train_once, (plan,), device, Path(log), new_log=attempt == 1))

    def wait(self, trainings: Sequence[Training]) -> list[Training]:
        children = cast("Sequence[_Child]", trainings)  # they were started here
        ended: list[_Child] = []
        while not ended:
            due = None
            if self.time_limit is not None:
                due = max(0.0, self.time_limit - max(child.process.seconds for child in children))
            connection.wait([child.process.pipe for child in children], due)
            ended = [child for child in children if self._has_ended(child)]
        self._free += [child.device for child in ended]
        return [*ended]

    def _has_ended(self, child: _Child) -> bool:
        """Whether a child has sent its record, has died, or has been ended since it took too long; set its outcome."""
        process = child.process
        if process.has_spoken():
            child.outcome = process.outcome(child.plan)
        elif self.time_limit is not None and process.seconds >= self.time_limit:
            seconds = process.seconds
            process.abort()
            child.outcome = timed_out(child.plan, self.time_limit, seconds, process.log_tail())
        return child.outcome is not None

    def cancel(self, trainings: Sequence[Training]) -> None:
        for child in cast("Sequence[_Child]", trainings):
            child.process.kill()
            self._free.append(child.device)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        process = self._process(function, args, self._free[0], self._log, new_log=True)
        try:
            if not connection.wait([process.pipe], self.time_limit):
                process.abort()
                raise ProcessDied(f"it took longer than {self.time_limit:g} s{process.log_tail()}")
            return process.result()
        finally:
            process.kill()
            remove(self._log)

    def close(self) -> None:
        """Free the task's files; no child may be started after."""
        self._payload.close()

    def _process(self, function: Callable[..., Any], args: Any, device: str, log: Path, *, new_log: bool) -> _Process:
        changes, usual = _changed_variables(self._method), get_start_method(allow_none=True)
        call = _Call(self._payload.sent(), changes, usual, device, function, args)
        return _Process(self._context, call, log, new_log=new_log)


class _Call(NamedTuple):
    """The call that a child makes: ``function(trainer, *args)``, with the trainer of a payload on one device."""

    payload: SentPayload
    variables: VariableChanges
    start_method: str | None  #: how this process starts others, such as those of a DataLoader; None as Python does
    device: str
    function: Callable[..., Any]
    args: tuple[Any, ...]


class _Child(Training):
    """A run and the process that trains it."""

    def __init__(self, plan: RunPlan, device: str, process: _Process) -> None:
        super().__init__(plan)
        self.device, self.process = device, process


class _Process:
    """One child process, from its start to the result that it sent."""

    def __init__(self, context: context.BaseContext, call: _Call, log: Path, *, new_log: bool) -> None:
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        if new_log:
            remove(log)
        self._log_start = log.stat().st_size if log.exists() else 0  #: bytes that an earlier attempt wrote
        self.pipe, theirs = context.Pipe(duplex=False)
        process = context.Process(  # type: ignore[attr-defined]  # of a concrete context
            target=_main, args=(theirs, call, str(log)), name=f"stabilitykit {log.stem}"
        )
        try:
            with _no_main():
                process.start()
        except (EOFError, OSError) as error:
            raise _not_started(error) from error
        self.started = time.monotonic()  #: after the server, if it was to start first, has loaded torch
        self._process, self._pid = process, int(process.pid)
        theirs.close()  # so that the end of the child is the end of the pipe

    @property
    def seconds(self) -> float:
        """Seconds since the child was started."""
        return time.monotonic() - self.started

    def has_spoken(self) -> bool:
        """Whether the child has sent a result, or has ended."""
        return self.pipe.poll()

    def result(self) -> Any:
        """Return the function's result, or raise its exception; raise `ProcessDied` if the child died first."""
        try:
            kind, value = pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join(5)
            raise ProcessDied(f"{_exit_code(self._process.exitcode)}{self.log_tail()}") from None
        if kind == "raised":
            raise value
        return value

    def outcome(self, plan: RunPlan) -> RunRecord | Died:
        """Return the record, with the end of the log where the run failed."""
        try:
            record: RunRecord = self.result()
        except ProcessDied as death:
            return Died(str(death), self._pid)
        self._process.join(_TIDY_SECONDS)
        self.kill()
        if record.status != "ok":
            return replace(record, error=record.error + self.log_tail())
        if self.log.stat().st_size == 0:
            remove(self.log)
        return record

    def abort(self) -> None:
        """Let the child write its stack to its log, and end it."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, _TELL)
        time.sleep(_TELL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the child now, with all that it started; nothing happens where it has ended."""
        self.pipe.close()
        if self._process.is_alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # its group is not there yet, or is gone
                os.killpg(self._pid, signal.SIGKILL)
            self._process.kill()
        self._process.join()

    def log_tail(self) -> str:
        """Return the end of the child's output below a line that names the log; empty if it printed nothing."""
        try:
            lines = self.log.read_bytes()[self._log_start :].decode(errors="replace").splitlines()
        except OSError:
            lines = []
        lines = [line for line in lines if not line.startswith("Extension modules: ")]  # a screenful, of faulthandler
        shown = "\n".join(line[:_LOG_WIDTH] for line in lines[-_LOG_LINES:])
        return f"\n\nthe end of {self.log}:\n{shown}" if shown.strip() else ""


def _main(pipe: connection.Connection, call: _Call, log: str) -> None:
    """Run in the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and ends this process
    os.setsid()
    _die_with_parent()
    _write_to(log)
    try:
        call.variables.apply()
        set_start_method(call.start_method, force=True)  # else it would be the one by which the child was started
        trainer = call.payload.read()
        trainer.device = torch.device(call.device)
        sent: tuple[str, Any] = ("returned", call.function(trainer, *call.args))
    except Exception as error:  # noqa: BLE001  # raised again in the parent
        sent = ("raised", error)
    pipe.send_bytes(pickle.dumps(sent, protocol=5))
    pipe.close()


def _die_with_parent() -> None:
    """End when the process that asked for this one ends, or the server that forked it."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            connection.wait([parent.sentinel])
            os.killpg(0, signal.SIGKILL)

        threading.Thread(target=watch, name="stabilitykit-parent", daemon=True).start()
    if sys.platform == "linux":  # also where this process never lets another of its threads run
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _write_to(log: str) -> None:
    """Send the output of this process, and the stack of a fatal signal, to a file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)  # it may print a secret
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # the process's own, to its end
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  # open to its end, too
    faulthandler.enable(sys.stderr, all_threads=False)
    faulthandler.register(_TELL, sys.stderr, all_threads=False)


def _not_started(error: Exception) -> StabilityError:
    return StabilityError(
        f"Expected to start a child process but got {type(error).__name__}: {error}. The server that forks children "
        f"was ended while it started, or the system has no process, file or memory left. The finished runs are "
        f"kept: run it again."
    )


def _exit_code(code: int | None) -> str:
    """Write how a process ended.

    >>> _exit_code(-9), _exit_code(3)
    ('exit code -9 (SIGKILL)', 'exit code 3')
    """
    name = ""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            name = f" ({signal.Signals(-code).name})"
    return f"exit code {code}{name}"


def _context_of(method: StartMethod) -> context.BaseContext:
    made = get_context(method)
    if method == "forkserver":
        made.set_forkserver_preload([f"{__package__}.preload"])
    return made


def _changed_variables(method: StartMethod) -> VariableChanges:
    """Return how this process's environment differs from the one that a new child begins with."""
    if method == "spawn":
        return VariableChanges({})
    before, variables = _server(), dict(os.environ)
    try:
        forkserver.ensure_running()
    except (EOFError, OSError) as error:
        raise _not_started(error) from error
    if _server() != before:  # it was started here and now
        _variables_of_servers[_server()] = variables
    began_with = _variables_of_servers.get(_server())
    return VariableChanges.all() if began_with is None else VariableChanges.since(began_with)


def _server() -> int | None:
    """Return the process id of the server of children; None where none was started."""
    pid: int | None = getattr(forkserver, "_forkserver")._forkserver_pid  # noqa: B009  # no public way to tell a new one
    return pid


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Hide ``__main__`` while a child starts, which would import it: pytest, or a script that trains.

    Nothing is lost, since functions of ``__main__`` are sent by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
