"""Locks that the kernel frees when their process dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class ByteLocks:
    """POSIX locks on the single bytes of one file, seen by every process on the host.

    The system drops all of a process's locks on a file when the process closes any handle of it. So there is one handle
    a file and process, open as long as a byte is held. Within a process the locks do not exclude, so the held bytes are
    remembered.
    """

    _of_process: dict[tuple[Path, int], ByteLocks] = {}  # noqa: RUF012  # shared on purpose

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._held: set[int] = set()
        self._open()  # a path that cannot be locked is known at once
        self._close_if_idle()

    @classmethod
    def at(cls, path: Path) -> ByteLocks:
        """Return this process's one instance for a file, which is made if need be."""
        key = path.resolve(), os.getpid()  # a fork inherits no locks, and must not believe that it holds them
        if key not in cls._of_process:
            cls._of_process[key] = cls(key[0])
        return cls._of_process[key]

    def acquire(self, byte: int) -> bool:
        """Lock a byte; False where it is held, by another process or by this one."""
        if byte in self._held:
            return False
        self._open()
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except (BlockingIOError, PermissionError):
            return False
        else:
            self._held.add(byte)
            return True
        finally:
            self._close_if_idle()

    def release(self, byte: int) -> None:
        """Unlock a byte that this process holds."""
        fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, byte)
        self._held.discard(byte)
        self._close_if_idle()

    def is_held(self, byte: int) -> bool:
        """Whether some process holds a byte."""
        if not self.acquire(byte):
            return True
        self.release(byte)
        return False

    def _open(self) -> None:
        if not self._held:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)

    def _close_if_idle(self) -> None:
        if not self._held:
            os.close(self._handle)
