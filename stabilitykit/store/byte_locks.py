"""Locks on single bytes of a file, which the kernel frees when the process that holds them dies."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
import sys
import threading
from pathlib import Path

from ..errors import MissingModuleError, StoreError

try:
    import fcntl
except ModuleNotFoundError:
    system = {"win32": "Windows"}.get(sys.platform, sys.platform)
    raise MissingModuleError(
        f"Expected Linux or macOS but got {system}, whose Python has no module 'fcntl': the run store, which keeps "
        f"finished runs, is guarded by POSIX locks. On Windows, install and run stabilitykit in WSL, which is a Linux."
    ) from None

#: The fields of ``struct flock`` as the system lays them out, to ask whether a byte is held (F_GETLK). On a system that
#: is not listed, a byte is tried by locking it for an instant.
_LAYOUTS = {
    "linux": ("hhqqi0q", ("type", "whence", "start", "length", "pid")),
    "darwin": ("qqihh", ("start", "length", "pid", "type", "whence")),
}
_LAYOUT = _LAYOUTS.get(sys.platform) if sys.maxsize > 2**32 else None

#: Errors of a file system without POSIX locks.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}

#: A byte that stands for no run, and the name of all bytes together.
_NOBODYS, _ALL = 2**30, -1


class ByteLocks:
    """POSIX locks on the single bytes of one file, seen by every process on the host.

    The system drops all of a process's locks on a file when the process closes any handle of it. So there is one handle
    a file and process, open while a byte is held. Locks do not exclude within a process: held bytes are remembered.
    """

    _of_process: dict[tuple[Path, int], ByteLocks] = {}  # noqa: RUF012  # shared on purpose

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = -1
        self._held: set[int] = set()
        self._mutex = threading.RLock()  # threads share the handle
        self._open()  # so that a path that cannot be locked is an error at once
        try:
            with contextlib.suppress(BlockingIOError, PermissionError):
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _NOBODYS)
        finally:
            self._close_if_idle()

    @classmethod
    def at(cls, path: Path) -> ByteLocks:
        """Return this process's one instance for a file, created if missing; raise `StoreError` if it has no locks."""
        key = (
            path.parent.resolve() / path.name,
            os.getpid(),
        )  # a forked child inherits no locks, so it has instances of its own
        if key not in cls._of_process:
            try:
                cls._of_process[key] = cls(key[0])
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                raise StoreError(
                    f"Expected kernel locks on {path} but its file system has none: {error}. Runs are claimed by "
                    f"locks; put the store on another file system.",
                    store="PATH",
                ) from error
        return cls._of_process[key]

    def acquire(self, byte: int) -> bool:
        """Lock a byte; False if it is held, by another process or by this one."""
        return self._lock(byte, byte, 1)

    def share(self, byte: int) -> bool:
        """Lock a byte that any number of processes may share; False if it is held by this one, or alone by another."""
        return self._lock(byte, byte, 1, fcntl.LOCK_SH)

    def acquire_all(self) -> bool:
        """Lock every byte; False if one is held."""
        with self._mutex:
            return not self._held and self._lock(_ALL, 0, 0)

    def release_all(self) -> None:
        """Unlock after `acquire_all`."""
        with self._mutex:
            self._held.discard(_ALL)
            self._close_if_idle()  # closing the file unlocks all bytes

    def release(self, byte: int) -> None:
        """Unlock a byte that this process holds."""
        with self._mutex:
            if byte in self._held:
                fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, byte)
                self._held.discard(byte)
                self._close_if_idle()

    def is_held(self, byte: int) -> bool:
        """Whether any process holds this byte. Asking never blocks a process that is acquiring it."""
        with self._mutex:
            if self._held & {byte, _ALL}:
                return True
            if _LAYOUT is None:
                is_free = self.acquire(byte)
                self.release(byte)
                return not is_free
            self._open()
            try:
                layout, names = _LAYOUT
                question = {"type": fcntl.F_WRLCK, "whence": os.SEEK_SET, "start": byte, "length": 1, "pid": 0}
                asked = struct.pack(layout, *(question[name] for name in names))
                answer = struct.unpack(layout, fcntl.fcntl(self._handle, fcntl.F_GETLK, asked))
                return bool(answer[names.index("type")] != fcntl.F_UNLCK)
            finally:
                self._close_if_idle()

    def _lock(self, name: int, start: int, length: int, kind: int = fcntl.LOCK_EX) -> bool:
        with self._mutex:
            if self._held & {name, _ALL}:
                return False
            while True:
                self._open()
                try:
                    fcntl.lockf(self._handle, kind | fcntl.LOCK_NB, length, start)
                except (BlockingIOError, PermissionError):
                    return False
                else:
                    if self._held or self._is_in_place():
                        self._held.add(name)
                        return True
                finally:
                    self._close_if_idle()

    def _is_in_place(self) -> bool:
        """Whether the open file is still the one at the path, which may be removed until a byte is held."""
        try:
            return os.path.samestat(os.fstat(self._handle), self._path.stat())
        except FileNotFoundError:
            return False

    @classmethod
    def _forget(cls) -> None:
        """In a forked child: hold nothing. The parent keeps its locks."""
        for locks in cls._of_process.values():
            if locks._held:
                os.close(locks._handle)
            locks._held, locks._mutex = set(), threading.RLock()

    def _open(self) -> None:
        if not self._held:
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            if not stat.S_ISREG(os.fstat(self._handle).st_mode):
                os.close(self._handle)
                raise OSError(
                    errno.EFTYPE if hasattr(errno, "EFTYPE") else errno.EPERM, "no regular file", str(self._path)
                )

    def _close_if_idle(self) -> None:
        if not self._held:
            os.close(self._handle)


os.register_at_fork(after_in_child=ByteLocks._forget)
