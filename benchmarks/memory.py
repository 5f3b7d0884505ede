"""Peak memory against the number of runs: of a study's measures, and of a whole study that trains.

``python benchmarks/memory.py``. Each R in a process of its own, 10,000 test examples and 10 classes in float32. The
pages of mapped logits are counted where they are looked at, as the system counts them, though it may drop them at any
time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from peak import Peak
from torch import nn

from stabilitykit import NoiseProtocol, Run, measure
from stabilitykit.estimates.measures import Measures
from stabilitykit.execution.session import Session
from stabilitykit.execution.where import Where
from stabilitykit.store.run_store import RunStore

EXAMPLES, CLASSES = 10_000, 10


def write(folder: Path, runs: int) -> None:
    generator = np.random.default_rng(0)
    np.save(folder / "labels.npy", generator.integers(CLASSES, size=EXAMPLES))
    shared = generator.standard_normal((EXAMPLES, CLASSES), dtype=np.float32)
    for i in range(runs):
        own = generator.standard_normal((EXAMPLES, CLASSES), dtype=np.float32)
        np.save(folder / f"{i:04d}.npy", 2 * shared + own)


def measures(folder: Path, runs: int) -> None:
    """Print the peak of computing every measure, in bytes."""
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    peak = Peak()
    files = [np.load(folder / f"{i:04d}.npy", mmap_mode="c") for i in range(runs)]
    found = Measures([torch.from_numpy(file) for file in files], labels)
    found.compute(found)
    print(peak.bytes())


def whole_study(folder: Path, runs: int) -> None:
    """Print the peak of training a net of 1.3 MB R times and computing every measure, in bytes."""
    labels = torch.from_numpy(np.load(folder / "labels.npy"))
    inputs = torch.randn(EXAMPLES, 20, generator=torch.Generator().manual_seed(0))

    def train(run: Run) -> torch.Tensor:
        with run.stream("init"):
            model = nn.Sequential(
                nn.Linear(20, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES)
            )
        run.perturb(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in run.epochs(1):
            for x, y in run.batches((inputs, labels), batch_size=1000):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
        return model(inputs)

    torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)  # imports torch's compiler, which is no part of a run
    peak = Peak()
    session = Session(RunStore(folder / f"store {runs}"), folder, Where("cpu"))
    study = measure(train, NoiseProtocol("init", runs=runs), labels=labels, session=session)
    study.measures.compute(study.measures)
    print(peak.bytes())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 80)
        for what in (measures, whole_study):
            for runs in (10, 20, 40, 80):
                command = [sys.executable, __file__, what.__name__, folder, str(runs)]
                peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                logits = runs * EXAMPLES * CLASSES * 4
                beside = f"{(peak - logits) / 2**20:.0f} MiB beside {logits / 2**20:.0f} of logits"
                print(f"{what.__name__.replace('_', ' ')}, R = {runs}: {peak / 2**20:.0f} MiB, {beside}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        {"measures": measures, "whole_study": whole_study}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
