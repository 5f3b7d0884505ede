"""What was read since a block began: files, folders, environment variables and modules, in this process and its forks.

A trace is told by the hooks of `tracing`, in any thread, and makes `Inputs` of it when the block is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from ..store.folder_names import names_in
from ..store.imported_variables import ENVIRON, before_import
from ..store.loaded_files import Stamp
from ..store.traced_inputs import (
    ABSENT,
    LINK,
    OF_PYTEST,
    REPLACED,
    Inputs,
    all_in_words,
    content_digest,
    file_digest,
    is_temporary,
    path_digest,
    replaced_digest,
    variable_digest,
)
from .earlier_reads import AT_ONCE
from .opened_files import Use
from .seen import FOLDER, MOST_FILES, Seen
from .trace_inputs import inputs_of

#: How libraries name the variables by which they find the user's files; those of a cache of compiled kernels are none.
_PLACES, _IS_CACHE = ("_HOME", "_DATA", "_DIR", "_FOLDER", "_PATH", "_ROOT"), "CACHE_DIR"


class Trace:
    """What has been read since a block began."""

    def __init__(self, rootdir: Path, store: Path | None = None) -> None:
        self._seen = Seen(rootdir, store)
        self._known: set[object] = set()  #: what need not be noted again
        self._moved: str | None = ""  #: the working folder now, as seen from that; None if an absolute path led there
        self._asked_where = False  #: whether absolute paths may have been made from the working folder
        self._variables_before = dict(ENVIRON)
        self._pid = os.getpid()
        self._file = tempfile.NamedTemporaryFile(prefix="stabilitykit-trace-")  # noqa: SIM115  # closed by end
        self._spool = self._file.name  # for the processes that this one forks
        self._began_ns = os.fstat(self._file.fileno()).st_mtime_ns  # the clock of files is behind that of the process
        self._inputs: Inputs | None = None
        #: Modules that were edited while they were being read: which content was trained on is not known.
        self.edited_modules: tuple[str, ...] = ()
        if (digest := replaced_digest(rootdir)) != ABSENT:  # nothing tells of what is read there
            self._note("variable", REPLACED, (digest, digest))

    def inputs(self) -> Inputs:
        """Return what was read; the block must be over."""
        if self._inputs is None:
            raise RuntimeError("Expected the traced block to be over, but it still runs.")
        return self._inputs

    @property
    def changed_meanwhile(self) -> tuple[str, ...]:
        """What changed while it was being read, in words: which content was trained on is not known."""
        return (*all_in_words(self.inputs().unheard), *(f"module {name}" for name in self.edited_modules))

    # What the hook has seen; called in any thread, and in forked processes.

    def spellings(self, given: str, path: str) -> tuple[str, ...]:
        """Return how a file was asked for: relative to the folder in which the block began, or "" for absolutely."""
        if not given.startswith(os.sep):
            return (self._from_here(given, path) or "",)
        inside = path.startswith(f"{self._seen.cwd}{os.sep}") if self._asked_where and self._seen.cwd else False
        return ("", path[len(self._seen.cwd) + 1 :]) if inside else ("",)

    def _from_here(self, given: str, path: str) -> str | None:
        if self._moved is None or not self._seen.cwd:
            return None
        spelling = os.path.normpath(os.path.join(self._moved, given))  # noqa: PTH118  # Path leaves ".."
        return spelling if os.path.normpath(os.path.join(self._seen.cwd, spelling)) == path else None  # noqa: PTH118

    def saw_move(self, folder: str | None) -> None:
        """Note that the training changes its working folder."""
        if folder is None or self._moved is None or folder.startswith(os.sep):
            is_back = folder is not None and os.path.normpath(folder) == self._seen.cwd
            self._moved = "" if is_back else None
        else:
            self._moved = os.path.join(self._moved, folder)  # noqa: PTH118  # Path leaves ".."

    def saw_question_where(self) -> None:
        """Note that the user's code asks for the working folder: it may make absolute paths from it."""
        self._asked_where = True

    def knows(self, path: str, spellings: tuple[str, ...] = ("",), use: Use = Use.READ) -> bool:
        """Whether a file was seen before, asked for in the same way and for the same use."""
        is_read, is_both = (path, spellings) in self._known, path in self._seen.changeable
        return path in self._seen.written or {Use.READ: is_read, Use.WRITE: False, Use.BOTH: is_read and is_both}[use]

    def saw_file(self, path: str, spellings: tuple[str, ...] = ("",), use: Use = Use.READ) -> None:
        """Note a file that is opened: an input, unless the training has written it before."""
        if self.knows(path, spellings, use):
            return
        if use is Use.WRITE:
            self._seen.written.add(path)
            self._note("written", path, None)
            return
        if use is Use.BOTH:
            self._seen.changeable.add(path)
            self._note("changeable", path, None)
        if (path, spellings) in self._known:
            return
        self._known.add((path, spellings))
        folder = path.rpartition(os.sep)[0]
        if not self._seen.is_watched(folder):
            return
        if made := self._seen.written_above(path):
            if Path(made).is_symlink() and (real := os.path.realpath(path)) != path:
                self.saw_file(real)  # a link that it makes leads to what it reads
            return
        self._note("spelled", path, spellings)
        if path in self._known:
            return
        self._known.add(path)
        file = Path(path)
        try:
            found = file.stat()
        except OSError:
            self._note("read", path, (ABSENT, None))
            return
        if not stat.S_ISREG(found.st_mode):
            return
        if found.st_mtime_ns > self._began_ns:  # mostly by the training itself
            if not is_temporary(file, self._seen.rootdir):
                self.saw_untraced(f"The file {self._seen.named(path)} was written while it trained: it is not traced.")
        elif len(self._seen.read) >= MOST_FILES:
            self.saw_untraced(f"More than {MOST_FILES:,} files were read, and the first {MOST_FILES:,} are traced.")
        else:
            digest = file_digest(file, found) if found.st_size <= AT_ONCE else None
            self._note("read", path, (digest, Stamp.of(found)))

    def saw_link(self, path: str, spellings: tuple[str, ...] = ("",)) -> None:
        """Note a symbolic link of which the target is asked for: the path that comes of it names no link."""
        name = path + LINK
        if (name, spellings) in self._known:
            return
        self._known.add((name, spellings))
        if self._seen.written_above(path) or not self._seen.is_link_of_user(path):
            return
        self._note("spelled", name, [s and s + LINK for s in spellings])
        self._note("read", name, (content_digest(Path(name)), None))

    def saw_linked(self, target: str, path: str) -> None:
        """Note a link that is made to a file, whose content can then be read under the name of the link."""
        if Path(target).is_file():
            self.saw_file(target)
        self.saw_file(path, use=Use.WRITE)

    def saw_folder(self, path: str, spellings: tuple[str, ...] = ("",)) -> None:
        """Note a folder whose names are listed."""
        name = path.rstrip(FOLDER) + FOLDER
        if (name, spellings) not in self._known:
            self._known.add((name, spellings))
            if self._seen.is_watched(path):
                self._note("spelled", name, [s and f"{s}{FOLDER}" for s in spellings])
                self._note("listed", name, names_in(Path(path)))

    def saw_folder_made(self, path: str) -> None:
        """Note a folder that is made, or may be there already."""
        if ("made", path) not in self._known:
            self._known.add(("made", path))
            self._note("made", path, None)

    def saw_variable(self, name: str, value: str | None) -> None:
        """Note an environment variable that is read."""
        key = ("variable", name)
        if key not in self._known and not self._is_own(name, value):
            self._known.add(key)
            value, since = before_import(name, value, self._seen.asked_for)
            digests = variable_digest(value, self._seen.rootdir) + since, path_digest(value) + since
            self._note("variable", name, digests)

    def saw_variable_of_library(self, name: str, value: str | None) -> None:
        """Note an environment variable by which a library may find the user's files, while the user's code waits."""
        key = ("lead", name)
        if key not in self._known and not self._is_own(name, value) and _may_lead(name, value, self._seen.rootdir):
            self._known.add(key)
            self._note("lead", name, value)

    def _is_own(self, name: str, value: str | None) -> bool:
        """Whether the training has given a variable its value, or pytest has."""
        return name.startswith(OF_PYTEST) or value != self._variables_before.get(name)

    def saw_module(self, name: str, *, is_there: bool = True) -> None:
        """Note a module that is asked for by a name, which may be computed; it may have been loaded before."""
        key = ("module", name)
        if key not in self._known:
            self._known.add(key)
            self._note("module", name, is_there)

    def saw_database(self, path: str) -> None:
        """Note that a file is a database, which is opened in one way for reading and for writing."""
        if ("database", path) not in self._known:
            self._known.add(("database", path))
            self._note("database", path, None)

    def saw_untraced(self, sentence: str) -> None:
        """Note, in a sentence, what is read and cannot be compared later."""
        if sentence not in self._known:
            self._known.add(sentence)
            self._note("untraced", sentence, None)

    def end(self) -> None:
        """Make the inputs of what was read: the block is over."""
        with contextlib.suppress(OSError):  # something has cleared the temporary folder
            lines = Path(self._spool).read_text(encoding="utf-8").splitlines()
            for line in lines:
                with contextlib.suppress(ValueError):  # torn: the process was killed
                    self._seen.take(*json.loads(line))
        with contextlib.suppress(OSError):
            self._file.close()
        for name in filter(self._seen.has_led, self._seen.leads):
            self.saw_variable(name, self._seen.leads[name])
        self._inputs, self.edited_modules = inputs_of(self._seen)

    def _note(self, kind: str, name: str, value: Any) -> None:
        if os.getpid() == self._pid:
            self._seen.take(kind, name, value)
            return
        line = json.dumps([kind, name, value]).encode() + b"\n"
        with contextlib.suppress(OSError):  # the block is over, and its file is gone
            file = os.open(self._spool, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, line)
            finally:
                os.close(file)


def _may_lead(name: str, value: str | None, rootdir: Path) -> bool:
    """Whether a variable of a library names a folder or file: by its value, or by its name if it is not set."""
    if _IS_CACHE in name:
        return False
    if value is None:
        return name.endswith(_PLACES)
    path = os.path.expanduser(value)  # noqa: PTH111  # Path raises for a user that is not there
    is_path = os.path.isabs(path) or os.path.lexists(path)  # noqa: PTH117  # a text, most often no path
    return is_path and not is_temporary(Path(path), rootdir)
