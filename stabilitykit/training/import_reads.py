"""What the user's modules have read while they were imported: Python runs a module once, and keeps what it made.

A training that imports a module which is loaded already reads nothing, and gets what was read then: by a conftest, by
another test, or by the training of another task. So this counts as if the training had read it.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from ..store.audit_events import Listener, listen
from ..store.loaded_files import importing
from . import links, variables
from .cached_reads import Read, opened_to_read, read_now


@dataclass
class ImportReads:
    """What was read while modules were imported, as it was at the first look."""

    files: dict[str, Read] = field(default_factory=dict)  #: by absolute path
    relative: dict[str, str] = field(default_factory=dict)  #: how a file or folder was asked for in the working folder
    links: dict[str, str] = field(default_factory=dict)  #: digests of where links led that were resolved
    folders: dict[str, list[str] | None] = field(default_factory=dict)  #: names in each; None if it was not there
    variables: dict[str, str | None] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)


_of_modules: dict[str, ImportReads] = {}  #: by the real path of the module's file


def read_for_imports(paths: Iterable[Path]) -> ImportReads:
    """Return what was read while the modules of these source files were imported."""
    found = ImportReads()
    for path in paths:
        if (reads := _of_modules.get(str(path))) is not None:
            found.files.update(reads.files)
            found.relative.update(reads.relative)
            found.links.update(reads.links)
            found.folders.update(reads.folders)
            found.variables.update(reads.variables)
    return found


def _see_open(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    if isinstance(arguments[0], str | bytes) and arguments[2] & os.O_ACCMODE == os.O_WRONLY:
        _see_written(frame, arguments)
    elif (given := opened_to_read(arguments)) is not None:
        for reads in _reads_of(frame):
            path = _note_place(reads, given)
            if path not in reads.written and path not in reads.files:
                reads.files[path] = read_now(Path(path))


def _see_written(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    """Note a file that is made, or two names of one that is moved: what a module makes for itself is no input."""
    for given in arguments[:2]:
        for reads in _reads_of(frame) if isinstance(given, str | bytes | os.PathLike) else ():
            path = os.path.abspath(os.fsdecode(given))  # noqa: PTH100  # as the trace names it
            reads.written.add(path)
            if (read := reads.files.get(path)) is not None and read.stamp is None:  # looked for, and then made
                del reads.files[path]


def _see_link(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    from ..store.traced_inputs import LINK, content_digest  # here, as below

    for reads in _reads_of(frame, only_user=True):
        path = _note_place(reads, os.fsdecode(arguments[0]))
        if path not in reads.links:
            reads.links[path] = content_digest(Path(path + LINK))


def _see_folder(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    from ..store.folder_names import names_in  # here, as all that a session without stability tests need not load

    if not isinstance(arguments[0], str | bytes | os.PathLike | None):
        return
    for reads in _reads_of(frame):
        path = _note_place(reads, os.fsdecode(arguments[0] or "."))
        if path not in reads.folders:
            reads.folders[path] = names_in(Path(path))


def _see_variable(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    name, value = arguments
    for reads in _reads_of(frame, only_user=True) if variables.is_asked_for(frame) else ():
        reads.variables.setdefault(os.fsdecode(name), None if value is None else os.fsdecode(value))


def _see_exec(frame: FrameType, arguments: tuple[Any, ...]) -> None:
    code = arguments[0]
    if getattr(code, "co_name", "") == "<module>":  # it is imported, perhaps once more: what it read before is gone
        _of_modules.pop(os.path.realpath(code.co_filename), None)


def _note_place(reads: ImportReads, given: str) -> str:
    path = os.path.abspath(given)  # noqa: PTH100  # as the trace names it
    if not os.path.isabs(given):  # noqa: PTH117  # of text
        reads.relative.setdefault(path, os.path.normpath(given))
    return path


def _reads_of(frame: FrameType, *, only_user: bool = False) -> list[ImportReads]:
    """Return the records of the modules that are being imported, if the user's code has asked, or a library for it."""
    from .callers import Caller, responsible  # here, since it asks Python where its folders are

    caller = responsible(frame)
    if caller in (Caller.TOOL, Caller.IMPORTER) or (only_user and caller is not Caller.USER):
        return []
    return [_of_modules.setdefault(file, ImportReads()) for file in importing(frame)]


def _hear(see: Listener, frame: FrameType, arguments: tuple[Any, ...]) -> None:
    with contextlib.suppress(Exception):  # what is raised here would be the user's
        see(frame, arguments)


_SEEN_BY: dict[str, Listener] = {
    "exec": _see_exec,
    "open": _see_open,
    "os.rename": _see_written,
    links.READ: _see_link,
    "os.listdir": _see_folder,
    "os.scandir": _see_folder,
    variables.READ: _see_variable,
}
for event, see in _SEEN_BY.items():
    listen(event, functools.partial(_hear, see))
