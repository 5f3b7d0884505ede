"""Training and test examples in batches, whole tensors or any map-style Dataset, under the streams of one run."""

from __future__ import annotations

import inspect
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ..errors import TaskError
from ..isolation.loaders import OwnLoader
from ..isolation.streams import Stream
from ..protocol import Source, derive_seed

Batch: TypeAlias = tuple[Tensor, Tensor]
#: Inputs and labels with one row an example, or a map-style Dataset of such pairs.
Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any]"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor on the CPU to ``device``, without waiting for the device's earlier work.

    Only pinned memory can be copied in order with that work; a plain ``.to(device)`` returns after all of it.
    """
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def fetched(parts: Iterable[Tensor], device: torch.device) -> Tensor:
    """Join parts that ``device`` computes into one tensor on the CPU, waiting once, after the last part."""
    copies = [part.to("cpu", non_blocking=True) for part in parts]  # into pinned memory; no copy if they are on the CPU
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
    return torch.cat(copies)


@dataclass(frozen=True)
class Layout:
    """Device, dtype and memory format of tensors in training."""

    device: torch.device
    dtype: torch.dtype | None = None  #: of floating-point inputs; None changes none
    memory_format: torch.memory_format | None = None  #: of 4-D inputs; None changes none

    def inputs(self, x: Tensor) -> Tensor:
        """Move inputs here; from pinned memory without waiting for the device."""
        x = x.to(self.device, self.dtype if x.is_floating_point() else None, non_blocking=self._need_not_wait(x))
        return x.contiguous(memory_format=self.memory_format) if self.memory_format and x.dim() == 4 else x

    def labels(self, y: Tensor) -> Tensor:
        """Move labels here, as `inputs` does."""
        return y.to(self.device, non_blocking=self._need_not_wait(y))

    def _need_not_wait(self, tensor: Tensor) -> bool:
        # A copy to the CPU could be read before it has arrived.
        return self.device.type != "cpu" and tensor.is_pinned()


class Examples(ABC):
    """Examples that can be drawn in a given order."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def batches(self, batches: Sequence[Tensor], item_seed: int) -> Iterator[Batch]:
        """Yield the examples that each index tensor names, on the device.

        ``item_seed`` and the index of an item seed the random draws of a Dataset for that item, so that the bits depend
        neither on the order nor on the number of loader processes.
        """


class TensorExamples(Examples):
    """Examples held in memory; a batch is one gather."""

    def __init__(self, x: Tensor, y: Tensor, layout: Layout) -> None:
        self.x, self.y = layout.inputs(x), layout.labels(y)
        # index_select would return a channels_last tensor in the default layout; its NHWC view keeps the layout.
        self._channels_last = layout.memory_format is torch.channels_last and x.dim() == 4
        self._rows = self.x.permute(0, 2, 3, 1) if self._channels_last else self.x

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, batches: Sequence[Tensor], item_seed: int) -> Iterator[Batch]:
        if not batches:
            return
        # The whole order at once: one copy a batch would be one wait a batch.
        order = sent(torch.cat([*batches]), self.x.device)
        for indices in torch.split(order, [len(indices) for indices in batches]):
            x = self._rows.index_select(0, indices)
            yield x.permute(0, 3, 1, 2) if self._channels_last else x, self.y.index_select(0, indices)


class DatasetExamples(Examples):
    """Examples that a Dataset makes one by one, in this process or in loader processes."""

    def __init__(self, dataset: Dataset[Any], layout: Layout, num_workers: int = 0) -> None:
        self.dataset, self.layout, self.num_workers = dataset, layout, num_workers

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]  # checked by `check_data`

    def batches(self, batches: Sequence[Tensor], item_seed: int) -> Iterator[Batch]:
        loader = OwnLoader(
            SeededItems(self.dataset, item_seed),
            batch_sampler=[indices.tolist() for indices in batches],
            num_workers=self.num_workers,
            generator=torch.Generator(),  # else the loader would draw from the run's own stream
            pin_memory=self.layout.device.type == "cuda",  # so that a batch is copied while the one before trains
        )
        for batch in loader:
            if not isinstance(batch, (tuple, list)) or [isinstance(part, Tensor) for part in batch] != [True, True]:
                raise TaskError(
                    f"Expected every item of {type(self.dataset).__name__} to be (input, label), numbers or arrays of "
                    f"one shape, but a batch of them is {_kinds(batch)}. Wrap it in a Dataset that returns such pairs, "
                    f"or write train(run), whose loop is your own."
                )
            x, y = batch
            yield self.layout.inputs(x), self.layout.labels(y)


class FirstAndLast(Examples):
    """The first batch of a pass, and the last one if it has another size."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def batches(self, batches: Sequence[Tensor], item_seed: int) -> Iterator[Batch]:
        last = [batch for batch in batches[1:][-1:] if len(batch) != len(batches[0])]
        return self.examples.batches([*batches[:1], *last], item_seed)


class SeededItems(Dataset[Any]):
    """The items of a Dataset, each read under a seed of its own."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, index: int) -> Any:
        with Stream(derive_seed(self.seed, index), source=Source.AUGMENT):
            return self.dataset[index]

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the Dataset by value where its class has no name by which a loader process could import it."""
        kind = type(self.dataset)
        if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind:
            return SeededItems, (self.dataset, self.seed)
        import cloudpickle

        return _unpacked_items, (cloudpickle.dumps(self.dataset), self.seed)


def _unpacked_items(dataset: bytes, seed: int) -> SeededItems:
    return SeededItems(pickle.loads(dataset), seed)


#: Converted examples of one run, with the tensors that they came from, so that their ids stay taken.
Converted: TypeAlias = "dict[tuple[object, ...], tuple[Tensor, Tensor, TensorExamples]]"


def examples_of(data: Data, layout: Layout, num_workers: int = 0, converted: Converted | None = None) -> Examples:
    """Return ``data`` ready to be drawn from; with ``converted``, the passes of one run share one conversion.

    A change in place between two passes is noticed by torch's count of versions. Memory that is not torch's own is
    converted each time.
    """
    if not isinstance(data, tuple):
        return DatasetExamples(data, layout, num_workers)
    x, y = data
    # Memory that is not torch's own, such as an array's, may change without a new version.
    if converted is None or x.is_inference() or y.is_inference() or not (_is_own(x) and _is_own(y)):
        return TensorExamples(x, y, layout)
    key = (id(x), id(y), x._version, y._version, layout)
    if key not in converted:
        converted[key] = x, y, TensorExamples(x, y, layout)
    return converted[key][2]


def _is_own(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and tensor.untyped_storage().resizable()


def _kinds(batch: object) -> str:
    parts = f" of {', '.join(type(part).__name__ for part in batch)}" if isinstance(batch, (tuple, list)) else ""
    return f"a {type(batch).__name__}{parts}"


def split_indices(order: Tensor, batch_size: int, *, drop_last: bool = False) -> list[Tensor]:
    """Cut an order of examples into batches.

    >>> [batch.tolist() for batch in split_indices(torch.tensor([2, 0, 1]), 2)]
    [[2, 0], [1]]
    """
    batches = list(torch.split(order, batch_size))
    return batches[:-1] if drop_last and len(batches[-1]) < batch_size else batches


def check_data(name: str, data: object) -> None:
    """Raise `TaskError` unless ``data`` is a pair of tensors of one length or a sized map-style Dataset."""
    if isinstance(data, tuple):
        if len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
            got = ", ".join(type(part).__name__ for part in data)
            raise TaskError(f"Expected {name}= to be (inputs, labels), two tensors, or a Dataset but got ({got}).")
        if len(data[0]) != len(data[1]) or len(data[0]) == 0:
            raise TaskError(
                f"Expected one label an example in {name}= but got {len(data[0])} inputs and {len(data[1])} labels."
            )
    elif isinstance(data, (Tensor, IterableDataset, Mapping)) or not _has_items(data) or not hasattr(data, "__len__"):
        raise TaskError(
            f"Expected {name}= to be (inputs, labels) or a map-style Dataset, with a length and items by index, but "
            f"got {type(data).__name__}. {_mend(data)}"
        )
    elif len(data) == 0:
        raise TaskError(f"Expected {name}= to hold examples but its length is 0.")


def _mend(data: object) -> str:
    if isinstance(data, DataLoader):
        return "Give what it loads, loader.dataset, and its batch_size."
    if isinstance(data, Mapping):
        return "Give a Dataset whose items are dicts of one example, or (inputs, labels)."
    return "An iterable dataset has no order that could be held or varied: write train(run), whose loop is your own."


def _has_items(data: object) -> bool:
    own = getattr(type(data), "__getitem__", None)
    return own is not None and own is not Dataset.__getitem__  # that of the base class raises


class Augment(ABC):
    """A random change to a batch of inputs; any function of a batch will do in its place.

    A function with a parameter ``generator`` is given that of the augmentation stream. Any other one draws from the
    global generators, which are swapped for those of the stream while it runs.
    """

    @abstractmethod
    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the changed batch, of any shape that the model takes."""


def takes_generator(augment: Callable[..., Tensor]) -> bool:
    """Whether ``augment`` has a parameter ``generator``."""
    try:
        return "generator" in inspect.signature(augment).parameters
    except ValueError:  # a builtin without a signature
        return False
