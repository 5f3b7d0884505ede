"""Similarity of the layers of R trained models: CKA of all pairs on the test examples, in bounded memory."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TaskError, check_count
from ..estimates.estimate import Estimate
from ..estimates.intervals import pairwise_estimate
from ..estimates.metrics.representation import FEWEST_EXAMPLES, CkaSum, packed_gram, spread_batches
from ..isolation.streams import Stream
from ..public import public
from ..render.columns import aligned
from ..store.record import RunRecord
from ..training.data import Examples, Layout, examples_of
from ..training.environment import resolve_device
from ..training.recipe import Recipe
from ..training.task import Task
from .layer_choice import choose_layers, watched

#: Examples of a batch; fewer where the Gram matrices of all models and layers would not fit.
_BATCH = 100

#: Bytes of Gram matrices, and of the inputs behind them, that are held at once.
_HELD_BYTES = 256 * 2**20


@public
@dataclass(frozen=True, eq=False, repr=False)
class Similarity:
    """Linear CKA of each layer between all pairs of runs: 1 if both represent examples alike up to rotation and scale.

    >>> of_layer = torch.tensor([[1.0, 0.9, 0.8], [0.9, 1.0, 0.85], [0.8, 0.85, 1.0]], dtype=torch.float64)
    >>> print(Similarity({"conv": of_layer, "logits": of_layer**2}, examples=2000, batch_size=100))
    layer   CKA
    conv    0.85 [0.68, 1.00]
    logits  0.72 [0.44, 1.00]
    mean over 3 pairs of 3 runs on 2000 test examples
    """

    matrices: Mapping[str, Tensor]  #: CKA by layer, in the order in which layers run: float64 ``[R, R]``, symmetric
    examples: int  #: number of test examples, evenly spaced
    batch_size: int  #: size of the largest minibatch that HSIC_1 was averaged over

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order in which they run or were asked for."""
        return tuple(self.matrices)

    @property
    def runs(self) -> int:
        """R, the models that were compared."""
        return len(next(iter(self.matrices.values())))

    def __getitem__(self, layer: str) -> Estimate:
        """Return the mean over pairs of runs, with a jackknife over runs: ``study.cka()["block1"]``."""
        if layer not in self.matrices:
            raise TaskError(f"Expected a layer that was compared but got {layer!r}. They are {', '.join(self.layers)}.")
        return self._estimates[layer]

    def lines(self) -> list[str]:
        """Return a table with one row a layer, and a line on its runs and examples."""
        rows = [("layer", "CKA"), *((layer, str(self[layer])) for layer in self.layers)]
        pairs = self.runs * (self.runs - 1) // 2
        about = f"mean over {pairs} pairs of {self.runs} runs on {self.examples} test examples"
        return [*aligned(rows, "<<"), about]

    def to_json(self) -> dict[str, Any]:
        """Return the object of the report: the estimate of each layer, with R and the number of examples."""
        layers = {layer: self[layer].to_json() for layer in self.layers}
        sizes = {"runs": self.runs, "examples": self.examples, "batch_size": self.batch_size}
        return {"measure": "cka", **sizes, "layers": layers}

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        """Show layers and sizes alone, since test failures show this text."""
        return f"Similarity(layers={', '.join(self.layers)}, runs={self.runs}, examples={self.examples})"

    @cached_property
    def _estimates(self) -> dict[str, Estimate]:
        return {layer: pairwise_estimate(pairs.numpy(), least=-1.0, most=1.0) for layer, pairs in self.matrices.items()}


def similarity_of(
    task: Task | None,
    runs: Sequence[RunRecord],
    layers: Iterable[str] | None = None,
    examples: int = 2000,
    batch_size: int | None = None,
) -> Similarity:
    """Compare the layers of a task's trained runs, whose weights it kept; arguments are those of `compare_layers`.

    The models are in evaluation mode, on the kind of device that trained them, in the recipe's dtype and memory format.

    Raises `TaskError` where weights were not kept, or are only a part of the models that the study is about.
    """
    task = _with_weights(task, runs)
    # Models that were trained on the CPU are compared on it: their user may have chosen it beside a GPU.
    device = torch.device("cpu" if runs[0].environment.get("device") == "cpu" else resolve_device("auto"))
    data = examples_of(task.test, Layout(device, task.dtype, task.memory_format), task.num_workers)

    def build() -> nn.Module:
        with Stream(0, device):
            model = task.model().to(device, task.dtype)
        return model.to(memory_format=task.memory_format) if task.memory_format else model

    states = [run.weights for run in runs if run.weights is not None]
    return compare_layers(build, states, data, device, layers, examples=examples, batch_size=batch_size)


def compare_layers(
    build: Callable[[], nn.Module],
    states: Sequence[Mapping[str, Tensor]],
    data: Examples,
    device: torch.device,
    layers: Iterable[str] | None = None,
    *,
    examples: int = 2000,
    batch_size: int | None = None,
) -> Similarity:
    """Return the CKA of each layer between R models, given how to build one, their R state dicts, and inputs.

    ``layers`` and their errors are those of `choose_layers`. ``examples`` inputs are taken, evenly spaced, or all where
    there are fewer. A ``batch_size`` of n takes 4 R n² bytes a layer: by default it is 100, or as many as fit.

    A model is held for each thread that torch uses here, and at most 256 MiB of Gram matrices and inputs, whatever R.
    Each thread computes whole models by itself, so the bits do not depend on the number of threads.
    """
    _check_counts(len(data), examples, batch_size)
    models = [build().eval()]
    (few, _), *_ = data.batches([torch.arange(3)], item_seed=0)
    with Stream(0, device), _one_thread():
        before = torch.get_rng_state()
        names = choose_layers(models[0], few, layers)
        draws = not torch.equal(before, torch.get_rng_state())
    # The generators belong to the process: models that draw from them must run one after the other.
    alone = draws or device.type != "cpu"
    models += [build().eval() for _ in range(0 if alone else min(torch.get_num_threads(), len(states)) - 1)]
    size = batch_size or _fitting_batch(len(states) * len(names))
    batches = spread_batches(len(data), size, examples)
    sums = {name: CkaSum(len(states)) for name in names}
    per_pass = max(1, _HELD_BYTES // (_gram_bytes(size, len(states) * len(names)) + size * few[0].nbytes))
    with _one_thread():
        for start in range(0, len(batches), per_pass):
            inputs = [x for x, _ in data.batches(batches[start : start + per_pass], item_seed=0)]
            for name, grams in _grams(models, states, inputs, names, device).items():
                for x, of_batch in zip(inputs, grams, strict=True):
                    sums[name].add(of_batch, len(x))
    matrices = {name: total.matrix() for name, total in sums.items()}
    return Similarity(matrices, sum(map(len, batches)), max(map(len, batches)))


def _grams(
    models: Sequence[nn.Module],
    states: Sequence[Mapping[str, Tensor]],
    inputs: Sequence[Tensor],
    names: Sequence[str],
    device: torch.device,
) -> dict[str, list[Tensor]]:
    """By layer, the packed Gram matrices of all models for each batch of inputs, ``[R, n (n - 1) / 2]``."""
    grams = {
        name: [torch.empty(len(states), len(x) * (len(x) - 1) // 2, dtype=torch.float64) for x in inputs]
        for name in names
    }
    idle: queue.SimpleQueue[nn.Module] = queue.SimpleQueue()
    for model in models:
        idle.put(model)

    def look(run: int) -> None:
        model = idle.get()
        try:
            model.load_state_dict(dict(states[run]))
            for batch, x in enumerate(inputs):

                def keep(name: str, output: Tensor, batch: int = batch) -> None:
                    grams[name][batch][run] = packed_gram(output)

                with torch.no_grad(), watched(model, names, keep), _stream(device, alone=len(models) == 1):
                    model(x)
        finally:
            idle.put(model)  # after an error too: another thread may wait for a model

    # Both settings are a thread's own: gradients, and the threads that it may start.
    with ThreadPoolExecutor(len(models), "cka", torch.set_num_threads, (1,)) as pool:
        try:
            for _ in pool.map(look, range(len(states))):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return grams


def _stream(device: torch.device, *, alone: bool) -> contextlib.AbstractContextManager[object]:
    """The same draws for every model and batch; models that run at once draw nothing."""
    return Stream(0, device) if alone else contextlib.nullcontext()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread, since sums in several threads depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gram_bytes(batch_size: int, layers: int) -> int:
    return layers * batch_size * (batch_size - 1) // 2 * 8


def _fitting_batch(layers: int) -> int:
    """The largest batch, up to the usual one, whose Gram matrices, ``layers`` over all models, can be held."""
    return next(
        (size for size in range(_BATCH, FEWEST_EXAMPLES, -1) if _gram_bytes(size, layers) <= _HELD_BYTES),
        FEWEST_EXAMPLES,
    )


def _check_counts(available: int, examples: object, batch_size: object) -> None:
    for name, value in (("examples", examples), ("batch_size", FEWEST_EXAMPLES if batch_size is None else batch_size)):
        check_count(TaskError, name, value, FEWEST_EXAMPLES, "CKA without bias needs four examples.")
    if available < FEWEST_EXAMPLES:
        raise TaskError(
            f"Expected {FEWEST_EXAMPLES} test examples or more but there are {available}: CKA without bias needs four."
        )


def _with_weights(task: Task | None, runs: Sequence[RunRecord]) -> Recipe:
    """Return the recipe behind the weights; raise `TaskError` where a run has none, or only a part."""
    if task is None:
        raise TaskError(
            "Expected a study of trained models, to compare their layers, but its records are ensembles or made up: "
            "they have no weights. Ask the study that measure(Recipe(..., keep_weights=True), ...) returned."
        )
    if not isinstance(task, Recipe):
        raise TaskError(
            f"Expected a study of a Recipe, to compare the layers of its models, but {task.name} is a "
            f"{type(task).__name__}. Layers are compared on the test examples of a Recipe(..., keep_weights=True), "
            f"which says how to build its model; a text has no examples."
        )
    if task.snapshots:
        raise TaskError(
            f"Expected runs of one model each, to compare their layers, but those of {task.name!r} are ensembles of "
            f"{task.snapshots} snapshots, and only the last one's weights are kept. Ask a study of the recipe without "
            f"with_snapshots(), and with keep_weights=True."
        )
    missing = [run.index for run in runs if run.weights is None]
    if missing:
        raise TaskError(
            f"Expected the weights of all runs of {task.name!r}, to compare their layers, but those of run "
            f"{', '.join(map(str, missing))} were not kept. Train it as Recipe(..., keep_weights=True)."
        )
    return task
