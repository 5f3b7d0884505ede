"""Images that are here without a download, and the models that the paper asks its questions of."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stabilitykit import RandomCropFlip, Recipe, warmup_cosine

#: Where the files of Fashion-MNIST may lie: below a root of torchvision's, and where Debian's package puts them.
FASHION_MNIST_FOLDERS = (
    Path(os.environ.get("STABILITY_DATA", "data")) / "FashionMNIST" / "raw",
    Path("/usr/share/datasets/fashion-mnist"),
)


class Images(NamedTuple):
    """``[N, 1, H, W]`` images of mean 0 and SD 1 and their classes ``[N]``, and how long they are trained on."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    epochs: int
    batch_size: int


def fashion_mnist_folder() -> Path | None:
    found = (folder for folder in FASHION_MNIST_FOLDERS if (folder / "train-images-idx3-ubyte.gz").is_file())
    return next(found, None)


def fashion_mnist(folder: Path) -> Images:
    """The first 5,000 training and the first 2,000 test images; about a tenth of each is of each class."""

    def read(name: str, header: int, *shape: int) -> Tensor:
        content = gzip.decompress((folder / f"{name}-ubyte.gz").read_bytes())
        return torch.tensor(np.frombuffer(content, np.uint8, offset=header).reshape(shape))

    def split(name: str, count: int) -> tuple[Tensor, Tensor]:
        x = read(f"{name}-images-idx3", 16, -1, 1, 28, 28)[:count]
        return (x / 255 - 0.286) / 0.353, read(f"{name}-labels-idx1", 8, -1)[:count].long()

    return Images("Fashion-MNIST", split("train", 5_000), split("t10k", 2_000), epochs=10, batch_size=64)


def digits() -> Images:
    """The 1,797 images of 8 x 8 pixels that come with scikit-learn. They are easy: a third is enough to train on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (torch.tensor(data.images[:, None]).float() / 16 - 0.305) / 0.376, torch.tensor(data.target)
    train = torch.arange(len(y)) % 3 == 0
    return Images("digits", (x[train], y[train]), (x[~train], y[~train]), epochs=80, batch_size=32)


def pytest_report_header() -> str:
    folder = fashion_mnist_folder()
    return (
        f"images: Fashion-MNIST from {folder}" if folder else "images: scikit-learn's digits (no Fashion-MNIST found)"
    )


@pytest.fixture(scope="session")
def images() -> Images:
    folder = fashion_mnist_folder()
    return fashion_mnist(folder) if folder else digits()


class ConvNet(nn.Sequential):
    """Three blocks, each halving the image; the dropout is what the source ``stochastic`` varies."""

    def __init__(self) -> None:
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 10)]
        super().__init__(*self.block(1, 8), *self.block(8, 16), *self.block(16, 32), *head)

    @staticmethod
    def block(ins: int, outs: int) -> list[nn.Module]:
        return [nn.Conv2d(ins, outs, 3, padding=1, bias=False), nn.MaxPool2d(2), nn.BatchNorm2d(outs), nn.ReLU()]


@pytest.fixture(scope="session")
def cnn(images: Images) -> Recipe:
    """The paper's rate, momentum, weight decay and schedule (section 3.2), with smaller batches for less data."""
    return Recipe(
        name=f"CNN, {images.name}",
        model=ConvNet,
        train=images.train,
        test=images.test,
        epochs=images.epochs,
        batch_size=images.batch_size,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4),
        schedule=warmup_cosine(warmup_epochs=1),
        augment=RandomCropFlip(padding=1, flip=images.name != "digits"),  # a mirrored 2 is no 2
        memory_format=torch.channels_last,
    )


@pytest.fixture(scope="session")
def linear(images: Images) -> Recipe:
    pixels = images.train[0][0].numel()
    return Recipe(
        name=f"linear, {images.name}",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(pixels, 10)),
        train=images.train,
        test=images.test,
        epochs=images.epochs,
        batch_size=images.batch_size,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        schedule=warmup_cosine(warmup_epochs=1),
    )


@pytest.fixture(scope="session")
def one_hidden_layer(images: Images) -> Recipe:
    pixels = images.train[0][0].numel()
    epochs, lr = (80, 0.2) if images.name == "digits" else (20, 0.1)
    return Recipe(
        name=f"one hidden layer, {images.name}",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(pixels, 512), nn.ReLU(), nn.Linear(512, 10)),
        train=images.train,
        test=images.test,
        epochs=epochs,
        batch_size=images.batch_size,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        schedule=warmup_cosine(warmup_epochs=1),
    )
