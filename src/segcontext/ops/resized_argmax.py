"""The likeliest class of each pixel, straight from the logits of the features."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext import native
from segcontext.errors import ShapeError
from segcontext.gpu.largest import resized_argmax as by_triton
from segcontext.gpu.largest import resized_argmax_obstacle
from segcontext.ops.bilinear import Places, places
from segcontext.ops.compiled_loops import is_transformed
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched

__all__ = ["argmax_in_parts", "label_dtype", "resized_argmax"]

#: About as many logits are brought to their size at once (32 MiB) by the reference.
VALUES_AT_ONCE = 2**23

#: Logits of other layouts or types are copied so many at a time (0.5 MiB).
COPIED_AT_ONCE = 2**17

#: Logits of these types are read as they are, as integers.
WHOLE = {torch.float32: torch.int32, torch.bfloat16: torch.uint16}

#: Below, height and width together, PyTorch interpolates by another kernel, which rounds otherwise.
SMALL = 128


def resized_argmax(
    logits: Tensor,
    size: tuple[int, int],
    *,
    align_corners: bool,
    crop: tuple[int, int] | None = None,
    implementation: Implementation | None = None,
) -> Tensor:
    """The argmax over the classes of bilinearly resized logits; the resized logits are never held as a whole.

    They are by far the largest tensor of a prediction. The reference makes those of a few classes at a time. The native
    form goes by the cells between four neighbouring values: as interpolation stays between the smallest and the largest
    of the four, one class has most cells to itself, and elsewhere only the few that can be largest are interpolated.

    Args:
        logits: (B, classes, h, w).
        size: (H, W) that they are brought to.
        align_corners: of the interpolation.
        crop: (height, width) of the upper left part that is asked for; `None` is all.
        implementation: ``"reference"``, ``"native"`` (the CPU), ``"triton"`` (a GPU) or ``"auto"``.

    Returns:
        Integers as `label_dtype` has them, (B, height, width), on the device of the logits: the first class where
        several are largest.

    Raises:
        ShapeError: the logits have another shape, or the crop does not lie within the size.

    Note:
        Every form names the argmax of `torch.nn.functional.interpolate` on contiguous float32 logits (float64 ones stay
        so), whatever their layout and dtype, but for ties: where classes are no further apart than this interpolation
        rounds, another of them may be named. The native form rounds as PyTorch does for four classes or more on
        processors with fused multiply-adds. PyTorch rounds otherwise for fewer classes, on other processors, and for
        channels-last logits; bfloat16 ones it rounds once more when they are resized, so that more classes tie.

    Example:
        >>> resized_argmax(torch.tensor([[[[0.0, 3.0]], [[1.0, 1.0]]]]), (1, 4), align_corners=False).tolist()
        [[[1, 1, 0, 0]]]
    """
    height, width = crop or size
    if logits.ndim != 4 or 0 in logits.shape or not logits.is_floating_point():
        raise ShapeError(f"Logits are floats of shape (B, classes, h, w), none of them 0; got {tuple(logits.shape)}.")
    if not (0 < height <= size[0] and 0 < width <= size[1]):
        raise ShapeError(f"The part that is asked for, {height}×{width}, does not lie within {size[0]}×{size[1]}.")
    logits = logits.detach()
    obstacles: dict[Implementation, str | None] = {
        "triton": resized_argmax_obstacle(logits),
        "native": _obstacle(logits, size),
    }
    site = Site.of(logits)
    form = choose("resized_argmax", implementation, obstacles, site)
    if form == "triton":
        dtype = label_dtype(logits.shape[1])
        run = partial(by_triton, size=size, align_corners=align_corners, crop=crop, dtype=dtype)
        plain = partial(resized_argmax, size=size, align_corners=align_corners, crop=crop, implementation="reference")
        found = launched("resized_argmax", implementation, site, run, plain, logits)
        if found is not None:
            return found
        form = choose("resized_argmax", implementation, obstacles, site)
    if form == "native":
        labels = _native(logits, size, align_corners, (height, width))
        # Infinities and what is no number spread over all pixels nearby, other than values in between.
        if labels is not None:
            return labels

    def enlarge(part: Tensor) -> Tensor:
        wide = part if part.dtype == torch.float64 else part.float()
        resized = F.interpolate(wide.contiguous(), size=size, mode="bilinear", align_corners=align_corners)
        return resized[..., :height, :width]

    return argmax_in_parts(logits, enlarge, size[0] * size[1]).to(label_dtype(logits.shape[1]))


def label_dtype(classes: int) -> torch.dtype:
    """The smallest type of integers that holds so many classes: uint8, int16 or int32."""
    return torch.uint8 if classes <= 2**8 else torch.int16 if classes <= 2**15 else torch.int32


def _obstacle(logits: Tensor, size: tuple[int, int]) -> str | None:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return "a program that is written down holds PyTorch's operators alone"
    if is_transformed():
        return "torch.func hands over tensors without an address"
    if logits.device.type != "cpu":
        return f"it runs on the CPU, and the logits are on {logits.device.type}"
    if logits.dtype == torch.float64:
        return "it computes in float32, and the logits are float64"
    if sum(size) <= SMALL:
        return f"it is made for sizes of more than {SMALL} pixels, height and width together"
    return native.unavailable()


def _native(logits: Tensor, size: tuple[int, int], align_corners: bool, crop: tuple[int, int]) -> Tensor | None:
    """The labels, or `None` where logits are not finite."""
    from segcontext.native.lane_values import LANES
    from segcontext.native.resized_argmax import BLOCK

    classes, high, wide = logits.shape[1:]
    rows, columns = places(high, size[0], align_corners), _columns(wide, size[1], align_corners, crop[1], LANES)
    labels = torch.empty(len(logits), *crop, dtype=label_dtype(classes))
    finite = [True]
    for image, filled in zip(logits, labels.numpy(), strict=True):
        native.split(crop[0], partial(_fill, image, rows, columns, filled, finite), grain=BLOCK)
    return labels if finite[0] else None


class Columns(NamedTuple):
    """What `places` says along a row of labels, as the compiled loop takes it.

    Attributes:
        starts: first column of labels in each column of cells, int32, (w + 1,).
        before: the weight of the feature to the left of each column, float32, with some more behind the last.
        behind: the weight of the one to the right, likewise.
    """

    starts: npt.NDArray[np.int32]
    before: npt.NDArray[np.float32]
    behind: npt.NDArray[np.float32]


# One size is asked for again and again, and making these takes as long as finding a tenth of a large image's labels.
@lru_cache(maxsize=64)
def _columns(values: int, pixels: int, align_corners: bool, crop: int, more: int) -> Columns:
    first, before, behind = places(values, pixels, align_corners)
    starts = np.searchsorted(first[:crop], np.arange(values + 1)).astype(np.int32)
    return Columns(starts, np.pad(before, (0, more)), np.pad(behind, (0, more)))


def _fill(
    image: Tensor,
    rows: Places,
    columns: Columns,
    labels: npt.NDArray[np.integer],
    finite: list[bool],
    first: int,
    last: int,
) -> None:
    from segcontext.native.resized_argmax import argmax_rows

    classes, high, wide = image.shape
    lines: tuple[Any, Any, Any, Any, Any, Any] = (*rows, *columns)
    if image.dtype in WHOLE and image.is_contiguous():
        if not argmax_rows(image.view(WHOLE[image.dtype]).numpy(), 0, *lines, labels, first, last):
            finite[0] = False
        return
    at_once = 1 + max(1, COPIED_AT_ONCE // (classes * wide))
    while first < last and finite[0]:
        top = int(rows.first[first])
        # The rows of the features that this step has, and the labels that lie between them.
        wanted = min(int(rows.first[last - 1]) + 2, high)
        bottom = min(top + at_once, wanted)
        stop = last if bottom == wanted else int(np.searchsorted(rows.first, bottom - 1))
        held = image[:, top:bottom].float().contiguous().numpy()
        if not argmax_rows(held.view(np.int32), top, *lines, labels, first, stop):
            finite[0] = False
        first = stop


def argmax_in_parts(features: Tensor, enlarge: Callable[[Tensor], Tensor], pixels: int) -> Tensor:
    """The argmax over the classes of enlarged logits, of which those of a few classes are made at a time.

    Args:
        features: (B, classes, h, w).
        enlarge: brings the logits of some classes to their size.
        pixels: how many that has.

    Returns:
        int64, (B, H, W): the first class where several are largest.
    """
    classes = features.shape[1]
    # No fewer than four: PyTorch interpolates less than that by another kernel, which rounds otherwise.
    at_once = max(4, VALUES_AT_ONCE // (features.shape[0] * pixels))
    if classes < at_once + 4:
        return enlarge(features).argmax(1)
    best, labels, first = features.new_empty(0), features.new_empty(0), 0
    for part in features.tensor_split(classes // at_once, 1):
        values, indices = enlarge(part).max(1)
        if first == 0:
            best, labels = values, indices
        else:
            # As in torch.argmax, the first NaN is larger than all numbers.
            better = ~(values <= best) & (best == best)
            labels = torch.where(better, indices.add_(first), labels)
            best = torch.where(better, values, best)
        first += part.shape[1]
    return labels
