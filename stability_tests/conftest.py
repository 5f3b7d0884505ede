"""Images that are here without a download, and the models that the paper asks its questions of."""

from __future__ import annotations

import dataclasses
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
    """A training and a test set: ``[N, 1, H, W]`` images of mean 0 and SD 1, and their classes ``[N]``."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def fashion_mnist_folder() -> Path | None:
    folders = (folder for folder in FASHION_MNIST_FOLDERS if (folder / "train-images-idx3-ubyte.gz").is_file())
    return next(folders, None)


def fashion_mnist(folder: Path) -> Images:
    """The first 5,000 images for training and the first 2,000 for testing; about a tenth of each is of each class."""

    def read(name: str, header: int, count: int) -> Tensor:
        content = gzip.decompress((folder / name).read_bytes())
        return torch.tensor(np.frombuffer(content, np.uint8, offset=header).reshape(count, -1))

    def split(name: str, total: int, count: int) -> tuple[Tensor, Tensor]:
        x = read(f"{name}-images-idx3-ubyte.gz", 16, total)[:count].reshape(-1, 1, 28, 28)
        y = read(f"{name}-labels-idx1-ubyte.gz", 8, total)[:count].flatten()
        return (x / 255 - 0.286) / 0.353, y.long()

    return Images("Fashion-MNIST", split("train", 60_000, 5_000), split("t10k", 10_000, 2_000))


def digits() -> Images:
    """The 1,797 images of 8 x 8 pixels that come with scikit-learn: two of three for training, the third for testing."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1), torch.tensor(data.target)
    x, for_test = (x / 16 - 0.305) / 0.376, torch.arange(len(y)) % 3 == 2
    return Images("digits", (x[~for_test], y[~for_test]), (x[for_test], y[for_test]))


def pytest_report_header() -> str:
    folder = fashion_mnist_folder()
    return f"images: Fashion-MNIST from {folder}" if folder else "images: scikit-learn's digits (no Fashion-MNIST found)"


@pytest.fixture(scope="session")
def images() -> Images:
    folder = fashion_mnist_folder()
    return fashion_mnist(folder) if folder else digits()


def block(channels_in: int, channels_out: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.MaxPool2d(2), nn.BatchNorm2d(channels_out), nn.ReLU())


class ConvNet(nn.Sequential):
    """Three blocks, each halving the image. Dropout is there so that the source ``stochastic`` has something to vary."""

    def __init__(self) -> None:
        classifier = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 10)]
        super().__init__(block(1, 8), block(8, 16), block(16, 32), *classifier)


@pytest.fixture(scope="session")
def cnn(images: Images) -> Recipe:
    """The paper's optimizer and schedule (section 3.2), with a batch size and epochs for small data."""
    on_digits = images.name == "digits"
    return Recipe(
        name=f"CNN, {images.name}",
        model=ConvNet,
        train=images.train,
        test=images.test,
        epochs=10,
        batch_size=64,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.4, momentum=0.9, weight_decay=5e-4),
        schedule=warmup_cosine(warmup_epochs=1),
        augment=RandomCropFlip(padding=1, flip=not on_digits),  # a mirrored 2 is no 2
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
        epochs=10,
        batch_size=64,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9),
        schedule=warmup_cosine(warmup_epochs=1),
    )


@pytest.fixture(scope="session")
def one_hidden_layer(images: Images, linear: Recipe) -> Recipe:
    """The linear model's training, with 512 hidden units between."""
    pixels = images.train[0][0].numel()
    return dataclasses.replace(
        linear,
        name=f"one hidden layer, {images.name}",
        model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(pixels, 512), nn.ReLU(), nn.Linear(512, 10)),
    )
