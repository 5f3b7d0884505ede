"""What the interception costs a plain loop over a DataLoader, and a loop that does not need it.

Run it on a quiet machine: ``python benchmarks/interception.py``. Each figure is the median ratio over pairs of passes
that ran in turn, with the interception and without, in processor time of this process.
"""

from __future__ import annotations

import contextlib
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from stabilitykit import NoiseProtocol, Run

ROUNDS = 41
N, FEATURES, BATCH = 6400, 64, 64
X, Y = torch.randn(N, FEATURES), torch.randint(10, (N,))


class Rows(Dataset[Any]):
    """Items of python: a row each, with noise of as many numbers if it ``draws``."""

    def __init__(self, *, draws: bool = False) -> None:
        self.draws = draws

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return X[index] + torch.randn(FEATURES) if self.draws else X[index], Y[index]


class Batches(Rows):
    """Rows that are asked for a batch at once."""

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(X[indices], Y[indices], strict=True))


def steps(batches: Iterable[Any]) -> None:
    """One pass of a small network, as a plain loop makes it."""
    model = nn.Sequential(nn.Linear(FEATURES, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for x, y in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def compare(name: str, one_pass: Callable[[Run], object]) -> None:
    run = Run(NoiseProtocol("init", runs=2).plans()[0], torch.device("cpu"))

    def seconds(*, intercepts: bool) -> float:
        with run.interception.on() if intercepts else contextlib.nullcontext():
            start = time.process_time()
            one_pass(run)
            return time.process_time() - start

    pairs = []
    for place in range(ROUNDS):
        first = bool(place % 2)
        times = {first: seconds(intercepts=first), (not first): seconds(intercepts=not first)}
        pairs.append((times[True], times[False]))
    ratio = statistics.median(one / other for one, other in pairs)
    plain = 1e6 * statistics.median(other for _, other in pairs) / (N / BATCH)
    print(f"{name:<52} {plain:7.0f} us a step plain, {100 * (ratio - 1):+6.1f} %")


def main() -> None:
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {platform.system()}, torch {torch.__version__}; batches of {BATCH}, one thread")

    def loop(data: Dataset[Any], **options: Any) -> Callable[[Run], None]:
        loader = DataLoader(data, batch_size=BATCH, shuffle=True, **options)
        return lambda run: steps(loader)

    compare("TensorDataset", loop(TensorDataset(X, Y)))
    compare("items of python that draw nothing", loop(Rows()))
    compare("batches of python that draw nothing", loop(Batches()))
    compare("items of python that draw", loop(Rows(draws=True)))
    compare("run.batches", lambda run: steps(run.batches((X, Y), BATCH)))


if __name__ == "__main__":
    main()
