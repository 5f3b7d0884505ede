"""Removing experiments, runs and leftovers from a run store, never those that a process trains."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .byte_locks import ByteLocks
from .catalog import SHORT, Catalog, Entry, newest_in, size_of, trained_at
from .layout import LIVING_LOCK
from .ownership import NotOurs, check_removable, drafts_below, move, remove

#: Seconds for which leftovers may still belong to a slow process: one that has made its lock, or has not yet.
_MINUTE, _DAY = 60.0, 86_400.0

_USED = "a session works through its runs"


@dataclass(frozen=True)
class Removal:
    """One thing that was removed (in a rehearsal: would be), or was kept."""

    what: str
    bytes: int
    kept: str = ""  #: why it was kept; empty if it was not


class _InUse(Exception):
    """A process trains or uses what was to be removed."""


class Pruning:
    """One pass over a store; a rehearsal removes nothing."""

    def __init__(self, catalog: Catalog, *, older_than: float = 0.0, rehearsal: bool = False) -> None:
        self.catalog, self.rehearsal = catalog, rehearsal
        self._before = time.time() - older_than  #: seconds since the epoch

    def experiments(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove whole experiments that no session asked for since the age given."""
        return [self._try(_named(entry), self._experiment, entry) for entry in entries if entry.used <= self._before]

    def failed_runs(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove runs that failed, crashed, took too long, or cannot be read."""
        return [
            self._try(f"run {index} ({status}) of {_named(entry)}", self._run, entry, index)
            for entry in entries
            for index, header in entry.runs.items()
            for status in ["unreadable" if header is None else header["record"]["status"]]
            if header is None or (status != "ok" and trained_at(header) <= self._before)
        ]

    def old(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove the files that experiments moved to ``old/``: damaged ones, and failures that were retried."""
        found = [e for e in entries if e.files.old.is_dir() and newest_in(e.files.old) <= self._before]
        return [self._try(f"old/ of {_named(entry)}", self._remove, entry.files.old) for entry in found]

    def other_formats(self) -> list[Removal]:
        """Remove the runs that earlier versions wrote and this one does not read."""
        found = [folder for folder in self.catalog.other_formats() if newest_in(folder) <= self._before]
        return [self._try(f"{old.name}/, of an earlier format", self._remove_unlocked, old) for old in found]

    def leftovers(self) -> list[Removal]:
        """Remove the leftovers of killed processes: sessions, half-written files, half-removed experiments."""
        yesterday = time.time() - _DAY
        removed = [
            self._try(f"the leftovers of session {folder.name}", self._remove_unlocked, folder)
            for folder in self.catalog.sessions()
            if max(newest_in(folder), folder.stat().st_mtime)
            < (time.time() - _MINUTE if (folder / LIVING_LOCK).exists() else yesterday)
        ]
        half = [path for path in drafts_below(self.catalog.folder) if path.lstat().st_mtime < yesterday]
        half += self.catalog.half_pruned()
        return removed + [self._try(f"half of {path.name}", self._remove, path) for path in half]

    def _try(self, what: str, removing: Callable[..., int], *args: object) -> Removal:
        """Keep what is in use, and what the system refuses to remove, such as files of another user."""
        try:
            return Removal(what, removing(*args))
        except (_InUse, NotOurs, OSError) as error:
            return Removal(what, 0, error.why if isinstance(error, NotOurs) else str(error))

    def _experiment(self, entry: Entry) -> int:
        check_removable(entry.folder)  # before locking, which would create a marker file
        size = entry.bytes
        if self.rehearsal:
            if entry.claims.is_in_use() or _trainers(entry):
                raise _InUse(_trainers(entry) or _USED)
            return size
        locks = entry.claims.locks
        if not _acquire_all(locks):
            raise _InUse(_trainers(entry) or (_USED if entry.claims.is_in_use() else "it is in use"))
        try:
            # In one step for all processes: one that asks for a claim now creates the experiment anew.
            away = entry.folder.with_name(f".pruned-{entry.key}-{os.urandom(4).hex()}")
            move(entry.folder, away)
        finally:
            locks.release_all()
        remove(away)
        return size

    def _run(self, entry: Entry, index: int) -> int:
        check_removable(entry.files.place(index))
        locks = entry.claims.locks
        if entry.claims.is_in_use():
            raise _InUse(_USED)
        if locks.is_held(index) if self.rehearsal else not locks.acquire(index):
            raise _InUse("it is being trained")
        if self.rehearsal:
            return entry.files.size(index)
        try:
            if entry.files.header(index) != entry.runs[index]:
                raise _InUse("it has just been trained")
            return entry.files.remove(index)
        finally:
            locks.release(index)

    def _remove_unlocked(self, folder: Path) -> int:
        """Remove a folder unless a process holds a lock in it."""
        check_removable(folder)
        held: list[ByteLocks] = []
        try:
            for path in folder.rglob("*.lock"):
                locks = ByteLocks.at(path)
                if not _acquire_all(locks):
                    raise _InUse(f"{path.relative_to(self.catalog.folder)} is held")
                held.append(locks)
            return self._remove(folder)
        finally:
            for locks in held:
                locks.release_all()

    def _remove(self, path: Path) -> int:
        size = size_of(path)
        check_removable(path)
        if not self.rehearsal:
            remove(path)
        return size


def _named(entry: Entry) -> str:
    return f"{entry.key[:SHORT]} {entry.name}"


def _trainers(entry: Entry) -> str:
    running = entry.running().values()
    return ", ".join(f"run {run.index} is being trained by {run.worker} (pid {run.pid})" for run in running)


def _acquire_all(locks: ByteLocks) -> bool:
    for _ in range(3):  # another process may hold a lock for an instant, to look
        if locks.acquire_all():
            return True
        time.sleep(0.02)
    return False
