"""ShuffleNetV2 (Ma et al., 2018) for small images, from torchvision's blocks."""

from __future__ import annotations

from torch import nn

from ..errors import MissingModuleError
from .layers import convolution, he_initialised, scaled


def shufflenet50(*, width: float = 1, channels: int = 3, classes: int = 10) -> nn.Module:
    """Return ShuffleNetV2-50 %: 24, 48, 96, 192 and 1024 wide; ``width`` scales that once more.

    The layers are ``conv1``, which keeps the size of the image and is not followed by a pooling, ``stage2``,
    ``stage3``, ``stage4``, ``conv5`` and ``fc``, the logits. Needs torchvision: ``pip install 'stabilitykit[zoo]'``.
    """
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise MissingModuleError(
            "Expected torchvision to be installed but there is no module of that name: shufflenet50 is made of its "
            "blocks. Install it with the extra `zoo`: pip install 'stabilitykit[zoo]'"
        ) from None

    widths = scaled((24, 48, 96, 192, 1024), width, multiple=2)  # each block halves its channels
    model: nn.Module = torchvision.models.ShuffleNetV2([4, 8, 4], widths, num_classes=classes)
    model.conv1 = nn.Sequential(*convolution(channels, widths[0]), nn.ReLU())
    model.maxpool = nn.Identity()
    return he_initialised(model)
