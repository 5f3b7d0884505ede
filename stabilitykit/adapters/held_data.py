"""Code that makes data inside a training: it is the same in every run, whatever varies."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

from ..isolation.interception import Interception
from ..isolation.streams import Stream
from ..protocol import derive_seed
from ..training.run import Run

#: The seed of all draws that make data.
_SEED = derive_seed("data")


@contextlib.contextmanager
def held(run: Run) -> Iterator[None]:
    """Let a block draw the same in every run: a split, or data made of noise, is none of the sources."""
    with Interception(lambda source: _SEED, run.device).on(), Stream(_SEED, run.device):
        yield


@contextlib.contextmanager
def held_methods(owner: Any, names: tuple[str, ...], run: Run) -> Iterator[None]:
    """Hold what methods of one object draw, in a block."""
    before = {name: vars(owner)[name] for name in names if name in vars(owner)}
    for name in names:
        setattr(owner, name, _held(getattr(owner, name), run))
    try:
        yield
    finally:
        for name in names:
            delattr(owner, name)
        vars(owner).update(before)


def _held(method: Callable[..., Any], run: Run) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **options: Any) -> Any:
        with held(run):
            return method(*args, **options)

    return call
