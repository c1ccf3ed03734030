"""Training augmentation: random scale, crop and flip."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from segcontext.data.dataset import VOID
from segcontext.data.resampling import Window, draw_image, draw_labels
from segcontext.errors import RecipeError, SampleError
from segcontext.types import Sample

__all__ = ["Crop", "TrainTransform"]

_ATTEMPTS = 10


class Crop(NamedTuple):
    """What the augmentation makes of a sample.

    Attributes:
        image: uint8 RGB, (3, h, w).
        mask: uint8 class indices, (h, w), 255 for void and for the padding.
    """

    image: Tensor
    mask: Tensor


class TrainTransform:
    """Scales a sample by a random factor, cuts a random window out of it, and mirrors it, as both papers do.

    In order: the image is resized bilinearly (align_corners=False, antialias when it shrinks) and the mask to the
    nearest pixel; where a side is then smaller than the window, it is padded at the bottom and the right with
    `pad_value`, the mask with 255; the window is cut out; it is mirrored left to right. The image stays uint8, since
    the network normalises it.

    Every draw comes from the generator that is handed in, and the number of draws is the same for every sample.

    Note:
        Masks are resized by "nearest-exact", which keeps them aligned with the image; the papers' code rounds down,
        which moves the labels by up to half a pixel. Colour jitter and `max_class_share` are in neither paper.

    Args:
        crop: side of the window in pixels, or (height, width).
        scale: smallest and largest factor; both sides are scaled alike.
        scale_step: distance between the factors that are drawn from, such as 0.25 (EMANet's code) or 0.1 (GALD's,
            with scale 0.7..2.1); `None` draws from the whole range.
        flip: probability of mirroring.
        pad_value: colour of the padding; by default ImageNet's mean colour.
        color_jitter: strength s of colour jitter: brightness, contrast and saturation are multiplied by 1 ± s, and hue
            is turned by up to ± s / 4 of the half circle; 0 for none.
        max_class_share: a window in which one class has more than this share of the labelled pixels is drawn again,
            up to ten times; 1 for never.

    Raises:
        RecipeError: if an argument is out of range.

    Example:
        >>> from torchvision import tv_tensors
        >>> image = tv_tensors.Image(torch.zeros(3, 40, 60, dtype=torch.uint8))
        >>> mask = tv_tensors.Mask(torch.zeros(40, 60, dtype=torch.uint8))
        >>> crop = TrainTransform(33)(Sample(image, mask, "a"), torch.Generator().manual_seed(0))
        >>> crop.image.shape, crop.mask.shape
        (torch.Size([3, 33, 33]), torch.Size([33, 33]))
    """

    def __init__(
        self,
        crop: int | tuple[int, int],
        *,
        scale: tuple[float, float] = (0.5, 2.0),
        scale_step: float | None = None,
        flip: float = 0.5,
        pad_value: tuple[int, int, int] = (124, 116, 104),
        color_jitter: float = 0.0,
        max_class_share: float = 1.0,
    ) -> None:
        self.crop = (crop, crop) if isinstance(crop, int) else (int(crop[0]), int(crop[1]))
        self.scale = (float(scale[0]), float(scale[1]))
        self.scale_step = scale_step
        self.flip = flip
        self.pad_value = pad_value
        self.color_jitter = color_jitter
        self.max_class_share = max_class_share
        for wrong, name, value, expected in (
            (min(self.crop) < 1, "crop", crop, "at least one pixel a side"),
            (not 0 < self.scale[0] <= self.scale[1], "scale", scale, "(smallest, largest), both above 0"),
            (scale_step is not None and scale_step <= 0, "scale_step", scale_step, "a number above 0, or none"),
            (not 0 <= flip <= 1, "flip", flip, "a probability, 0..1"),
            (min(pad_value) < 0 or max(pad_value) > 255, "pad_value", pad_value, "three numbers, 0..255"),
            (not 0 <= color_jitter <= 1, "color_jitter", color_jitter, "a strength, 0..1"),
            (not 0 < max_class_share <= 1, "max_class_share", max_class_share, "a share above 0, up to 1"),
        ):
            if wrong:
                raise RecipeError(f"{name} is {value}, expected {expected}.")

    def __call__(self, sample: Sample, generator: torch.Generator) -> Crop:
        """Augments one sample.

        Args:
            sample: image uint8 (3, H, W) and mask (H, W).
            generator: where every draw comes from.

        Returns:
            The window, of the size `crop`.

        Raises:
            SampleError: if the sample has no mask.
        """
        if sample.mask is None:
            raise SampleError(f"'{sample.name}' has no labels, and training needs them: add a mask, or leave it out.")
        draws = torch.rand(6 + 2 * _ATTEMPTS, generator=generator, dtype=torch.float64).tolist()
        image, mask = sample.image.as_subclass(Tensor), sample.mask.as_subclass(Tensor).to(torch.uint8)
        factor, mirrored = self._factor(draws[0]), draws[1] < self.flip
        size = (max(1, round(mask.shape[0] * factor)), max(1, round(mask.shape[1] * factor)))
        extent = (min(size[0], self.crop[0]), min(size[1], self.crop[1]))
        picture, labels = self._canvases(padded=extent != self.crop)
        for attempt in range(_ATTEMPTS):
            across, down = draws[6 + 2 * attempt : 8 + 2 * attempt]
            corner = (int(down * (size[0] - extent[0] + 1)), int(across * (size[1] - extent[1] + 1)))
            window = Window(size, corner, extent, mirrored)
            draw_labels(mask, window, labels)
            if self.max_class_share >= 1 or _largest_share(labels) <= self.max_class_share:
                break
        draw_image(image, window, picture)
        if self.color_jitter:
            left = self.crop[1] - extent[1] if mirrored else 0
            drawn = picture[:, : extent[0], left : left + extent[1]]
            drawn.copy_(self._jittered(drawn, draws[2:6]))
        return Crop(picture, labels)

    def _canvases(self, *, padded: bool) -> tuple[Tensor, Tensor]:
        """What image and mask are drawn on."""
        picture, labels = torch.empty(3, *self.crop, dtype=torch.uint8), torch.empty(self.crop, dtype=torch.uint8)
        if padded:
            labels.fill_(VOID)
            for channel, value in zip(picture, self.pad_value, strict=True):
                channel.fill_(value)
        return picture, labels

    def _factor(self, draw: float) -> float:
        low, high = self.scale
        if self.scale_step is None:
            return low + draw * (high - low)
        # Without the slack, rounding could lose the last step: (1.2 - 0.9) / 0.1 is 2.999….
        steps = int((high - low) / self.scale_step + 1e-6)
        return low + int(draw * (steps + 1)) * self.scale_step

    def _jittered(self, image: Tensor, draws: list[float]) -> Tensor:
        strength = self.color_jitter
        factors = [1 + strength * (2 * draw - 1) for draw in draws]
        image = TF.adjust_brightness(image, factors[0])
        image = TF.adjust_contrast(image, factors[1])
        image = TF.adjust_saturation(image, factors[2])
        jittered: Tensor = TF.adjust_hue(image, (factors[3] - 1) / 8)
        return jittered


def _largest_share(mask: Tensor) -> float:
    """The share of the labelled pixels that the commonest class has; 1 where nothing is labelled."""
    counts = torch.bincount(mask.flatten(), minlength=VOID + 1)[:VOID]
    return float(counts.max() / counts.sum()) if counts.any() else 1.0
