"""One training as the code that trains sees it: isolated streams, batches and epochs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from .data import Batch, Data, Examples, Layout, check_data, examples_of, split_indices, takes_generator
from .errors import TaskError
from .fingerprint import tensor_digest
from .perturb import PerturbationRecord, perturb_model
from .protocol import RunPlan, derive_seed
from .seeding import Stream
from .sources import Source, parse_sources

#: Epochs whose weights are hashed in every run, and trained twice by the control.
TRACED_EPOCHS = 2

#: Hash of each tensor of a model's state, by name.
StateDigest = dict[str, str]


class Run:
    """What a train function of your own draws everything random from.

    ::

        def train(run):
            with run.stream("init"):
                model = Net().to(run.device)
            run.perturb(model)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for epoch in run.epochs(10):
                for x, y in run.batches((inputs, labels), batch_size=128):
                    optimizer.zero_grad()
                    cross_entropy(model(x), y).backward()
                    optimizer.step()
            return model.eval()(test_inputs)

    Outside every ``with run.stream(...)`` the code runs in the stream ``stochastic``, so dropout needs nothing. In such
    a block do not go on to another epoch.
    """

    def __init__(self, plan: RunPlan, device: torch.device, *, stop_after: int | None = None) -> None:
        self.plan = plan
        self.device = device
        self.model: nn.Module | None = None  #: as given to `perturb`
        self.perturbation: PerturbationRecord | None = None
        self.trace: list[StateDigest] = []  #: of the model after each of the first epochs
        self.curve: list[dict[str, float]] = []  #: test metrics after each epoch, where the task was asked for them
        self.trained_epochs = 0  #: taken from `epochs`; 0 in a training that cannot be stopped after its first
        self._stop_after = stop_after
        seeds = {source: plan.seed(source) for source in Source if source is not Source.LOW_LEVEL}
        self._streams = {source: Stream(seed or 0, device) for source, seed in seeds.items()}
        self._shuffle = torch.Generator().manual_seed(plan.shuffle)
        self._augment = torch.Generator().manual_seed(plan.augment)
        self._passes = 0

    @property
    def index(self) -> int:
        """Position of this run in its study, from 0."""
        return self.plan.index

    @property
    def seeds(self) -> dict[str, int | None]:
        """The seed of every source, by name."""
        return self.plan.seeds

    def stream(self, source: str | Source) -> AbstractContextManager[Stream]:
        """Return the generators of one source as a block: python's, numpy's, torch's, and CUDA's on a GPU.

        It goes on where the last block of that source left off. ``low_level`` has no generators to enter.
        """
        sources = parse_sources(source)
        if len(sources) != 1:
            raise TaskError(f"Expected run.stream(source) to name one source but got {source!r}; nest two blocks.")
        (source,) = sources
        if source is Source.LOW_LEVEL:
            raise TaskError("Expected a source with generators, but 'low_level' acts inside the kernels of every step.")
        return self._streams[source]

    def perturb(self, model: nn.Module) -> nn.Module:
        """Take note of the model that is trained, move its weight where the plan asks for it, and return it.

        Call it once, when the model is complete and on its device: the control and the fingerprint read this model.
        """
        if self.model is not None:
            raise TaskError("Expected run.perturb(model) once a run but it was called again; it names the one model.")
        self.model = model
        if self.plan.perturbation is not None:
            seed = self.plan.perturbation_seed or 0
            self.perturbation = perturb_model(model, self.plan.perturbation, seed, self.plan.index)
        return model

    def final_digest(self) -> str:
        """Return the sha256 of the model's state now."""
        if self.model is None:
            raise TaskError("Expected run.perturb(model) before the state of the model is asked for.")
        return combined_digest(state_digest(self.model))

    def epochs(self, count: int) -> Iterator[int]:
        """Yield 0 to ``count`` - 1; the control stops here after the first epochs."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise TaskError(f"Expected run.epochs(count) with count >= 1 but got {count!r}.")
        for epoch in range(count if self._stop_after is None else min(count, self._stop_after)):
            yield epoch
            self.trained_epochs += 1
            if epoch < TRACED_EPOCHS and self.model is not None:
                self.trace.append(state_digest(self.model))

    def batches(
        self,
        data: Data | Examples,
        batch_size: int,
        *,
        augment: Callable[..., Tensor] | None = None,
        drop_last: bool = False,
        num_workers: int = 0,
    ) -> Iterator[Batch]:
        """Yield one pass over ``data`` in the order of the shuffle stream, on the run's device.

        A Dataset's own random draws, and ``augment`` on each batch of inputs, come from the augment stream. A Dataset's
        item depends on the seed, the pass and the item alone: the same for any ``num_workers``.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise TaskError(f"Expected batch_size >= 1 but got {batch_size!r}.")
        if not isinstance(data, Examples):
            check_data("data", data)
            data = examples_of(data, Layout(self.device), num_workers)
        order = torch.randperm(len(data), generator=self._shuffle)
        item_seed = derive_seed(self.plan.augment, self._passes)
        self._passes += 1
        change = self._under_stream(augment) if augment is not None else lambda x: x
        for x, y in data.batches(split_indices(order, batch_size, drop_last=drop_last), item_seed):
            yield change(x), y

    def _under_stream(self, augment: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        if takes_generator(augment):
            return functools.partial(augment, generator=self._augment)

        def swapped(x: Tensor) -> Tensor:
            with self._streams[Source.AUGMENT]:
                return augment(x)

        return swapped


def state_digest(model: nn.Module) -> StateDigest:
    """Return the hash of each tensor in the model's state dict, by name."""
    return {
        name: tensor_digest(value).hex()
        for name, value in model.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }


def combined_digest(digest: StateDigest) -> str:
    """Return one sha256 over the names and hashes of a whole state.

    >>> combined_digest({"weight": "00"}) != combined_digest({"bias": "00"})
    True
    """
    lines = (f"{name} {content}\n" for name, content in digest.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()
