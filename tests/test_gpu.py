"""What a GPU must do as a CPU does, and what only a GPU can show.

Each test takes the device: the CPU always, so that the test itself is known to work, and a GPU where there is one.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from stabilitykit.execution.executor import InProcess
from stabilitykit.execution.session import Session, measure
from stabilitykit.execution.where import Where
from stabilitykit.protocol import NoiseProtocol
from stabilitykit.store.record import RunRecord
from stabilitykit.store.run_store import RunStore
from stabilitykit.store.shared_epochs import Prefixes
from stabilitykit.training.control import prove_isolation
from stabilitykit.training.corpus import Corpus
from stabilitykit.training.gradient_rounding import _nudge
from stabilitykit.training.images import RandomCropFlip
from stabilitykit.training.language import LanguageRecipe
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import Run
from stabilitykit.training.task import LoopTask, Task
from stabilitykit.training.trainer import Trainer
from stabilitykit.zoo import resnet6
from stabilitykit.zoo.qrnn import QRNN

HAS_GPU = torch.cuda.is_available()
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs a CUDA device")]
SOURCES = ["init", "shuffle", "augment", "stochastic"]

Make = Callable[..., Trainer]


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=ON_GPU)])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def trainer(device: str, tmp_path: Path) -> Make:
    """Make a trainer of a task, or of a `net` with changes, on the device of the test."""

    def make(task: Task | None = None, **changes: object) -> Trainer:
        return Trainer(task or dataclasses.replace(net(), **changes), device, 1, tmp_path)

    return make


def examples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(100, 3, 8, 8, generator=generator), torch.randint(0, 4, (100,), generator=generator)


def body() -> nn.Module:
    layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(576, 4)
    return nn.Sequential(*layers)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def net() -> Recipe:
    """Something to draw from every source, convolutions in `channels_last`, and a last batch that is not full."""
    data = examples()
    return Recipe(
        model=body,
        train=data,
        test=data,
        epochs=3,
        batch_size=32,
        optimizer=sgd,
        augment=RandomCropFlip(1),
        memory_format=torch.channels_last,
    )


def language_model() -> LanguageRecipe:
    text = "the cat sat on the mat\n" * 40
    return LanguageRecipe(
        model=lambda: QRNN(vocabulary=6, embedding=8, hidden=16),
        corpus=Corpus.of_texts(train=text, valid=text, test=text),
        epochs=2,
        batch_size=4,
        segment=20,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0),
    )


def proven(made: Trainer, protocol: NoiseProtocol) -> bool:
    return prove_isolation(InProcess(made).call, made, protocol.plans()[0], epochs=None).proven


def left(record: RunRecord) -> tuple[str, tuple[str, ...], bytes | None]:
    assert record.status == "ok", record.error
    return record.fingerprint, record.trace, None if record.logits is None else record.logits.numpy().tobytes()


# Bits


@pytest.mark.parametrize("source", [*SOURCES, "low_level"])
def test_every_held_source_is_held(trainer: Make, source: str) -> None:
    assert proven(trainer(), NoiseProtocol(source, runs=2))


@pytest.mark.parametrize("source", SOURCES)
def test_one_plan_trains_the_same_bits_twice_and_another_plan_others(trainer: Make, source: str) -> None:
    made, plans = trainer(), NoiseProtocol(source, runs=2).plans()
    first, second = (left(made.train_once(plan)) for plan in plans)
    assert first == left(made.train_once(plans[0]))
    assert first != second


def test_the_papers_network_trains_the_same_bits_twice(trainer: Make) -> None:
    made = trainer(model=functools.partial(resnet6, width=0.5, classes=4))
    plan = NoiseProtocol("init", runs=2).plans()[0]
    assert left(made.train_once(plan)) == left(made.train_once(plan))


@pytest.mark.parametrize("source", ["init", "stochastic"])
def test_a_language_model_is_held_and_trains_the_same_bits_twice(trainer: Make, source: str) -> None:
    made, protocol = trainer(language_model()), NoiseProtocol(source, runs=2)
    assert proven(made, protocol)
    first, second = (left(made.train_once(plan)) for plan in protocol.plans())
    assert first == left(made.train_once(protocol.plans()[0]))
    assert first != second


def test_low_level_varies_by_its_seed_or_is_named_native(trainer: Make, device: str) -> None:
    made = trainer()
    records = [made.train_once(plan) for plan in NoiseProtocol("low_level", runs=2).plans()]
    if device == "cpu":
        assert {record.low_level for record in records} == {"gradient rounding"}
        assert left(records[0]) != left(records[1])
    else:  # kernels may happen to agree, so it is only the name that can be asked for
        assert {record.low_level for record in records} == {"native"}
        assert [record.status for record in records] == ["ok", "ok"]


def test_a_training_is_the_same_one_as_on_a_cpu(trainer: Make, device: str, tmp_path: Path) -> None:
    """The draws are equal, so that rounding alone makes the weights differ: by little beside how far they moved."""
    recipe = dataclasses.replace(net(), model=lambda: nn.Sequential(*(part for part in body() if not _drops(part))))
    plan = NoiseProtocol("init", runs=2).plans()[1]
    recipe = dataclasses.replace(recipe, keep_weights=True, epochs=1)
    here, there = (Trainer(recipe, on, 1, tmp_path).train_once(plan) for on in ("cpu", device))
    still = Trainer(dataclasses.replace(recipe, schedule=lambda *_: 0.0), "cpu", 1, tmp_path).train_once(plan)
    assert here.weights is not None
    assert there.weights is not None
    assert still.weights is not None
    for name in ("0.weight", "4.weight"):
        moved = (here.weights[name] - still.weights[name]).norm()
        assert moved > 0
        assert (here.weights[name] - there.weights[name]).norm() < 0.05 * moved


def _drops(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Dropout)


@pytest.mark.parametrize("late", ["shuffle+augment", "stochastic"])  # what is held goes on, what varies begins anew
@pytest.mark.parametrize("onset", [1, 2])
def test_a_run_that_goes_on_at_the_onset_has_the_bits_of_one_from_the_start(
    trainer: Make, tmp_path: Path, onset: int, late: str
) -> None:
    pytest.importorskip("safetensors", reason="what keeps the state before the onset")
    plans = NoiseProtocol(late, runs=2, onset=onset).plans()
    straight = [left(trainer().train_once(plan)) for plan in plans]
    branching = trainer()
    branching.prefixes = Prefixes(tmp_path / "prefixes", {"task": "toy"})
    assert [left(branching.train_once(plan)) for plan in plans] == straight
    assert branching.prefixes.epochs() == [onset]
    assert [left(branching.train_once(plan)) for plan in plans] == straight
    assert straight[0] != straight[1]


# Data


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("flip", [True, False])
def test_crops_are_those_of_a_loop_over_the_images_on_the_cpu(
    device: str, flip: bool, memory_format: torch.memory_format
) -> None:
    x, change = examples()[0].to(memory_format=memory_format), RandomCropFlip(2, flip)
    draw = torch.Generator().manual_seed(7)
    down, right = torch.randint(0, 5, (2, len(x)), generator=draw).tolist()
    mirrored = torch.rand(len(x), generator=draw) < (0.5 if flip else 0)
    padded = nn.functional.pad(x, [2] * 4)
    expected = torch.stack(
        [image[:, top : top + 8, left : left + 8] for image, top, left in zip(padded, down, right, strict=True)]
    )
    expected = torch.where(mirrored[:, None, None, None], expected.flip(3), expected)
    crops = change(x.to(device), torch.Generator().manual_seed(7))
    assert crops.device == torch.device(device)
    assert torch.equal(crops.cpu(), expected)


def test_batches_have_the_order_and_the_crops_of_the_cpu(device: str) -> None:
    plan = NoiseProtocol("shuffle", runs=2).plans()[1]
    runs = [Run(plan, torch.device(on)) for on in ("cpu", device)]
    here, there = ([*run.batches(examples(), 32, augment=RandomCropFlip(1))] for run in runs)
    for (x, y), (other_x, other_y) in zip(here, there, strict=True):
        assert (other_x.device, other_y.device) == (torch.device(device),) * 2
        assert torch.equal(x, other_x.cpu())
        assert torch.equal(y, other_y.cpu())


class Items(Dataset):  # type: ignore[type-arg]  # of pairs
    def __init__(self) -> None:
        self.x, self.y = examples()

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


@pytest.mark.parametrize("workers", [0, 2])  # which are forks of a process that uses the device
def test_a_dataset_trains_the_bits_of_its_tensors(trainer: Make, workers: int) -> None:
    plan = NoiseProtocol("init", runs=2).plans()[0]
    expected = left(trainer().train_once(plan))
    assert left(trainer(train=Items(), num_workers=workers).train_once(plan)) == expected


def test_a_seed_rounds_the_gradients_of_every_device_alike(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(size, generator=generator, dtype=dtype) for size in (7, 1000) for dtype in DTYPES]
    there = [gradient.to(device, copy=True) for gradient in gradients]
    here = [gradient.clone() for gradient in gradients]
    for rounded in (here, there):
        _nudge(rounded, torch.Generator().manual_seed(1))
    assert all(torch.equal(one, other.cpu()) for one, other in zip(here, there, strict=True))
    assert all((one != before).all() for one, before in zip(here, gradients, strict=True))


DTYPES = torch.float32, torch.float64


# The process


@pytest.mark.parametrize("vary", ["init", "low_level"])
def test_flags_and_generators_are_put_back(trainer: Make, device: str, vary: str) -> None:
    def state() -> list[object]:
        flags = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
        states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device != "cpu" else [])]
        return [flags, torch.get_deterministic_debug_mode(), *(part.tolist() for part in states)]

    made, plan = trainer(), NoiseProtocol(vary, runs=2).plans()[0]
    before = state()
    run = Run(plan, made.device)
    with made.under(run):
        made.task.fit(run)
        is_native = made.low_level(plan) == "native"
        assert torch.are_deterministic_algorithms_enabled() is not is_native
        if device != "cpu":
            assert torch.backends.cudnn.benchmark is is_native
            assert torch.backends.cudnn.deterministic is not is_native
    assert state() == before
    made.train_once(plan)
    assert state() == before


def test_dropout_on_the_device_draws_from_the_stochastic_stream_alone(trainer: Make) -> None:
    drawn: list[list[float]] = []

    def train(run: Run) -> Tensor:
        with run.stream("init"):
            torch.rand(3, device=run.device)
        drawn.append(torch.rand(8, device=run.device).tolist())
        return torch.zeros(4, 2)

    made = trainer(LoopTask(train, torch.arange(4) % 2))
    for source in ("stochastic", "init"):
        for plan in NoiseProtocol(source, runs=2).plans():
            made.train_once(plan)
    assert drawn[0] != drawn[1], "stochastic varies"
    assert drawn[2] == drawn[3], "stochastic is held, whatever init draws"


def test_the_environment_names_the_device(trainer: Make, device: str) -> None:
    environment = trainer().environment
    if device == "cpu":
        assert (environment.device, environment.cuda, environment.cudnn) == ("cpu", None, None)
    else:
        assert environment.device == torch.cuda.get_device_name(device)
        assert environment.cuda
        assert environment.cudnn


# Several processes on one device


def state_of_cuda(trainer: Trainer) -> tuple[bool, bool]:
    return torch.cuda._is_in_bad_fork(), torch.cuda.is_initialized()


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_child_begins_without_cuda_though_its_parent_uses_it(
    trainer: Make, device: str, tmp_path: Path, method: str
) -> None:
    """A fork of a process that has asked for CUDA can never use it: the server must not have asked."""
    pytest.importorskip("cloudpickle", reason="what sends a task to a child")
    from stabilitykit.execution.child_processes import ChildProcesses

    torch.cuda.is_available()
    torch.zeros(1, device=device)
    tasks = RunStore(tmp_path / "store").session_folder / "tasks"
    executor = ChildProcesses(trainer(), tmp_path, tasks, devices=[device], method=method)  # type: ignore[arg-type]  # a literal
    try:
        assert executor.call(state_of_cuda) == (False, False)
    finally:
        executor.close()


@pytest.mark.slow
def test_two_workers_on_one_device_train_the_bits_of_one(device: str, tmp_path: Path) -> None:
    pytest.importorskip("cloudpickle", reason="what sends a task to a child")

    def study(name: str, **how: object) -> list[tuple[object, ...]]:
        session = Session(RunStore(tmp_path / name), tmp_path, Where(device, **how))  # type: ignore[arg-type]  # its fields
        found = measure(net(), NoiseProtocol("init", runs=4), session=session)
        assert found.control.proven
        return [left(record) for record in found.records]

    alone = study("alone")
    assert study("two", isolation="process", workers=2, workers_per_device=2) == alone
    assert len(set(alone)) == 4


# What only a GPU can show


@pytest.mark.parametrize("vary", ["init", "all"])
@pytest.mark.parametrize("augment", [RandomCropFlip(1), None, lambda x: x + torch.randn_like(x)])
@pytest.mark.parametrize("on", [pytest.param("cuda:0", marks=ON_GPU)])
def test_more_steps_wait_no_more_often(tmp_path: Path, on: str, augment: Callable[..., Tensor], vary: str) -> None:
    """`tests/execution/test_waiting.py` shows it on a CPU for the operations that it knows; here torch itself tells."""

    def waits(count: int) -> int:
        x, y = examples()
        recipe = dataclasses.replace(net(), train=(x[:count], y[:count]), batch_size=16, augment=augment)
        trainer, plan = Trainer(recipe, on, 1, tmp_path), NoiseProtocol(vary, runs=2).plans()[1]
        trainer.train_once(plan)  # the first training chooses kernels and fills caches
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                trainer.train_once(plan)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        return sum("called a synchronizing" in str(warning.message) for warning in seen)

    assert waits(32) == waits(96)


class Overlapping(nn.Module):
    """Its gradient is added up in no order: windows of this pooling overlap, and torch has no other kernel for it."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.head = nn.AdaptiveAvgPool2d(3), nn.Linear(144, 4)
        self.convolution = nn.Conv2d(3, 16, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.convolution(x)).flatten(1))
        return logits


@pytest.mark.parametrize("on", [pytest.param("cuda:0", marks=ON_GPU)])
def test_an_operation_without_a_deterministic_kernel_is_named(tmp_path: Path, on: str) -> None:
    trainer = Trainer(dataclasses.replace(net(), model=Overlapping), on, 1, tmp_path)
    with pytest.warns(UserWarning, match="adaptive_avg_pool2d_backward.* does not have a deterministic"):
        trainer.train_once(NoiseProtocol("init", runs=2).plans()[0])


@pytest.mark.parametrize("on", [pytest.param("cuda:0", marks=ON_GPU)])
def test_sums_by_atomics_are_held_in_deterministic_mode(tmp_path: Path, on: str) -> None:
    def train(run: Run) -> Tensor:
        numbers = torch.randn(2**20, device=run.device)
        bins = torch.arange(2**20, device=run.device) % 8
        return torch.zeros(8, device=run.device).index_add(0, bins, numbers).view(4, 2)

    trainer = Trainer(LoopTask(train, torch.arange(4) % 2), on, 1, tmp_path)
    plan = NoiseProtocol("init", runs=2).plans()[0]
    assert len({left(trainer.train_once(plan)) for _ in range(5)}) == 1


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_bare_cuda_in_a_run_is_the_workers_own_gpu(tmp_path: Path) -> None:
    plan = NoiseProtocol("init", runs=2).plans()[0]
    second = Trainer(net(), "cuda:1", 1, tmp_path)
    with second.under(Run(plan, second.device)):
        assert torch.zeros(1, device="cuda").device.index == 1
    assert torch.cuda.current_device() == 0


@pytest.mark.parametrize("on", [pytest.param("cuda:0", marks=ON_GPU)])
def test_no_run_leaves_memory_to_the_next(tmp_path: Path, on: str) -> None:
    trainer = Trainer(net(), on, 1, tmp_path)
    used = []
    for plan in itertools.islice(itertools.cycle(NoiseProtocol("init", runs=2).plans()), 4):
        trainer.train_once(plan)
        used.append(torch.cuda.memory_allocated(on))
    assert used[1] == used[2] == used[3]
