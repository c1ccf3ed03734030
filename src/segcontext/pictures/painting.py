"""Labels in colours: alone, over their image, and against the truth."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcontext.errors import LabelError, ShapeError
from segcontext.pictures.arrays import VOID, VOID_COLOUR, Colour, Palette, Pixels, as_image, as_labels

__all__ = ["colourise", "error_map", "overlay"]

WRONG_COLOUR: Colour = (255, 64, 32)
NEUTRAL_COLOUR: Colour = (226, 228, 234)


def colourise(labels: npt.ArrayLike, palette: Palette, *, void: Colour = VOID_COLOUR) -> Pixels:
    """Paints every pixel in the colour of its class.

    Args:
        labels: class indices, (H, W).
        palette: one colour per class.
        void: the colour of void pixels.

    Returns:
        (H, W, 3).

    Raises:
        LabelError: a label is neither a class of the palette nor void.

    Example:
        >>> colourise([[0, 255]], [(10, 20, 30)]).tolist()
        [[[10, 20, 30], [0, 0, 0]]]
    """
    indices = as_labels(labels)
    count = len(palette)
    known = (indices >= 0) & (indices < count)
    wrong = ~known & (indices != VOID)
    if wrong.any():
        raise LabelError(
            f"The palette has colours for the classes 0..{count - 1} (void is {VOID}), but the labels hold "
            f"{indices[wrong][0]}. Give a palette with one colour per class."
        )
    table = np.array([*palette, void], dtype=np.uint8)
    colours: Pixels = table[np.where(known, indices, count)]
    return colours


def overlay(
    image: npt.ArrayLike, labels: npt.ArrayLike, palette: Palette, alpha: float = 0.5, *, outline: bool = True
) -> Pixels:
    """Lays the colours of the classes over an image; void pixels show the image alone.

    Args:
        image: uint8 RGB, (H, W, 3), or grey, (H, W).
        labels: class indices, (H, W).
        palette: one colour per class.
        alpha: share of the class colour, from 0 (image alone) to 1 (colours alone).
        outline: whether the borders between classes are drawn in full colour, one pixel inside each region.

    Returns:
        (H, W, 3).

    Raises:
        ShapeError: the sizes differ, or `alpha` is not a share.
        LabelError: a label is neither a class of the palette nor void.
    """
    if not 0 <= alpha <= 1:
        raise ShapeError(f"alpha is a share of colour from 0 to 1, not {alpha}.")
    indices = as_labels(labels)
    picture = as_image(image, indices.shape)
    colours = colourise(indices, palette)
    share = np.full(indices.shape, alpha)
    if outline and alpha > 0:
        share[_borders(indices)] = max(alpha, 0.9)
    share[(indices == VOID) & (len(palette) <= VOID)] = 0
    blend: Pixels = np.round(picture * (1 - share[..., None]) + colours * share[..., None]).astype(np.uint8)
    return blend


def error_map(prediction: npt.ArrayLike, target: npt.ArrayLike, *, image: npt.ArrayLike | None = None) -> Pixels:
    """Shows where a prediction is wrong: right pixels in dimmed grey, wrong ones in red, void in a neutral light tone.

    Args:
        prediction: class indices, (H, W).
        target: class indices, (H, W), 255 for void.
        image: uint8 RGB, (H, W, 3); where given, right pixels show it in dimmed grey, and wrong ones keep its shading.

    Returns:
        (H, W, 3).

    Raises:
        ShapeError: the sizes differ.

    Example:
        >>> error_map([[1, 2, 0]], [[1, 1, 255]])[0, 1].tolist()
        [255, 64, 32]
    """
    predicted, truth = as_labels(prediction), as_labels(target)
    if predicted.shape != truth.shape:
        raise ShapeError(f"Prediction and target must have one size, but have {predicted.shape} and {truth.shape}.")
    wrong, void = (predicted != truth) & (truth != VOID), truth == VOID
    if image is None:
        shown = np.full((*truth.shape, 3), 96, dtype=np.uint8)
        shown[wrong] = WRONG_COLOUR
    else:
        grey = as_image(image, truth.shape) @ np.array([0.299, 0.587, 0.114])
        shown = np.repeat(np.round(24 + 0.45 * grey).astype(np.uint8)[..., None], 3, axis=-1)
        shading = 0.75 + 0.25 * grey[wrong] / 255
        shown[wrong] = np.round(shading[:, None] * np.array(WRONG_COLOUR)).astype(np.uint8)
    shown[void] = NEUTRAL_COLOUR
    return shown


def _borders(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    border = np.zeros(labels.shape, dtype=np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border
