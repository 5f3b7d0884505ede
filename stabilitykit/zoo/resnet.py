"""Residual networks for small images (He et al., 2016, section 4.2): no pooling before the blocks."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from .layers import convolution, he_initialised, pooled, scaled


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut: the identity, or a 1x1 convolution where the shape changes."""

    def __init__(self, ins: int, outs: int, stride: int) -> None:
        super().__init__()
        first, second = convolution(ins, outs, stride=stride), convolution(outs, outs)
        self.residual = nn.Sequential(*first, nn.ReLU(), *second)
        projected = (ins, stride) != (outs, 1)
        self.shortcut = nn.Sequential(*convolution(ins, outs, kernel=1, stride=stride) if projected else [])
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, ins, H, W]`` to ``[N, outs, H/stride, W/stride]``."""
        outputs: Tensor = self.relu(self.residual(x) + self.shortcut(x))
        return outputs


class ResNet(nn.Sequential):
    """``conv1``, stages ``block1``, ``block2``, ... of basic blocks, ``pool`` and ``logits``: the layers of figure 1.

    Each stage but the first halves the map, so images of 8 pixels and more will do. ``blocks`` counts the basic blocks
    of each stage; a stage of none passes on what it is given.

    With fewer than 8 channels in front of a strided shortcut train with ``memory_format=None``: on CPUs with AVX-512
    torch 2.14 writes beyond its memory there in ``channels_last``, and the process dies.
    """

    def __init__(
        self, blocks: Sequence[int], widths: Sequence[int], *, width: float = 1, channels: int = 3, classes: int = 10
    ) -> None:
        ins, *_ = widths = scaled(widths, width)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1"] = nn.Sequential(*convolution(channels, ins), nn.ReLU())
        for number, (count, outs) in enumerate(zip(blocks, widths, strict=True), start=1):
            steps = [(ins if i == 0 else outs, 2 if i == 0 and number > 1 else 1) for i in range(count)]
            layers[f"block{number}"] = nn.Sequential(*(BasicBlock(into, outs, stride) for into, stride in steps))
            ins = outs if count else ins
        layers["pool"] = pooled()
        layers["logits"] = nn.Linear(ins, classes)
        super().__init__(layers)
        he_initialised(self)


def resnet6(*, width: float = 1, channels: int = 3, classes: int = 10) -> ResNet:
    """Return ResNet-6: stages of 0, 1 and 1 blocks.

    The paper does not print the stages of its ResNet-6 and ResNet-10; ours end at its width of 64.
    """
    return ResNet((0, 1, 1), (16, 32, 64), width=width, channels=channels, classes=classes)


def resnet10(*, width: float = 1, channels: int = 3, classes: int = 10) -> ResNet:
    """Return ResNet-10: stages of 1, 1 and 2 blocks, which the paper does not print (see `resnet6`)."""
    return ResNet((1, 1, 2), (16, 32, 64), width=width, channels=channels, classes=classes)


def resnet14(*, width: float = 1, channels: int = 3, classes: int = 10) -> ResNet:
    """Return the paper's main model: three stages of two blocks, 16, 32 and 64 wide.

    >>> [name for name, _ in resnet14().named_children()]
    ['conv1', 'block1', 'block2', 'block3', 'pool', 'logits']
    """
    return ResNet((2, 2, 2), (16, 32, 64), width=width, channels=channels, classes=classes)


def resnet18(*, width: float = 1, channels: int = 3, classes: int = 10) -> ResNet:
    """Return ResNet-18 as it is used on CIFAR: four stages of two blocks, 64, 128, 256 and 512 wide."""
    return ResNet((2, 2, 2, 2), (64, 128, 256, 512), width=width, channels=channels, classes=classes)
