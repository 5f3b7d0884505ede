"""A study's task on its way to child processes, in two files: the trainer with its task, and the tensors in it.

The task is a pickle, which runs code when it is loaded. No other user may write it: the files have no name and lie
outside the store, a child gets them open, and the hash of the task comes through the pipe that starts it. The children
map the tensors, and do not read them: all share one copy in the system's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import mmap
import pickle
import sys
import tempfile
import types
import warnings
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any, ClassVar, cast

import cloudpickle
import torch

from ..errors import PACKAGE, StoreError
from ..store.source_files import in_tree
from ..store.traced_inputs import file_by_name
from ..training.trainer import Trainer


class CannotSend(Exception):
    """Part of a task cannot be sent to another process."""


class Payload:
    """The two files: without a name, readable by this user alone, and gone with the last process that has them open."""

    def __init__(self, trainer: Trainer, rootdir: Path) -> None:
        """Write the trainer with its task; raise `CannotSend` where part of it cannot be pickled."""
        try:
            with _by_value(rootdir):
                content, tensors = _dumps((trainer, list(warnings.filters)))
        except Exception as error:  # noqa: BLE001  # each extension type refuses in its own way
            raise CannotSend(f"{type(error).__name__}: {error}") from None
        self._task, self._tensors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115  # see close
        try:
            self._task.write(content)
            name = _name_of(self._tensors.fileno())
            torch.save(tensors, self._tensors if name is None else name)  # by name it copies none of them
            for file in (self._task, self._tensors):
                file.flush()
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter where the disk is full
            self.close()
            raise StoreError(
                f"Expected to write the task for child processes to {tempfile.gettempdir()} but got: {error}. Free "
                f"space there, set TMPDIR to a folder that has some, or train in the test's own process.",
                isolation="none",
            ) from error
        self._sha256 = hashlib.sha256(content).hexdigest()

    def sent(self) -> SentPayload:
        """Return the payload as an argument of a process that is about to start."""
        return SentPayload(self._task.fileno(), self._tensors.fileno(), self._sha256)

    def close(self) -> None:
        """Free the files, once no process reads them any more."""
        for file in (self._task, self._tensors):
            file.close()


@dataclass(frozen=True)
class SentPayload:
    """A payload on its way to a child, which gets the open files and the hash through the pipe that starts it."""

    task: int  #: file descriptor
    tensors: int  #: file descriptor
    sha256: str  #: of the task's bytes

    def __reduce__(self) -> tuple[Any, ...]:
        files = [reduction.DupFd(file) for file in (self.task, self.tensors)]
        return _received, (*files, self.sha256)

    def read(self) -> Trainer:
        """Return the trainer, in a child. Raises `StoreError` where the task has other bytes than were sent."""
        content = _bytes_of(self.task)
        if hashlib.sha256(content).hexdigest() != self.sha256:
            raise StoreError("Expected the task that was sent to this process but got other bytes, which were not run.")
        name = _name_of(self.tensors)
        if name is None:
            tensors = torch.load(io.BytesIO(_bytes_of(self.tensors)), weights_only=True)
        else:
            tensors = torch.load(name, mmap=True, weights_only=True)
        trainer, filters = _Unpickler(io.BytesIO(content), tensors).load()
        warnings.resetwarnings()
        for action, message, category, module, line in reversed(filters):
            warnings.filters.insert(0, (action, message, category, module, line))  # type: ignore[attr-defined]
        trainer.environment.restore()
        return cast(Trainer, trainer)


def _name_of(file: int) -> Path | None:
    """Return a path by which this process can open an open file without a name; None where the system has none."""
    name = Path(f"/proc/self/fd/{file}")
    return name if name.exists() else None


def _bytes_of(file: int) -> bytes:
    """Read a file whose position other processes share."""
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        return bytes(content)


def _received(task: Any, tensors: Any, sha256: str) -> SentPayload:
    return SentPayload(task.detach(), tensors.detach(), sha256)


@contextlib.contextmanager
def _by_value(rootdir: Path) -> Iterator[None]:
    """Let cloudpickle send the user's own test modules and scripts by value, and what is in packages by name.

    A child could not import a test module by its name, or would import another of that name, such as ``conftest``.
    """
    chosen = [module for name, module in list(sys.modules.items()) if _goes_by_value(name, module, rootdir)]
    for module in chosen:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in chosen:
            cloudpickle.unregister_pickle_by_value(module)


def _goes_by_value(name: str, module: types.ModuleType, rootdir: Path) -> bool:
    file = getattr(module, "__file__", None)
    if file is None or name.partition(".")[0] == PACKAGE.name or getattr(module, "__name__", None) != name:
        return False
    path = Path(file).resolve()
    found = file_by_name(name) if "." in name else None
    return in_tree(path, rootdir) and (found is None or found.resolve() != path)


def _dumps(value: object) -> tuple[bytes, list[torch.Tensor]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), list(pickler.tensors.values())


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """Reduce code as cloudpickle does, but for its file, which cloudpickle forgets: tracebacks show lines of it."""
    reduced = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    arguments = tuple(code.co_filename if part == "<dynamic-code>" else part for part in reduced[1])
    return (reduced[0], arguments, *reduced[2:])


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle has no types
    """Leaves plain tensors out, each once; `_Unpickler` puts them back."""

    dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table)

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5)
        self.tensors: dict[int, torch.Tensor] = {}
        self._numbers: dict[int, int] = {}

    def persistent_id(self, value: object) -> int | None:
        if type(value) is not torch.Tensor or value.requires_grad or value.device.type != "cpu":
            return None
        if value.layout is not torch.strided or value.is_conj() or value.is_neg():
            return None
        self.tensors.setdefault(id(value), value)
        return self._numbers.setdefault(id(value), len(self._numbers))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, number: Any) -> torch.Tensor:
        tensor: torch.Tensor = self._tensors[number]
        return tensor
