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
        self.folder, self.session, self.cache, self.worker = folder, session, cache, worker
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
        return Experiment(base / key, self.session, about, reuse=self.cache != "refresh", worker=self.worker)

    def end_session(self) -> None:
        """Remove what only this session needed."""
        shutil.rmtree(self.session_folder, ignore_errors=True)


@dataclass(frozen=True)
class Claim:
    """The right to train one run, held by this process until released."""

    index: int
    attempt: int  #: 2 where one process has died over this run in this session


@dataclass(frozen=True)
class Running:
    """A run that a living process trains now."""

    index: int
    worker: str  #: "gw1" of xdist, "main" where there is one process
    pid: int  #: of the process that holds the claim
    host: str
    started: float  #: seconds since the epoch
    attempt: int


class Experiment:
    """The runs of one protocol on one task: finished, claimed or free."""

    def __init__(
        self, folder: Path, session: str, about: Mapping[str, Any], *, reuse: bool = True, worker: str = "main"
    ) -> None:
        self.folder, self.session, self.reuse, self.worker = folder, session, reuse, worker
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
        return not self.is_finished(index) and not self._locks.is_held(index)

    def running(self) -> dict[int, Running]:
        """Return the runs that living processes train now, this process among them."""
        found = map(_running, sorted((self.folder / "claims").glob("*.json")))
        return {run.index: run for run in found if run is not None and self._locks.is_held(run.index)}

    def status(self, index: int) -> str | None:
        """Return the status of a finished run; None if it is not finished."""
        header = self._header(index)
        return None if header is None else header["record"]["status"]

    def trainer_of(self, index: int) -> str | None:
        """Return the name of the worker that trained a finished run; None if it is not finished."""
        header = self._header(index)
        return None if header is None else str(header["record"]["trained_by"].get("worker", "main"))

    def seconds(self, index: int) -> float | None:
        """Return how long a finished run took; None if it is not finished."""
        header = self._header(index)
        return None if header is None else float(header["record"]["seconds"])

    def log_file(self, index: int) -> Path:
        """Return where a process of its own that trains run ``index`` writes what it prints."""
        return self.folder / "logs" / f"{index:04d}.log"

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
        try:
            deaths = self._deaths(index)
            if len(deaths) < MOST_DEATHS:
                return self._write_claim(index, deaths)
            self._publish_crash(Claim(index, attempt=len(deaths)), deaths)
        except BaseException:
            self._locks.release(index)  # the claim file stays: it names who died
            raise
        self.release(Claim(index, attempt=len(deaths)))
        return None

    def note_death(self, claim: Claim, reason: str, pid: int | None = None) -> Claim:
        """Remember that the process that trained this run for us has died, and return the claim on the next attempt.

        This process holds the claim, and goes on holding it. Where the attempt returned is greater than `MOST_DEATHS`,
        the run has had its chances: `publish_crash` says so.
        """
        death = {"pid": pid, "host": socket.gethostname(), "worker": self.worker, "reason": reason}
        return self._write_claim(claim.index, [*self._past_deaths(claim.index), death])

    def publish_crash(
        self, claim: Claim, *, seeds: Mapping[str, int | None] | None = None, seconds: float = 0.0
    ) -> None:
        """Publish that this run's processes died, each with the reason that is known."""
        self._publish_crash(claim, self._past_deaths(claim.index), seeds, seconds)

    def publish(self, claim: Claim, record: RunRecord) -> None:
        """Make a result visible for good; the claim stays until released."""
        trained_by = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            **record.trained_by,  # a child knows better
            "session": self.session,
            "worker": self.worker,
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

    def _write_claim(self, index: int, deaths: list[dict[str, Any]]) -> Claim:
        claim = {
            "session": self.session,
            "worker": self.worker,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": time.time(),
            "deaths": deaths,
        }
        self._write(self._claim_file(index), json.dumps(claim).encode(), durable=False)
        return Claim(index, attempt=len(deaths) + 1)

    def _past_deaths(self, index: int) -> list[dict[str, Any]]:
        """Who died over this run in this session, as far as its claim tells."""
        left = _read_json(self._claim_file(index))
        return list(left.get("deaths", [])) if left and left.get("session") == self.session else []

    def _deaths(self, index: int) -> list[dict[str, Any]]:
        """Likewise, with the owner of the claim: who leaves it behind, with its lock free for us, is dead."""
        left = _read_json(self._claim_file(index))
        if not left or left.get("session") != self.session:
            return []
        owner = {name: left.get(name) for name in ("pid", "host", "worker")}
        return [*self._past_deaths(index), owner | {"reason": "gone without a word"}]

    def _publish_crash(
        self,
        claim: Claim,
        deaths: list[dict[str, Any]],
        seeds: Mapping[str, int | None] | None = None,
        seconds: float = 0.0,
    ) -> None:
        died = f"{len(deaths)} processes died" if len(deaths) > 1 else "1 process died"
        error = f"{died} while they trained this run: {'; '.join(map(_obituary, deaths))}"
        self.publish(claim, RunRecord(claim.index, seeds or {}, status="crashed", seconds=seconds, error=error))

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


def _running(path: Path) -> Running | None:
    """Return what a claim file says; None if it is torn, or of another version."""
    left = _read_json(path)
    try:
        return (
            None
            if left is None
            else Running(
                index=int(path.stem),
                worker=str(left["worker"]),
                pid=int(left["pid"]),
                host=str(left["host"]),
                started=float(left["started"]),
                attempt=len(left["deaths"]) + 1,
            )
        )
    except (KeyError, TypeError, ValueError):
        return None


def _obituary(death: Mapping[str, Any]) -> str:
    who = "a process" if death.get("pid") is None else f"process {death['pid']}"
    return f"{who} on {death.get('host')} (worker {death.get('worker')}), {death.get('reason')}"


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
