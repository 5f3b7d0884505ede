"""Removing from a run store, never what somebody trains."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from .catalog import SHORT, Catalog, Entry, newest_in, size_of, trained_at
from .leases import Locks, locks_at

#: Seconds for which leftovers may still belong to somebody who is slow: to begin with a lock, or without one.
_MINUTE, _DAY = 60.0, 86_400.0


@dataclass(frozen=True)
class Removal:
    """Something that was removed, or in a rehearsal would be; or was kept, and why."""

    what: str
    bytes: int
    kept: str = ""  #: the reason


class Pruning:
    """One pass over a store; a rehearsal removes nothing."""

    def __init__(self, catalog: Catalog, *, older_than: float = 0.0, rehearsal: bool = False) -> None:
        self.catalog, self.rehearsal = catalog, rehearsal
        self._before = time.time() - older_than  #: seconds since the epoch

    def experiments(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove whole experiments that no session asked for lately."""
        return [self._experiment(entry) for entry in entries if entry.used <= self._before]

    def failed_runs(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove runs that failed, crashed, took too long, or cannot be read."""
        return [
            self._run(entry, index)
            for entry in entries
            for index, header in entry.runs.items()
            if header is None or (header["record"]["status"] != "ok" and trained_at(header) <= self._before)
        ]

    def old(self, entries: Iterable[Entry]) -> list[Removal]:
        """Remove what was moved out of the way in experiments: bad files, and failures that were retried."""
        folders = [(entry, entry.files.old) for entry in entries if entry.files.old.is_dir()]
        return [
            self._remove(f"old/ of {_named(entry)}", folder, shutil.rmtree)
            for entry, folder in folders
            if newest_in(folder) <= self._before
        ]

    def other_formats(self) -> list[Removal]:
        """Remove what earlier versions wrote and this one does not read."""
        return [
            self._unless_locked(f"{folder.name}/, of an earlier format", folder)
            for folder in self.catalog.other_formats()
            if newest_in(folder) <= self._before
        ]

    def leftovers(self) -> list[Removal]:
        """Remove what processes left that were killed: sessions, half-written files, half-removed experiments."""
        yesterday = time.time() - _DAY
        removed = [
            self._unless_locked(f"the leftovers of session {folder.name}", folder)
            for folder in self.catalog.sessions()
            if max(newest_in(folder), folder.stat().st_mtime)
            < (time.time() - _MINUTE if any(folder.glob("living.*")) else yesterday)
        ]
        half = [path for path in self.catalog.folder.rglob(".*.tmp") if newest_in(path) < yesterday]
        half += self.catalog.folder.glob("v*/.pruned-*")
        return removed + [self._remove(f"half of {path.name}", path, _remove_any) for path in half if path.exists()]

    def _experiment(self, entry: Entry) -> Removal:
        named, size = _named(entry), entry.bytes
        if self.rehearsal:
            return Removal(named, size, kept=_trainers(entry))
        locks = locks_at(entry.folder / "claims.lock")
        if not _acquire_all(locks):
            return Removal(named, size, kept=_trainers(entry) or "it is in use")
        try:
            # In one step for everybody who looks; who wants a claim now makes the experiment anew.
            away = entry.folder.with_name(f".pruned-{entry.key}-{os.urandom(4).hex()}")
            entry.folder.rename(away)
        finally:
            locks.release_all()
        shutil.rmtree(away)
        return Removal(named, size)

    def _run(self, entry: Entry, index: int) -> Removal:
        header = entry.runs[index]
        status = "unreadable" if header is None else header["record"]["status"]
        what = f"run {index} ({status}) of {_named(entry)}"
        locks = locks_at(entry.folder / "claims.lock")
        if locks.is_held(index) if self.rehearsal else not locks.acquire(index):
            return Removal(what, 0, "it is being trained")
        if self.rehearsal:
            return Removal(what, entry.files.size(index))
        try:
            if entry.files.header(index) != header:
                return Removal(what, 0, "it has just been trained")
            return Removal(what, entry.files.remove(index))
        finally:
            locks.release(index)

    def _unless_locked(self, what: str, folder: Path) -> Removal:
        """Remove a folder in which nobody holds a lock."""
        held: list[Locks] = []
        try:
            for path in {_lock_file(path) for path in folder.rglob("*.lock*") if path.suffix in {".lock", ".leases"}}:
                locks = locks_at(path)
                if not _acquire_all(locks):
                    return Removal(what, 0, f"{path.relative_to(self.catalog.folder)} is held")
                held.append(locks)
            return self._remove(what, folder, shutil.rmtree)
        finally:
            for locks in held:
                locks.release_all()

    def _remove(self, what: str, path: Path, remove: Callable[[Path], None]) -> Removal:
        size = size_of(path)
        if not self.rehearsal:
            remove(path)
        return Removal(what, size)


def _named(entry: Entry) -> str:
    return f"{entry.key[:SHORT]} {entry.name}"


def _trainers(entry: Entry) -> str:
    running = entry.running().values()
    return ", ".join(f"run {run.index} is being trained by {run.worker} (pid {run.pid})" for run in running)


def _acquire_all(locks: Locks) -> bool:
    for _ in range(3):  # somebody may have tried a lock for an instant
        if locks.acquire_all():
            return True
        time.sleep(0.02)
    return False


def _lock_file(path: Path) -> Path:
    return path.with_suffix("") if path.suffix == ".leases" else path


def _remove_any(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
