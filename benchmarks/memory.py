"""Peak memory against the number of runs: what a study's measures take beside the logits mapped from its files.

``python benchmarks/memory.py``. Each R in a process of its own, 10,000 examples and 10 classes in float32. The logits'
own pages are counted where they are looked at, as the system counts them, though it may drop them at any time.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from peak import Peak

from stabilitykit.measures import Measures

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


def main() -> None:
    print("measures of a study, mapped from files:")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 80)
        for runs in (10, 20, 40, 80):
            command = [sys.executable, __file__, folder, str(runs)]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            logits = runs * EXAMPLES * CLASSES * 4
            beside = f"{(peak - logits) / 2**20:.0f} MiB beside {logits / 2**20:.0f} of logits"
            print(f"R = {runs}: {peak / 2**20:.0f} MiB, {beside}")


if __name__ == "__main__":
    measures(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 1 else main()
