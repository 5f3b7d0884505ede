"""A run store seen from outside any session: its experiments, their runs, and when they were used."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import StabilityError, StoreError
from ..protocol import NoiseProtocol, Perturbation
from .baseline_files import BaselineFiles
from .claims import Claims, Running
from .layout import ABOUT, EXPERIMENTS, FORMAT, FORMAT_FILE, INPUTS, KEY, ROLE, SESSION_ID, SESSIONS, STORE
from .ownership import format_of
from .reading import is_there, read_json
from .run_files import RunFiles
from .shared_epochs import Prefixes

#: Characters of a key that are shown; any unique beginning names an experiment.
SHORT = 12


class Catalog:
    """The experiments of one store that outlive their sessions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if format_of(folder) is None:
            raise StoreError(
                f"Expected a run store but {folder} has no file {FORMAT_FILE}. Name the {STORE} folder, or the one it "
                f"lies in, with --store."
            )

    @classmethod
    def of(cls, path: Path) -> Catalog:
        """Return the catalog of the store at ``path``, or in the folder ``path``."""
        inside = path / STORE
        return cls(inside if inside.is_dir() else path)

    @classmethod
    def above(cls, start: Path) -> Catalog:
        """Return the catalog of the nearest store, in ``start`` or in a folder above it."""
        for folder in (start, *start.parents):
            if format_of(folder / STORE) is not None:
                return cls(folder / STORE)
        raise StoreError(
            f"Expected a run store, {STORE}, in {start} or above it but found none. It appears with the first "
            f"training; name another place with --store."
        )

    def entries(self) -> list[Entry]:
        """Return the experiments, the most recently used first."""
        entries = [Entry(folder) for folder in _folders(self.folder / EXPERIMENTS, KEY)]
        return sorted(entries, key=lambda entry: (-entry.used, entry.key))

    def find(self, prefix: str) -> Entry:
        """Return the one experiment whose key begins with ``prefix``."""
        found = sorted((e for e in self.entries() if e.key.startswith(prefix)), key=lambda entry: entry.key)
        if len(found) == 1:
            return found[0]
        if not found:
            raise StoreError(f"Expected the beginning of a key but no experiment in {self.folder} has {prefix!r}.")
        names = ", ".join(f"{entry.key[: max(SHORT, len(prefix) + 4)]} ({entry.name})" for entry in found)
        raise StoreError(f"Expected the beginning of one key but {prefix!r} begins {len(found)}: {names}.")

    def other_formats(self) -> list[Path]:
        """Return the folders that earlier versions wrote and this one does not read."""
        return [path for path in _folders(self.folder, r"v\d+") if int(path.name[1:]) < int(FORMAT)]

    def baselines(self) -> list[BaselineFiles]:
        """Return the baselines, by name."""
        return BaselineFiles.all(self.folder)

    def sessions(self) -> list[Path]:
        """Return the folders of sessions that live, or were killed before they cleared up."""
        return _folders(self.folder / SESSIONS, SESSION_ID)

    def half_pruned(self) -> list[Path]:
        """Return the experiments that a killed process had begun to remove."""
        return [path for place in _folders(self.folder, r"v\d+") for path in _folders(place, rf"\.pruned-{KEY}-.*")]


class Entry:
    """One experiment."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, folder.name
        self.files = RunFiles(folder)
        self.prefixes = Prefixes(folder, {})
        self.claims = Claims(folder)

    @cached_property
    def about(self) -> dict[str, Any]:
        """The values that its key was made of."""
        return read_json(self.folder / ABOUT, escape=True) or {}

    @property
    def about_is_torn(self) -> bool:
        """Whether experiment.json exists but cannot be parsed."""
        return is_there(self.folder / ABOUT) and read_json(self.folder / ABOUT, escape=True) is None

    @property
    def task(self) -> str:
        """The name of the task."""
        return str(self.about.get("task", "unknown"))

    @property
    def varies(self) -> str:
        """The sources that vary between its runs, as tables name them; "inputs" where only these are kept."""
        if self.about.get(ROLE) == INPUTS:
            return INPUTS
        try:
            protocol = self.about["protocol"]
            perturb = protocol["perturb"] and Perturbation(**protocol["perturb"])
            return NoiseProtocol(protocol["vary"], perturb, onset=protocol.get("onset", 0)).name
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError, StabilityError):
            return "unknown"

    @property
    def name(self) -> str:
        """Task and protocol."""
        return f"{self.task} [{self.varies}]"

    @cached_property
    def runs(self) -> dict[int, dict[str, Any] | None]:
        """The header of each finished run; None if it is damaged."""
        return {index: self.files.header(index) for index in self.files.indices()}

    def count(self) -> dict[str, int]:
        """Return how many runs are ok, failed (in any way), unreadable, and running."""
        statuses = ["unreadable" if header is None else header["record"]["status"] for header in self.runs.values()]
        ok, unreadable = statuses.count("ok"), statuses.count("unreadable")
        failed = len(statuses) - ok - unreadable
        return {"ok": ok, "failed": failed, "unreadable": unreadable, "running": len(self.running())}

    def running(self) -> dict[int, Running]:
        """Return the runs that living processes train now."""
        try:
            return self.claims.running()
        except OSError:  # a store that cannot be written: no process trains for it
            return {}

    @cached_property
    def bytes(self) -> int:
        """The size of all its files, those in ``old/`` included."""
        return size_of(self.folder)

    @cached_property
    def used(self) -> float:
        """When a session last asked for this experiment, in seconds since the epoch."""
        return _mtime(self.folder / ABOUT) or newest_in(self.folder)

    @cached_property
    def created(self) -> float:
        """When its first run was trained, in seconds since the epoch."""
        times = (trained_at(header) for header in self.runs.values() if header is not None)
        return min(times, default=self.used)


def trained_at(header: Mapping[str, Any]) -> float:
    """Return when a run was published, in seconds since the epoch."""
    found = header["record"]["trained_by"].get("time")
    return float(found) if isinstance(found, (int, float)) else 0.0


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder, or of a file."""
    return sum(status.st_size for status in _files_below(folder))


def newest_in(folder: Path) -> float:
    """Return when a folder, or anything in it, was last changed, in seconds since the epoch."""
    return max((status.st_mtime for status in _files_below(folder)), default=_mtime(folder))


def _files_below(folder: Path) -> Iterator[os.stat_result]:
    for path in (folder, *folder.rglob("*")):
        try:
            status = path.lstat()
        except FileNotFoundError:  # a session has just moved the file
            continue
        if not path.is_dir():
            yield status


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _folders(folder: Path, form: str) -> list[Path]:
    """Return the folders in ``folder`` whose names match ``form``; links are left out."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if re.fullmatch(form, path.name))
    return sorted(path for path in found if path.is_dir() and not path.is_symlink())
