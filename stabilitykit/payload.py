"""What a study's children get, in two files: the trainer with its task, and the tensors in it.

The children map the tensors, and do not read them: all share one copy in the system's cache.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import io
import os
import pickle
import sys
import types
import warnings
from collections import ChainMap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import cloudpickle
import torch

from .errors import StoreError
from .sourcecode import is_own
from .training import Trainer


class CannotSend(Exception):
    """A task holds what no other process can have."""


class Payload:
    """The two files."""

    def __init__(self, trainer: Trainer, rootdir: Path, folder: Path) -> None:
        """Write it; raise `CannotSend` where that cannot be."""
        self.path = folder / f"{os.getpid()}-{id(self):x}.task"
        folder.mkdir(parents=True, exist_ok=True)
        surroundings = {"environ": dict(os.environ), "filters": list(warnings.filters)}
        try:
            with _by_value(rootdir):
                content, tensors = _dumps((trainer, surroundings))
        except Exception as error:  # noqa: BLE001  # each extension type refuses in its own way
            raise CannotSend(f"{type(error).__name__}: {error}") from None
        try:
            torch.save(tensors, self._tensors(self.path))
            self.path.write_bytes(content)
        except (OSError, RuntimeError) as error:  # torch's writer raises the latter where the disk is full
            self.remove()
            raise StoreError(
                f"Expected to write the task for child processes to {folder} but got: {error}. Make the folder "
                f"writable, or free space, or train without --stability-isolation."
            ) from error

    @classmethod
    def read(cls, path: Path) -> Trainer:
        """Return the trainer, in a process that is made like the one that wrote it."""
        tensors = torch.load(cls._tensors(path), mmap=True, weights_only=True)
        trainer, surroundings = _Unpickler(io.BytesIO(path.read_bytes()), tensors).load()
        os.environ.clear()
        os.environ.update(surroundings["environ"])
        warnings.resetwarnings()
        for action, message, category, module, line in reversed(surroundings["filters"]):
            warnings.filters.insert(0, (action, message, category, module, line))  # type: ignore[attr-defined]
        trainer.environment.restore()
        return cast(Trainer, trainer)

    def remove(self) -> None:
        """Delete the files."""
        for path in (self.path, self._tensors(self.path)):
            path.unlink(missing_ok=True)

    @staticmethod
    def _tensors(path: Path) -> Path:
        return path.with_suffix(".pt")


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
    if file is None or name.partition(".")[0] == __package__ or getattr(module, "__name__", None) != name:
        return False
    path = Path(file).resolve()
    return is_own(path, rootdir) and not ("." in name and _found_by_name(name) == path)


def _found_by_name(name: str) -> Path | None:
    """Return the file that importing a dotted name would run in a new process."""
    places: Any = None
    found: importlib.machinery.ModuleSpec | None = None
    for part in name.split("."):
        found = importlib.machinery.PathFinder.find_spec(part, places)
        if found is None:
            return None
        places = found.submodule_search_locations
    return Path(found.origin).resolve() if found is not None and found.origin else None


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
