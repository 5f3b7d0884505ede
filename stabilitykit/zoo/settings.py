"""The paper's settings as recipes. Each takes a model and data; everything else has a default and can be given."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..data import Data, RandomCropFlip
from ..schedule import warmup_cosine
from ..task import Recipe


def cifar10(
    model: Callable[[], nn.Module],
    train: Data,
    test: Data,
    *,
    epochs: int = 500,
    lr: float = 0.4,
    batch_size: int = 512,
    warmup_epochs: float = 3,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    **options: Any,
) -> Recipe:
    """Return the setting of section 3.2: SGD, cosine decay with warm-up, random crops and flips.

    ``options`` are any other fields of a `Recipe`; ``augment=None`` trains without crops and flips.

    >>> from stabilitykit.zoo import resnet14
    >>> images, classes = torch.randn(8, 3, 32, 32), torch.arange(8)
    >>> cifar10(resnet14, (images, classes), (images, classes))
    Recipe('resnet14', model=resnet14, epochs=500, batch_size=512)
    """
    named = getattr(model, "func", model)  # of a partial
    defaults: dict[str, Any] = {
        "name": getattr(named, "__name__", "recipe"),
        "augment": RandomCropFlip(padding=4),
        "memory_format": torch.channels_last,
    }
    return Recipe(
        model=model,
        train=train,
        test=test,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=functools.partial(_sgd, lr=lr, momentum=momentum, weight_decay=weight_decay),
        schedule=warmup_cosine(warmup_epochs),
        **(defaults | options),
    )


def cifar10_shallow(
    model: Callable[[], nn.Module], train: Data, test: Data, *, lr: float = 0.01, **settings: Any
) -> Recipe:
    """Return the setting for models of no or one hidden layer: that of `cifar10` at a rate at which they converge.

    The paper asks for "an appropriate learning rate schedule" (section 4.2) and does not print it. ``settings`` are
    those of `cifar10`.
    """
    return cifar10(model, train, test, lr=lr, **settings)


def mnist(
    model: Callable[[], nn.Module],
    train: Data,
    test: Data,
    *,
    epochs: int = 20,
    lr: float = 0.05,
    batch_size: int = 128,
    warmup_epochs: float = 1,
    **settings: Any,
) -> Recipe:
    """Return a usual setting for MNIST, without augmentation; the paper does not print its own.

    ``settings`` are those of `cifar10`.
    """
    options = {"augment": None} | settings
    return cifar10(
        model, train, test, epochs=epochs, lr=lr, batch_size=batch_size, warmup_epochs=warmup_epochs, **options
    )


def _sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay)
