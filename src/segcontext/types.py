"""The tuples that travel between the parts.

Axis letters, here and everywhere: B images, C channels, K bases or maps, N = h·w pixels, H W the image,
h w the feature map. All are NamedTuples, so `torch.export` and `torch.compile` take them apart by themselves.
Evidence is what an attending part says of itself; it is asked for (`evidence=True`), detached, and absent otherwise.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors

__all__ = [
    "Affinity",
    "Context",
    "Evidence",
    "Features",
    "GatherMap",
    "Mask",
    "OffsetMap",
    "Output",
    "Responsibilities",
    "Sample",
    "Stages",
]


class Sample(NamedTuple):
    """One image of a data set with its labels.

    Attributes:
        image: uint8 RGB, (3, H, W).
        mask: uint8 or int64 class indices, (H, W), 255 for void; `None` where there are no labels.
        name: a name unique in the data set, with no suffix; it may hold ``/`` for sub-folders.
    """

    image: tv_tensors.Image
    mask: tv_tensors.Mask | None
    name: str


class Features(NamedTuple):
    """What a backbone hands on, always channels-first.

    Attributes:
        low: the stride-4 map, (B, C₁, H/4, W/4), for decoders.
        auxiliary: the map of the stage before the last, (B, C₂, h, w), for the auxiliary head.
        deep: the last map, (B, C₃, h, w).
    """

    low: Tensor
    auxiliary: Tensor
    deep: Tensor


class Responsibilities(NamedTuple):
    """Which basis takes which pixel (EMANet eq. 12).

    Attributes:
        maps: (T, B, K, h, w), one entry per EM iteration, the last one last; each sums to 1 over K.
            With zero iterations T is 1: the responsibilities of the given bases.
        bases: the final bases, (B, K, C).
    """

    maps: Tensor
    bases: Tensor


class Mask(NamedTuple):
    """A gate per channel and pixel (GALD eq. 1).

    Attributes:
        values: (B, C, h, w), in [0, 1].
    """

    values: Tensor


class Affinity(NamedTuple):
    """How much each pixel draws from others; rows are made on request and never all at once.

    Attributes:
        query: (B, D, h, w), with any scaling of the logits already in it.
        key: (B, D, h', w'); the same size as `query` unless the keys were pooled.
        kernel_size: side of the window in pixels; 0 means that the row covers the whole map.
        dilation: distance between neighbouring window positions, in pixels.
    """

    query: Tensor
    key: Tensor
    kernel_size: int
    dilation: int

    def row(self, y: int, x: int) -> Tensor:
        """The weights that the pixel at (y, x) gives to every position.

        Args:
            y: row of the pixel on the feature map.
            x: column of the pixel on the feature map.

        Raises:
            IndexError: where the pixel is not on the map.

        Returns:
            (B, h', w'), not negative. For the global form it sums to 1. For the windowed form it sums to 1 less the
            share that fell on the zero padding outside the map.
        """
        _check_pixel(y, x, self.query)
        with torch.autocast(self.query.device.type, enabled=False):
            return self._row(y, x)

    def _row(self, y: int, x: int) -> Tensor:
        batch, channels, height, width = self.key.shape
        query = self.query[:, :, y, x].float()
        if self.kernel_size == 0:
            logits = (query[:, None] @ self.key.float().flatten(2)).squeeze(1)
            return logits.softmax(-1).view(batch, height, width)
        reach = self.kernel_size // 2 * self.dilation
        padded = F.pad(self.key.float(), (reach, reach, reach, reach))
        size = 2 * reach + 1
        window = padded[:, :, y : y + size : self.dilation, x : x + size : self.dilation].reshape(batch, channels, -1)
        weights = (query[:, None] @ window).softmax(-1).view(batch, self.kernel_size, self.kernel_size)
        row = weights.new_zeros(batch, height + 2 * reach, width + 2 * reach)
        row[:, y : y + size : self.dilation, x : x + size : self.dilation] = weights
        return row[:, reach : reach + height, reach : reach + width]


class GatherMap(NamedTuple):
    """Where descriptors are gathered from and where they are handed out (A²-Nets).

    Attributes:
        gather: (B, K, h, w); each map sums to 1 over the pixels.
        distribute: (B, K, h, w); each pixel sums to 1 over the maps.
    """

    gather: Tensor
    distribute: Tensor


class OffsetMap(NamedTuple):
    """Attention over relative positions, one window of offsets per pixel (PSANet).

    Attributes:
        collect: (B, m·m, h, w); the logits by which a pixel collects from the pixel at each offset.
        distribute: (B, m·m, h, w); the logits by which a pixel hands itself to the pixel at each offset.
        zero_outside: whether pixels beyond the window take part with the logit 0.
    """

    collect: Tensor
    distribute: Tensor
    zero_outside: bool = False

    def row(self, y: int, x: int, *, branch: str = "collect") -> Tensor:
        """The weights by which the pixel at (y, x) draws from every position.

        Args:
            y: row of the pixel on the map that was attended over.
            x: column of the pixel.
            branch: ``"collect"`` for the weights that the pixel chose itself, ``"distribute"`` for those that the
                other pixels chose for it.

        Raises:
            IndexError: where the pixel is not on the map.

        Returns:
            (B, h, w), not negative, summing to 1; 0 for positions outside the window of offsets, unless they take part.
        """
        _check_pixel(y, x, self.collect)
        maps = self.collect if branch == "collect" else self.distribute
        batch, cells, height, width = maps.shape
        side = round(cells**0.5)
        half = (side - 1) // 2
        # An even window reaches one further down and right; looked at from the other end, up and left.
        before, after = (half, side - 1 - half) if branch == "collect" else (side - 1 - half, half)
        top, bottom = max(0, y - before), min(height, y + after + 1)
        left, right = max(0, x - before), min(width, x + after + 1)
        windows = maps.float().view(batch, side, side, height, width)
        if branch == "collect":
            seen = windows[:, top - y + half : bottom - y + half, left - x + half : right - x + half, y, x]
        else:
            rows = torch.arange(top, bottom, device=maps.device)[:, None]
            columns = torch.arange(left, right, device=maps.device)[None, :]
            seen = windows[:, y - rows + half, x - columns + half, rows, columns]
        row = seen.new_full((batch, height, width), 0.0 if self.zero_outside else float("-inf"))
        row[:, top:bottom, left:right] = seen
        return row.flatten(1).softmax(-1).view_as(row)


Evidence: TypeAlias = Responsibilities | Mask | Affinity | GatherMap | OffsetMap


class Context(NamedTuple):
    """What an aggregation or a distribution returns.

    Attributes:
        features: (B, C, h, w).
        evidence: what the part attended to; `None` unless it was asked for, and always for parts that do not attend.
    """

    features: Tensor
    evidence: Evidence | None = None


class Stages(NamedTuple):
    """The maps between the parts, detached, for figures that compare before and after.

    Attributes:
        deep: the backbone's last map.
        reduced: what the context parts were given.
        aggregated: after global aggregation.
        distributed: after local distribution.
        fused: what the classifier was given.
    """

    deep: Tensor
    reduced: Tensor
    aggregated: Tensor
    distributed: Tensor
    fused: Tensor


class Output(NamedTuple):
    """What a network returns, in every mode.

    Attributes:
        features_logits: the network's own logits at feature resolution, (B, classes, h, w).
        size: (H, W) of the images.
        align_corners: how `logits` are upsampled.
        auxiliary: the auxiliary head's logits, (B, classes, h', w'), where asked for and the network has such a head.
        aggregation: the aggregation's evidence, where asked for.
        distribution: the distribution's evidence, where asked for.
        stages: the maps between the parts, where evidence was asked for.
    """

    features_logits: Tensor
    size: tuple[int, int]
    align_corners: bool
    auxiliary: Tensor | None = None
    aggregation: Evidence | None = None
    distribution: Evidence | None = None
    stages: Stages | None = None

    @property
    def logits(self) -> Tensor:
        """The logits at image size, (B, classes, H, W), upsampled bilinearly on each access."""
        return self.upsample(self.features_logits)

    def upsample(self, logits: Tensor) -> Tensor:
        """Brings feature-resolution logits to image size, bilinearly, with this output's `align_corners`.

        Args:
            logits: (B, classes, h, w).

        Returns:
            (B, classes, H, W), float32 or wider: in half precision the interpolation itself would round labels away.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return F.interpolate(logits, size=self.size, mode="bilinear", align_corners=self.align_corners)


def _check_pixel(y: int, x: int, maps: Tensor) -> None:
    height, width = maps.shape[-2:]
    if not (0 <= y < height and 0 <= x < width):
        raise IndexError(f"the pixel ({y}, {x}) is not on the {height}×{width} feature map")
