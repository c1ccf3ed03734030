"""Point-wise spatial attention (PSANet)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from segcontext.errors import RecipeError
from segcontext.layers import ConvNormAct, pixels_at_stride, resize
from segcontext.ops.point_attention import OutsideWindow, point_attention
from segcontext.types import Context, OffsetMap

__all__ = ["PSA"]

_logger = logging.getLogger(__name__)


class PSA(nn.Module):
    r"""Pixels collect from and distribute to each other by learned weights per offset (Zhao et al. 2018, §3).

    Two branches reduce the features by a 1×1 convolution, shrink the map, and predict for each pixel one logit for
    each offset to another pixel (the over-complete map of §3.2). One branch collects by a pixel's own logits, the
    other distributes by the logits of the sources. Both results are concatenated, projected back to C channels,
    upsampled, and laid beside the input.

    Args:
        in_channels: C.
        channels: of each branch.
        mask_size: side of the map of offsets. A map of h×w pixels is covered in full by 2·max(h, w) - 1; 59 covers the
            shrunk map of a crop of 465 pixels at output stride 8.
        shrink: the map is shrunk to ⌈h/shrink⌉ × ⌈w/shrink⌉ for the attention.
        align_corners: how the map is shrunk and upsampled; `segcontext.segmenter` hands its own on.
        shrink_rule: ``"ceil"`` as above; ``"divisible"`` shrinks to ⌊h/shrink⌋ × ⌊w/shrink⌋ with unaligned corners,
            both ways, wherever `shrink` divides a side, and like ``"ceil"`` with aligned corners elsewhere.
        outside: what pixels beyond the window do: ``"nothing"``, or ``"zero_logit"`` in the softmax.
        project_padding: zero padding of the projection's 1×1 convolution.

    Shape:
        (B, C, h, w) to (B, 2·C, h, w), the input's channels first.

    Raises:
        RecipeError: for a `mask_size` or `shrink` below 1, or an unknown word.

    Note:
        Of the published variants this is the over-complete one with both branches and softmax. `mask_size` is tied to
        the training crop, but any map will do: pixels further apart than the window reaches exchange nothing, and
        cells beyond the map go unused. The published code gives pixels beyond the window the logit 0 instead
        (``outside="zero_logit"``); the two differ only where the window does not cover the map.
        OpenMMLab's port has that, ``shrink_rule="divisible"``, and a projection that is padded although its kernel is
        1×1, so that a border of constants is resized along (``project_padding=1``). Its windows have 97 cells a side,
        or 66 on ADE20K: an even window reaches one pixel further down and right.
        Offsets count pixels of the shrunk map, and they are learned. Loaded at another output stride than in training,
        `segcontext.load_model` scales `shrink`, so that they reach as far in the image; that is ours.
        Memory grows with the square of the shrunk map's pixels in training; without gradients it does not.

    Example:
        >>> import torch
        >>> PSA(16, channels=8, mask_size=9)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 32, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: int = 512,
        mask_size: int = 59,
        shrink: int = 2,
        align_corners: bool = True,
        shrink_rule: Literal["ceil", "divisible"] = "ceil",
        outside: OutsideWindow = "nothing",
        project_padding: int = 0,
    ) -> None:
        super().__init__()
        if mask_size < 1 or shrink < 1:
            raise RecipeError(
                f"mask_size and shrink must be at least 1, not {mask_size} and {shrink}; the published settings are "
                "59 and 2."
            )
        if shrink_rule not in ("ceil", "divisible") or outside not in ("nothing", "zero_logit"):
            raise RecipeError(
                "shrink_rule must be ceil or divisible, and outside nothing or zero_logit, "
                f"not {shrink_rule!r} and {outside!r}."
            )
        self.in_channels = in_channels
        self.out_channels = 2 * in_channels
        self.mask_size = mask_size
        self.shrink = shrink
        self.align_corners = align_corners
        self.shrink_rule = shrink_rule
        self.outside: OutsideWindow = outside
        self.collect_reduce = ConvNormAct(in_channels, channels)
        self.collect_attention = _attention(channels, mask_size)
        self.distribute_reduce = ConvNormAct(in_channels, channels)
        self.distribute_attention = _attention(channels, mask_size)
        self.project = ConvNormAct(2 * channels, in_channels, padding=project_padding)

    def options_at_stride(self, options: Mapping[str, Any], *, trained: int, now: int) -> dict[str, Any]:
        """The options with the shrinking that keeps the offsets' extent in the image, see `segcontext.model`.

        A map that would have to be enlarged for it stays as it is, and that is logged.
        """
        if self.shrink * trained < now:
            _logger.warning(
                "The network was trained at output stride %d and runs at %d: the offsets of PSA are learned, and with "
                "a map that is shrunk by %d already they reach further in the image than in training.",
                *(trained, now, self.shrink),
            )
        return {**options, "shrink": pixels_at_stride(self.shrink, trained=trained, now=now)}

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Lays what each pixel collected and was given beside the features.

        Args:
            x: (B, C, h, w).
            evidence: whether `OffsetMap` is returned, at the size of the shrunk map.

        Returns:
            (B, 2·C, h, w), and the evidence where asked for.
        """
        size = (x.shape[-2], x.shape[-1])
        small, align_corners = self._small(*size)
        sources = resize(self.collect_reduce(x), small, align_corners=align_corners)
        collect = self.collect_attention(sources)
        collected = point_attention(sources, collect, branch="collect", outside=self.outside)
        sources = resize(self.distribute_reduce(x), small, align_corners=align_corners)
        distribute = self.distribute_attention(sources)
        distributed = point_attention(sources, distribute, branch="distribute", outside=self.outside)
        context = self.project(torch.cat([collected, distributed], 1))
        out = torch.cat([x, resize(context, size, align_corners=align_corners)], 1)
        if not evidence:
            return Context(out)
        return Context(out, OffsetMap(collect.detach(), distribute.detach(), self.outside == "zero_logit"))

    def _small(self, height: int, width: int) -> tuple[tuple[int, int], bool]:
        """The size that the map is shrunk to, and whether corners are aligned on the way there and back."""
        if self.shrink_rule == "divisible" and self.shrink > 1:
            if height % self.shrink == 0 or width % self.shrink == 0:
                return (max(1, height // self.shrink), max(1, width // self.shrink)), False
            return (-(-height // self.shrink), -(-width // self.shrink)), True
        return (-(-height // self.shrink), -(-width // self.shrink)), self.align_corners


def _attention(channels: int, mask_size: int) -> nn.Sequential:
    return nn.Sequential(ConvNormAct(channels, channels), nn.Conv2d(channels, mask_size**2, 1, bias=False))
