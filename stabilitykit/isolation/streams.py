"""Streams: blocks of code under the generators of one source, which are put back after."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..protocol import Source

#: The seeding functions as they are at first: an `Interception` puts its own in their place, which are for user code.
_seed_python, _seed_numpy, _seed_cuda = random.seed, np.random.seed, torch.cuda.manual_seed


class GeneratorStates(NamedTuple):
    """The states of the global generators of python, numpy, torch on the CPU, and torch on CUDA."""

    python: object
    numpy: Any
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> GeneratorStates:
        """Read the states of this process; CUDA's only if ``device`` is a GPU, since reading it starts CUDA."""
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state(), cuda)

    def is_equal(self, other: GeneratorStates) -> bool:
        """Whether nothing was drawn between the two."""
        both = (self.cpu, other.cpu), (self.cuda, other.cuda)
        drawn = any(not torch.equal(a, b) for a, b in both if a is not None and b is not None)
        (_, keys, *rest), (_, other_keys, *other_rest) = self.numpy, other.numpy
        return not drawn and self.python == other.python and rest == other_rest and bool((keys == other_keys).all())

    def to_plain(self) -> dict[str, Any]:
        """Return the states as tuples, numbers and tensors."""
        kind, keys, *rest = self.numpy
        return {**self._asdict(), "numpy": (str(kind), tuple(map(int, keys)), *rest)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> GeneratorStates:
        """Return the states that `to_plain` wrote."""
        kind, keys, *rest = plain["numpy"]
        return cls(**{**plain, "numpy": (kind, np.array(keys, dtype=np.uint32), *rest)})

    def put_back(self, device: torch.device) -> None:
        """Set the generators of this process to these states."""
        random.setstate(self.python)  # type: ignore[arg-type]  # typeshed asks for the tuple that getstate() returns
        np.random.set_state(self.numpy)
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, device)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed the four global generators of this process with one 32-bit seed."""
    _seed_python(seed)
    _seed_numpy(seed)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            _seed_cuda(seed)


#: The blocks that this process is in, the innermost last.
_entered: list[Stream | Borrowed] = []


class _Fetches(threading.local):
    """How many fetches of a loader the present thread is in; another thread may prefetch meanwhile."""

    depth = 0


_fetches = _Fetches()


@contextlib.contextmanager
def fetching() -> Iterator[None]:
    """Note, in a block, that a loader fetches: all that is drawn in it is of ``augment``.

    >>> with fetching():
    ...     is_fetching(), current_source()
    (True, <Source.AUGMENT: 'augment'>)
    """
    _fetches.depth += 1
    try:
        yield
    finally:
        _fetches.depth -= 1


def is_fetching() -> bool:
    """Whether this thread is within a fetch of a loader."""
    return _fetches.depth > 0


def current_source() -> Source | None:
    """Return the source that is drawn from now: that of the innermost block that names one."""
    if is_fetching():
        return Source.AUGMENT
    return next((block.source for block in reversed(_entered) if block.source is not None), None)


def _leave(block: Stream | Borrowed) -> None:
    """Note the end of a block; not always the innermost: a seed function leaves ``init`` at its first batch."""
    for place in reversed(range(len(_entered))):
        if _entered[place] is block:
            del _entered[place]
            return


class Stream:
    """The generators of one source: a context manager that swaps them in, each time where the last block left them.

    Entering a stream inside itself changes nothing; streams of different sources nest.

    >>> stream = Stream(7)
    >>> with stream:
    ...     first = torch.rand(1)
    >>> _ = torch.rand(100)  # draws outside do not move the stream
    >>> with stream:
    ...     second = torch.rand(1)
    >>> with Stream(7):
    ...     torch.equal(torch.rand(1), first) and torch.equal(torch.rand(1), second)
    True
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", source: Source | None = None) -> None:
        self.seed, self.source = seed, source
        self.device = torch.device(device)
        self._inner: GeneratorStates | None = None
        self._outer: GeneratorStates | None = None
        self._depth = 0

    def reseed(self, seed: int) -> None:
        """Begin anew, from another seed."""
        self.seed, self._inner = seed, None

    @property
    def state(self) -> dict[str, Any] | None:
        """The states of its generators, as `GeneratorStates.to_plain` writes them; None before it is first entered."""
        return None if self._inner is None else self._inner.to_plain()

    @state.setter
    def state(self, plain: dict[str, Any] | None) -> None:
        self._inner = None if plain is None else GeneratorStates.from_plain(plain)

    def __enter__(self) -> Stream:
        self._depth += 1
        if self._depth == 1:
            self._outer = GeneratorStates.now(self.device)
            if self._inner is None:
                seed_generators(self.seed, self.device)
            else:
                self._inner.put_back(self.device)
            _entered.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._outer is not None:
            _leave(self)
            self._inner = GeneratorStates.now(self.device)
            self._outer.put_back(self.device)


class Borrowed:
    """The generators of this process in a block that seeds them itself, again and again; they are put back after.

    >>> with Borrowed(Source.AUGMENT):
    ...     seed_generators(7, torch.device("cpu"))
    ...     current_source()
    <Source.AUGMENT: 'augment'>
    """

    def __init__(self, source: Source, device: torch.device | str = "cpu") -> None:
        self.source, self.device = source, torch.device(device)
        self._outer: list[GeneratorStates] = []

    def __enter__(self) -> None:
        self._outer.append(GeneratorStates.now(self.device))
        _entered.append(self)

    def __exit__(self, *_: object) -> None:
        _leave(self)
        self._outer.pop().put_back(self.device)
