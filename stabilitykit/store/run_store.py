"""The run store: one immutable file a run, kernel locks as claims, and nothing that could be executed.

A run is published by linking a complete file into place while its byte is locked: a reader sees all of it or none, and
the first result stays. Where each file is: see `layout`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..errors import StoreError
from .atomic_files import Draft, unwritable, write_json, write_once
from .byte_locks import ByteLocks
from .claims import Claim, Claims, Death, obituary
from .known_inputs import KnownInputs
from .layout import ABOUT, CERTIFICATE, EXPERIMENTS, FORMAT, FORMAT_FILE, LIVING_LOCK, PRIVATE, SESSIONS
from .ownership import check_form, check_may_be_store, format_of, remove
from .reading import is_there, read_json, typed
from .record import RunRecord
from .run_files import RunFiles
from .shared_epochs import Prefixes
from .traced_inputs import Inputs
from .verdict_files import VerdictFiles

#: auto reuses finished runs; refresh trains them again, once a session; off keeps nothing after the session.
CacheMode: TypeAlias = Literal["auto", "refresh", "off"]


def make_store(folder: Path) -> None:
    """Make a folder a run store, unless it is one. Raises `StoreError` if it has other files, or cannot be written."""
    try:
        check_may_be_store(folder)
        if format_of(folder) is None:
            folder.mkdir(parents=True, exist_ok=True)
            write_once(folder / FORMAT_FILE, FORMAT)  # first: another process knows the folder by it
            write_once(folder / ".gitignore", "*\n")
    except OSError as error:
        raise unwritable(f"the run store {folder}", error) from error


class RunStore:
    """All experiments below one folder, as one session sees them."""

    def __init__(
        self, folder: Path, session: str | None = None, cache: CacheMode = "auto", worker: str = "main"
    ) -> None:
        """Make the folder a store, as `make_store` does, with a place for ``session``: 16 hex digits, drawn if None."""
        self.folder, self.cache, self.worker = folder, cache, worker
        self.session = session or secrets.token_hex(8)
        self.session_folder = folder / SESSIONS / self.session
        try:
            make_store(folder)
            check_form(self.session_folder)
            self.session_folder.mkdir(parents=True, exist_ok=True)
            living = ByteLocks.at(self.session_folder / LIVING_LOCK)
            if living.acquire(os.getpid()):  # while this store is used: a folder that no process locks can be cleared
                weakref.finalize(self, living.release, os.getpid())
            found = format_of(folder)
        except OSError as error:
            raise unwritable(f"the run store {folder}", error) from error
        if found is not None and found < int(FORMAT):
            # Runs of the earlier format stay until they are pruned: an earlier version can go on with them.
            with Draft(folder, FORMAT_FILE) as draft:
                draft.write(FORMAT.encode())
                draft.put(durable=False)

    def experiment(self, key: str, about: Mapping[str, Any], *, private: bool = False) -> Experiment:
        """Return the place of one experiment; a private one ends with the session."""
        kept = self.folder / EXPERIMENTS / key
        folder = self.session_folder / PRIVATE / key if private or self.cache == "off" else kept
        kept = folder if private else kept
        return Experiment(folder, self.session, about, reuse=self.cache != "refresh", worker=self.worker, kept=kept)

    def folder_of(self, key: str, *, private: bool = False) -> Path:
        """Return the folder of an experiment that is asked for; it need not be there."""
        ends = private or self.cache == "off"
        folder = (self.session_folder / PRIVATE if ends else self.folder / EXPERIMENTS) / key
        try:
            _mark_used(folder)
        except OSError as error:
            raise unwritable(folder, error) from error
        return folder

    def prefixes(self, key: str, about: Mapping[str, Any], *, private: bool = False) -> Prefixes:
        """Return the place of the states before an onset, in the experiment ``key`` that varies no source.

        The place ends with the session if it is private, or if the session reuses nothing.
        """
        is_kept = not private and self.cache == "auto"
        folder = (self.folder / EXPERIMENTS if is_kept else self.session_folder / PRIVATE) / key
        _mark_used(folder)
        return Prefixes(folder, about)

    def end_session(self) -> None:
        """Remove the files that only this session needed."""
        with contextlib.suppress(OSError):
            remove(self.session_folder)


def _mark_used(folder: Path) -> None:
    """Tell `stability-cache prune`, which removes what was not used lately, that an experiment was asked for."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(folder / ABOUT)


@dataclass(frozen=True)
class _StoredLook:
    """The types of the values of a look at the first epochs of a task."""

    proven: bool
    scope: str
    trace: list[str]
    outputs: str
    planned_epochs: int
    is_cut: bool
    session: str


@dataclass(frozen=True)
class _StoredCertificate:
    """The types of a stored certificate's values."""

    of: str
    session: str
    held: dict[str, str] = field(default_factory=dict)
    by: dict[str, list[str]] = field(default_factory=dict)
    alive: dict[str, str] = field(default_factory=dict)
    looks: dict[str, Any] = field(default_factory=dict)


class Experiment:
    """The runs of one protocol on one task: finished, claimed or free."""

    def __init__(
        self,
        folder: Path,
        session: str,
        about: Mapping[str, Any],
        *,
        reuse: bool = True,
        worker: str = "main",
        kept: Path | None = None,
    ) -> None:
        self.folder, self.session, self.reuse, self.worker = folder, session, reuse, worker
        self.about = about  #: the values that its key was made of, and which test asked
        #: Beside the runs, or, where these end with the session, where other sessions keep them.
        self.verdicts = VerdictFiles(folder, kept or folder, self._make_place)
        self._files = RunFiles(folder)
        self.claims = Claims(folder, session, worker)
        self.inputs: Inputs | None = None  #: what counts for its key of what its runs read, where that is known
        self._known: KnownInputs | None = None  #: beside that, what only later runs have read
        self._uses, self._is_shared = 0, False
        self._seen: dict[int, dict[str, Any]] = {}  #: headers whose files were read and hashed by this process
        try:
            check_form(folder, ("runs", "old", "gates", "logs"))
            self.claims.make_place()
            _mark_used(folder)
        except OSError as error:
            raise unwritable(folder, error) from error

    @cached_property
    def _strays(self) -> frozenset[int]:
        return self._files.strays()  # before this process trains; one that is killed later leaves its claim

    def is_finished(self, index: int) -> bool:
        """Whether run ``index`` has a complete and acceptable result."""
        return self._header(index) is not None

    def is_free(self, index: int) -> bool:
        """Whether run ``index`` is neither finished nor being trained."""
        return not self.is_finished(index) and not self.claims.is_held(index)

    def status(self, index: int) -> str | None:
        """Return the status of a finished run; None if it is not finished."""
        header = self._header(index)
        return None if header is None else header["record"]["status"]

    def finished(self) -> dict[int, Mapping[str, Any]]:
        """Return the record of every finished run, as `RunRecord.to_json` writes it: without the arrays."""
        headers = {index: self._header(index) for index in self._files.indices()}
        return {index: header["record"] for index, header in headers.items() if header is not None}

    def indices(self) -> list[int]:
        """Return the runs that have a file, good or damaged."""
        return self._files.indices()

    def record_of(self, index: int) -> Mapping[str, Any] | None:
        """Return the record of a finished run, without the arrays; None if it is not finished."""
        header = self._header(index)
        return None if header is None else header["record"]

    def count(self, inputs: Inputs | None, base: Experiment) -> None:
        """Set the ``inputs`` that count for the key, None where no run is kept.

        A run fails that reads another content than these, or than a run here or beside the ``base`` run has read.
        """
        self.inputs = inputs
        self._known = KnownInputs(inputs or Inputs(), self.folder, [base.folder])

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the experiment from being pruned while a session works through its runs."""
        try:
            is_first = not self._uses
            if is_first:
                self._is_shared = self.claims.share()
            self._uses += 1
            yield
        finally:
            self._uses -= 1
            if not self._uses and self._is_shared:
                self.claims.unshare()

    def log_file(self, index: int) -> Path:
        """Return the file for the output of a child process that trains run ``index``."""
        return self.folder / "logs" / f"{index:04d}.log"

    def load(self, index: int) -> RunRecord:
        """Return a finished run with its arrays."""
        header = self._header(index)
        if header is None:
            raise StoreError(f"Expected run {index} in {self.folder} but it is not there, or not whole.")
        try:
            return self._files.record(header)
        except StoreError:
            del self._seen[index]
            raise

    def claim(self, index: int) -> Claim | None:
        """Take the right to train run ``index``; None if it is finished, or another process trains it."""
        if self.is_finished(index):
            if self.claims.is_left(index) and self.claims.acquire(index):  # killed after it published
                self.claims.release(index)
            return None
        if not self.claims.acquire(index):
            return None
        try:
            self._make_folders()
            return self._claim(index)
        except BaseException:
            self.claims.locks.release(index)  # the claim file stays: it names the process that died
            raise

    def _claim(self, index: int) -> Claim | None:
        deaths = self.claims.deaths(index)
        if not self.is_finished(index):  # as it may be since the lock was asked for
            self._make_way(index)
            if self.claims.may_be_tried(deaths):
                return self.claims.take(index, deaths)
            self.publish_crash(Claim(index, attempt=len(deaths)), {}, deaths)
        self.claims.release(index)
        return None

    def _make_way(self, index: int) -> None:
        """Retire what an earlier attempt at this run left: a damaged file, or a failure."""
        is_left = is_there(self._files.place(index))
        try:
            if is_left:
                header = self._files.header(index)
                is_ok = header is not None and header["record"]["status"] == "ok"
                if header is None or not is_ok or self._files.array_problem(header):
                    self._files.retire(index)
            if is_left or self.claims.is_left(index) or index in self._strays:  # it looks through the whole folder
                self._files.sweep(index)
        except OSError as error:
            raise unwritable(self._files.place(index), error) from error

    def publish_crash(self, claim: Claim, seeds: Mapping[str, int | None], deaths: Sequence[Death]) -> None:
        """Publish a run as crashed, with the reason of each death."""
        error = obituary(deaths)
        self.publish(claim, RunRecord(claim.index, seeds, status="crashed", seconds=0.0, error=error))

    def publish(self, claim: Claim, record: RunRecord) -> None:
        """Publish the result of a run, which never changes after; the claim stays until released."""
        record = self._noting_inputs(record)
        process = {"pid": os.getpid(), "host": socket.gethostname(), **record.trained_by}  # those of a child process
        ours = {"session": self.session, "worker": self.worker, "attempt": claim.attempt, "time": time.time()}
        values = record.to_json() | {"trained_by": process | ours}
        array = None if record.logits is None else record.logits.numpy()
        is_replaced = self._files.header(claim.index) is not None
        if is_replaced and self._header(claim.index) is not None:
            return  # a published result never changes
        # A result that is there nevertheless is of an earlier session, and this one was told to train the run anew.
        header = self._files.write(claim.index, values, array, record.weights, replace=is_replaced)
        if header is not None:
            self._seen[claim.index] = header
        elif self._header(claim.index) is None:
            raise StoreError(
                f"Expected to keep run {claim.index} as {self._files.place(claim.index)} but something that is no "
                f"result of this run lies there. Move it away; until then the run would be trained again for ever."
            )

    def _noting_inputs(self, record: RunRecord) -> RunRecord:
        """Keep what a run has read that no run before it is known to read, and return the record without it.

        The record is a failure where the run has read another content than the runs before.
        """
        if self._known is None or not record.inputs:
            return record if record.index == 0 else replace(record, inputs={})
        try:
            others = self._known.note(Inputs.from_json(record.inputs))
        except OSError as error:
            raise unwritable(self.folder, error) from error
        if others:
            reason = f"{', '.join(others)} was edited while the study trained: the runs before read another content"
            return replace(record, inputs={}, status="failed", error=reason, logits=None, weights=None, scores={})
        return replace(record, inputs={})

    def release(self, claim: Claim) -> None:
        """Give a claim back, after the result is published or the training is interrupted."""
        self.claims.release(claim.index)

    def read_certificate(self) -> Mapping[str, Any]:
        """Return what is proven of the task whose base run lies here; nothing if it may not be reused."""
        found = read_json(self.folder / CERTIFICATE, escape=True)
        if found is None or typed(found, _StoredCertificate) is None or found["of"] != self.folder.name:
            return {}
        if any(typed(look, _StoredLook) is None for look in found.get("looks", {}).values()):
            return {}
        return found if self.reuse or found["session"] == self.session else {}

    def write_certificate(self, proofs: Mapping[str, Any]) -> None:
        """Keep what is proven, so that the next study of the task does not prove it again."""
        self.folder.mkdir(parents=True, exist_ok=True)  # it may have been pruned
        write_json(self.folder / CERTIFICATE, {**proofs, "of": self.folder.name, "session": self.session})

    def _header(self, index: int) -> Mapping[str, Any] | None:
        if index not in self._seen:
            header = self._files.header(index)
            if header is None:
                return None
            # A failure is a result only for the session that saw it; the next session tries again.
            is_ours = header["record"]["trained_by"].get("session") == self.session
            is_reused = self.reuse and header["record"]["status"] == "ok"
            if not (is_ours or is_reused) or self._files.array_problem(header):
                return None
            self._seen[index] = header
        return self._seen[index]

    def _make_folders(self) -> None:
        """Create the folders of a run; the caller holds a lock, so that no process prunes the experiment."""
        try:
            for part in ("runs", "claims"):
                (self.folder / part).mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(self.folder / part, error) from error
        self.describe()

    def describe(self) -> None:
        """Keep what its key was made of, by which its folder has a name in the catalog."""
        self._describe(self.folder)

    def _make_place(self, folder: Path) -> None:
        """Create the folder of this experiment, or of the one in which other sessions keep its runs."""
        try:
            (self.claims if folder == self.folder else Claims(folder)).make_place()
        except OSError as error:
            raise unwritable(folder, error) from error
        self._describe(folder)

    def _describe(self, folder: Path) -> None:
        about = folder / ABOUT
        if self.about and read_json(about) is None:  # not there, or damaged
            remove(about)
            write_once(about, json.dumps(self.about, indent=1, default=str))
