"""What was read before a training, where it is kept: by modules while they were imported, by functions with a cache.

Python tells of each read by an audit event, which is heard from the moment that `stabilitykit` is imported. What keeps
what is read says for a frame in which record it counts.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

from ..store.audit_events import Listener, listen
from ..store.loaded_files import Stamp, is_installed
from . import links, variables
from .opened_files import Use, database_of, use_of
from .untraced import SENTENCES

#: Bytes up to which a file is hashed when it is read; of a larger one the stamp is kept.
AT_ONCE = 1 << 16

#: The digest of a file of which what is kept was read in several states, or edited since: no file has it.
LOST = "lost"


class Read(NamedTuple):
    """A file as it was when it was read: its digest, None for a large one."""

    digest: str | None
    stamp: Stamp | None


@dataclass
class EarlierReads:
    """What was read, as it was then; what was written is no input."""

    files: dict[str, Read] = field(default_factory=dict)  #: by absolute path
    relative: dict[str, str] = field(default_factory=dict)  #: how a file or folder was asked for in the working folder
    links: dict[str, str] = field(default_factory=dict)  #: digests of where links led that were resolved
    folders: dict[str, list[str] | None] = field(default_factory=dict)  #: names in each; None if it was not there
    variables: dict[str, str | None] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    rewritten: set[str] = field(default_factory=set)  #: files that were read, and then written
    untraced: dict[str, None] = field(default_factory=dict)  #: sentences

    def add(self, other: EarlierReads) -> None:
        """Add what another record holds."""
        for name, values in vars(other).items():
            vars(self)[name].update(values)

    def read_file(self, given: str) -> None:
        """Note a file that is opened to be read; in another state than before, what is kept is of neither."""
        path = self._placed(given)
        if path in self.written:
            return
        before, now = self.files.get(path), _read_now(Path(path))
        self.files[path] = now if before in (None, now) else Read(LOST, None)

    def write_file(self, given: str) -> None:
        """Note a file that is made or changed."""
        path = os.path.abspath(given)  # noqa: PTH100  # as the trace names it
        read = self.files.pop(path, None)
        if read is not None and read.stamp is not None:  # else it was looked for, and then made
            self.rewritten.add(path)
        self.written.add(path)

    def read_folder(self, given: str) -> None:
        """Note a folder that is listed."""
        from ..store.folder_names import names_in  # here, as all that a session without stability tests need not load

        path = self._placed(given)
        if path not in self.folders:
            self.folders[path] = names_in(Path(path))

    def read_link(self, given: str) -> None:
        """Note a symbolic link that is resolved."""
        from ..store.traced_inputs import LINK, content_digest  # here, as above

        path = self._placed(given)
        if path not in self.links:
            self.links[path] = content_digest(Path(path + LINK))

    def _placed(self, given: str) -> str:
        path = os.path.abspath(given)  # noqa: PTH100  # as the trace names it
        if not os.path.isabs(given):  # noqa: PTH117  # of text
            self.relative.setdefault(path, os.path.normpath(given))
        return path


def _read_now(path: Path) -> Read:
    from ..store.traced_inputs import ABSENT, file_digest  # here, as above

    try:
        found = path.stat()
        return Read(file_digest(path, found) if found.st_size <= AT_ONCE else None, Stamp.of(found))
    except OSError:
        return Read(ABSENT, None)


# Hearing

#: A function that gives the records in which what a frame reads is kept.
Keeper: TypeAlias = Callable[[FrameType], Iterable[EarlierReads]]

_keepers: list[Keeper] = []
_noting = threading.local()


def kept_by(keeper: Keeper) -> None:
    """Ask a function, at each read from now on, for the records to note it in."""
    _keepers.append(keeper)


def _records(frame: FrameType, *, only_user: bool = False) -> list[EarlierReads]:
    """Return the records for what the user's code reads in a frame, or a library for it."""
    from .callers import Caller, responsible  # here, since it asks Python where its folders are

    caller = responsible(frame)
    if caller in (Caller.TOOL, Caller.IMPORTER) or (only_user and caller is not Caller.USER):
        return []
    kept = [record for keeper in _keepers for record in keeper(frame)]
    if not kept and threading.current_thread() is not threading.main_thread():  # what began it may wait for it
        others = [other for thread, other in sys._current_frames().items() if thread != threading.get_ident()]
        kept = [record for other in others for keeper in _keepers for record in keeper(other)]
    return kept


def _see_open(frame: FrameType, path: object, mode: str | None, flags: int) -> None:
    if not isinstance(path, str | bytes | os.PathLike):
        return  # an open file, by its number
    given = os.fsdecode(path)
    if is_installed(given):
        return  # it counts by the version of its package
    records = _records(frame)
    use = use_of(given, flags) if records else Use.READ
    for record in records:
        record.write_file(given) if use is Use.WRITE else record.read_file(given)


def _see_moved(frame: FrameType, *paths: object) -> None:
    named = [os.fsdecode(path) for path in paths[:2] if isinstance(path, str | bytes | os.PathLike)]
    for record in _records(frame) if named else ():
        for path in named:
            record.write_file(path)


def _see_folder(frame: FrameType, path: Any) -> None:
    if not isinstance(path, str | bytes | os.PathLike | None):
        return  # an open folder, by its number
    given = os.fsdecode(path or ".")
    for record in () if is_installed(f"{given}{os.sep}") else _records(frame):
        record.read_folder(given)


def _see_link(frame: FrameType, path: Any) -> None:
    for record in _records(frame, only_user=True):
        record.read_link(os.fsdecode(path))


def _see_database(frame: FrameType, name: object) -> None:
    if path := database_of(name):
        _see_open(frame, path, None, os.O_RDWR)


def _see_variable(frame: FrameType, name: Any, value: Any) -> None:
    for record in _records(frame, only_user=True) if variables.is_asked_for(frame) else ():
        record.variables.setdefault(os.fsdecode(name), None if value is None else os.fsdecode(value))


def _see_untraced(sentence_of: Callable[..., str], frame: FrameType, *arguments: Any) -> None:
    records = _records(frame)
    sentence = sentence_of(frame, *arguments) if records else ""
    for record in records if sentence else ():
        record.untraced[sentence] = None


def _hear(see: Callable[..., None], frame: FrameType, arguments: tuple[Any, ...]) -> None:
    if getattr(_noting, "busy", False):  # it is we who read
        return
    _noting.busy = True
    try:
        with contextlib.suppress(Exception):  # what is raised here would be the user's
            see(frame, *arguments)
    finally:
        _noting.busy = False


_SEEN_BY: dict[str, Callable[..., None]] = {
    "open": _see_open,
    "os.rename": _see_moved,
    "os.listdir": _see_folder,
    "os.scandir": _see_folder,
    "sqlite3.connect": _see_database,
    links.READ: _see_link,
    variables.READ: _see_variable,
}
for event, sentence_of in SENTENCES.items():
    _SEEN_BY[event] = functools.partial(_see_untraced, sentence_of)
for event, see in _SEEN_BY.items():
    listener: Listener = functools.partial(_hear, see)
    listen(event, listener)
