"""The epochs before an onset, which all runs share: trained once, and stored as states to branch from.

::

    prefix/0005.json               exists exactly when the state before epoch 5 is stored; names and hashes its tensors
    prefix/0005.<sha>.safetensors  the tensors
    prefix/proven.json             says that a run from a stored state had the bits of one from the start

The states lie in the experiment in which every source is held, whatever varies afterwards. The first process that
reaches an epoch writes its state; others reach it with the same bits, so no process waits. Nothing here is ever
executed. Listing the states needs no torch.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic_files import unwritable, write_json, write_once
from .claims import Claims
from .layout import ABOUT
from .reading import read_json
from .sealed_files import SealedFiles, array_name

if TYPE_CHECKING:
    import torch

#: Format version of the files above.
_FORMAT = 1

#: The byte, beyond those of the runs, that is locked while a state is written: no process prunes meanwhile.
_WRITING = 2**29


class Prefixes:
    """The stored states of one task under one protocol without a varying source."""

    def __init__(self, experiment: Path, about: Mapping[str, Any]) -> None:
        self.experiment, self.folder, self._about = experiment, experiment / "prefix", dict(about)
        self._sealed = SealedFiles(self.folder)

    def epochs(self) -> list[int]:
        """Return the epochs whose states are stored, good or damaged."""
        return self._sealed.numbers()

    def latest(self, epoch: int, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any] | None]:
        """Return the epoch and the value of the latest good state up to ``epoch``; 0 and None without one."""
        for found in reversed([stored for stored in self.epochs() if stored <= epoch]):
            header, problem, content = self._read_files(found)
            if not problem:
                from safetensors import SafetensorError
                from safetensors.torch import load

                from .plain_values import unflatten

                try:
                    return found, unflatten(header["state"], load(content), device)
                except (AttributeError, KeyError, RuntimeError, TypeError, ValueError, SafetensorError):
                    continue  # written by another program
        return 0, None

    def keep(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Store the state before ``epoch``, unless a good one is stored.

        Raises `CannotKeep` if a value of the state cannot be stored, and `StoreError` if its files cannot be written.
        """
        if not self.problem(epoch):
            return
        from safetensors.torch import save

        from .plain_values import flatten

        plain, tensors = flatten(dict(state))
        try:
            if self.folder.is_symlink():
                raise FileExistsError(errno.EEXIST, "a link is in its place", str(self.folder))
            self.folder.mkdir(parents=True, exist_ok=True)
            locks = Claims(self.experiment).locks
            if not locks.acquire(_WRITING):  # another process writes or prunes: not storing costs time, no more
                return
            try:
                write_once(self.experiment / ABOUT, json.dumps(self._about, indent=1, default=str))
                named = self._sealed.write_array(_stem(epoch), ".safetensors", [save(tensors)], _hashed(plain))
                self._sealed.seal(_stem(epoch), {"format": _FORMAT, "sha256": named["sha256"], "state": plain})
            finally:
                locks.release(_WRITING)
        except FileNotFoundError:  # the experiment was pruned meanwhile
            return
        except OSError as error:
            raise unwritable(self.place(epoch), error) from error

    def problem(self, epoch: int) -> str:
        """Return what is wrong with a state's files, reading all of them; empty if nothing is."""
        return self._read_files(epoch)[1]

    @property
    def is_proven(self) -> bool:
        """Whether a run of this task from a stored state was found to have the bits of one from the start."""
        return read_json(self.folder / "proven.json") is not None

    def note_proof(self) -> None:
        """Record that a run from a stored state had the bits of one from the start; see `prove_isolation`."""
        if self.folder.is_dir():  # it may have been pruned
            write_json(self.folder / "proven.json", {"format": _FORMAT}, durable=False)

    def place(self, epoch: int) -> Path:
        """Return the path of a state's header."""
        return self._sealed.place(_stem(epoch))

    def _read_files(self, epoch: int) -> tuple[dict[str, Any], str, bytes]:
        """Return a header, what is wrong with it or its tensors, and the bytes of the tensors."""
        header = read_json(self.place(epoch))
        if header is None:
            return {}, "the header is missing, empty or torn", b""
        digest = str(header.get("sha256"))
        if header.get("format") != _FORMAT or "state" not in header or not re.fullmatch("[0-9a-f]{64}", digest):
            return {}, "the header does not describe a state", b""
        name = array_name(_stem(epoch), ".safetensors", digest)
        try:
            return header, "", self._sealed.read_array(name, digest, _hashed(header["state"]))
        except ValueError:
            return {}, f"{name} or its header has other bytes than were written", b""
        except FileNotFoundError:
            return {}, f"{name} is missing", b""


def _stem(epoch: int) -> str:
    return f"{epoch:04d}"


def _hashed(plain: Any) -> bytes:
    """Return the part of a state that its header holds, as the digest covers it."""
    return json.dumps(plain).encode()
