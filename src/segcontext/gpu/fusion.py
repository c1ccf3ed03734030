"""Labels from several views of an image on a GPU: nothing as large as the image but the labels is made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil
from typing import NamedTuple

import torch
from torch import Tensor

from segcontext.gpu.availability import obstacle

__all__ = ["View", "fuse", "fuse_obstacle"]


class View(NamedTuple):
    """What a network says of one view, at the resolution of its features.

    Attributes:
        logits: (B, K, h, w).
        padded: the size that the network's own upsampling brings them to, (height, width).
        size: the view's pixels in it, its upper left part.
        mirrored: whether the view's columns run from right to left.
    """

    logits: Tensor
    padded: tuple[int, int]
    size: tuple[int, int]
    mirrored: bool = False


def fuse_obstacle(views: Sequence[View]) -> str | None:
    """Why `fuse` cannot run on these, in a few words; `None` where it can.

    Args:
        views: at least one.
    """
    return obstacle(*(view.logits for view in views))


def fuse(
    views: Sequence[View],
    size: tuple[int, int],
    *,
    probabilities: bool = True,
    align_corners: bool = True,
    dtype: torch.dtype = torch.int64,
) -> Tensor:
    """The likeliest classes by the mean over the views.

    Each view's logits are upsampled to its pixels, as the network does it, resized to the image by pixel edges,
    mirrored back and, for probabilities, go through a softmax; all in float32 and in registers.

    Args:
        views: of the same images.
        size: the image's, (H, W).
        probabilities: whether the softmax is averaged, or the logits.
        align_corners: of the network's upsampling.
        dtype: of the labels.

    Returns:
        (B, H, W): the first class where several are likeliest; NaN is larger than all numbers.
    """
    wide = [view.logits.float().contiguous() for view in views]
    shapes = tuple((*view.logits.shape[2:], *view.padded, *view.size, int(view.mirrored)) for view in views)
    batch, classes = wide[0].shape[:2]
    sizes, starts, steps = _tables(shapes, size, batch * classes, align_corners, str(wide[0].device))
    packed = torch.cat([each.flatten() for each in wide])
    labels: Tensor = _fuse(packed, sizes, starts, steps, [batch, classes, *size], probabilities, align_corners, dtype)
    return labels


@torch.library.custom_op("segcontext::fuse_triton", mutates_args=())
def _fuse(
    logits: Tensor,
    sizes: Tensor,
    starts: Tensor,
    steps: Tensor,
    shape: list[int],
    probabilities: bool,
    align_corners: bool,
    dtype: torch.dtype,
) -> Tensor:
    from segcontext.gpu.kernels import fusion

    batch, classes, height, width = shape
    labels = logits.new_empty(batch, height, width, dtype=dtype)
    wide = max(16, 1 << (classes - 1).bit_length())
    # More sums and interpolated values of all classes than these do not fit into registers.
    pixels = max(8, 2048 // wide)
    fusion.fuse[ceil(width / pixels), height, batch](
        *(logits, sizes, starts, steps, labels, len(starts), height, width),
        **{"CLASSES": classes, "SOFTMAX": probabilities, "ALIGNED": align_corners},
        **{"WIDE_CLASSES": wide, "PIXELS": pixels},
        num_warps=8,
    )
    return labels


@_fuse.register_fake
def _(
    logits: Tensor,
    sizes: Tensor,
    starts: Tensor,
    steps: Tensor,
    shape: list[int],
    probabilities: bool,
    align_corners: bool,
    dtype: torch.dtype,
) -> Tensor:
    return logits.new_empty(shape[0], *shape[2:], dtype=dtype)


@lru_cache(maxsize=64)
def _tables(
    shapes: tuple[tuple[int, ...], ...], size: tuple[int, int], planes: int, align_corners: bool, device: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes, starts and steps of the views, as the kernel takes them."""
    sizes, starts, steps, start = [], [], [], 0
    for rows, columns, padded_high, padded_wide, high, wide, mirrored in shapes:
        sizes.append((rows, columns, high, wide, mirrored, int((rows, columns) == (padded_high, padded_wide))))
        starts.append(start)
        start += planes * rows * columns
        pairs = ((rows, padded_high), (columns, padded_wide))
        inner = [(few - 1) / max(many - 1, 1) if align_corners else few / many for few, many in pairs]
        steps.append((*inner, high / size[0], wide / size[1]))
    return (
        torch.tensor(sizes, dtype=torch.int32, device=device),
        torch.tensor(starts, dtype=torch.int64, device=device),
        torch.tensor(steps, dtype=torch.float32, device=device),
    )
