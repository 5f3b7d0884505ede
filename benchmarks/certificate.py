"""What the certificate costs: epochs trained and seconds for the studies of the README's example.

    python benchmarks/certificate.py            # this version
    python benchmarks/certificate.py PYTHON …   # and each interpreter's own version of stabilitykit, in turn

Each source by itself, then all of them, then one ulp: seven studies of one task, of ten runs each.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn

from stabilitykit import NoiseProtocol, RandomCropFlip, Recipe, Run, measure, warmup_cosine
from stabilitykit.execution.session import Session
from stabilitykit.store.run_store import RunStore

RUNS, EPOCHS, ROUNDS = 10, 10, 3
NAMES = ("init", "shuffle", "augment", "stochastic", "low_level", "all")
PROTOCOLS = [*(NoiseProtocol(name, runs=RUNS) for name in NAMES), NoiseProtocol("none", "ulp", runs=RUNS)]
EXAMPLES = 1200


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(256, 10),
        )


def recipe() -> Recipe:
    digits = load_digits()
    x, y = torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target)
    return Recipe(
        model=Net,
        train=(x[:EXAMPLES], y[:EXAMPLES]),
        test=(x[EXAMPLES:], y[EXAMPLES:]),
        epochs=EPOCHS,
        batch_size=64,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        schedule=warmup_cosine(warmup_epochs=1),
        augment=RandomCropFlip(padding=1, flip=False),
    )


@contextlib.contextmanager
def counted() -> Iterator[list[int]]:
    """Yield a list that gets each epoch that any run begins: no part of what is trained, so that no key sees it."""
    epochs_of, begun = Run.epochs, []

    def epochs(run: Run, *args: Any, **kwargs: Any) -> Iterator[int]:
        for epoch in epochs_of(run, *args, **kwargs):
            begun.append(epoch)
            yield epoch

    Run.epochs = epochs  # type: ignore[method-assign]
    try:
        yield begun
    finally:
        Run.epochs = epochs_of  # type: ignore[method-assign]


def train_all() -> None:
    """Answer each question twice, and print how many epochs and seconds that took, the second time as well."""
    task, found = recipe(), []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            started = time.perf_counter()
            with counted() as begun:
                for protocol in PROTOCOLS:
                    store = RunStore(Path(folder) / "store")
                    measure(task, protocol, session=Session(store, Path(__file__).parent))
                    store.end_session()
            found.append((len(begun), time.perf_counter() - started))
    print(json.dumps(found))


def main() -> None:
    pythons = [sys.executable, *sys.argv[1:]]
    seen: dict[str, list[list[list[float]]]] = {python: [] for python in pythons}
    for _ in range(ROUNDS):
        for python in pythons:
            command = [python, __file__, "--train"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            seen[python].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        f"{len(PROTOCOLS)} studies of {RUNS} runs of {EPOCHS} epochs: {len(PROTOCOLS) * RUNS * EPOCHS} epochs of runs"
    )
    for number, rounds in enumerate(seen.values()):
        epochs = rounds[0][0][0]
        first, again = (statistics.median(one[part][1] for one in rounds) for part in (0, 1))
        name = "this version" if not number else f"version {number} of the command line"
        print(f"{name}: {epochs} epochs, {first:.2f} s; once more, training nothing: {again:.2f} s")


if __name__ == "__main__":
    if sys.argv[1:] == ["--train"]:
        train_all()
    else:
        main()
