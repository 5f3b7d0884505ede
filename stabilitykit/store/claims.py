"""Claims on the runs of one experiment: which process may train a run, and which processes died while training it.

::

    claims.lock       a lock on byte 7 means that a process trains run 7 now
    claims/0007.json  which process, since when, and which died before it; left behind only by a process that died

The kernel frees the locks of a dead process, so no heartbeat has to be guessed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from .atomic_files import unwritable, write_json
from .byte_locks import ByteLocks
from .layout import CLAIMS_LOCK
from .ownership import check_form, remove
from .reading import read_json, typed

#: A process that died while training a run: pid, host, worker, session and reason.
Death: TypeAlias = Mapping[str, Any]

#: Deaths over one run within one session after which the run counts as crashed.
MOST_DEATHS = 2

#: The same over all sessions: a run that kills its whole session would never reach MOST_DEATHS in one.
_MOST_DEATHS_EVER = 3

#: The byte, beyond those of the runs, that sessions share while they work through the runs.
_IN_USE = 2**29 + 1

#: Attempts to create the experiment's folder: a concurrent prune may delete it before a lock in it is held.
_TRIES = 10


@dataclass(frozen=True)
class Claim:
    """The right to train one run, held by this process until released."""

    index: int
    attempt: int  #: 2 if one process has died while training this run in this session


@dataclass(frozen=True)
class Running:
    """A run that a living process trains now."""

    index: int
    worker: str  #: "gw1" of xdist, "main" if there is one process
    pid: int  #: of the process that holds the claim
    host: str
    started: float  #: seconds since the epoch
    attempt: int

    @classmethod
    def read(cls, path: Path) -> Running | None:
        """Return the content of a claim file; None if it is torn, or of another version."""
        left = typed(read_json(path, escape=True), _Left)
        if left is None or not path.stem.isdecimal():
            return None
        attempt = _attempt(left.deaths, left.session)
        return cls(int(path.stem), left.worker, left.pid, left.host, left.started, attempt)


@dataclass(frozen=True)
class _Left:
    """The content of a claim file."""

    session: str
    worker: str
    pid: int
    host: str
    started: float
    deaths: list[dict[str, str | int | None]]
    process: str = ""  #: earlier versions wrote none


class Claims:
    """The claims on one experiment's runs, as one session sees them; without a session only to look at and to lock."""

    def __init__(self, experiment: Path, session: str = "", worker: str = "main") -> None:
        self.experiment, self.session, self.worker = experiment, session, worker

    @cached_property
    def locks(self) -> ByteLocks:
        """The locks on the runs, one byte a run. Raises FileNotFoundError if the experiment is not there."""
        return ByteLocks.at(self.experiment / CLAIMS_LOCK)

    def make_place(self) -> None:
        """Create the experiment's folder with the file of locks in it."""
        check_form(self.experiment / "claims")
        for tries_left in reversed(range(_TRIES)):
            try:
                self.experiment.mkdir(parents=True, exist_ok=True)
                self.locks = ByteLocks.at(self.experiment / CLAIMS_LOCK)
                return
            except FileNotFoundError:
                if not tries_left:
                    raise

    def acquire(self, index: int) -> bool:
        """Lock a run, recreating the place of the locks if it was pruned; False if another process holds the lock."""
        try:
            for _ in range(_TRIES):
                with contextlib.suppress(FileNotFoundError):
                    return self.locks.acquire(index)
                self.make_place()
            return False
        except OSError as error:
            raise unwritable(self.experiment, error) from error

    def is_held(self, index: int) -> bool:
        """Whether a living process, this one among them, holds the claim on a run."""
        try:
            return self.locks.is_held(index)
        except FileNotFoundError:  # the experiment was pruned
            return False

    def share(self) -> bool:
        """Mark the experiment as in use, as other processes may do as well; False where that cannot be."""
        try:
            return self.locks.share(_IN_USE)
        except FileNotFoundError:  # it was pruned, and will be made anew
            return False
        except OSError as error:
            raise unwritable(self.experiment, error) from error

    def unshare(self) -> None:
        """Take back `share`."""
        self.locks.release(_IN_USE)

    def is_in_use(self) -> bool:
        """Whether a session works through the runs of the experiment, this process's among them."""
        return self.is_held(_IN_USE)

    def running(self) -> dict[int, Running]:
        """Return the runs that living processes train now, this process among them."""
        found = map(Running.read, sorted((self.experiment / "claims").glob("*.json")))
        return {run.index: run for run in found if run is not None and self.is_held(run.index)}

    def is_left(self, index: int) -> bool:
        """Whether a run has a claim file: its claim is held, or a process died holding it."""
        return self._file(index).exists()

    def take(self, index: int, deaths: Sequence[Death]) -> Claim:
        """Write down that this process trains a run, after ``deaths``; only with the run locked."""
        owner = {"session": self.session, "worker": self.worker, "pid": os.getpid(), "host": socket.gethostname()}
        owner |= {"process": _this_process()}
        write_json(self._file(index), owner | {"started": time.time(), "deaths": list(deaths)}, durable=False)
        return Claim(index, _attempt(deaths, self.session))

    def release(self, index: int) -> None:
        """Give back the claim on a run; the deaths so far are forgotten."""
        remove(self._file(index))
        self.locks.release(index)

    def note_death(self, index: int, reason: str, pid: int | None = None) -> Claim:
        """Add the death of a process that trained a run for this one; return the claim on the next attempt.

        This process keeps the claim. An attempt greater than `MOST_DEATHS` is not to be made: the run has crashed.
        """
        died = {"pid": pid, "host": socket.gethostname(), "worker": self.worker, "session": self.session}
        return self.take(index, [*self.recorded_deaths(index), died | {"reason": reason}])

    def may_be_tried(self, deaths: Sequence[Death]) -> bool:
        """Whether a run may be trained again after ``deaths``."""
        return _attempt(deaths, self.session) <= MOST_DEATHS and len(deaths) < _MOST_DEATHS_EVER

    def recorded_deaths(self, index: int) -> list[Death]:
        """Return the deaths over a run since it was last published or released, as its claim file lists them."""
        left = typed(read_json(self._file(index), escape=True), _Left)
        return [] if left is None else [*left.deaths]

    def deaths(self, index: int) -> list[Death]:
        """The recorded deaths, and the claim's owner: a claim file whose lock was free belongs to a dead process."""
        left = typed(read_json(self._file(index), escape=True), _Left)
        if left is None:
            return []
        recorded: list[Death] = [*left.deaths]
        owner = {"pid": left.pid, "host": left.host, "worker": left.worker, "session": left.session}
        if left.process == _this_process():
            return recorded  # this process was interrupted while taking the claim, and lives
        return [*recorded, owner | {"reason": "left no exit status"}]

    def _file(self, index: int) -> Path:
        return self.experiment / "claims" / f"{index:04d}.json"


@functools.cache
def _token_of(pid: int) -> str:
    return secrets.token_hex(8)


def _this_process() -> str:
    """Return a name that no other process has: in two containers both the process id and the host can be equal."""
    return _token_of(os.getpid())


def obituary(deaths: Sequence[Death]) -> str:
    """Return the error of a crashed run: each process that died while training it, with the reason that is known."""
    died = f"{len(deaths)} processes died" if len(deaths) > 1 else "1 process died"
    return f"{died} while training this run: {'; '.join(map(_described, deaths))}"


def _described(death: Death) -> str:
    process = "a process" if death.get("pid") is None else f"process {death['pid']}"
    return f"{process} on {death.get('host')} (worker {death.get('worker')}), {death.get('reason')}"


def _attempt(deaths: Sequence[Death], session: str) -> int:
    """Return the number of the session's next attempt; deaths in earlier sessions do not count."""
    return 1 + len([death for death in deaths if death.get("session") == session])
