"""Parts that several convolutional networks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

from ..errors import TaskError

Net = TypeVar("Net", bound=nn.Module)


def scaled(widths: Sequence[int], factor: float, multiple: int = 1) -> list[int]:
    """Return each width times ``factor``, rounded to a multiple of ``multiple`` and at least ``multiple``.

    >>> scaled((16, 32, 64), 0.5)
    [8, 16, 32]
    """
    if not 0 < factor < float("inf"):
        raise TaskError(f"Expected a finite width > 0 but got width={factor!r}; 0.5 halves every layer.")
    return [multiple * max(1, round(width * factor / multiple)) for width in widths]


def convolution(ins: int, outs: int, *, kernel: int = 3, stride: int = 1, bias: bool = False) -> list[nn.Module]:
    """Return a convolution with batch normalisation; only its stride changes the size of the map."""
    return [nn.Conv2d(ins, outs, kernel, stride, padding=kernel // 2, bias=bias), nn.BatchNorm2d(outs)]


def pooled() -> nn.Sequential:
    """Return the mean over each whole map: ``[N, C, H, W]`` to ``[N, C]``, whatever the size of the images."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())


def he_initialised(model: Net) -> Net:
    """Draw every convolution's weights anew from a normal of SD sqrt(2 / inputs of a unit), biases 0; return the model.

    The last linear layer keeps torch's own initialisation. Source: He et al., 2015, equation 10.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model
