"""The paper's settings as recipes. Each takes a model and data; every other setting has a default."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..training.corpus import Corpus
from ..training.data import Data
from ..training.images import RandomCropFlip
from ..training.language import LanguageRecipe
from ..training.recipe import Recipe
from ..training.schedule import warmup_cosine
from .qrnn import QRNN


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
    named = getattr(model, "func", model)  # the function in a partial
    defaults: dict[str, Any] = {
        "name": getattr(named, "__name__", "recipe"),
        "augment": RandomCropFlip(padding=4),
        "memory_format": torch.channels_last,
    }
    optimizer = functools.partial(_sgd, lr=lr, momentum=momentum, weight_decay=weight_decay)
    schedule = warmup_cosine(warmup_epochs)
    return Recipe(model, train, test, epochs, batch_size, optimizer, schedule, **(defaults | options))


def cifar10_shallow(
    model: Callable[[], nn.Module], train: Data, test: Data, *, lr: float = 0.01, **settings: Any
) -> Recipe:
    """Return the setting for models of no or one hidden layer: that of `cifar10` at a rate at which they converge.

    The paper asks for "an appropriate learning rate schedule" (section 4.2) and does not print it. ``settings`` are
    further arguments of `cifar10`.
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

    ``settings`` are further arguments of `cifar10`.
    """
    own = {"augment": None, "lr": lr, "batch_size": batch_size, "warmup_epochs": warmup_epochs}
    return cifar10(model, train, test, epochs=epochs, **(own | settings))


def penn_treebank(
    corpus: Corpus, *, epochs: int = 500, lr: float = 30, weight_decay: float = 1.2e-6, **options: Any
) -> LanguageRecipe:
    """Return the setting of section 3.3: a QRNN of the paper's size on Penn Treebank's text, with the AWD family's SGD.

    AWD models average weights once the perplexity no longer falls; here the rate decays to 0 by a cosine instead. The
    paper prints neither rate nor epochs. ``options`` are any other fields of a `LanguageRecipe`.

    >>> penn_treebank(Corpus.of_texts(train="a b c " * 200, valid="a", test="b c"), epochs=2)
    LanguageRecipe('QRNN', epochs=2, batch_size=20, Corpus(train=601, valid=2, test=3, vocabulary=4))
    """
    defaults: dict[str, Any] = {
        "name": "QRNN",
        "model": functools.partial(QRNN, len(corpus)),
        "batch_size": 20,
        "optimizer": functools.partial(_sgd, lr=lr, momentum=0, weight_decay=weight_decay),
        "schedule": warmup_cosine(),
    }
    return LanguageRecipe(corpus=corpus, epochs=epochs, **(defaults | options))


def _sgd(model: nn.Module, lr: float, momentum: float, weight_decay: float) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=weight_decay)
