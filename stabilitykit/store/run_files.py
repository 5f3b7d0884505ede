"""The finished runs of one experiment on disk: one JSON header a run, and its logits beside it.

::

    runs/0007.json            exists exactly when run 7 is finished; names, hashes and describes its arrays
    runs/0007.<sha>.npy       the logits, mapped into memory when they are asked for
    runs/0007.<sha>.safetensors   the weights, if they are kept
    old/0007.<time>.json      an earlier header, damaged or of a failed run

Nothing here is ever executed: a file from elsewhere can be wrong, not harmful. Reading headers needs neither torch nor
NumPy.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StoreError
from .layout import FORMAT
from .ownership import NotOurs, move, remove
from .reading import Damaged, open_file, read_json, typed
from .record import ARRAYS, SELDOM, RunRecord, Status
from .sealed_files import SealedFiles, array_name, check_digest, npy, read_npy_head

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

#: Fields of a run that its header holds.
_RECORD_FIELDS = {field.name for field in fields(RunRecord)} - set(ARRAYS)
_DTYPES = ("<f4", "<f8")
_STEM = re.compile(r"\.?([0-9]{4,9})\.")


@dataclass(frozen=True)
class _Record:
    """The types of a record's fields in a header; see `RunRecord`."""

    index: int
    seeds: dict[str, int | None]
    status: Status
    seconds: float
    fingerprint: str
    trace: list[str]
    curve: list[dict[str, Any]]
    perturbation: dict[str, Any] | None
    low_level: str
    error: str
    environment: dict[str, Any]
    trained_by: dict[str, Any]
    scores: dict[str, Any] = field(default_factory=dict)  #: floats of any size, see `_are_scores`


@dataclass(frozen=True)
class _TrainedBy:
    """The types of what a header says of the process that trained a run."""

    session: str = ""
    worker: str = "main"
    host: str = ""
    pid: int | None = None
    time: float = 0.0
    attempt: int = 1


class StoredWeights(Mapping[str, "Tensor"]):
    """A state dict in a file: each tensor is read when it is asked for, and is not kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, name: str) -> Tensor:
        with self._open() as file:
            if name not in file.keys():  # noqa: SIM118  # a file has keys and no `in`
                raise KeyError(name)
            tensor: Tensor = file.get_tensor(name)
            return tensor

    def __iter__(self) -> Iterator[str]:
        with self._open() as file:
            return iter(list(file.keys()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _open(self) -> Any:
        from safetensors import SafetensorError, safe_open

        try:
            open_file(self.path).close()  # no pipe, and no link
            return safe_open(self.path, "pt")
        except (OSError, ValueError, SafetensorError) as error:
            raise _gone("weights", self.path, error) from error


class RunFiles:
    """Reads and writes the run files of one experiment. Hold the run's claim before writing."""

    def __init__(self, experiment: Path) -> None:
        self.folder, self.old = experiment / "runs", experiment / "old"
        self._sealed = SealedFiles(self.folder)

    def indices(self) -> list[int]:
        """Return the runs that have a header, whole or not."""
        return self._sealed.numbers()

    def header(self, index: int) -> dict[str, Any] | None:
        """Return the header of a run; None if it is missing or damaged. The arrays are not read."""
        header = read_json(self.place(index))
        return None if header is None or _what_is_wrong(header, index) else header

    def problem(self, index: int) -> str:
        """Return what is wrong with a run's files, reading all of them; empty if nothing is."""
        header = read_json(self.place(index))
        if header is None:
            return "the header is missing, empty or torn"
        return _what_is_wrong(header, index) or self.array_problem(header)

    def array_problem(self, header: Mapping[str, Any]) -> str:
        """Return what is wrong with the arrays that a good header names, reading all of them; empty if nothing is."""
        files = [part for part in (header["arrays"], header.get("weights")) if part is not None]
        return next(filter(None, map(self._file_problem, files)), "")

    def _file_problem(self, described: Mapping[str, Any]) -> str:
        try:
            if "shape" in described:
                self._map(described)  # first: a file of another size is not read
            check_digest(self.folder / described["file"], described["sha256"])
        except FileNotFoundError:
            return f"{described['file']} is missing"
        except ValueError as error:
            return str(error)
        return ""

    def array(self, header: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        """Return the logits that a good header names, mapped into memory; writing to them changes no file."""
        if header["arrays"] is None:
            return None
        try:
            return self._map(header["arrays"])
        except (FileNotFoundError, ValueError) as error:
            raise _gone("logits", self.folder / header["arrays"]["file"], error) from error

    def record(self, header: Mapping[str, Any]) -> RunRecord:
        """Return the run of a good header, with its arrays."""
        array, kept = self.array(header), header.get("weights")
        weights = None if kept is None else StoredWeights(self.folder / kept["file"])
        if array is None:
            return RunRecord.from_json(header["record"], None, weights)
        import torch

        return RunRecord.from_json(header["record"], torch.from_numpy(array), weights)

    def write(
        self,
        index: int,
        record: Mapping[str, Any],
        array: np.ndarray[Any, Any] | None,
        weights: Mapping[str, Tensor] | None = None,
        *,
        replace: bool = False,
    ) -> dict[str, Any] | None:
        """Write a run and return its header; None if another result came first.

        An earlier result stays, unless ``replace`` says that a session trains all runs anew, or `retire` came before.
        """
        header = {
            "format": FORMAT,
            "arrays": None if array is None else self._write_logits(index, array),
            **({} if weights is None else {"weights": self._write_weights(index, weights)}),
            "record": dict(record),
        }
        is_written = False
        try:
            is_written = self._sealed.seal(_stem(index), header, first=not replace)
        finally:
            if not is_written:  # its arrays go, unless the present header names the same
                for name in _array_files(header) - _array_files(self.header(index)):
                    remove(self.folder / name)
        if replace:
            self._sealed.remove_arrays(_stem(index), but=_array_files(header))
        return header if is_written else None

    def retire(self, index: int) -> None:
        """Move a run's files to ``old/``; nothing is deleted, so that a fault can be examined."""
        self.old.mkdir(exist_ok=True)
        for path in self._sealed.arrays(_stem(index)):
            move(path, self.old / path.name)
        move(self.place(index), self.old / f"{index:04d}.{time.time_ns()}.json")

    def strays(self) -> frozenset[int]:
        """Return the runs that a killed process may have left drafts or arrays of: one look through the folder."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            found = [_STEM.match(entry.name) for entry in entries if not entry.name.endswith(".json")]
            return frozenset(int(stem[1]) for stem in found if stem) - frozenset(self.indices())
        return frozenset()

    def sweep(self, index: int) -> None:
        """Remove drafts, and arrays without a header, that a killed process left; only for the owner of the claim."""
        for path in self._sealed.beginning_with(f".{_stem(index)}."):
            with contextlib.suppress(NotOurs):  # a file whose name is no draft's
                remove(path)
        if not self.place(index).exists():
            self._sealed.remove_arrays(_stem(index))

    def size(self, index: int) -> int:
        """Return how many bytes a run takes."""
        return sum(path.stat().st_size for path in [self.place(index), *self._sealed.arrays(_stem(index))])

    def remove(self, index: int) -> int:
        """Delete a run and return how many bytes that freed; only for the owner of the claim."""
        freed = remove(self.place(index))  # the header first: without it there is no run
        return freed + self._sealed.remove_arrays(_stem(index))

    def place(self, index: int) -> Path:
        """Return where a run's header is."""
        return self._sealed.place(_stem(index))

    def _write_logits(self, index: int, array: np.ndarray[Any, Any]) -> dict[str, Any]:
        if array.dtype.str not in _DTYPES:
            raise StoreError(f"Expected logits of dtype {' or '.join(_DTYPES)} but got {array.dtype.str}: run {index}.")
        named = self._sealed.write_array(_stem(index), ".npy", npy(array))
        return named | {"dtype": array.dtype.str, "shape": list(array.shape)}

    def _write_weights(self, index: int, weights: Mapping[str, Tensor]) -> dict[str, Any]:
        from safetensors.torch import save

        # Copies, since tied weights share memory, and the format lets no two names do that.
        content = save({name: weight.detach().cpu().clone().contiguous() for name, weight in weights.items()})
        return self._sealed.write_array(_stem(index), ".safetensors", [content])

    def _map(self, arrays: Mapping[str, Any]) -> np.ndarray[Any, Any]:
        """Map a file that holds exactly the described array. Raises ValueError or OSError if it does not."""
        import numpy as np

        path, shape, dtype = self.folder / arrays["file"], tuple(arrays["shape"]), np.dtype(arrays["dtype"])
        with open_file(path) as file:
            found, start = read_npy_head(file), file.tell()
            size = os.fstat(file.fileno()).st_size
            if found != (shape, False, dtype):
                described = f"{dtype} {list(shape)}"
                raise Damaged(f"an array of {found[2]} {list(found[0])} is not the described one, {described}")
            count = math.prod(shape)
            if size != start + count * dtype.itemsize:
                raise Damaged(f"{size} bytes are not {start} of a header and {count} times {dtype.itemsize}")
            if count == 0:
                return np.empty(shape, dtype)
            return np.memmap(file, dtype, mode="c", offset=start, shape=shape)  # copy on write: torch wants it writable


def _gone(what: str, path: Path, error: Exception) -> StoreError:
    """Return what to raise where a file cannot be read that was there when its run was looked up."""
    return StoreError(
        f"Expected the {what} {path} but got: {error}. The file was there when the run was looked up: was the store "
        f"pruned? Ask again, and the run is trained again."
    )


def _what_is_wrong(header: Mapping[str, Any], index: int) -> str:
    """Return why a header is not one of run ``index``; empty where it is."""
    if header.get("format") != FORMAT:
        return f"the header has format {header.get('format')!r}, not {FORMAT!r}"
    record, arrays = header.get("record"), header.get("arrays")
    if not isinstance(record, dict) or record.keys() | {*SELDOM} != _RECORD_FIELDS:
        return "the header does not describe a run"
    is_typed = typed(record, _Record) is not None and typed(record["trained_by"], _TrainedBy) is not None
    if not is_typed or not _are_scores(record.get("scores", {})):
        return "the header describes a run by values of other types"
    if record["index"] != index:
        return f"the header is run {record['index']}'s"
    weights = header.get("weights")
    is_empty = arrays is None and weights is None and not record.get("scores")
    if is_empty != (record["status"] != "ok"):
        return f"a run of status {record['status']!r} has {'no' if is_empty else 'a'} result"
    problem = "" if arrays is None else _what_is_wrong_with_array(arrays, index)
    return problem or ("" if weights is None else _what_is_wrong_with_file(weights, index, "weights", ".safetensors"))


def _are_scores(scores: Mapping[str, Any]) -> bool:
    return all(isinstance(score, float) and math.isfinite(score) for score in scores.values())


def _what_is_wrong_with_array(array: Mapping[str, Any], index: int) -> str:
    problem = _what_is_wrong_with_file(array, index, "array", ".npy", also={"dtype", "shape"})
    if problem:
        return problem
    if array["dtype"] not in _DTYPES:
        return f"the array has the dtype {array['dtype']!r}, which no training leaves behind"
    shape = array["shape"]
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        return f"the array has the impossible shape {shape!r}"
    return ""


def _what_is_wrong_with_file(file: object, index: int, what: str, suffix: str, also: Collection[str] = ()) -> str:
    if not isinstance(file, dict) or file.keys() != {"file", "sha256", *also}:
        return f"the header does not describe its {what}"
    # The name follows from the digest, so that a header never leads to another file.
    digest = re.fullmatch("[0-9a-f]{64}", str(file["sha256"]))
    if digest is None or file["file"] != array_name(_stem(index), suffix, digest[0]):
        return f"the header names {file['file']!r}, which {'is' if what == 'array' else 'are'} not this run's {what}"
    return ""


def _array_files(header: Mapping[str, Any] | None) -> set[str]:
    kept = (header["arrays"], header.get("weights")) if header is not None else ()
    return {part["file"] for part in kept if part is not None}


def _stem(index: int) -> str:
    return f"{index:04d}"
