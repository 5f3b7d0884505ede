"""Locks that the kernel frees when their process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class ByteLocks:
    """POSIX locks on the single bytes of one file, seen by every process on the host.

    The system drops all of a process's locks on a file when the process closes any handle of it, so each file has one
    handle a process, never closed. Within a process they do not exclude, so the held bytes are remembered.
    """

    _open: dict[Path, ByteLocks] = {}  # noqa: RUF012  # shared on purpose: one handle a file and process

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._held: set[int] = set()
        self._pid = os.getpid()

    @classmethod
    def at(cls, path: Path) -> ByteLocks:
        """Return this process's one handle on the locks of a file, which is made if need be."""
        path = path.resolve()
        locks = cls._open.get(path)
        if locks is None or locks._pid != os.getpid():  # a fork does not inherit locks, and must not reuse the set
            locks = cls._open[path] = cls(path)
        return locks

    def acquire(self, byte: int) -> bool:
        """Lock a byte; False where it is held, by another process or by this one."""
        if byte in self._held:
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        self._held.add(byte)
        return True

    def release(self, byte: int) -> None:
        """Unlock a byte that this process holds."""
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, byte)
        self._held.discard(byte)

    def is_held(self, byte: int) -> bool:
        """Whether some process holds a byte."""
        if byte in self._held:
            return True
        if not self.acquire(byte):
            return True
        self.release(byte)
        return False
