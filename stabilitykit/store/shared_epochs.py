"""The epochs before an onset, which all runs share: trained once, stored, and branched.

::

    prefix/0005.json               exists exactly when the state before epoch 5 is there; names and hashes its tensors
    prefix/0005.<sha>.safetensors  the tensors
    prefix/proven.json             that a run which went on from a state had the bits of one that did not

They lie in the experiment in which every source is held, whatever varies afterwards. Whoever gets to an epoch first
writes it, and others that trained it meanwhile have the same bits: nobody waits. Nothing here is ever executed. To
look which states there are needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic_files import Draft, read_json, unwritable, write_json, write_once
from .claims import Claims
from .layout import about_file

if TYPE_CHECKING:
    import torch

#: Of the files above.
_FORMAT = 1

#: A byte beyond the runs, locked by who writes: nobody prunes the experiment meanwhile.
_WRITING = 2**29


class Prefixes:
    """The stored states of one task under one protocol without a varying source."""

    def __init__(self, experiment: Path, about: Mapping[str, Any]) -> None:
        self.experiment, self.folder, self._about = experiment, experiment / "prefix", dict(about)

    def epochs(self) -> list[int]:
        """Return the epochs before which a state is there, whole or not."""
        return sorted(int(path.stem) for path in self.folder.glob("*.json") if path.stem.isdecimal())

    def latest(self, epoch: int, device: torch.device | str = "cpu") -> tuple[int, dict[str, Any] | None]:
        """Return the last whole state before ``epoch`` or an earlier one, and before which; 0 and None without one."""
        for found in reversed(self.epochs()):
            state = self._read(found, device) if found <= epoch else None
            if state is not None:
                return found, state
        return 0, None

    def keep(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Store the state before ``epoch``, where none is.

        Raises `CannotKeep` where it holds what cannot be stored, and `StoreError` where it cannot be written.
        """
        if not self.problem(epoch):
            return
        from safetensors.torch import save

        from .plain_values import flatten

        plain, tensors = flatten(dict(state))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            locks = Claims(self.experiment).locks
            if not locks.acquire(_WRITING):  # another writes, or prunes: it costs time, no more
                return
            try:
                self._write(epoch, plain, save(tensors))
            finally:
                locks.release(_WRITING)
        except FileNotFoundError:  # pruned under our hands
            return
        except OSError as error:
            raise unwritable(self.place(epoch), error) from error

    def problem(self, epoch: int) -> str:
        """Return what is wrong with a state's files, reading all of them; empty where nothing is."""
        return _read(self.place(epoch))[1]

    @property
    def is_proven(self) -> bool:
        """Whether a run of this task that went on from a state was found to have the bits of one that did not."""
        return read_json(self.folder / "proven.json") is not None

    def note_proof(self) -> None:
        """Remember that; see `prove_isolation`."""
        if self.folder.is_dir():  # else it was pruned since
            write_json(self.folder / "proven.json", {"format": _FORMAT}, durable=False)

    def place(self, epoch: int) -> Path:
        """Return where the header of a state is."""
        return self.folder / f"{epoch:04d}.json"

    def _read(self, epoch: int, device: torch.device | str) -> dict[str, Any] | None:
        header, problem, content = _read(self.place(epoch))
        if problem:
            return None
        from safetensors.torch import load

        from .plain_values import unflatten

        state: dict[str, Any] = unflatten(header["state"], load(content), device)
        return state

    def _write(self, epoch: int, plain: Any, content: bytes) -> None:
        about = about_file(self.experiment)
        write_once(about, json.dumps(self._about, indent=1, default=str))
        digest = _digest(plain, content)
        with Draft(self.folder, _name(epoch, digest)) as draft:
            draft.write(content)
            draft.put(sync_folder=False)  # its header follows, and nobody looks for the tensors without
        write_json(self.place(epoch), {"format": _FORMAT, "sha256": digest, "state": plain})


def _read(place: Path) -> tuple[dict[str, Any], str, bytes]:
    """Return a header, what is wrong with it or its tensors, and the bytes of these."""
    header = read_json(place)
    if header is None:
        return {}, "the header is missing, empty or torn", b""
    digest = header.get("sha256")
    if header.get("format") != _FORMAT or "state" not in header or not re.fullmatch("[0-9a-f]{64}", str(digest)):
        return {}, "the header does not describe a state", b""
    path = place.with_name(_name(int(place.stem), str(digest)))
    try:
        content = path.read_bytes()
    except OSError as error:
        return {}, f"{path.name} cannot be read: {error}", b""
    if _digest(header["state"], content) != digest:
        return {}, f"{path.name} or its header has other bytes than were written", b""
    return header, "", content


def _digest(plain: Any, content: bytes) -> str:
    return hashlib.sha256(json.dumps(plain).encode() + content).hexdigest()


def _name(epoch: int, digest: str) -> str:
    # It follows from the rest, so a header never leads to another file.
    return f"{epoch:04d}.{digest[:12]}.safetensors"
