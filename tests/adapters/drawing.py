"""Training code that draws from every source and notes what it drew, for tests of frameworks."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from stabilitykit.execution.executor import InProcess
from stabilitykit.isolation.streams import seed_generators
from stabilitykit.protocol import NoiseProtocol, Source
from stabilitykit.store.record import RunRecord
from stabilitykit.training.control import Control, prove_isolation
from stabilitykit.training.task import Task
from stabilitykit.training.trainer import Trainer
from tests.seeds import BASE_SEED

N = 16
SOURCES = ("init", "shuffle", "augment", "stochastic")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "frameworks.md"

#: What the present training has drawn, by source: emptied by `drawn`. Framework code copies what it is given.
SEEN: dict[str, Any] = {}


class Noisy(Dataset[Any]):
    """Examples that know their index, with noise of all three global generators, as an augmentation has it."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()]), int(index) % 2


class Plain(Noisy):
    """The same examples for a test set: without noise."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.tensor([index, 0.1, 0.2, 0.3]), int(index) % 2


class Net(nn.Module):
    """A layer with dropout that notes its first weights, and the batches and masks that it meets in training."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        SEEN["init"].append(self.layer.weight.tolist())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            SEEN["shuffle"].append([int(i) for i in x[:, 0]])
            SEEN["augment"].append({int(row[0]): row[1:] for row in x.tolist()})
        y = nn.functional.dropout(torch.ones_like(x), 0.5, self.training)
        if self.training:
            SEEN["stochastic"].append([y.tolist(), random.random(), np.random.rand()])
        return self.layer(x / N * y)


def plan(moved: str | None = None, **options: Any) -> Any:
    protocol = NoiseProtocol("none", runs=2, seed=BASE_SEED, **options)
    return protocol.plans()[0] if moved is None else protocol.moving_only(Source(moved))


def trained(task: Task, folder: Path, which: Any = None, outside: int = 1) -> RunRecord:
    """Train one run in a process whose generators stand anywhere; it must leave outputs."""
    SEEN.clear()
    SEEN.update({source: [] for source in SOURCES})
    seed_generators(outside, torch.device("cpu"))
    record = Trainer(task, "cpu", 1, folder).train_once(plan() if which is None else which)
    assert record.status == "ok", record.error
    return record


def check_orders_differ_from_the_onset(task: Callable[[], Task], tmp_path: Path) -> None:
    """Train two runs whose order varies from the second epoch on: four batches an epoch."""
    orders = []
    for which in NoiseProtocol("shuffle", runs=2, seed=BASE_SEED, onset=1).plans():
        trained(task(), tmp_path, which)
        orders.append(SEEN["shuffle"])
    assert orders[0][:4] == orders[1][:4]
    assert orders[0][4:] != orders[1][4:]


def drawn(task: Task, folder: Path, moved: str | None = None, outside: int = 1) -> dict[str, Any]:
    """Train one run and return what it drew by source: of items what each one was in each pass, in whatever order."""
    record = trained(task, folder, plan(moved), outside)
    passes: list[dict[int, Any]] = []
    for batch in SEEN["augment"]:
        if not passes or passes[-1].keys() & batch.keys():
            passes.append({})
        passes[-1].update(batch)
    assert len(passes) == 2, "two epochs, each of which reads every example once"
    assert record.logits is not None
    return {**SEEN, "augment": passes, "outputs": record.logits.tolist()}


def row(framework: str, workers: int, make: Callable[[], Task], folder: Path) -> str:
    """Return the row of docs/frameworks.md that a framework earns: what moves with each source, and from outside."""
    base = drawn(make(), folder)
    assert all(base[source] for source in SOURCES)
    cells = [_cell(source, different(base, drawn(make(), folder, source))) for source in SOURCES]
    outside = different(base, drawn(make(), folder, outside=2))
    return f"| {framework} | {workers} | {' | '.join(cells)} | {', '.join(sorted(outside)) or 'nothing'} |"


def different(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {source for source in (*SOURCES, "outputs") if one[source] != other[source]}


def _cell(source: str, moved: set[str]) -> str:
    if "outputs" not in moved:
        return "not the outputs"
    others = sorted(moved - {source, "outputs"})
    return ("it" if source in moved else "not it") + "".join(f" and {other}" for other in others)


def proof(task: Task, folder: Path, epochs: int | None = None, outside: int = 7) -> Control:
    """Train one plan twice, the second time in a process whose generators stand elsewhere; raises if bits differ."""
    SEEN.update({source: [] for source in SOURCES})
    seed_generators(outside, torch.device("cpu"))
    trainer = Trainer(task, "cpu", 1, folder)
    return prove_isolation(InProcess(trainer).call, trainer, plan(), epochs)
