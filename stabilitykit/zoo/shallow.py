"""The models of section 4.2, with no hidden layer and with one, and the small network for MNIST.

Their weights are drawn as torch draws them. Images are square, of ``size`` pixels.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from .layers import scaled


def linear(*, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Sequential:
    """Return a linear model of the pixels: the one kind that is not unstable.

    >>> [tuple(parameter.shape) for parameter in linear().parameters()]
    [(10, 3072), (10,)]
    """
    return _named(pixels=nn.Flatten(), logits=nn.Linear(channels * size**2, classes))


def hidden_layer(*, units: int = 512, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Sequential:
    """Return one fully-connected hidden layer of ``units`` with ReLU."""
    hidden = nn.Sequential(nn.Linear(channels * size**2, units), nn.ReLU())
    return _named(pixels=nn.Flatten(), hidden=hidden, logits=nn.Linear(units, classes))


def hidden_convolution(*, filters: int = 32, channels: int = 3, size: int = 32, classes: int = 10) -> nn.Sequential:
    """Return one convolutional hidden layer, 3x3 with ReLU, and a linear layer on its whole map.

    The paper prints neither the filters nor whether the map is pooled. Ours is not: a mean over the map would take
    away where things are, and a pooling would be a second operation that is not linear.
    """
    hidden = nn.Sequential(nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU())
    return _named(hidden=hidden, map=nn.Flatten(), logits=nn.Linear(filters * size**2, classes))


def mnist_cnn(*, width: float = 1, channels: int = 1, size: int = 28, classes: int = 10) -> nn.Sequential:
    """Return a usual small network for MNIST: two convolutions, max-pooling, dropout, two linear layers.

    The paper does not print its own, which gets 99.14 % right. The dropout is what the source ``stochastic`` varies.
    Images have 6 pixels and more.
    """
    first, second, units = scaled((32, 64, 128), width)
    side = (size - 4) // 2  # two convolutions without a border, and the pooling
    return _named(
        conv1=nn.Sequential(nn.Conv2d(channels, first, 3), nn.ReLU()),
        conv2=nn.Sequential(nn.Conv2d(first, second, 3), nn.ReLU()),
        pool=nn.Sequential(nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten()),
        hidden=nn.Sequential(nn.Linear(second * side**2, units), nn.ReLU(), nn.Dropout(0.5)),
        logits=nn.Linear(units, classes),
    )


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
