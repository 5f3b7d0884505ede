"""VGG for small images (Simonyan & Zisserman, 2014), with batch normalisation and one linear layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from .layers import convolution, he_initialised, pooled, scaled

#: Configuration A: the width of each convolution, and whether its map is halved.
_LAYERS = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True), (512, False), (512, True))


def vgg11(*, width: float = 1, channels: int = 3, classes: int = 10) -> nn.Sequential:
    """Return VGG-11: ``conv1`` to ``conv8``, each with normalisation, ReLU and its pooling; ``pool`` and ``logits``.

    A map of one pixel stays one, so images of any size will do.

    >>> sum(parameter.numel() for parameter in vgg11(width=0.125).parameters())
    145898
    """
    widths = scaled([outs for outs, _ in _LAYERS], width)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    ins = channels
    for number, (outs, (_, halved)) in enumerate(zip(widths, _LAYERS, strict=True), start=1):
        # A window that reaches over the border makes 4 pixels of 7 and 1 of 1; even maps are halved as ever.
        pooling = [nn.MaxPool2d(2, ceil_mode=True)] if halved else []
        layers[f"conv{number}"] = nn.Sequential(*convolution(ins, outs, bias=True), nn.ReLU(), *pooling)
        ins = outs
    layers["pool"] = pooled()
    layers["logits"] = nn.Linear(ins, classes)
    return he_initialised(nn.Sequential(layers))
