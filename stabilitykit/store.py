"""The run store: one immutable file a run, kernel locks as claims, nothing that could be executed.

::

    .stabilitykit/FORMAT                     what wrote this store
    .stabilitykit/v1/<key>/experiment.json   what the key was made of, for people
                           runs/0007.json    exists exactly when run 7 is finished; names and hashes its arrays
                           runs/0007.<sha>.npz
                           claims.lock       a lock on byte 7 means that somebody trains run 7 now
                           claims/0007.json  who; left behind only by a process that died

The kernel frees the locks of a dead process, so no heartbeat has to be guessed. A run is published by renaming a
complete file into place while its byte is locked: a reader sees all of it or none.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from .errors import StoreError
from .locks import ByteLocks
from .record import RunRecord

FORMAT = "1"

#: auto: reuse finished runs; refresh: train them again, once a session; off: keep nothing after the session.
CacheMode: TypeAlias = Literal["auto", "refresh", "off"]

#: What a run file says of its run.
_RECORD_FIELDS = {field.name for field in fields(RunRecord)} - {"logits"}

#: Deaths of a process over one run, within one session, after which the run counts as crashed.
MOST_DEATHS = 2


class RunStore:
    """All experiments below one folder, as one session sees them."""

    def __init__(self, folder: Path, session: str, cache: CacheMode = "auto", worker: str = "main") -> None:
        self.folder, self.session, self.cache = folder, session, cache
        self.session_folder = folder / "sessions" / session
        try:
            self.session_folder.mkdir(parents=True, exist_ok=True)
            _write_once(folder / ".gitignore", "*\n")
            _write_once(folder / "FORMAT", FORMAT)
            found = (folder / "FORMAT").read_text().strip()
        except OSError as error:
            raise StoreError(
                f"Expected to write the run store {folder} but got: {error}. Runs that cannot be kept are not trained; "
                f"make the folder writable, or free space."
            ) from error
        if found != FORMAT:
            raise StoreError(
                f"Expected the run store {folder} to have format {FORMAT} but it has {found!r}: another version of "
                f"stabilitykit wrote it. Use that version, or move the folder away to start a new store."
            )

    def experiment(self, key: str, about: Mapping[str, Any], *, private: bool = False) -> Experiment:
        """Return the place of one experiment; a private one ends with the session."""
        base = self.session_folder / "private" if private or self.cache == "off" else self.folder / f"v{FORMAT}"
        return Experiment(base / key, self.session, about, reuse=self.cache != "refresh")

    def end_session(self) -> None:
        """Remove what only this session needed."""
        shutil.rmtree(self.session_folder, ignore_errors=True)


@dataclass(frozen=True)
class Running:
    """Stub."""

    index: int
    worker: str
    pid: int
    host: str
    started: float
    attempt: int


@dataclass(frozen=True)
class Claim:
    """The right to train one run, held by this process until released."""

    index: int
    attempt: int  #: 2 where one process has died over this run in this session


class Experiment:
    """The runs of one protocol on one task: finished, claimed or free."""

    def __init__(self, folder: Path, session: str, about: Mapping[str, Any], *, reuse: bool = True) -> None:
        self.folder, self.session, self.reuse = folder, session, reuse
        self._seen: dict[int, Mapping[str, Any]] = {}
        try:
            for part in ("runs", "claims"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            _write_once(folder / "experiment.json", json.dumps(about, indent=1, default=str))
            self._locks = ByteLocks.at(folder / "claims.lock")
        except OSError as error:
            raise _unwritable(folder, error) from error

    def is_finished(self, index: int) -> bool:
        """Whether run ``index`` has a complete and acceptable result."""
        return self._header(index) is not None

    def is_free(self, index: int) -> bool:
        """Whether run ``index`` is neither finished nor being trained."""
        if self.is_finished(index) or not self._locks.acquire(index):
            return False
        self._locks.release(index)
        return True

    def status(self, index: int) -> str | None:
        """Return the status of a finished run; None if it is not finished."""
        header = self._header(index)
        return None if header is None else header["record"]["status"]

    def load(self, index: int) -> RunRecord:
        """Return a finished run with its arrays."""
        header = self._header(index)
        if header is None:
            raise StoreError(f"Expected run {index} in {self.folder} but it is not there, or not whole.")
        logits = None
        if header["arrays"]:
            with np.load(self.folder / "runs" / header["arrays"], allow_pickle=False) as arrays:
                logits = torch.from_numpy(arrays["logits"])
        return RunRecord.from_json(header["record"], logits)

    def claim(self, index: int) -> Claim | None:
        """Take the right to train run ``index``; None if it is finished, or somebody else trains it."""
        if self.is_finished(index) or not self._locks.acquire(index):
            return None
        if self.is_finished(index):  # while we asked for the lock
            self._locks.release(index)
            return None
        deaths = self._deaths(index)
        if len(deaths) >= MOST_DEATHS:
            self._publish_crash(index, deaths)
            return None
        claim = {"session": self.session, "pid": os.getpid(), "host": socket.gethostname(), "deaths": deaths}
        self._write(self._claim_file(index), json.dumps(claim).encode(), durable=False)
        return Claim(index, attempt=len(deaths) + 1)

    def publish(self, claim: Claim, record: RunRecord) -> None:
        """Make a result visible for good; the claim stays until released."""
        trained_by = {
            "session": self.session,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "attempt": claim.attempt,
            "time": time.time(),
        }
        values = record.to_json() | {"trained_by": trained_by}
        name, digest = None, None
        if record.logits is not None:
            content = io.BytesIO()
            np.savez(content, logits=record.logits.numpy())
            digest = hashlib.sha256(content.getbuffer()).hexdigest()
            name = f"{claim.index:04d}.{digest[:12]}.npz"
            self._write(self.folder / "runs" / name, content.getvalue())
        header = {"format": FORMAT, "arrays": name, "sha256": digest, "record": values}
        self._write(self._run_file(claim.index), json.dumps(header).encode())
        for old in (self.folder / "runs").glob(f"{claim.index:04d}.*.npz"):
            if old.name != name:
                old.unlink(missing_ok=True)

    def release(self, claim: Claim) -> None:
        """Give a claim back, after the result is published or the training was interrupted."""
        self._claim_file(claim.index).unlink(missing_ok=True)
        self._locks.release(claim.index)

    @contextlib.contextmanager
    def claimed(self, index: int) -> Iterator[Claim | None]:
        """Hold the claim on run ``index`` for a block; None where it is not to be had."""
        claim = self.claim(index)
        try:
            yield claim
        finally:
            if claim is not None:
                self.release(claim)

    def log_file(self, index: int) -> Path:
        """Return where a process that trains run ``index`` alone writes what it prints."""
        return self.folder / "logs" / f"{index:04d}.log"

    def note_death(self, claim: Claim, reason: str) -> Claim:
        """Stub."""
        return Claim(claim.index, claim.attempt + 1)

    def running(self) -> dict[int, Running]:
        """Stub."""
        return {}

    def trainer_of(self, index: int) -> str | None:
        """Stub."""
        return "main"

    def seconds(self, index: int) -> float | None:
        """Stub."""
        header = self._header(index)
        return header and header["record"]["seconds"]

    def read_control(self) -> Mapping[str, Any] | None:
        """Return the control that was stored for this experiment, if it may be reused."""
        found = _read_json(self.folder / "control.json")
        if not found or not {"proven", "scope", "trace", "mode", "session"} <= found.keys():
            return None
        return found if self.reuse or found["session"] == self.session else None

    def write_control(self, control: Mapping[str, Any]) -> None:
        """Keep the outcome of the control, so that a resumed study does not repeat it."""
        self._write(self.folder / "control.json", json.dumps({**control, "session": self.session}).encode())

    def _header(self, index: int) -> Mapping[str, Any] | None:
        if index not in self._seen:
            header = _read_json(self._run_file(index))
            if header is None or not self._is_whole(header, index) or not self._is_acceptable(header):
                return None
            self._seen[index] = header
        return self._seen[index]

    def _is_acceptable(self, header: Mapping[str, Any]) -> bool:
        # A failure is a result for the session that saw it; the next one tries again.
        record = header["record"]
        ours = record["trained_by"].get("session") == self.session
        return ours or (self.reuse and record["status"] == "ok")

    def _is_whole(self, header: Mapping[str, Any], index: int) -> bool:
        record, arrays = header.get("record"), header.get("arrays")
        if header.get("format") != FORMAT or not isinstance(record, dict) or record.keys() != _RECORD_FIELDS:
            return False
        if record["index"] != index or not isinstance(record["trained_by"], dict):
            return False
        if (arrays is None) != (record["status"] != "ok"):
            return False
        if arrays is None:
            return True
        try:
            content = (self.folder / "runs" / arrays).read_bytes()
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest() == header.get("sha256") and zipfile.is_zipfile(io.BytesIO(content))

    def _deaths(self, index: int) -> list[dict[str, Any]]:
        """Who died over this run in this session: a claim file whose lock we could take has lost its owner."""
        left = _read_json(self._claim_file(index))
        if not left or left.get("session") != self.session:
            return []
        return [*left.get("deaths", []), {"pid": left.get("pid"), "host": left.get("host")}]

    def _publish_crash(self, index: int, deaths: list[dict[str, Any]]) -> None:
        who = ", ".join(f"process {death['pid']} on {death['host']}" for death in deaths)
        error = f"{len(deaths)} processes died while they trained this run: {who}"
        claim = Claim(index, len(deaths))
        self.publish(claim, RunRecord(index=index, seeds={}, status="crashed", seconds=0.0, error=error))
        self.release(claim)

    def _run_file(self, index: int) -> Path:
        return self.folder / "runs" / f"{index:04d}.json"

    def _claim_file(self, index: int) -> Path:
        return self.folder / "claims" / f"{index:04d}.json"

    def _write(self, path: Path, content: bytes, *, durable: bool = True) -> None:
        """Put ``content`` at ``path`` in one step; ``durable`` survives a power cut."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritable(path, error) from error


def _write_once(path: Path, content: str) -> None:
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(content)
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file; None if it is not there or torn."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"Expected to write {path} but got: {error}. Runs that cannot be kept are not trained; "
        f"make the folder writable, or free space."
    )
