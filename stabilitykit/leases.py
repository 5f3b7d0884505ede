"""Locks for file systems that have none: network shares where `ByteLocks` fails.

::

    claims.lock.leases/7/3    the third lease on byte 7: who holds it; the highest number counts
                       .clock touched to read the server's clock

A lease is taken by making the next number's file, whole, where nothing is: one of any number of processes succeeds, and
needs no lock for it. Nobody removes or takes over a lease of another; a lease whose owner is dead is outnumbered. An
owner on this machine is dead when its process is, which is asked of the kernel. One elsewhere is dead when its file
was not touched for `STALE` seconds of the server's clock, whatever the clocks of the machines say.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from .drafts import NO_LINKS
from .locks import ByteLocks

#: Seconds between two touches of a lease, and without a touch after which it is dead.
BEAT, STALE = 10.0, 60.0

#: What a file system says that has no POSIX locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

#: What opening a file says that somebody else has removed.
_GONE = {errno.ENOENT, errno.ESTALE}

_FREE = b"free"
_ALL = "all"


class Locks(Protocol):
    """What `ByteLocks` and `Leases` have in common."""

    def acquire(self, byte: int) -> bool:
        """Lock a byte; False where it is held, by another process or by this one."""

    def release(self, byte: int) -> None:
        """Unlock a byte that this process holds."""

    def is_held(self, byte: int) -> bool:
        """Whether some process holds a byte."""

    def acquire_all(self) -> bool:
        """Lock every byte; False where one is held."""

    def release_all(self) -> None:
        """Unlock after `acquire_all`."""


def locks_at(path: Path) -> Locks:
    """Return this process's one instance for a file: kernel locks, or leases where the file system has none.

    Once one process had to take leases, all do: two kinds of locks would not exclude each other.
    """
    folder = path.with_name(f"{path.name}.leases")
    if not folder.is_dir():
        try:
            return ByteLocks.at(path)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
    return Leases.at(folder)


class Leases:
    """Files that stand for locks on bytes, and say who holds them."""

    _of_process: dict[tuple[Path, int], Leases] = {}  # noqa: RUF012  # shared on purpose

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, Path] = {}
        self._mutex = threading.RLock()

    @classmethod
    def at(cls, folder: Path) -> Leases:
        """Return this process's one instance for a folder, which is made if need be."""
        folder.mkdir(exist_ok=True)
        key = folder.resolve(), os.getpid()  # a fork inherits no leases
        if key not in cls._of_process:
            cls._of_process[key] = cls(key[0])
        return cls._of_process[key]

    def acquire(self, byte: int) -> bool:
        """Lock a byte; False where it is held, by another process or by this one."""
        with self._mutex:
            if not self._take(str(byte)):
                return False
            if self._is_live(_ALL):  # who wants all looks for ours after it has made its own: one of us sees the other
                self._give(str(byte))
                return False
            return True

    def release(self, byte: int) -> None:
        """Unlock a byte that this process holds."""
        with self._mutex:
            self._give(str(byte))

    def is_held(self, byte: int) -> bool:
        """Whether some process holds a byte."""
        with self._mutex:
            return self._is_live(str(byte))

    def acquire_all(self) -> bool:
        """Lock every byte; False where one is held."""
        with self._mutex:
            if not self._take(_ALL):
                return False
            if any(self._is_live(place.name) for place in self._folder.iterdir() if place.name.isdecimal()):
                self._give(_ALL)
                return False
            return True

    def release_all(self) -> None:
        """Unlock after `acquire_all`."""
        with self._mutex:
            self._give(_ALL)

    @classmethod
    def _forget(cls) -> None:
        """In a fork: hold nothing, whichever instance is asked."""
        for leases in cls._of_process.values():
            leases._held, leases._mutex = {}, threading.RLock()

    def _take(self, name: str) -> bool:
        if name in self._held:
            return False
        place = self._folder / name
        place.mkdir(exist_ok=True)
        newest = _newest(place)
        if newest and self._is_owned(place / str(newest)):
            return False
        mine = place / str(newest + 1)
        if not _create(mine):
            return False
        if _newest(place) != newest + 1:  # ours is an old number, made anew after it was tidied away
            mine.unlink(missing_ok=True)
            return False
        (place / str(newest)).unlink(missing_ok=True)
        self._held[name] = mine
        _heart().add(mine)
        return True

    def _give(self, name: str) -> None:
        mine = self._held.pop(name, None)
        if mine is None:
            return
        _heart().remove(mine)
        # The file stays: its number must not be made again by somebody who looked before.
        with contextlib.suppress(FileNotFoundError), _temporary(mine, _FREE) as temporary:
            if _newest(mine.parent) == int(mine.name):
                temporary.replace(mine)

    def _is_live(self, name: str) -> bool:
        place = self._folder / name
        try:
            newest = _newest(place)
        except FileNotFoundError:
            return False
        return newest > 0 and self._is_owned(place / str(newest))

    def _is_owned(self, lease: Path) -> bool:
        try:
            with lease.open("rb") as file:  # opening asks a network server for the file as it is now
                content, touched = file.read(), os.fstat(file.fileno()).st_mtime
        except OSError as error:
            if error.errno in _GONE:
                return True  # outnumbered since we looked, so somebody has just taken it
            raise
        if content == _FREE:
            return False
        try:
            owner = json.loads(content)
            if owner["machine"] == _machine():
                return _is_alive(owner["pid"], owner["start"])
        except (KeyError, TypeError, ValueError):
            pass  # made where there are no links, by a process killed in between: its age decides
        return self._now() - touched < STALE

    def _now(self) -> float:
        """Return the time by the clock of whoever keeps the files."""
        clock = self._folder / ".clock"
        handle = os.open(clock, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.utime(clock)
            return os.fstat(handle).st_mtime
        finally:
            os.close(handle)


os.register_at_fork(after_in_child=Leases._forget)


class _Heart:
    """The thread that touches all leases of this process."""

    def __init__(self) -> None:
        self._leases: set[Path] = set()
        self._mutex = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, lease: Path) -> None:
        with self._mutex:
            self._leases.add(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="stabilitykit-leases", daemon=True)
                self._thread.start()

    def remove(self, lease: Path) -> None:
        with self._mutex:
            self._leases.discard(lease)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(BEAT):
            with self._mutex:
                leases = list(self._leases)
            for lease in leases:
                with contextlib.suppress(OSError):  # gone, or the server is away: the next beat tries again
                    os.utime(lease)


def _heart() -> _Heart:
    return _heart_of(os.getpid())


@functools.lru_cache(maxsize=1)
def _heart_of(pid: int) -> _Heart:
    return _Heart()  # a fork has none of its parent's threads


def _newest(place: Path) -> int:
    return max((int(entry) for entry in os.listdir(place) if entry.isdecimal()), default=0)  # noqa: PTH208  # names


def _create(lease: Path) -> bool:
    """Make a lease of this process, whole at once; False where somebody was first."""
    content = json.dumps(_me()).encode()
    with _temporary(lease, content) as temporary:
        try:
            os.link(temporary, lease)
        except FileExistsError:
            return temporary.stat().st_nlink == 2  # the server's answer to our first, successful try was lost
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
        else:
            return True
    try:
        with lease.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _temporary(lease: Path, content: bytes) -> Iterator[Path]:
    path = lease.with_name(f".{lease.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    try:
        path.write_bytes(content)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _me() -> dict[str, Any]:
    stat = _stat(os.getpid())
    return {"machine": _machine(), "host": socket.gethostname(), "pid": os.getpid(), "start": stat and stat[1]}


def _machine() -> str:
    """Name the space in which a process's number means something: this boot of this kernel, and this container.

    A host's name is not enough of that: two machines of a cluster can both be "localhost".
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115  # not the path of a file
    except OSError:
        return socket.gethostname()


def _is_alive(pid: int, start: str | None) -> bool:
    """Whether a process of this machine lives, and is the one that started then: numbers are used again."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    stat = _stat(pid)
    if stat is None:
        return not Path("/proc/self/stat").exists()  # gone since; or a system that cannot say more
    return stat[0] not in "ZX" and start in (None, stat[1])  # a killed process stays a zombie until its parent looks


def _stat(pid: int) -> tuple[str, str] | None:
    """Return the state and the start time of a process, in ticks since boot; None where that is not known."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return None
