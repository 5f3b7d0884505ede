"""Changes to images: random crops and mirroring while a model trains, and every view of an image for the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import TaskError, is_count
from ..public import public
from .data import Augment, sent


@public
@dataclass(frozen=True)
class RandomCropFlip(Augment):
    """Shift each image by up to ``padding`` pixels over a border of zeros, and mirror half of them.

    ``[N, C, H, W]`` in and out. Shifts are drawn on the CPU, so that every device gets the same ones; the pixels are
    gathered on the device of the images, a batch at once. The result is in ``torch.channels_last``, the fastest format
    for convolutions. Source: Summers & Dinneen, section 3.2.

    >>> x = torch.arange(8.0).reshape(2, 1, 2, 2)
    >>> RandomCropFlip(padding=1)(x, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 1, 2, 2])
    """

    padding: int = 4  #: pixels on each side
    flip: bool = True  #: mirror left and right with probability 1/2

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = x.shape
        shifts = sent(torch.randint(0, 2 * self.padding + 1, (2, count, 1), generator=generator), x.device)
        rows = shifts[0] + torch.arange(height, device=x.device)
        columns = shifts[1] + torch.arange(width, device=x.device)
        if self.flip:
            mirrored = torch.rand(count, 1, generator=generator) < 0.5
            columns = torch.where(sent(mirrored, x.device), columns.flip(1), columns)
        # A pixel is a row of channels in one long table: gathering by one index a pixel is fastest.
        border = [0, 0, *[self.padding] * 4]
        padded = torch.nn.functional.pad(x.permute(0, 2, 3, 1), border)
        starts = (torch.arange(count, device=x.device)[:, None] * padded.shape[1] + rows) * padded.shape[2]
        pixels = (starts[:, :, None] + columns[:, None, :]).reshape(-1)
        table = padded.reshape(-1, channels)
        return table.index_select(0, pixels).view(count, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ImageViews:
    """Every shift of an image by up to ``shift`` pixels over a border of zeros, plain and mirrored.

    The shifts are those that `RandomCropFlip` draws from with ``padding=shift``.

    >>> len(ImageViews(flip=True, shift=4))  # the paper's flip-crop81
    162
    """

    flip: bool = True  #: also show every shift mirrored left and right
    shift: int = 0  #: pixels up, down, left and right

    def __post_init__(self) -> None:
        if not isinstance(self.flip, bool):
            raise TaskError(f"Expected flip to be True or False but got flip={self.flip!r}.")
        if not is_count(self.shift, 0):
            raise TaskError(f"Expected shift >= 0, in whole pixels, but got shift={self.shift!r}.")
        if len(self) == 1:
            raise TaskError("Expected more than one view of an image but got flip=False and shift=0.")

    def __len__(self) -> int:
        return (1 + self.flip) * (2 * self.shift + 1) ** 2

    def check(self, x: Tensor, labels: Tensor) -> None:
        """Raise `TaskError` unless ``x`` are images that can be shifted, with labels that stay right under a shift."""
        if x.dim() != 4:
            raise TaskError(
                f"Expected images [N, C, H, W] for test-time augmentation but got inputs of shape {list(x.shape)}: "
                f"there is nothing to mirror or to shift. Measure the recipe without with_tta()."
            )
        if self.shift >= min(x.shape[2:]):
            raise TaskError(
                f"Expected shift < {min(x.shape[2:])}, the size of the images, but got shift={self.shift}: "
                f"some views would show nothing but the border. Take a smaller shift."
            )
        if labels.dim() > (2 if labels.is_floating_point() else 1):
            raise TaskError(
                f"Expected one label an image for test-time augmentation but got labels of shape {list(labels.shape)}: "
                f"those of pixels would have to move with the image. Measure the recipe without with_tta()."
            )

    def of(self, x: Tensor) -> Iterator[Tensor]:
        """Yield each view of a batch ``[N, C, H, W]``, in its memory format; only one view is in memory at a time."""
        height, width = x.shape[2:]
        for image in (x, x.flip(3)) if self.flip else (x,):
            padded = torch.nn.functional.pad(image, [self.shift] * 4)
            for top in range(2 * self.shift + 1):
                for left in range(2 * self.shift + 1):
                    yield torch.empty_like(x).copy_(padded[:, :, top : top + height, left : left + width])

    def mean(self, forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return the mean of ``forward`` over the views of a batch.

        >>> ImageViews(shift=1).mean(lambda x: x.mean((1, 2, 3)), torch.ones(2, 1, 3, 3))
        tensor([0.6049, 0.6049])
        """
        mean: Tensor | None = None
        for seen, view in enumerate(self.of(x), start=1):
            outputs = forward(view)
            # A running mean: equal views give exactly their value, where a sum of 162 would overflow in half precision.
            outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
            mean = outputs if mean is None else mean + (outputs - mean) / seen
        assert mean is not None  # there are two views at least
        return mean
