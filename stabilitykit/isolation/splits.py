"""Random splits of torch's: data, which no source moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.data.dataset as datasets

from ..protocol import derive_seed
from .intercepted import Intercepted
from .own_generators import torch_generator
from .replacement import Replacement


def replacements(counts: Intercepted) -> Iterator[Replacement]:
    """Yield what lets the k-th ``random_split`` of a training be the same in every run.

    One with a generator of the user's is theirs: labels that lie beside it may have been split by the same.
    """

    def held(old: Callable[..., Any]) -> Callable[..., Any]:
        def randperm(count: int, *, generator: Any = None, **options: Any) -> Any:
            if generator is not None and generator is not torch.default_generator:
                counts.own_splits += 1
                return old(count, generator=generator, **options)
            counts.splits += 1
            return old(count, generator=torch_generator(derive_seed("split", counts.splits)), **options)

        return randperm

    # Not `random_split` itself: whoever imported it by its name has it as it was. Nothing else there uses this one.
    yield Replacement(datasets, "randperm", held)
