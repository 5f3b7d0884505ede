"""The items of a Dataset, as they are read for the key of its runs."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..isolation.streams import Stream, seed_generators
from ..protocol import derive_seed
from ..store.fingerprint import fingerprint, tensor_digest

#: Up to so many items, all are read; of more, so many evenly spaced ones, and so many are read a second time.
MOST_ITEMS, _SAMPLED, _READ_AGAIN = 4096, 64, 32
#: The most bytes of arrays in a Dataset that is copied before it is read.
_MOST_COPIED = 2**30
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Items:
    """Hashes of the items of one Dataset, or of some of them."""

    dataset: str  #: the name of its class
    total: int
    hashes: Mapping[int, str]
    labels: Mapping[int, object]  #: the second part of each item that was read
    #: Whether an item is the same when it is read again under the same seed, so that no loader process changes it.
    is_repeatable: bool

    @classmethod
    def of(cls, data: Any) -> Items:
        """Read items of a Dataset, of a copy where it can be copied: reading may change what it holds.

        Raises `CannotFingerprint` for items without content.
        """
        total = len(data)
        indices = range(0, total, 1 if total <= MOST_ITEMS else total // _SAMPLED)
        source = _copied(data)
        hashes: dict[int, str] = {}
        labels: dict[int, object] = {}
        with Stream(0):  # the generators of this process are put back after
            for index in indices:
                item = _read(source, index)
                hashes[index] = _hash_of(item)
                labels[index] = item[1] if isinstance(item, (tuple, list)) and len(item) == 2 else None
            again = indices[:: max(1, len(indices) // _READ_AGAIN)][::-1]
            is_repeatable = all(_hash_of(_read(source, index)) == hashes[index] for index in again)
        return cls(type(data).__name__, total, hashes, labels, is_repeatable)

    @property
    def remarks(self) -> list[str]:
        """What a reader of the study has to know of it."""
        remarks = []
        if len(self.hashes) < self.total:
            remarks.append(
                f"the data of {self.dataset} counts by {len(self.hashes)} of its {self.total:,} items: a change in the "
                f"others is not seen, and runs of before are shown"
            )
        if not self.is_repeatable:
            remarks.append(
                f"an item of {self.dataset} changes when it is read again under the same seed: it draws from a "
                f"generator that no source seeds, or changes what it holds. Its runs depend on num_workers"
            )
        return remarks

    def fits(self, labels: Tensor) -> bool:
        """Whether these are the items that ``labels`` were read from."""
        if len(labels) != self.total:
            return False
        return all(_is_equal(labels[index], label) for index, label in self.labels.items() if label is not None)


def _read(source: Any, index: int) -> Any:
    """Return an item as training draws it: under a seed of its own, whatever was read before."""
    seed_generators(derive_seed(0, index), _CPU)
    return source[index]


def _hash_of(item: Any) -> str:
    """Return a hash of an item; the plain kinds are many, and take a short way."""
    kind = type(item)
    if kind in (tuple, list):
        return hashlib.sha256(repr((kind.__name__, [_hash_of(part) for part in item])).encode()).hexdigest()
    if kind in (bool, int, float, str):
        return repr(item)
    if kind is Tensor and item.layout is torch.strided and item.device.type == "cpu":
        return tensor_digest(item).hex()
    return fingerprint(item, None)


def _is_equal(label: Tensor, read: object) -> bool:
    try:
        return torch.equal(label, torch.as_tensor(np.asarray(read)).to(label.dtype))
    except (TypeError, ValueError, RuntimeError):
        return False


def _copied(data: Any) -> Any:
    """Return a copy of a Dataset; itself if it cannot be copied, or holds too much."""
    if _bytes_in(data) > _MOST_COPIED:
        return data
    try:
        return copy.deepcopy(data)
    except Exception:  # noqa: BLE001  # open files, locks and others refuse each in their own way
        return data


def _bytes_in(value: Any, depth: int = 4) -> int:
    """Return the bytes of the arrays and tensors that an object holds, as far as they lie near."""
    if isinstance(value, (Tensor, np.ndarray)):
        return value.nbytes
    if depth == 0:
        return 0
    if isinstance(value, dict):
        return sum(_bytes_in(part, depth - 1) for part in value.values())
    if isinstance(value, (list, tuple)):
        return sum(_bytes_in(part, depth - 1) for part in value)
    return _bytes_in(getattr(value, "__dict__", None), depth - 1) if hasattr(value, "__dict__") else 0
