"""Trace what a training reads while it trains: files, folders, environment variables, modules.

Python tells an audit hook of each file that it opens and each module that it imports (PEP 578).
Not seen is what a library opens in C++ or Rust (HDF5, safetensors, images by OpenCV), and a file of which only the
name, size or time is asked for. What is seen but cannot be read again, such as a server's answer, becomes a sentence.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib.util
import multiprocessing
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..store.audit_events import listen
from . import links, variables
from .callers import Caller, is_imported, responsible
from .opened_files import Use, database_of, use_of
from .trace import Trace
from .untraced import SENTENCES

#: Modules of Python that ask for the working folder where their caller names a relative path.
_PATHS = frozenset({"posixpath", "ntpath", "genericpath", "pathlib"})

#: Modules of Python that make absolute paths for what they write.
_ASK_FOR_THEMSELVES = frozenset({"logging", "tempfile"})

#: A statement by which SQLite opens one more database.
_ATTACHED = re.compile(r"\s*attach\s+(?:database\s+)?'((?:[^']|'')*)'", re.IGNORECASE)

_active: list[Trace] = []
_hooked = threading.local()


@contextlib.contextmanager
def traced(rootdir: Path, store: Path | None = None) -> Iterator[Trace]:
    """Trace what this process, and those that it forks, read in a block; `Trace.inputs` says it afterwards.

    What lies in the run store is no input, whatever its folder is called.
    """
    trace = Trace(rootdir, store)
    with contextlib.ExitStack() as stack:
        stack.callback(trace.end)
        stack.enter_context(_activated(trace))
        yield trace


@contextlib.contextmanager
def _activated(trace: Trace) -> Iterator[None]:
    """Let the hooks of this process tell a trace what they see, for a block."""
    _listen()
    _active.append(trace)
    try:
        with contextlib.ExitStack() as replaced:
            _replace_readers(replaced)
            yield
    finally:
        _active.remove(trace)


@functools.cache
def _listen() -> None:
    for event, see in _SEEN_BY.items():
        listen(event, functools.partial(_hear, see))


def _hear(see: Callable[..., None], frame: FrameType, arguments: tuple[Any, ...]) -> None:
    if _active and not getattr(_hooked, "busy", False):
        _tell(see, frame, *arguments)


def _tell(see: Callable[..., None], frame: FrameType, *arguments: Any) -> None:
    """Let a function see an event, but not the events that it causes itself; what it raises would be the user's."""
    _hooked.busy = True
    try:
        see(frame, *arguments)
    except Exception:  # noqa: BLE001  # a path that was removed meanwhile, a working directory that is gone
        for trace in _active:
            trace.saw_untraced("It read what could not be traced.")
    finally:
        _hooked.busy = False


def _see_open(frame: FrameType, path: object, mode: str | None, flags: int) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # an open file, by its number
    given, name = os.fsdecode(path), _absolute(path)
    use = use_of(name, flags)
    if all(trace.knows(name, trace.spellings(given, name), use) for trace in _active):
        return
    caller = responsible(frame)
    if caller is Caller.TOOL or (caller is Caller.IMPORTER and use is not Use.READ):
        return
    if caller is Caller.IMPORTER:  # a module counts by its file, whatever sys.path calls the folder
        name = importlib.util.source_from_cache(name) if name.endswith(".pyc") else name
        given = name
    for trace in _active:
        trace.saw_file(name, trace.spellings(given, name), use)


def _see_move(frame: FrameType, folder: object) -> None:
    for trace in _active:
        trace.saw_move(os.fsdecode(folder) if isinstance(folder, str | bytes | os.PathLike) else None)


def _absolute(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100  # Path.resolve would follow links, absolute() leaves ".."


def _see_folder(frame: FrameType, path: object) -> None:
    if isinstance(path, int) or responsible(frame) in (Caller.TOOL, Caller.IMPORTER):
        return
    given, name = os.fsdecode(path or "."), _absolute(path or ".")  # type: ignore[arg-type]  # a path, says Python
    for trace in _active:
        trace.saw_folder(name, trace.spellings(given, name))


def _see_folder_made(frame: FrameType, path: object, mode: int = 0, folder: int = -1) -> None:
    if isinstance(path, str | bytes | os.PathLike) and folder == -1 and responsible(frame) is not Caller.TOOL:
        for trace in _active:
            trace.saw_folder_made(_absolute(path))


def _see_database(frame: FrameType, path: object) -> None:
    """Note a database that is connected to, whose name may be a URI."""
    name = database_of(path)
    if not name:
        return
    if responsible(frame) is not Caller.TOOL:
        for trace in _active:
            trace.saw_database(_absolute(name))
    _see_open(frame, name, None, os.O_RDWR)


def _hear_attached(frame: FrameType, connection: sqlite3.Connection) -> None:
    """Hear of the databases that are attached to a connection; only SQLite knows their names."""

    def authorize(action: int, name: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_ATTACH and _active:
            if name is None:  # of a parameter, which has its value when the statement runs
                connection.set_trace_callback(attach)
            else:
                _tell(_see_database, frame, name)
        return sqlite3.SQLITE_OK

    def attach(statement: str) -> None:
        if found := _ATTACHED.match(statement):
            _tell(_see_database, frame, found[1].replace("''", "'"))
            connection.set_trace_callback(None)

    connection.set_authorizer(authorize)


def _see_library(frame: FrameType, name: object) -> None:
    if isinstance(name, str | bytes) and os.sep in os.fsdecode(name):  # else the system's loader searches it
        _see_open(frame, name, None, os.O_RDONLY)


def _see_renamed(frame: FrameType, before: object, after: object, *_: object) -> None:
    for path in (before, after):
        _see_open(frame, path, None, os.O_WRONLY)


def _see_cut(frame: FrameType, path: object, *_: object) -> None:
    _see_open(frame, path, None, os.O_WRONLY)


def _see_linked(frame: FrameType, target: Any, path: object, *_: object) -> None:
    if isinstance(path, str | bytes | os.PathLike) and responsible(frame) is not Caller.TOOL:
        for trace in _active:
            trace.saw_linked(_absolute(target), _absolute(path))


def _see_symlink(frame: FrameType, target: Any, path: Any, *_: object) -> None:
    """Note a symbolic link, whose target is seen from the folder that the link lies in."""
    _see_linked(frame, os.path.join(os.path.dirname(os.fsdecode(path)), os.fsdecode(target)), path)  # noqa: PTH118, PTH120  # bytes


def _see_link(frame: FrameType, path: Any) -> None:
    """Note a link of which the target is asked for, as `Path.resolve` does of each that is in a path."""
    if responsible(frame) is Caller.USER:
        given, name = os.fsdecode(path), _absolute(path)
        for trace in _active:
            trace.saw_link(name, trace.spellings(given, name))


def _see_removed(frame: FrameType, path: object, folder: int | None = -1) -> None:
    if folder in (-1, None):  # else the path is seen from a folder, of which only the number is known
        _see_open(frame, path, None, os.O_WRONLY)


def _see_unpickled(frame: FrameType, module: str, name: str) -> None:
    for trace in _active:
        trace.saw_module(module)


def _see_variable(frame: FrameType, name: Any, value: Any) -> None:
    if not variables.is_asked_for(frame):
        return
    caller = responsible(frame)
    name, value = os.fsdecode(name), None if value is None else os.fsdecode(value)
    for trace in _active:
        if caller is Caller.USER:
            trace.saw_variable(name, value)
        elif caller is Caller.LIBRARY and not is_imported(frame):
            trace.saw_variable_of_library(name, value)


def _see_untraced(sentence_of: Callable[..., str], frame: FrameType, *arguments: Any) -> None:
    if sentence := sentence_of(frame, *arguments):
        for trace in _active:
            trace.saw_untraced(sentence)


_SEEN_BY: dict[str, Callable[..., None]] = {
    "open": _see_open,
    "os.listdir": _see_folder,
    "os.scandir": _see_folder,
    "os.chdir": _see_move,
    "os.mkdir": _see_folder_made,
    "os.remove": _see_removed,
    "os.link": _see_linked,
    "os.symlink": _see_symlink,
    "os.rename": _see_renamed,
    "shutil.rmtree": _see_removed,
    "os.truncate": _see_cut,
    "sqlite3.connect": _see_database,
    "ctypes.dlopen": _see_library,
    "pickle.find_class": _see_unpickled,
    links.READ: _see_link,
    variables.READ: _see_variable,
}
for _event, _sentence_of in SENTENCES.items():
    _SEEN_BY[_event] = functools.partial(_see_untraced, _sentence_of)


# What Python tells no hook of


def _replace_readers(replaced: contextlib.ExitStack) -> None:
    """Replace what reads or writes inputs without telling an audit hook, until the block ends."""
    _replace_importers(replaced)
    for name in ("getcwd", "getcwdb"):
        _replace(replaced, os, name, _telling_where(getattr(os, name)))
    connect = sqlite3.connect

    @functools.wraps(connect)
    def connect_and_hear(*args: Any, **options: Any) -> sqlite3.Connection:
        frame = sys._getframe(1)
        _tell(_see_database, frame, args[0] if args else options.get("database"))  # here, the event is one of ours
        connection: sqlite3.Connection = connect(*args, **options)
        _hear_attached(frame, connection)
        return connection

    for module in (sqlite3, sqlite3.dbapi2):
        _replace(replaced, module, "connect", connect_and_hear)
    write = torch.serialization._open_zipfile_writer  # by which torch.save writes in C++, under any name of its own

    @functools.wraps(write)
    def write_and_tell(name_or_buffer: Any, *args: Any, **options: Any) -> Any:
        if isinstance(name_or_buffer, str | os.PathLike):
            for trace in _active:
                trace.saw_file(_absolute(name_or_buffer), use=Use.WRITE)
        return write(name_or_buffer, *args, **options)

    _replace(replaced, torch.serialization, "_open_zipfile_writer", write_and_tell)
    start = BaseProcess.start

    @functools.wraps(start)
    def start_and_tell(process: BaseProcess) -> None:
        method = getattr(process, "_start_method", None) or multiprocessing.get_start_method()
        if method != "fork" and responsible(sys._getframe(1)) is not Caller.TOOL:
            for trace in _active:
                trace.saw_untraced(f"It starts other processes ({method}): what these read is not traced.")
        start(process)

    _replace(replaced, BaseProcess, "start", start_and_tell)


def _replace_importers(replaced: contextlib.ExitStack) -> None:
    """Replace what imports by a name that may be computed: ``import_module``, ``__import__`` and all that call them."""
    load, load_by_statement = importlib._bootstrap._gcd_import, builtins.__import__  # type: ignore[attr-defined]

    def load_and_tell(name: str, package: str | None = None, level: int = 0) -> Any:
        with _telling_of_missing():
            module = load(name, package, level)
        _saw_modules(module.__name__)
        return module

    def import_and_tell(
        name: str,
        globals: Mapping[str, object] | None = None,  # its name in Python
        locals: Mapping[str, object] | None = None,  # as above
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        with _telling_of_missing():
            module = load_by_statement(name, globals, locals, fromlist or (), level)
        if level == 0:
            _saw_modules(name, *(f"{name}.{part}" for part in fromlist or () if f"{name}.{part}" in sys.modules))
        return module

    _replace(replaced, importlib._bootstrap, "_gcd_import", load_and_tell)
    _replace(replaced, builtins, "__import__", import_and_tell)


def _saw_modules(*names: str) -> None:
    for trace in _active:
        for name in names:
            trace.saw_module(name)


class _telling_of_missing:  # noqa: N801  # a function in use; a generator would cost more than an import that is done
    """Note a module that the user's code asks for in vain, in a block."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if isinstance(error, ModuleNotFoundError) and error.name and responsible(sys._getframe(2)) is Caller.USER:
            for trace in _active:
                trace.saw_module(error.name, is_there=False)


def _is_for_itself(frame: FrameType | None) -> bool:
    """Whether a part of Python asks for the working folder that makes no path of it for files that are read."""
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _PATHS:
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _ASK_FOR_THEMSELVES


def _telling_where(where: Callable[[], Any]) -> Callable[[], Any]:
    @functools.wraps(where)
    def where_and_tell() -> Any:
        frame = sys._getframe(1)
        if not getattr(_hooked, "busy", False) and responsible(frame) is Caller.USER and not _is_for_itself(frame):
            for trace in _active:
                trace.saw_question_where()
        return where()

    return where_and_tell


def _replace(replaced: contextlib.ExitStack, owner: Any, name: str, value: object) -> None:
    replaced.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
