"""Files that exist whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import StoreError
from .ownership import discard

#: Errors of a file system without hard links.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class Draft:
    """A file that is being written: written and hashed beside its place, then put there in one step.

    A durable file survives a power cut. An OSError becomes a `StoreError` that names the file, and no draft stays.
    """

    def __init__(self, folder: Path, name: str, hashed: bytes = b"") -> None:
        """``hashed`` are bytes that the digest covers ahead of the content."""
        self._folder, self._place = folder, folder / name
        # Random digits as well: processes on two hosts can have the same pid.
        self._path = folder / f".{name}.{os.getpid()}.{os.urandom(4).hex()}.tmp"
        self._hash = hashlib.sha256(hashed)

    def __enter__(self) -> Draft:
        try:
            self._file = self._path.open("xb")
            self._made = os.fstat(self._file.fileno())
        except OSError as error:
            raise unwritable(self._place, error) from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._file.close()
        except OSError as closing:  # raised for bytes that were still in the buffer
            error = error or closing
        discard(self._path, self._made)
        if isinstance(error, OSError):
            raise unwritable(self._place, error) from error

    def write(self, content: bytes) -> None:
        """Append bytes."""
        self._file.write(content)
        self._hash.update(content)

    @property
    def sha256(self) -> str:
        """The digest of the content so far."""
        return self._hash.hexdigest()

    def put(self, name: str = "", *, durable: bool = True, sync_folder: bool = True) -> None:
        """Put the file in its place, replacing any file there.

        Without ``sync_folder`` its name survives a power cut only once another file is put into the folder.
        """
        self._complete(durable)
        self._path.replace(self._folder / name if name else self._place)
        if durable and sync_folder:
            _sync(self._folder)

    def put_first(self) -> bool:
        """Put the file in its place, durably; False if another file is there, which stays."""
        self._complete(durable=True)
        try:
            os.link(self._path, self._place)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if self._place.exists():  # no race: this process holds a lock on the place
                return False
            self._path.replace(self._place)
        _sync(self._folder)
        return True

    def _complete(self, durable: bool) -> None:
        self._file.flush()
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()


def write_json(path: Path, values: Mapping[str, Any], *, durable: bool = True) -> None:
    """Write an object to a JSON file in one step."""
    with Draft(path.parent, path.name) as draft:
        draft.write(json.dumps(values).encode())
        draft.put(durable=durable)


def write_first(path: Path, values: Mapping[str, Any]) -> bool:
    """Write an object to a JSON file, durably; False if another file is there, which stays."""
    with Draft(path.parent, path.name) as draft:
        draft.write(json.dumps(values).encode())
        return draft.put_first()


def write_once(path: Path, content: str) -> None:
    """Write text to a file, unless the file exists."""
    if not path.exists():
        with Draft(path.parent, path.name) as draft:
            draft.write(content.encode())
            draft.put(durable=False)


def unwritable(path: Path | str, error: OSError) -> StoreError:
    """Return the error to raise if a file of the store cannot be written."""
    return StoreError(
        f"Expected to write {path} but got: {error}. Runs that cannot be kept are not trained; "
        f"make the folder writable, or free space."
    )


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
