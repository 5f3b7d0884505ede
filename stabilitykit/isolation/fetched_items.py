"""Items and batches as a loader fetches them, each drawn under a seed of its own, in this process or in others."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset, default_collate, default_convert, get_worker_info
from torch.utils.data._utils.fetch import _BaseDatasetFetcher, _IterableDatasetFetcher, _MapDatasetFetcher

from ..protocol import Source, derive_seed
from .replacement import Replacement
from .streams import Borrowed, GeneratorStates, Stream, fetching, seed_generators

_CPU = torch.device("cpu")


class Numbered(NamedTuple):
    """The indices of a batch, with all that their draws depend on: it is sent to a loader process as it is.

    A process that outlives a pass could not know of the next one, nor of another seed.
    """

    index: Any  #: what the sampler gave
    augment: int  #: the seed of the source
    seed: int  #: that of this pass
    batch: int  #: the position of the batch in its pass
    times: tuple[int, ...] = ()  #: how often each example came before in this pass; empty if none can come twice


class Numbering:
    """Numbers the batches of one pass."""

    def __init__(self, augment: int, seed: int, *, repeats: bool, batches: bool = True) -> None:
        """Begin a pass in which examples may come twice, ``repeats``; ``batches`` has one index for each of them."""
        self._seeds, self._repeats, self._batches = (augment, seed), repeats, batches
        self._batch = -1
        self._seen: Counter[str] = Counter()

    def number(self, index: Any) -> Numbered:
        """Return the indices of the next batch with its number."""
        self._batch += 1
        if not self._repeats:
            return Numbered(index, *self._seeds, self._batch)
        times = []
        for name in map(_name_of, index if self._batches else [index]):
            times.append(self._seen[name])
            self._seen[name] += 1
        return Numbered(index, *self._seeds, self._batch, tuple(times))


def may_draw(loader: Any) -> bool:
    """Whether items or batches of a loader may draw: all may but those of tensors that torch itself puts together."""
    return _may_draw_items(loader.dataset) or _may_draw_batches(loader.collate_fn)


def _may_draw_items(dataset: Any) -> bool:
    if type(dataset) is Subset:
        return _may_draw_items(dataset.dataset)
    if type(dataset) is ConcatDataset:
        return any(map(_may_draw_items, dataset.datasets))
    return type(dataset) is not TensorDataset


def _may_draw_batches(collate: Any) -> bool:
    return collate is not default_collate and collate is not default_convert


def _name_of(index: Any) -> str:
    return str(int(index)) if hasattr(index, "__index__") else repr(index)


def borrowing(device: torch.device) -> Callable[[Numbered], AbstractContextManager[None]]:
    """Return what makes the block in which the process that trains fetches a batch: its generators are put back."""
    return lambda numbered: Borrowed(Source.AUGMENT, device)


def replacements(
    device: torch.device, block: Callable[[Numbered], AbstractContextManager[None]]
) -> Iterator[Replacement]:
    """Yield what lets both fetchers of torch's draw as `Numbered` says, each batch in a block of its own."""

    def fetch(old: Callable[..., Any]) -> Callable[..., Any]:
        def fetch(fetcher: Any, index: Any) -> Any:
            if type(index) is not Numbered:
                return old(fetcher, index)
            with fetching():
                return _fetched(fetcher, index, device, block)

        return fetch

    def begin(old: Callable[..., None]) -> Callable[..., None]:
        def __init__(fetcher: Any, *given: Any) -> None:  # noqa: N807  # named as what it replaces
            _BaseDatasetFetcher.__init__(fetcher, *given)
            fetcher.dataset_iter, fetcher.ended = None, False  # begun by the first batch, in its stream

        return __init__

    def fetch_next(old: Callable[..., Any]) -> Callable[..., Any]:
        def fetch(fetcher: Any, index: Any) -> Any:
            numbered = type(index) is Numbered
            with fetching(), _stream_of(fetcher, index, device) if numbered else nullcontext():
                if fetcher.dataset_iter is None:
                    fetcher.dataset_iter = iter(fetcher.dataset)
                return old(fetcher, index.index if numbered else index)

        return fetch

    yield Replacement(_MapDatasetFetcher, "fetch", fetch)
    yield Replacement(_IterableDatasetFetcher, "__init__", begin)
    yield Replacement(_IterableDatasetFetcher, "fetch", fetch_next)


def _fetched(
    fetcher: Any, numbered: Numbered, device: torch.device, block: Callable[[Numbered], AbstractContextManager[None]]
) -> Any:
    data, draws_batch = _without_draws(fetcher, numbered, device), _may_draw_batches(fetcher.collate_fn)
    if data is not None and not draws_batch:
        return fetcher.collate_fn(data)
    with block(numbered):
        data = _drawn(fetcher, numbered, device) if data is None else data
        if draws_batch:
            seed_generators(derive_seed(numbered.seed, "batch", numbered.batch), device)
        return fetcher.collate_fn(data)


def _without_draws(fetcher: Any, numbered: Numbered, device: torch.device) -> Any:
    """Return the items of a batch if none of them draws; else None, with the generators as they were.

    To seed for an item takes longer than to read one that is only looked up: where the first item of a pass drew
    nothing, the next batches are read as they are.
    """
    if not _may_draw_items(fetcher.dataset):
        return _at_once(fetcher, numbered.index)
    if fetcher.__dict__.get("draws", True):
        return None
    before = GeneratorStates.now(device)
    data = _at_once(fetcher, numbered.index)
    if GeneratorStates.now(device).is_equal(before):
        return data
    fetcher.draws = True
    before.put_back(device)
    return None


def _drawn(fetcher: Any, numbered: Numbered, device: torch.device) -> Any:
    """Return the items of a batch, each read under its own seed; note whether the first of a pass draws."""

    def read(index: Any, times: int) -> Any:
        seed_generators(derive_seed(numbered.seed, _name_of(index), times), device)
        if "draws" in fetcher.__dict__:
            return get(index)
        before = GeneratorStates.now(device)
        item = get(index)
        fetcher.draws = not GeneratorStates.now(device).is_equal(before)
        return item

    dataset, indices = fetcher.dataset, numbered.index
    many = _reads_many(dataset) if fetcher.auto_collation else None
    get: Callable[[Any], Any] = dataset.__getitem__ if many is None else lambda index: many([index])[0]
    times = numbered.times or itertools.repeat(0)
    if not fetcher.auto_collation:  # then an index may be a list: one item
        return read(indices, next(iter(times)))
    return [read(index, count) for index, count in zip(indices, times, strict=False)]  # without end where none repeats


def _reads_many(dataset: Any) -> Callable[[Any], Any] | None:
    return getattr(dataset, "__getitems__", None)


def _at_once(fetcher: Any, indices: Any) -> Any:
    dataset = fetcher.dataset
    if not fetcher.auto_collation:
        return dataset[indices]
    many = _reads_many(dataset)
    return many(indices) if many else [dataset[index] for index in indices]


def _stream_of(fetcher: Any, numbered: Numbered, device: torch.device) -> Stream:
    """Return the stream of an iterable dataset in one pass and one loader process: its items come one after another."""
    if getattr(fetcher, "stream", None) is None:
        info = get_worker_info()
        seed = derive_seed(numbered.seed, "worker", 0 if info is None else info.id)
        fetcher.stream = Stream(seed, device, Source.AUGMENT)
    stream: Stream = fetcher.stream
    return stream
