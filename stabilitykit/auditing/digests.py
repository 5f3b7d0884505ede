"""Hashes of what a training is given: items of any type, and the states of the generators of a process."""

from __future__ import annotations

import array
import hashlib
import pickle
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..store.fingerprint import tensor_digest

#: How deep lists within lists are read; a list may hold itself.
_DEPTH = 20


def digest(value: object) -> str:
    """Return a hash of the content of an item: equal items have equal hashes, in this process and in others.

    >>> digest((torch.zeros(2), 3)) == digest((torch.zeros(2), 3)) != digest((torch.ones(2), 3))
    True
    """
    hashed = hashlib.blake2b(digest_size=8)
    for part in _parts(value, 0):
        hashed.update(part)
    return hashed.hexdigest()


def _parts(value: Any, depth: int) -> Iterator[bytes]:
    yield type(value).__qualname__.encode()
    if isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized:
        yield tensor_digest(value)
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype}{value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, str | bytes | int | float | complex | np.generic) or value is None:
        yield repr(value).encode()
    elif depth == _DEPTH:
        return
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _parts(name, depth + 1)
            yield from _parts(part, depth + 1)
    elif isinstance(value, list | tuple):
        yield str(len(value)).encode()
        for part in value:
            yield from _parts(part, depth + 1)
    elif hasattr(value, "tobytes") and hasattr(value, "size"):  # an image of PIL's
        yield repr(value.size).encode()
        yield value.tobytes()
    elif getattr(value, "__dict__", None):
        yield from _parts(vars(value), depth + 1)
    else:
        yield _pickled(value)


def _pickled(value: object) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception:  # noqa: BLE001  # a user's class may raise anything; its type is hashed all the same
        return b""


#: By the name of each generator that a whole process shares: a hash of its state.
States = dict[str, str]


def states() -> States:
    """Return the states of the generators of this process; CUDA's only where CUDA has been started.

    >>> before = states()
    >>> _ = torch.rand(1)
    >>> drawn(before, states()) == {"torch": before["torch"]}
    True
    """
    _, numbers, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray), "the legacy form is a tuple with the keys"
    found = {
        "python": _hash(array.array("Q", numbers).tobytes(), repr(gauss).encode()),
        "numpy": _hash(keys.tobytes(), repr((str(kind), *rest)).encode()),
        "torch": _hash(torch.default_generator.get_state().numpy().tobytes()),
    }
    if uses_cuda():
        found["cuda"] = _hash(torch.cuda.get_rng_state().numpy().tobytes())
    return found


def uses_cuda() -> bool:
    """Whether this process has started CUDA: only then can something have been drawn there."""
    return bool(torch.cuda.is_available() and torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch's own


def _hash(*parts: bytes) -> str:
    return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()


def drawn(before: States, after: States) -> States:
    """Return the generators that were drawn from between two readings, as they were before the first draw."""
    return {name: state for name, state in before.items() if after.get(name) != state}
