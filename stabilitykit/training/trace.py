"""What was read since a block began: files, folders, environment variables and modules, in this process and its forks.

A trace is told by the hooks of `tracing`, in any thread, and makes `Inputs` of it when the block is over.
"""

from __future__ import annotations

import contextlib
import enum
import functools
import json
import multiprocessing
import os
import stat
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..store.folder_names import NUMBER, names_in, shape_of
from ..store.imported_variables import before_import
from ..store.layout import STORE
from ..store.loaded_files import Stamp, changed_since_import, imported_for, stamp_of
from ..store.provenance import Provenance
from ..store.source_files import sources_of
from ..store.traced_inputs import (
    ABSENT,
    BETWEEN,
    LINK,
    SMALL,
    Inputs,
    all_in_words,
    content_digest,
    file_digest,
    folder_digest,
    is_temporary,
    path_digest,
    place_of,
    variable_digest,
    writes_to,
)
from .cached_reads import AT_ONCE, Read, hits, read_for
from .callers import Caller, is_foreign, kind_of
from .import_reads import ImportReads, read_for_imports

#: Files after which no more are noted.
_MOST_FILES = 20_000

#: The digest of a large file that was edited after a cache had kept what was in it: no file has it.
_LOST = "lost"

#: The end of a folder's name.
_FOLDER = "/"


#: Folders of tools: their content is made of other files, or is ours.
_CACHES = frozenset({"__pycache__", ".git", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".tox", ".nox", STORE})

_SYSTEM = tuple(f"/{name}/" for name in ("proc", "dev", "sys", "run", "usr", "lib", "lib64", "bin", "sbin", "etc"))

#: Folders of the system in which users keep data: in memory, on drives that are plugged in, and in containers.
_USERS = ("/dev/shm/", "/run/media/", "/run/user/", "/usr/src/", "/usr/local/")

#: Folders of programs among these.
_PROGRAMS = tuple(f"/usr/local/{name}/" for name in ("bin", "sbin", "lib", "lib64", "libexec", "include"))


#: How variables begin that pytest sets, another value for each test.
_OF_PYTEST = "PYTEST_"

#: How libraries name the variables by which they find the user's files; those of a cache of compiled kernels are none.
_PLACES, _IS_CACHE = ("_HOME", "_DATA", "_DIR", "_FOLDER", "_PATH", "_ROOT"), "CACHE_DIR"


class Use(enum.Enum):
    """What a file is opened for."""

    READ = enum.auto()
    WRITE = enum.auto()
    BOTH = enum.auto()  #: whether it is written is known by its stamp when the block is over


class Trace:
    """What has been read since a block began."""

    def __init__(self, rootdir: Path, store: Path | None = None) -> None:
        self._rootdir = rootdir.resolve()
        self._store = "" if store is None else f"{store.resolve()}{os.sep}"
        self._loaded_before = frozenset(sys.modules)
        self._hits_before = hits()
        self._processes = [one for one in multiprocessing.active_children() if not one.name.startswith("stabilitykit ")]
        self._asked_for: dict[str, bool] = {}  #: modules that were asked for by a name, and whether they were there
        self._databases: set[str] = set()
        self._seen: set[object] = set()
        self._read: dict[str, tuple[str | None, Stamp | None]] = {}  #: digest and stamp at the first read
        self._variables: dict[str, tuple[str, str]] = {}  #: digest, and digest as it is spelled
        self._untraced: dict[str, None] = {}
        self._spelled: dict[str, dict[str, None]] = {}  #: how each file was asked for; "" is an absolute path
        self._cwd = _working_folder()
        self._moved: str | None = ""  #: the working folder now, as seen from that; None if an absolute path led there
        self._asked_where = False  #: whether absolute paths may have been made from the working folder
        self._written: set[str] = set()
        self._changeable: set[str] = set()  #: opened for both uses
        self._listed: dict[str, list[str] | None] = {}  #: names in each folder when it was first listed
        self._folders_made: set[str] = set()
        self._variables_before = dict(os.environ)
        self._leads: dict[str, str | None] = {}  #: variables by which a library may have found files
        self._pid = os.getpid()
        self._file = tempfile.NamedTemporaryFile(prefix="stabilitykit-trace-")  # noqa: SIM115  # closed by end
        self._spool = self._file.name  # for the processes that this one forks
        self._began_ns = os.fstat(self._file.fileno()).st_mtime_ns  # the clock of files is behind that of the process
        self._inputs: Inputs | None = None
        #: Modules that were edited while they were being read: which content was trained on is not known.
        self.edited_modules: tuple[str, ...] = ()

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
        inside = path.startswith(f"{self._cwd}{os.sep}") if self._asked_where and self._cwd else False
        return ("", path[len(self._cwd) + 1 :]) if inside else ("",)

    def _from_here(self, given: str, path: str) -> str | None:
        if self._moved is None or not self._cwd:
            return None
        spelling = os.path.normpath(os.path.join(self._moved, given))  # noqa: PTH118  # Path leaves ".."
        return spelling if os.path.normpath(os.path.join(self._cwd, spelling)) == path else None  # noqa: PTH118

    def saw_move(self, folder: str | None) -> None:
        """Note that the training changes its working folder."""
        if folder is None or self._moved is None or folder.startswith(os.sep):
            is_back = folder is not None and os.path.normpath(folder) == self._cwd
            self._moved = "" if is_back else None
        else:
            self._moved = os.path.join(self._moved, folder)  # noqa: PTH118  # Path leaves ".."

    def saw_question_where(self) -> None:
        """Note that the user's code asks for the working folder: it may make absolute paths from it."""
        self._asked_where = True

    def knows(self, path: str, spellings: tuple[str, ...] = ("",), use: Use = Use.READ) -> bool:
        """Whether a file was seen before, asked for in the same way and for the same use."""
        is_read, is_both = (path, spellings) in self._seen, path in self._changeable
        return path in self._written or {Use.READ: is_read, Use.WRITE: False, Use.BOTH: is_read and is_both}[use]

    def saw_file(self, path: str, spellings: tuple[str, ...] = ("",), use: Use = Use.READ) -> None:
        """Note a file that is opened: an input, unless the training has written it before."""
        if self.knows(path, spellings, use):
            return
        if use is Use.WRITE:
            self._written.add(path)
            self._note("written", path, None)
            return
        if use is Use.BOTH:
            self._changeable.add(path)
            self._note("changeable", path, None)
        if (path, spellings) in self._seen:
            return
        self._seen.add((path, spellings))
        folder = path.rpartition(os.sep)[0]
        if not self._is_watched(folder):
            return
        if made := self._written_above(path):
            if Path(made).is_symlink() and (real := os.path.realpath(path)) != path:
                self.saw_file(real)  # a link that it makes leads to what it reads
            return
        self._note("spelled", path, spellings)
        if path in self._seen:
            return
        self._seen.add(path)
        file = Path(path)
        try:
            found = file.stat()
        except OSError:
            self._note("read", path, (ABSENT, None))
            return
        if not stat.S_ISREG(found.st_mode):
            return
        if found.st_mtime_ns > self._began_ns:  # mostly by the training itself
            if not is_temporary(file, self._rootdir):
                self.saw_untraced(f"The file {self._named(path)} was written while it trained: it is not traced.")
        elif len(self._read) >= _MOST_FILES:
            self.saw_untraced(f"More than {_MOST_FILES:,} files were read, and the first {_MOST_FILES:,} are traced.")
        else:
            digest = file_digest(file, found) if found.st_size <= AT_ONCE else None
            self._note("read", path, (digest, Stamp.of(found)))

    def saw_link(self, path: str, spellings: tuple[str, ...] = ("",)) -> None:
        """Note a symbolic link of which the target is asked for: the path that comes of it names no link."""
        name = path + LINK
        if (name, spellings) in self._seen:
            return
        self._seen.add((name, spellings))
        if self._written_above(path) or not self._is_link_of_user(path):
            return
        self._note("spelled", name, [s and s + LINK for s in spellings])
        self._note("read", name, (content_digest(Path(name)), None))

    def _is_link_of_user(self, path: str) -> bool:
        if not self._is_watched(path.rpartition(os.sep)[0]):
            return False
        target = os.path.realpath(path)
        # Where the project lies below it, it leads to where that is on each machine.
        return not f"{self._rootdir}{os.sep}".startswith(f"{target}{os.sep}") and not is_foreign(target)

    def saw_linked(self, target: str, path: str) -> None:
        """Note a link that is made to a file, whose content can then be read under the name of the link."""
        if Path(target).is_file():
            self.saw_file(target)
        self.saw_file(path, use=Use.WRITE)

    def _written_above(self, path: str) -> str:
        """Return the path, or a folder above it, that the training has written; empty if it has written none.

        It writes a folder where it removes or renames that as a whole, or makes a link to it.
        """
        while path and self._written:
            if path in self._written:
                return path
            path = path.rpartition(os.sep)[0]
        return ""

    def saw_folder(self, path: str, spellings: tuple[str, ...] = ("",)) -> None:
        """Note a folder whose names are listed."""
        name = path.rstrip(_FOLDER) + _FOLDER
        if (name, spellings) not in self._seen:
            self._seen.add((name, spellings))
            if self._is_watched(path):
                self._note("spelled", name, [s and f"{s}{_FOLDER}" for s in spellings])
                self._note("listed", name, names_in(Path(path)))

    def saw_folder_made(self, path: str) -> None:
        """Note a folder that is made, or may be there already."""
        if ("made", path) not in self._seen:
            self._seen.add(("made", path))
            self._note("made", path, None)

    def _is_watched(self, folder: str) -> bool:
        if self._store and f"{folder}{os.sep}".startswith(self._store):
            return False
        return _is_watched(folder, self._rootdir)

    def saw_variable(self, name: str, value: str | None) -> None:
        """Note an environment variable that is read."""
        key = ("variable", name)
        if key not in self._seen and not self._is_own(name, value):
            self._seen.add(key)
            value = before_import(name, value, self._asked_for)
            digests = variable_digest(value, self._rootdir), path_digest(value)
            self._note("variable", name, digests)

    def saw_variable_of_library(self, name: str, value: str | None) -> None:
        """Note an environment variable by which a library may find the user's files, while the user's code waits."""
        key = ("lead", name)
        if key not in self._seen and not self._is_own(name, value) and _may_lead(name, value, self._rootdir):
            self._seen.add(key)
            self._note("lead", name, value)

    def _is_own(self, name: str, value: str | None) -> bool:
        """Whether the training has given a variable its value, or pytest has."""
        return name.startswith(_OF_PYTEST) or value != self._variables_before.get(name)

    def saw_module(self, name: str, *, is_there: bool = True) -> None:
        """Note a module that is asked for by a name, which may be computed; it may have been loaded before."""
        key = ("module", name)
        if key not in self._seen:
            self._seen.add(key)
            self._note("module", name, is_there)

    def saw_database(self, path: str) -> None:
        """Note that a file is a database, which is opened in one way for reading and for writing."""
        if ("database", path) not in self._seen:
            self._seen.add(("database", path))
            self._note("database", path, None)

    def saw_untraced(self, sentence: str) -> None:
        """Note, in a sentence, what is read and cannot be compared later."""
        if sentence not in self._seen:
            self._seen.add(sentence)
            self._note("untraced", sentence, None)

    def _note(self, kind: str, name: str, value: Any) -> None:
        if os.getpid() == self._pid:
            self._take(kind, name, value)
            return
        line = json.dumps([kind, name, value]).encode() + b"\n"
        with contextlib.suppress(OSError):  # the block is over, and its file is gone
            file = os.open(self._spool, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, line)
            finally:
                os.close(file)

    def _take(self, kind: str, name: str, value: Any) -> None:
        if kind == "read":
            digest, stamp = value
            self._read.setdefault(name, (digest, None if stamp is None else Stamp(*stamp)))
        elif kind == "spelled":
            self._spelled.setdefault(name, {}).update(dict.fromkeys(value))
        elif kind == "variable":
            self._variables.setdefault(name, (value[0], value[1]))
        elif kind == "untraced":
            self._untraced[name] = None
        elif kind == "written":
            self._written.add(name)
        elif kind == "listed":
            self._listed.setdefault(name, value)
        elif kind == "made":
            self._folders_made.add(name)
        elif kind == "changeable":
            self._changeable.add(name)
        elif kind == "lead":
            self._leads.setdefault(name, value)
        elif kind == "module":
            self._asked_for.setdefault(name, value)
        elif kind == "database":
            self._databases.add(name)

    # When the block is over

    def end(self) -> None:
        """Make the inputs of what was read: the block is over."""
        with contextlib.suppress(OSError):  # something has cleared the temporary folder
            lines = Path(self._spool).read_text(encoding="utf-8").splitlines()
            for line in lines:
                with contextlib.suppress(ValueError):  # torn: the process was killed
                    self._take(*json.loads(line))
        with contextlib.suppress(OSError):
            self._file.close()
        if kinds := sorted({type(process).__name__ for process in self._processes if process.is_alive()}):
            self.saw_untraced(
                f"Other processes were there before it ({', '.join(kinds)}): what they read is not traced."
            )
        reached = self._reached()
        modules, places, edited = self._modules(reached)
        files, unheard = self._files(frozenset(places.values()))
        folders, made = self._folders()
        before = read_for_imports(reached)
        files = {**self._kept(before.files), **self._kept(read_for(self._hits_before)), **files}
        files |= {f"{self._named(path)}{LINK}": to for path, to in before.links.items() if self._is_link_of_user(path)}
        files |= self._listed_before(before) | folders
        named = {name: path for path in self._read for name in self._names(path) if name in files}
        stamps = {name: s for name, path in named.items() if (s := self._read[path][1]) and s.size > SMALL}
        asked = (*self._read, *self._listed)
        relative = {name: spelling for path in asked for name, spelling in self._names(path).items()}
        relative |= {self._named(path): spelling for path, spelling in self._relative_before(before)}
        relative = {name: spelling for name, spelling in relative.items() if spelling and name in files}
        untraced, written = tuple(self._untraced), tuple(self._made())
        for name in filter(self._has_led, self._leads):
            self.saw_variable(name, self._leads[name])
        for name, value in before.variables.items():
            self._variables.setdefault(name, (variable_digest(value, self._rootdir), path_digest(value)))
        variables = {name: digest for name, (digest, _) in self._variables.items()}
        spelled = {name: path for name, (digest, path) in self._variables.items() if path != digest}
        self._inputs = Inputs(
            modules, files, variables, untraced, places, stamps, relative, written, spelled, made, unheard
        )
        self.edited_modules = tuple(edited)

    def _has_led(self, variable: str) -> bool:
        """Whether a file was read where a library's variable leads: below its path; if not set, outside the project."""
        found = [path.rstrip(_FOLDER) for path in (*self._read, *self._listed)]
        project, value = str(self._rootdir), self._leads[variable]
        place = os.sep if value is None else os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111  # links stay
        if _is_below(project, place):  # such as HOME
            found = [path for path in found if not _is_below(path, project)]
        return any(_is_below(path, place) for path in found)

    def _files(self, modules: frozenset[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Return the digests of files and links, and those of now where nothing was heard to write what changed.

        The files of ``modules`` are not named twice. The digest is `ABSENT` where the content that was read is lost.
        """
        files: dict[str, str] = {}
        unheard: dict[str, str] = {}
        for path, (digest, stamp) in self._read.items():
            name, is_link = self._named(path), path.endswith(LINK)
            is_written = bool(self._written_above(path.removesuffix(LINK)))
            if name in modules or (is_written and digest == ABSENT):  # looked for, and then written
                continue
            is_as_it_was = content_digest(Path(path)) == digest if is_link else stamp == stamp_of(Path(path))
            before = digest
            if is_written or (not is_as_it_was and (path in self._changeable or self._is_written_elsewhere(path))):
                self._says_it_writes(path)
                continue
            if before is None or not is_as_it_was:
                now = content_digest(Path(path))
                before = now if before is None and stamp == stamp_of(Path(path)) else before
                if before != now:
                    unheard |= dict.fromkeys(self._names(path), now)
            files |= dict.fromkeys(self._names(path), before or ABSENT)
        return files, unheard

    def _is_written_elsewhere(self, path: str) -> bool:
        """Whether the training has written a file by another name, of a link to it or to its folder."""
        return os.path.realpath(path) in self._places_written

    @functools.cached_property
    def _places_written(self) -> frozenset[str]:
        return frozenset(map(os.path.realpath, self._written))

    def _says_it_writes(self, path: str) -> None:
        name = self._named(path.removesuffix(LINK))
        self._written.add(path)
        self.saw_untraced(writes_to(f"the database {name}" if path in self._databases else name))

    def _folders(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the digests of listed folders, and the shapes of the names that the training makes in them."""
        shapes: dict[str, set[str]] = {f"{folder}{_FOLDER}": set() for folder in self._folders_made}
        for path in (*self._written, *self._folders_made) if self._listed else ():
            folder, _, name = path.removesuffix(LINK).rpartition(os.sep)
            shapes.setdefault(f"{folder}{_FOLDER}", set()).add(shape_of(name))
        folders: dict[str, str] = {}
        made: dict[str, str] = {}
        for path, names in self._listed.items():
            ours = BETWEEN.join(sorted(shapes[path])) if path in shapes else None
            for name in self._names(path):
                folders[name] = folder_digest(names, ours)
                made |= {} if ours is None else {name: ours}
            for shape in sorted(shapes.get(path, ())):
                if NUMBER in shape:
                    self.saw_untraced(
                        f"It makes names like {shape} in {self._named(path)}: which of these are there is not traced."
                    )
        return folders, made

    def _made(self) -> Iterator[str]:
        """Give the names of what the training has written, as its later runs would read it."""
        for path in sorted(self._written)[:_MOST_FILES]:
            is_gone = is_temporary(Path(path), self._rootdir) and not os.path.lexists(path)
            if self._is_watched(path.rpartition(os.sep)[0]) and not is_gone:
                yield self._named(path)

    def _kept(self, reads: Mapping[str, Read]) -> dict[str, str]:
        """Return the digests of files of which the training got what had been kept, as they were when it was read."""
        return {
            self._named(path): read.digest
            or (content_digest(Path(path)) if read.stamp == stamp_of(Path(path)) else _LOST)
            for path, read in reads.items()
            if path not in self._written and self._is_watched(path.rpartition(os.sep)[0])
        }

    def _listed_before(self, before: ImportReads) -> dict[str, str]:
        """Return the digests of the folders that modules had listed."""
        listed = {path: names for path, names in before.folders.items() if self._is_watched(path)}
        return {
            self._named(path.rstrip(_FOLDER) + _FOLDER): folder_digest(names, None) for path, names in listed.items()
        }

    def _relative_before(self, before: ImportReads) -> Iterator[tuple[str, str]]:
        """Give the files and folders that modules had asked for in what is still the working folder."""
        for path, spelling in before.relative.items():
            if self._cwd and os.path.normpath(os.path.join(self._cwd, spelling)) == path:  # noqa: PTH118  # Path leaves ".."
                end = _FOLDER if path in before.folders else ""
                yield path + end, spelling + end

    def _reached(self) -> list[Path]:
        """Return the source files of modules that were loaded and that the training has asked for, with their imports.

        What another module had imported for them is among them.
        """
        places = (place_of(name) for name in self._asked_for if name in self._loaded_before)
        own = [place for place in places if place is not None and _is_users(place)]
        if not own:
            return []
        paths = sources_of(own, Provenance(self._rootdir)).paths
        found = {path for path in paths.union(imported_for(paths)) if path.stem != "conftest"}
        return sorted(path for path in found if _is_users(path))

    def _names(self, path: str) -> dict[str, str]:
        """Return the names by which a file counts, each with its path from the working folder; "" for its own place.

        There is one, but of a file that was asked for in several ways.
        """
        first, *more = sorted(self._spelled.get(path, [""]))
        return {self._named(path): first, **{f"./{spelling}": spelling for spelling in more}}

    def _modules(self, reached: list[Path]) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """Return digest and file of the user's modules that were imported or ``reached``, and which were edited."""
        modules, places, edited = {}, {}, []
        names = {name for name in list(sys.modules) if name not in self._loaded_before}
        names |= {name for name in list(sys.modules) if (place := place_of(name)) in reached} if reached else set()
        for name in sorted(names.union(self._asked_for)):
            place = place_of(name)
            if place is None and not self._asked_for.get(name, True):
                modules[name], places[name] = ABSENT, name
            if place is None or not _is_users(place):
                continue
            if str(place) in self._written or not place.is_file():
                continue
            now = _LOST if changed_since_import([Path(os.path.realpath(place))]) else content_digest(place)
            before = self._read.get(str(place), (None, None))[0] or now
            if before != now:
                edited.append(name)
            modules[name], places[name] = before, self._named(str(place))
        return modules, places, edited

    def _named(self, path: str) -> str:
        inside = path.startswith(f"{self._rootdir}{os.sep}")
        return path[len(str(self._rootdir)) + 1 :] or f".{_FOLDER}" if inside else path


@functools.lru_cache(maxsize=4096)
def _is_watched(folder: str, rootdir: Path) -> bool:
    """Whether the files in a folder can be the user's: not Python's, the system's, or a cache of tools."""
    path = Path(folder)
    if path.is_relative_to(rootdir):
        return _CACHES.isdisjoint(path.relative_to(rootdir).parts) and not is_foreign(folder)
    return _CACHES.isdisjoint(path.parts) and not is_foreign(folder) and not _is_systems(f"{folder}/")


def _is_systems(folder: str) -> bool:
    return folder.startswith(_SYSTEM) and (not folder.startswith(_USERS) or folder.startswith(_PROGRAMS))


def _is_users(place: Path) -> bool:
    return kind_of(str(place)) is Caller.USER and not is_foreign(str(place))


def _may_lead(name: str, value: str | None, rootdir: Path) -> bool:
    """Whether a variable of a library names a folder or file: by its value, or by its name if it is not set."""
    if _IS_CACHE in name:
        return False
    if value is None:
        return name.endswith(_PLACES)
    path = os.path.expanduser(value)  # noqa: PTH111  # Path raises for a user that is not there
    is_path = os.path.isabs(path) or os.path.lexists(path)  # noqa: PTH117  # a text, most often no path
    return is_path and not is_temporary(Path(path), rootdir)


def _is_below(path: str, folder: str) -> bool:
    return f"{path}{os.sep}".startswith(f"{folder.rstrip(os.sep)}{os.sep}")


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # as os.path.abspath reads it
    except OSError:
        return ""
