"""Evidence as pictures: what a network attended to, laid over the image. Given outputs, never a network."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from torch import Tensor
from torch.nn import functional as F

from segcontext.errors import ShapeError
from segcontext.ops.point_attention import PointBranch
from segcontext.pictures import Pixels, colourise, error_map, grid
from segcontext.types import Affinity, GatherMap, Mask, OffsetMap, Output, Responsibilities

__all__ = ["affinity_picture", "basis_pictures", "heat", "mask_pictures", "offset_picture", "panel", "telling_bases"]


def heat(image: npt.ArrayLike, weights: Tensor, *, peak: float | None = None, colours: str = "inferno") -> Pixels:
    """Lays a heat map over a dimmed grey image.

    Args:
        image: uint8 RGB, (H, W, 3).
        weights: (h, w), not negative; brought to (H, W) bilinearly (align_corners=True, as the networks do inside).
        peak: the weight that gets the hottest colour; by default the largest.
        colours: a matplotlib colour map.

    Returns:
        uint8 RGB, (H, W, 3).
    """
    pixels = np.asarray(image)
    if pixels.ndim != 3 or weights.ndim != 2:
        raise ShapeError(f"heat wants an image (H, W, 3) and weights (h, w), not {pixels.shape} and {weights.shape}.")
    size = (pixels.shape[0], pixels.shape[1])
    full = F.interpolate(weights[None, None].float().cpu(), size, mode="bilinear", align_corners=True)[0, 0]
    top = float(full.max()) if peak is None else peak
    share = (full / max(top, 1e-12)).clamp(0, 1).numpy()
    grey = pixels.mean(-1, keepdims=True).repeat(3, -1)
    hot = 255 * colormaps[colours](share)[..., :3]
    alpha = 0.25 + 0.65 * share[..., None]
    mixed: Pixels = np.round((1 - alpha) * 0.6 * grey + alpha * hot).astype(np.uint8)
    return mixed


def telling_bases(evidence: Responsibilities, count: int = 4, *, image: int = 0) -> list[int]:
    """The bases whose last responsibilities differ most over the image, and so show most.

    Args:
        evidence: from an EMA unit.
        count: how many.
        image: which image of the batch.

    Returns:
        Indices of bases, the most telling first.
    """
    deviation = evidence.maps[-1, image].flatten(1).std(1)
    return deviation.topk(min(count, len(deviation))).indices.tolist()


def basis_pictures(
    image: npt.ArrayLike, evidence: Responsibilities, bases: list[int], *, index: int = 0, iteration: int = -1
) -> list[Pixels]:
    """How much of each pixel some bases take (EMANet Fig. 5).

    Args:
        image: uint8 RGB, (H, W, 3).
        evidence: from an EMA unit.
        bases: which bases.
        index: which image of the batch.
        iteration: which EM iteration; the last by default.

    Returns:
        One picture for each basis.
    """
    return [heat(image, evidence.maps[iteration, index, basis]) for basis in bases]


def affinity_picture(image: npt.ArrayLike, evidence: Affinity, point: tuple[float, float], *, index: int = 0) -> Pixels:
    """Where one pixel draws from, the pixel marked with a cross (GALD Fig. 9).

    Args:
        image: uint8 RGB, (H, W, 3).
        evidence: from LDv2 or a Non-local block.
        point: the pixel as shares of height and width, each from 0 to 1.
        index: which image of the batch.

    Returns:
        The picture.
    """
    y, x = _pixel(point, evidence.query)
    return _marked(heat(image, evidence.row(y, x)[index]), point)


def offset_picture(
    image: npt.ArrayLike,
    evidence: OffsetMap,
    point: tuple[float, float],
    *,
    branch: PointBranch = "collect",
    index: int = 0,
) -> Pixels:
    """Where one pixel draws from by relative position, the pixel marked with a cross (PSANet).

    Args:
        image: uint8 RGB, (H, W, 3).
        evidence: from a PSA block.
        point: the pixel as shares of height and width, each from 0 to 1.
        branch: ``"collect"`` for the weights that the pixel chose itself, ``"distribute"`` for those that the others
            chose for it.
        index: which image of the batch.

    Returns:
        The picture.
    """
    y, x = _pixel(point, evidence.collect)
    return _marked(heat(image, evidence.row(y, x, branch=branch)[index]), point)


def mask_pictures(image: npt.ArrayLike, evidence: Mask, channels: list[int], *, index: int = 0) -> list[Pixels]:
    """LDv1's masks of some channels (GALD Fig. 7), from 0 to 1."""
    return [heat(image, evidence.values[index, channel], peak=1.0) for channel in channels]


def panel(
    image: Tensor,
    output: Output,
    palette: tuple[tuple[int, int, int], ...],
    *,
    truth: Tensor | None = None,
    point: tuple[float, float] = (0.55, 0.5),
    bases: int = 4,
    index: int = 0,
) -> Pixels:
    """Everything about one image on one sheet: labels, errors, and what the attending parts attended to.

    Args:
        image: uint8 RGB, (3, H, W).
        output: from a network that was asked for evidence.
        palette: one colour per class.
        truth: class indices, (H, W), 255 for void.
        point: the pixel whose affinity or offsets are shown, as shares of height and width.
        bases: how many EM bases, or channels of the mask, are shown.
        index: which image of the batch.

    Returns:
        uint8 RGB, on white.
    """
    pixels = image.permute(1, 2, 0).cpu().numpy()
    labels = output.logits[index].argmax(0).cpu()
    first, titles = [pixels], ["image"]
    if truth is not None:
        first.append(colourise(truth.cpu().numpy(), palette))
        titles.append("truth")
    first.append(colourise(labels.numpy(), palette))
    titles.append("prediction")
    if truth is not None:
        first.append(error_map(labels.numpy(), truth.cpu().numpy(), image=pixels))
        titles.append("error")
    rows, captions = [first], [" · ".join(titles)]
    if isinstance(output.aggregation, Responsibilities):
        chosen = telling_bases(output.aggregation, bases, image=index)
        rows.append(basis_pictures(pixels, output.aggregation, chosen, index=index))
        captions.append("EM responsibilities of bases " + ", ".join(str(basis) for basis in chosen))
    if isinstance(output.aggregation, GatherMap):
        rows.append([heat(pixels, part) for part in output.aggregation.gather[index, :bases]])
        captions.append("where descriptors are gathered from")
    if isinstance(output.aggregation, OffsetMap):
        rows.append(
            [
                offset_picture(pixels, output.aggregation, place, branch=branch, index=index)
                for place in (point, (0.75, 0.25))
                for branch in get_args(PointBranch)
            ]
        )
        captions.append("where the marked pixel collects from · who distributes to it · the same for another pixel")
    if isinstance(output.distribution, Mask):
        rows.append(mask_pictures(pixels, output.distribution, list(range(bases)), index=index))
        captions.append("LDv1 masks of the first channels")
    for name, evidence in (("aggregation", output.aggregation), ("local distribution", output.distribution)):
        if isinstance(evidence, Affinity):
            points = (point, (0.75, 0.25), (0.4, 0.8), (0.85, 0.6))
            rows.append([affinity_picture(pixels, evidence, place, index=index) for place in points])
            captions.append(f"affinity of the marked pixel ({name})")
    with torch.no_grad():
        return grid(rows, captions=captions, cell=(260, 400))


def _pixel(point: tuple[float, float], maps: Tensor) -> tuple[int, int]:
    """Row and column on a feature map of a point that is given as shares of height and width."""
    height, width = maps.shape[-2:]
    return round(point[0] * (height - 1)), round(point[1] * (width - 1))


def _marked(shown: Pixels, point: tuple[float, float]) -> Pixels:
    """The picture with a cross at the point, drawn into it."""
    height, width = shown.shape[:2]
    row, column = round(point[0] * (height - 1)), round(point[1] * (width - 1))
    arm = max(3, min(height, width) // 24)
    for offset in range(-arm, arm + 1):
        for thick in (-1, 0):
            for r, c in ((row + offset, column + thick), (row + thick, column + offset)):
                if 0 <= r < height and 0 <= c < width:
                    shown[r, c] = (64, 255, 96)
    return shown
