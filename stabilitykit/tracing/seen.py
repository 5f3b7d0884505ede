"""What a trace has seen, as its hooks tell it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from ..store.loaded_files import Stamp
from .cached_reads import hits
from .callers import is_foreign
from .watched_folders import is_watched

#: Files after which no more are noted.
MOST_FILES = 20_000

#: The end of a folder's name.
FOLDER = "/"


class Seen:
    """What was read and written since a block began, and what was there before."""

    def __init__(self, rootdir: Path, store: Path | None = None) -> None:
        self.rootdir = rootdir.resolve()
        self.store = "" if store is None else f"{store.resolve()}{os.sep}"
        self.loaded_before = frozenset(sys.modules)
        self.hits_before = hits()
        self.processes = [one for one in multiprocessing.active_children() if not one.name.startswith("stabilitykit ")]
        self.asked_for: dict[str, bool] = {}  #: modules that were asked for by a name, and whether they were there
        self.databases: set[str] = set()
        self.read: dict[str, tuple[str | None, Stamp | None]] = {}  #: digest and stamp at the first read
        self.variables: dict[str, tuple[str, str]] = {}  #: digest, and digest as it is spelled
        self.untraced: dict[str, None] = {}
        self.spelled: dict[str, dict[str, None]] = {}  #: how each file was asked for; "" is an absolute path
        self.cwd = _working_folder()
        self.written: set[str] = set()
        self.changeable: set[str] = set()  #: opened for both uses
        self.listed: dict[str, list[str] | None] = {}  #: names in each folder when it was first listed
        self.folders_made: set[str] = set()
        self.leads: dict[str, str | None] = {}  #: variables by which a library may have found files

    def take(self, kind: str, name: str, value: Any) -> None:
        """Keep what a hook tells, in this process or in one that it has forked."""
        if kind == "read":
            digest, stamp = value
            self.read.setdefault(name, (digest, None if stamp is None else Stamp(*stamp)))
        elif kind == "spelled":
            self.spelled.setdefault(name, {}).update(dict.fromkeys(value))
        elif kind == "variable":
            self.variables.setdefault(name, (value[0], value[1]))
        elif kind == "untraced":
            self.untraced[name] = None
        elif kind == "written":
            self.written.add(name)
        elif kind == "listed":
            self.listed.setdefault(name, value)
        elif kind == "made":
            self.folders_made.add(name)
        elif kind == "changeable":
            self.changeable.add(name)
        elif kind == "lead":
            self.leads.setdefault(name, value)
        elif kind == "module":
            self.asked_for.setdefault(name, value)
        elif kind == "database":
            self.databases.add(name)

    def say(self, sentence: str) -> None:
        """Note, in a sentence, what was read and cannot be compared later."""
        self.untraced[sentence] = None

    def written_above(self, path: str) -> str:
        """Return the path, or a folder above it, that the training has written; empty if it has written none.

        It writes a folder where it removes or renames that as a whole, or makes a link to it.
        """
        while path and self.written:
            if path in self.written:
                return path
            path = path.rpartition(os.sep)[0]
        return ""

    def is_link_of_user(self, path: str) -> bool:
        """Whether a symbolic link is one whose target the user chooses."""
        if not self.is_watched(path.rpartition(os.sep)[0]):
            return False
        target = os.path.realpath(path)
        # Where the project lies below it, it leads to where that is on each machine.
        return not f"{self.rootdir}{os.sep}".startswith(f"{target}{os.sep}") and not is_foreign(target)

    def is_watched(self, folder: str) -> bool:
        """Whether the files in a folder can be inputs: the run store is none."""
        if self.store and f"{folder}{os.sep}".startswith(self.store):
            return False
        return is_watched(folder, self.rootdir)

    def named(self, path: str) -> str:
        """Return the name of a file: below the rootdir as seen from there."""
        inside = path.startswith(f"{self.rootdir}{os.sep}")
        return path[len(str(self.rootdir)) + 1 :] or f".{FOLDER}" if inside else path

    def has_led(self, variable: str) -> bool:
        """Whether a file was read where a library's variable leads: below its path; if not set, outside the project."""
        found = [path.rstrip(FOLDER) for path in (*self.read, *self.listed)]
        project, value = str(self.rootdir), self.leads[variable]
        place = os.sep if value is None else os.path.abspath(os.path.expanduser(value))  # noqa: PTH100, PTH111  # links stay
        if _is_below(project, place):  # such as HOME
            found = [path for path in found if not _is_below(path, project)]
        return any(_is_below(path, place) for path in found)


def _is_below(path: str, folder: str) -> bool:
    return f"{path}{os.sep}".startswith(f"{folder.rstrip(os.sep)}{os.sep}")


def _working_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109  # as os.path.abspath reads it
    except OSError:
        return ""
