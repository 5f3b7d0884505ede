"""R trainings of a small ResNet to a verdict: `pytest --stability-runs R -n 2` against the two ways by hand.

Run it on a quiet machine: ``python benchmarks/training.py --runs 20 --pairs 3`` (about 30 minutes on 2 cores). Each way
is a process of its own, and its time is everything from the start of that process to the verdict, by the clock and of
the processor (over all processes and threads). The ways take turns; figures are medians. Every way trains R models and
judges the same two numbers: `stability.measure` trains all R, where `stability.check` would stop at the first few.

- plugin: ``pytest -n 2``, a `Recipe` with ``channels_last``; the control, which trains 2 epochs twice, is in the price
- loader: a DataLoader with 4 processes and torchvision's transforms of each image, one training after the other
- tensors: all in memory and augmented by the batch, one training after the other, in 1 thread and in torch's default
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, BATCH_SIZE, TRAIN, TEST = 2, 128, 5_000, 2_000

#: Where the files of Fashion-MNIST may lie: below a root of torchvision's, and where Debian's package puts them.
FOLDERS = (
    Path(os.environ.get("STABILITY_DATA", "data")) / "FashionMNIST" / "raw",
    Path("/usr/share/datasets/fashion-mnist"),
)

TEST_FILE = """
from stabilitykit import RandomCropFlip, Recipe
import torch, training

def test_spread(stability):
    train, test = training.data()
    recipe = Recipe(
        model=training.ResNet14,
        train=(training.floats(train[0]), train[1]),
        test=(training.floats(test[0]), test[1]),
        epochs=training.EPOCHS,
        batch_size=training.BATCH_SIZE,
        optimizer=training.sgd,
        augment=RandomCropFlip(padding=4),
        memory_format=torch.channels_last,
    )
    study = stability.measure(recipe, vary="init+shuffle+augment+stochastic")
    assert study.accuracy_sd.value <= 50
    assert study.disagreement.value <= 100
"""


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them; the way is subsampled and padded with zeros (He et al., option A)."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(ins, outs, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(outs, outs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outs), nn.BatchNorm2d(outs)])
        self.stride, self.new = stride, outs - ins

    def forward(self, x: Tensor) -> Tensor:
        inside = self.norms[1](self.second(functional.relu(self.norms[0](self.first(x)))))
        if self.new:
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        return functional.relu(inside + x)


class ResNet14(nn.Sequential):
    """The ResNet for CIFAR of He et al. with 14 layers, at half its width: 8, 16 and 32 channels."""

    def __init__(self) -> None:
        stem = [nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
        shapes = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 32, 2), (32, 32, 1)]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
        super().__init__(*stem, *(Block(*shape) for shape in shapes), *head)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def data() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images ``[N, 3, 32, 32]`` of bytes and their classes: the first of Fashion-MNIST, on a black border."""
    folder = next((folder for folder in FOLDERS if (folder / "train-images-idx3-ubyte.gz").is_file()), None)
    if folder is None:
        sys.exit(
            f"Expected the files of Fashion-MNIST in one of {', '.join(map(str, FOLDERS))} but there are none. "
            f"Install Debian's package dataset-fashion-mnist, or set STABILITY_DATA."
        )

    def read(name: str, header: int, *shape: int) -> Tensor:
        content = gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes())
        return torch.tensor(np.frombuffer(content, np.uint8, offset=header).reshape(shape))

    def split(name: str, count: int) -> tuple[Tensor, Tensor]:
        x = read(f"{name}-images-idx3", 16, -1, 1, 28, 28)[:count]
        x = functional.pad(x, (2, 2, 2, 2)).repeat(1, 3, 1, 1)
        return x, read(f"{name}-labels-idx1", 8, -1)[:count].long()

    return split("train", TRAIN), split("t10k", TEST)


def floats(x: Tensor) -> Tensor:
    return x.float() / 255


# The two ways by hand


def with_loaders(runs: int) -> None:
    """A Dataset of images, transforms of each, and a DataLoader with 4 processes: what most tutorials write."""
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    class Images(Dataset):  # type: ignore[type-arg]  # as people write it
        def __init__(self, split: tuple[Tensor, Tensor], *changes: object) -> None:
            self.x, self.y = split[0].permute(0, 2, 3, 1).numpy(), split[1]
            self.change = transforms.Compose([transforms.ToPILImage(), *changes, transforms.ToTensor()])

        def __len__(self) -> int:
            return len(self.y)

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            return self.change(self.x[index]), self.y[index]

    train, test = data()
    trained = Images(train, transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip())
    training = DataLoader(trained, batch_size=BATCH_SIZE, shuffle=True, num_workers=4)
    testing = DataLoader(Images(test), batch_size=1000, num_workers=4)
    verdict([fit(seed, lambda: training, lambda: testing) for seed in range(runs)], test[1])


def with_tensors(runs: int) -> None:
    """Everything in memory, and each batch augmented at once by indexing."""
    train, test = data()
    x, y = floats(train[0]), train[1]
    test_x = floats(test[0])

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.randperm(len(x)).split(BATCH_SIZE):
            yield crop_and_flip(x[indices]), y[indices]

    def tests() -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(test_x.split(1000), test[1].split(1000), strict=True)

    verdict([fit(seed, batches, tests) for seed in range(runs)], test[1])


def crop_and_flip(x: Tensor, padding: int = 4) -> Tensor:
    count, channels, height, width = x.shape
    padded = functional.pad(x, [padding] * 4)
    rows = torch.randint(0, 2 * padding + 1, (count, 1)) + torch.arange(height)
    columns = torch.randint(0, 2 * padding + 1, (count, 1)) + torch.arange(width)
    images, planes = torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    x = padded[images, planes, rows[:, None, :, None], columns[:, None, None, :]]
    return torch.where(torch.rand(count, 1, 1, 1) < 0.5, x.flip(3), x)


def fit(seed: int, batches: Callable[[], object], tests: Callable[[], object]) -> Tensor:
    torch.manual_seed(seed)
    model = ResNet14()
    optimizer = sgd(model)
    for _ in range(EPOCHS):
        for x, y in batches():  # type: ignore[attr-defined]  # a DataLoader or a generator
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    model.eval()
    with torch.inference_mode():
        return torch.cat([model(x) for x, _ in tests()])  # type: ignore[attr-defined]  # as above


def verdict(logits: list[Tensor], labels: Tensor) -> None:
    predictions = torch.stack(logits).argmax(-1)
    accuracy = 100 * (predictions == labels).double().mean(1)
    pairs = torch.combinations(torch.arange(len(predictions)))
    disagreement = 100 * (predictions[pairs[:, 0]] != predictions[pairs[:, 1]]).double().mean()
    assert accuracy.std() <= 50
    assert disagreement <= 100
    print(f"accuracy {accuracy.mean():.1f} SD {accuracy.std():.2f}, disagreement {disagreement:.1f}")


# Timing


class Cost(NamedTuple):
    """What one way took, in seconds."""

    clock: float
    processor: float  #: of the process and all that it started

    def __str__(self) -> str:
        return f"{self.clock:.1f} s, {self.processor:.1f} s of processor"


def with_plugin(runs: int) -> Cost:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "test_spread.py").write_text(TEST_FILE)
        here = str(Path(__file__).resolve().parent)
        path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        report = Path(folder) / "report.json"
        options = ["-n", "2", "--stability-runs", str(runs), f"--stability-json={report}"]
        cost = cost_of(["pytest", "-q", "-p", "no:cacheprovider", *options, folder], folder, PYTHONPATH=path)
        (study,) = json.loads(report.read_text())["studies"]
        assert len(study["records"]) == runs, f"{len(study['records'])} runs were trained, and by hand {runs}"
        return cost


def by_hand(way: str, runs: int, threads: int | None = None) -> Cost:
    return cost_of([__file__, "--way", way, "--runs", str(runs)], ".", OMP_NUM_THREADS=threads and str(threads))


def cost_of(command: list[str], folder: str, **environment: str | None) -> Cost:
    variables = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
    python = [sys.executable, "-m"] if command[0] == "pytest" else [sys.executable]
    start, before = time.perf_counter(), processor()
    done = subprocess.run([*python, *command], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    took = Cost(time.perf_counter() - start, processor() - before)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return took


def processor() -> float:
    """Seconds of the processor that this process's children have spent, those of their own that they waited for too."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def compare(runs: int, pairs: int) -> None:
    ways: dict[str, Callable[[], Cost]] = {
        "plugin": lambda: with_plugin(runs),
        "loader": lambda: by_hand("loader", runs),
        "tensors, 1 thread": lambda: by_hand("tensors", runs, threads=1),
        "tensors, default threads": lambda: by_hand("tensors", runs),
    }
    took: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(pairs):
        for name, run in ways.items():
            took[name].append(run())
            print(f"  {name}: {took[name][-1]}", flush=True)
    print(f"{runs} trainings of {EPOCHS} epochs, torch {torch.__version__}, {torch.get_num_threads()} default threads")
    for name, costs in took.items():
        both = list(zip(costs, took["plugin"], strict=True))
        clock = statistics.median(one.clock / plugin.clock for one, plugin in both)
        spent = statistics.median(one.processor / plugin.processor for one, plugin in both)
        each = Cost(*(statistics.median(of) for of in zip(*costs, strict=True)))
        print(f"{name}: {each}; {each.clock / runs:.2f} s a run; {clock:.2f} and {spent:.2f} times the plugin's")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="R, trainings of each way")
    parser.add_argument("--pairs", type=int, default=3, help="times that each way is taken")
    parser.add_argument("--way", choices=["loader", "tensors"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way is None:
        compare(arguments.runs, arguments.pairs)
    else:
        {"loader": with_loaders, "tensors": with_tensors}[arguments.way](arguments.runs)
