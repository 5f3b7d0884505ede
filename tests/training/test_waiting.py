"""No step of a training waits for its device: shown on a CPU, where the device `meta` plays the GPU.

`meta` has shapes and no numbers, so whatever asks for a number, or copies it, can be seen, answered and counted.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from stabilitykit.protocol import NoiseProtocol
from stabilitykit.training.corpus import Corpus
from stabilitykit.training.data import DatasetExamples, Layout
from stabilitykit.training.images import RandomCropFlip
from stabilitykit.training.language import LanguageRecipe
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.run import Run
from stabilitykit.training.task import Task, as_task
from stabilitykit.training.trainer import Trainer
from stabilitykit.zoo import cifar10
from stabilitykit.zoo.qrnn import QRNN

GPU = torch.device("meta")
BATCH = 8


class Watch(TorchDispatchMode):
    """Counts what a CPU would wait for a GPU for, and answers it; and what it sends without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.sent = 0  #: copies out of pinned memory, which are no wait
        self._pinned: list[Tensor] = []  #: kept, so that no other tensor gets the id of one

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = op.name().partition("::")[2].partition(".")[0]
        if name == "is_pinned":
            return any(tensor is args[0] for tensor in self._pinned)
        if name == "_pin_memory":
            self._pinned.append(args[0].clone())
            return self._pinned[-1]
        if name == "_local_scalar_dense" and args[0].device == GPU:
            self.waits["item"] += 1
            return True if args[0].dtype is torch.bool else 1
        if name in ("_to_copy", "copy_"):
            to = args[0].device if name == "copy_" else kwargs.get("device", args[0].device)
            source = args[1] if name == "copy_" else args[0]
            if to != source.device:
                return self._copied(op, name, source, args, kwargs)
        else:
            self._check_together(name, args)
        return op(*args, **kwargs)

    def _copied(self, op: Any, name: str, source: Tensor, args: Any, kwargs: Any) -> Tensor:
        is_asynchronous = kwargs.get("non_blocking", False)
        if source.device == GPU:
            self.waits["fetch"] += not is_asynchronous
            zeros = torch.zeros(source.shape, dtype=kwargs.get("dtype") or source.dtype)
            return args[0].copy_(zeros) if name == "copy_" else zeros
        if is_asynchronous and any(tensor is source for tensor in self._pinned):
            self.sent += 1
        else:
            self.waits["send"] += 1
        return op(*args, **kwargs)

    def _check_together(self, name: str, args: Any) -> None:
        """Refuse what a GPU would: operands on both sides."""
        flat, _ = torch.utils._pytree.tree_flatten(args)
        places = {arg.device for arg in flat if isinstance(arg, Tensor) and arg.dim()}
        assert len(places) < 2, f"{name} has operands on {places}"


def watch(task: Task, vary: str = "none") -> Watch:
    """Train a task on the device that plays the GPU."""
    trainer = Trainer(task, str(GPU), 1, Path.cwd())
    run = Run(NoiseProtocol(vary, runs=2).plans()[1], GPU)
    with trainer.under(run), Watch() as seen:
        task.fit(run)
    return seen


def images(count: int) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 8, 8), torch.arange(count) % 10


def small_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def recipe_of(steps: int, **options: Any) -> Recipe:
    defaults: dict[str, Any] = {"epochs": 2, "warmup_epochs": 0.5, "batch_size": BATCH, "augment": RandomCropFlip(1)}
    return cifar10(small_net, images(BATCH * steps), images(4 * BATCH), **(defaults | options))


def with_adam(steps: int) -> Recipe:
    return dataclasses.replace(recipe_of(steps), optimizer=lambda model: torch.optim.AdamW(model.parameters()))


def loop_of(steps: int) -> Task:
    x, y = images(BATCH * steps)

    def train(run):
        with run.stream("init"):
            model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10)).to(run.device)
        optimizer = torch.optim.SGD(run.perturb(model).parameters(), lr=0.1)
        for _ in run.epochs(2):
            for inputs, labels in run.batches((x, y), BATCH, augment=lambda x: x + torch.randn_like(x)):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
        return model(x.to(run.device))

    return as_task(train, y)


def language_model(steps: int) -> Task:
    text = "the cat sat on the mat\n" * 8 * steps
    corpus = Corpus.of_texts(train=text, valid="the cat", test="the cat sat on the mat\n" * 4)
    return LanguageRecipe(
        model=lambda: QRNN(vocabulary=6, embedding=4, hidden=8, layers=1),
        corpus=corpus,
        epochs=2,
        batch_size=4,
        segment=7,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=1.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("vary", ["none", "all"])  # all: gradients are rounded by draws of the CPU
@pytest.mark.parametrize(
    "task_of",
    [
        pytest.param(recipe_of, id="crops"),
        pytest.param(functools.partial(recipe_of, augment=None, drop_last=True), id="plain"),
        pytest.param(functools.partial(recipe_of, augment=lambda x: x + torch.rand_like(x)), id="drawn on the device"),
        pytest.param(functools.partial(recipe_of, curve=True), id="curve"),
        pytest.param(with_adam, id="adam"),
        pytest.param(loop_of, id="own loop"),
        pytest.param(language_model, id="language"),
    ],
)
def test_more_steps_wait_no_more_often(task_of: Callable[[int], Task], vary: str) -> None:
    few, many = watch(task_of(2), vary), watch(task_of(4), vary)
    assert few.waits == many.waits
    assert few.waits  # the end of an epoch looks at the loss, so that the watch has something to see


def test_a_step_sends_its_crops_and_its_coins_and_nothing_else() -> None:
    def sent(vary: str, **options: Any) -> int:
        return watch(recipe_of(4, **options), vary).sent - watch(recipe_of(2, **options), vary).sent

    more = 2 * 2  # steps in each of two epochs
    assert sent("none", augment=None) == 0
    assert sent("none", augment=RandomCropFlip(1, flip=False)) == more
    assert sent("none") == 2 * more
    assert sent("low_level") == 3 * more


def test_scoring_waits_once_however_many_batches_it_has() -> None:
    ways = [recipe_of(3, eval_batch_size=size) for size in (4 * BATCH, 2)]
    assert watch(ways[0]).waits == watch(ways[1]).waits


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "item": lambda loss: loss * (1 if loss.item() else 2),
    "branch": lambda loss: loss if loss > 0 else -loss,
    "fetch": lambda loss: loss + 0 * loss.detach().cpu().to(loss.device),
    "send": lambda loss: loss * torch.ones(()).to(loss.device),
    "tolist": lambda loss: loss * (1 + len(loss.detach()[None].tolist())),
    "assigned": lambda loss: loss * (torch.zeros(1).copy_(loss.detach()[None]).numel()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_waits_is_seen(fault: str) -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return FAULTS[fault](nn.functional.cross_entropy(logits, labels))

    assert watch(recipe_of(1, loss=loss)).waits != watch(recipe_of(2, loss=loss)).waits


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (lambda x: x + 0 * x[x > 0].sum(), NotImplementedError),  # as many as there are: a GPU must be asked
        (lambda x: x.index_select(0, torch.arange(len(x))), AssertionError),  # indices that are not where x is
    ],
)
def test_what_a_gpu_would_refuse_or_be_asked_for_is_an_error(fault: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        watch(recipe_of(3, augment=fault))


def test_a_batch_in_pinned_memory_is_sent_without_waiting_and_a_copy_to_the_cpu_waits() -> None:
    x, y = images(4)
    with Watch() as seen:
        Layout(GPU, torch.float64).inputs(x.pin_memory())
        Layout(GPU).labels(y.pin_memory())
    assert (seen.sent, sum(seen.waits.values())) == (2, 0)
    with Watch() as seen:
        Layout(GPU).inputs(x)
        Layout(GPU).labels(y)
    assert (seen.sent, seen.waits) == (0, {"send": 2})
    with Watch() as seen:
        Layout(torch.device("cpu")).inputs(x.to(GPU).pin_memory())
    assert seen.waits == {"send": 1, "fetch": 1}


def test_a_loader_pins_its_batches_for_a_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    pins: list[bool] = []

    def loader(*args: object, pin_memory: bool, **options: object) -> list[object]:
        pins.append(pin_memory)
        return []

    monkeypatch.setattr("stabilitykit.training.data.OwnLoader", loader)
    for device in ("cpu", "cuda:0"):
        list(DatasetExamples([(1.0, 2)], Layout(torch.device(device))).batches([torch.tensor([0])], item_seed=0))
    assert pins == [False, True]
