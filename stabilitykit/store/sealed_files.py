"""Sealed files: a JSON header, written last, and beside it the arrays that it names, whose names hold their hash.

::

    STEM.json             exists exactly when all of its arrays are there
    STEM.<sha>.npy        an array; <sha> is the beginning of its digest, which the header holds
    STEM.<sha>.safetensors
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .atomic_files import Draft
from .ownership import remove
from .reading import MOST_BYTES, Damaged, open_file, read_bytes, unreadable

if TYPE_CHECKING:
    import numpy as np

_CHUNK = 1 << 20  #: bytes


class SealedFiles:
    """The sealed files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def place(self, stem: str) -> Path:
        """Return the path of the header."""
        return self.folder / f"{stem}.json"

    def numbers(self) -> list[int]:
        """Return the stems that are numbers and have a header, good or damaged."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if re.fullmatch("[0-9]{4,9}", path.stem))

    def write_array(self, stem: str, suffix: str, content: Iterable[bytes], hashed: bytes = b"") -> dict[str, Any]:
        """Write an array, before its header; return its name and digest, which covers ``hashed`` and the content."""
        with Draft(self.folder, stem + suffix, hashed) as draft:
            for chunk in content:
                draft.write(chunk)
            name = array_name(stem, suffix, draft.sha256)
            draft.put(name, sync_folder=False)  # the header's name follows, and no process reads an array without it
        return {"file": name, "sha256": draft.sha256}

    def seal(self, stem: str, header: Mapping[str, Any], *, first: bool = False) -> bool:
        """Write the header; False if it must be the first one and another is there."""
        with Draft(self.folder, f"{stem}.json") as draft:
            draft.write(json.dumps(header).encode())
            if first:
                return draft.put_first()
            draft.put()
            return True

    def read_array(self, name: str, digest: str, hashed: bytes = b"") -> bytes:
        """Return the content of an array.

        Raises ValueError if it is not what was written, FileNotFoundError if it is not there, and `StoreError` if the
        system does not let this process read it.
        """
        check_digest(self.folder / name, digest, hashed)  # before it is read as a whole: it may be of any size
        content = read_bytes(self.folder / name, most=None)
        if hashlib.sha256(hashed + content).hexdigest() != digest:
            raise Damaged(f"{name} changes while it is read")
        return content

    def arrays(self, stem: str) -> list[Path]:
        """Return the arrays of a stem, with those that no header names."""
        return [path for path in self.beginning_with(f"{stem}.") if path.suffix in (".npy", ".safetensors")]

    def beginning_with(self, prefix: str) -> list[Path]:
        """Return the files whose names begin with ``prefix``."""
        with os.scandir(self.folder) as entries:
            return [self.folder / entry.name for entry in entries if entry.name.startswith(prefix)]

    def remove_arrays(self, stem: str, but: Collection[str] = ()) -> int:
        """Delete the arrays of a stem except those named in ``but``; return how many bytes that freed."""
        return sum(remove(path) for path in self.arrays(stem) if path.name not in but)


def array_name(stem: str, suffix: str, digest: str) -> str:
    """Return the file name of an array with this digest."""
    return f"{stem}.{digest[:12]}{suffix}"


def npy(array: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """Yield the bytes of an array's ``.npy`` file, in C order and never all at once."""
    import numpy as np

    header = io.BytesIO()
    described = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    np.lib.format.write_array_header_1_0(header, described)
    yield header.getvalue()
    size = _CHUNK // array.itemsize
    for chunk in np.nditer(array, ["external_loop", "buffered", "zerosize_ok"], buffersize=size, order="C"):
        yield np.asarray(chunk).tobytes()


def read_npy_head(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return what the head of an ``.npy`` file says, and go to its first value.

    The tuple holds the shape, whether the order is Fortran's, and the dtype. Raises ValueError for another file.
    """
    head = file.read(10)  # magic bytes, the version, and two bytes with the length of the rest
    return _what_head_says(head + file.read(int.from_bytes(head[8:], "little")))


@functools.lru_cache(maxsize=64)
def _what_head_says(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return what `read_npy_head` does: numpy compiles each head as Python, and all runs of a study have the same."""
    import numpy as np

    file = io.BytesIO(head)
    np.lib.format.read_magic(file)
    return np.lib.format.read_array_header_1_0(file)


def check_digest(path: Path, digest: str, hashed: bytes = b"") -> None:
    """Read a file in chunks; raise `Damaged` unless ``hashed`` and its content have this digest."""
    with open_file(path) as file:
        found = hashlib.sha256(hashed)
        try:
            _check_size(file, path)  # first: a file of 10 GB of holes is not read
            while chunk := file.read(_CHUNK):
                found.update(chunk)
        except OSError as error:
            raise unreadable(path, error) from error
        except (AttributeError, IndexError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise error if isinstance(error, Damaged) else Damaged(f"{path.name} has no head: {error}") from None
    if found.hexdigest() != digest:
        raise Damaged(f"{path.name} has other bytes than were written")


def _check_size(file: IO[bytes], path: Path) -> None:
    """Raise `Damaged` unless a file is as long as its own head says."""
    size, described = os.fstat(file.fileno()).st_size, -1
    if path.suffix == ".npy":
        shape, _, dtype = read_npy_head(file)
        described = file.tell() + math.prod(shape) * dtype.itemsize
        if dtype.hasobject:
            raise Damaged(f"{path.name} holds Python objects, which are never loaded (allow_pickle=False)")
    else:
        length = int.from_bytes(file.read(8), "little")
        if length <= min(size, MOST_BYTES):
            tensors = [one for one in json.loads(file.read(length)).values() if "data_offsets" in one]
            described = 8 + length + max((one["data_offsets"][1] for one in tensors), default=0)
    if size != described:
        raise Damaged(f"{path.name} has {size} bytes, and not the {described} that it says itself")
    file.seek(0)
