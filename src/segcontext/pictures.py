"""Pictures of labels, drawn with numpy and Pillow alone.

Images are uint8 RGB arrays, (H, W, 3); labels are integer arrays, (H, W), with 255 for void. A class index wins over
void where a palette has more than 255 colours.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segcontext.errors import LabelError, OutputExists, ShapeError

__all__ = [
    "Colour",
    "Palette",
    "Pixels",
    "atomic_path",
    "colourise",
    "default_palette",
    "error_map",
    "grid",
    "legend",
    "overlay",
    "save_labels",
    "save_picture",
]

Colour: TypeAlias = tuple[int, int, int]
Palette: TypeAlias = Sequence[Colour]
Pixels: TypeAlias = npt.NDArray[np.uint8]

VOID = 255
VOID_COLOUR: Colour = (0, 0, 0)
WRONG_COLOUR: Colour = (255, 64, 32)
NEUTRAL_COLOUR: Colour = (226, 228, 234)
INK: Colour = (38, 42, 48)
PAPER: Colour = (255, 255, 255)


def default_palette(n: int) -> tuple[Colour, ...]:
    """Colours that are easy to tell from each other, and from void's black.

    Each colour is the one farthest, in the perceptual space OKLab (Ottosson, 2020), from all colours before it and
    from black, white and grey. A shorter palette is therefore the beginning of a longer one.

    Args:
        n: how many colours; beyond about 3,000 they repeat.

    Returns:
        n colours, red, green and blue in 0..255.

    Example:
        >>> default_palette(12)[:3] == default_palette(3)
        True
    """
    if n < 0:
        raise ShapeError(f"A palette needs zero or more colours, not {n}.")
    colours = _distinct_colours(n)
    return tuple(colours[index % len(colours)] for index in range(n))


@lru_cache(maxsize=32)
def _distinct_colours(n: int) -> tuple[Colour, ...]:
    levels = np.arange(0, 256, 15)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = _oklab(candidates)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    # Pale and very dark colours vanish on photographs, and the most saturated ones drown all others.
    usable = (lab[:, 0] > 0.42) & (lab[:, 0] < 0.9) & (chroma > 0.06) & (chroma < 0.21)
    candidates, lab = candidates[usable], lab[usable]
    taken = _oklab(np.array([[0, 0, 0], [255, 255, 255], [128, 128, 128]]))
    distance = np.linalg.norm(lab[:, None] - taken[None], axis=-1).min(1)
    chosen: list[Colour] = []
    for _ in range(min(n, len(candidates))):
        farthest = int(distance.argmax())
        red, green, blue = candidates[farthest].tolist()
        chosen.append((red, green, blue))
        distance = np.minimum(distance, np.linalg.norm(lab - lab[farthest], axis=-1))
    return tuple(chosen)


def _oklab(colours: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    srgb = colours / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.7936177850, -0.0040720468],
            [1.9779984951, -2.4285922050, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.8086757660],
        ]
    )
    lab: npt.NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab


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
    indices = _as_labels(labels)
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
    indices = _as_labels(labels)
    picture = _as_image(image, indices.shape)
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
    predicted, truth = _as_labels(prediction), _as_labels(target)
    if predicted.shape != truth.shape:
        raise ShapeError(f"Prediction and target must have one size, but have {predicted.shape} and {truth.shape}.")
    wrong, void = (predicted != truth) & (truth != VOID), truth == VOID
    if image is None:
        shown = np.full((*truth.shape, 3), 96, dtype=np.uint8)
        shown[wrong] = WRONG_COLOUR
    else:
        grey = _as_image(image, truth.shape) @ np.array([0.299, 0.587, 0.114])
        shown = np.repeat(np.round(24 + 0.45 * grey).astype(np.uint8)[..., None], 3, axis=-1)
        shading = 0.75 + 0.25 * grey[wrong] / 255
        shown[wrong] = np.round(shading[:, None] * np.array(WRONG_COLOUR)).astype(np.uint8)
    shown[void] = NEUTRAL_COLOUR
    return shown


def grid(
    rows: Sequence[Sequence[npt.ArrayLike]],
    *,
    titles: Sequence[str] = (),
    captions: Sequence[str] = (),
    cell: tuple[int, int] | None = None,
    gap: int = 6,
) -> Pixels:
    """Lays pictures out in rows, with a title over each column and a caption under each row.

    Args:
        rows: rows of pictures, uint8 RGB or grey; rows may differ in length, pictures in size.
        titles: one per column, or none.
        captions: one per row, or none.
        cell: (height, width) into which each picture is fitted, in pixels; by default the largest picture's.
            Pictures are only ever made smaller.
        gap: space between the cells and around them, in pixels.

    Returns:
        One picture, (H, W, 3), on white.

    Raises:
        ShapeError: there is no picture, or there are not as many titles or captions as columns or rows.
    """
    pictures = [[_as_image(picture) for picture in row] for row in rows]
    columns = max((len(row) for row in pictures), default=0)
    if columns == 0:
        raise ShapeError("A grid needs at least one picture.")
    for what, given, wanted in (("titles", titles, columns), ("captions", captions, len(pictures))):
        if given and len(given) != wanted:
            raise ShapeError(f"The grid has {wanted} places for {what}, but {len(given)} were given.")
    shapes = [picture.shape for row in pictures for picture in row]
    bounds = cell or (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes))
    fitted = [[_fit(picture, *bounds) for picture in row] for row in pictures]
    width = max(picture.width for row in fitted for picture in row)
    heights = [max((picture.height for picture in row), default=0) for row in fitted]

    font = _font(max(11, min(20, width // 18)))
    line = _line_height(font) + 4
    above, below = (line if titles else 0), (line if captions else 0)
    sheet = Image.new(
        "RGB", (columns * (width + gap) + gap, above + sum(tall + below + gap for tall in heights) + gap), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        left = gap + column * (width + gap)
        draw.text((left + width / 2, gap), _shorten(title, font, width), INK, font, anchor="ma")
    top = gap + above
    for index, row in enumerate(fitted):
        for column, picture in enumerate(row):
            left = gap + column * (width + gap) + (width - picture.width) // 2
            sheet.paste(picture, (left, top + (heights[index] - picture.height) // 2))
        if captions:
            room = columns * (width + gap) - gap
            draw.text((gap, top + heights[index] + 3), _shorten(captions[index], font, room), INK, font)
        top += heights[index] + below + gap
    return np.asarray(sheet)


def legend(names: Sequence[str], palette: Palette, *, width: int = 720, size: int = 14) -> Pixels:
    """Draws a key: each class's colour beside its name, in as many columns as fit.

    Args:
        names: one name per class.
        palette: one colour per class.
        width: width of the picture, in pixels.
        size: size of the letters, in pixels.

    Returns:
        (H, width, 3), on white.

    Raises:
        ShapeError: names and colours differ in number.
    """
    if len(names) != len(palette):
        raise ShapeError(f"A legend needs one colour per name, but got {len(names)} names and {len(palette)} colours.")
    font = _font(size)
    swatch, gap = round(size * 1.2), size // 2
    line = max(_line_height(font), swatch) + gap
    widest = max((font.getlength(name) for name in names), default=0.0)
    step = min(width - gap, round(swatch + widest + 3 * gap))
    columns = max(1, (width - gap) // step)
    lines = -(-len(names) // columns)
    sheet = Image.new("RGB", (width, gap + lines * line), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (name, colour) in enumerate(zip(names, palette, strict=True)):
        # Filled by columns, so that neighbouring classes stand below each other.
        left, top = gap + index // lines * step, gap + index % lines * line
        draw.rounded_rectangle((left, top, left + swatch, top + swatch), swatch // 5, colour)
        room = step - swatch - 2 * gap
        draw.text((left + swatch + gap, top + swatch / 2), _shorten(name, font, room), INK, font, anchor="lm")
    return np.asarray(sheet)


def save_labels(
    path: str | os.PathLike[str], labels: npt.ArrayLike, palette: Palette, *, overwrite: bool = True
) -> None:
    """Writes labels as a PNG of class indices, which picture viewers show in the classes' colours.

    Args:
        path: the file to write.
        labels: class indices, (H, W), 255 for void.
        palette: one colour per class. With more than 256 classes the file is a 16-bit PNG without colours.
        overwrite: whether a file of that name may be replaced.

    Raises:
        LabelError: a label is neither a class of the palette nor void.
        OutputExists: the file is there and `overwrite` is False.
    """
    indices = _as_labels(labels)
    colourise(indices, palette)
    if len(palette) > 256:
        save_picture(path, Image.fromarray(indices.astype(np.uint16)), overwrite=overwrite)
        return
    picture = Image.fromarray(indices.astype(np.uint8))
    colours = np.zeros((256, 3), dtype=np.uint8)
    colours[VOID] = VOID_COLOUR
    colours[: len(palette)] = np.array(palette, dtype=np.uint8).reshape(-1, 3)
    picture.putpalette(colours.tobytes())
    save_picture(path, picture, overwrite=overwrite)


def save_picture(path: str | os.PathLike[str], picture: npt.ArrayLike | Image.Image, *, overwrite: bool = True) -> None:
    """Writes a picture in the format that its suffix names; the file appears whole or not at all.

    Args:
        path: the file to write; missing folders are made.
        picture: uint8 array, (H, W, 3) or (H, W), or a Pillow image.
        overwrite: whether a file of that name may be replaced.

    Raises:
        OutputExists: the file is there and `overwrite` is False.
    """
    target = Path(path)
    if target.exists() and not overwrite:
        raise OutputExists(f"{target} is already there. Choose another name, or allow overwriting.")
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(np.asarray(picture, dtype=np.uint8))
    jpeg = target.suffix.lower() in {".jpg", ".jpeg"}
    # Chroma subsampling smears the borders between class colours.
    options: dict[str, Any] = {"quality": 92, "subsampling": 0} if jpeg else {}
    with atomic_path(target) as temporary:
        picture.save(temporary, **options)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and moves what was written there to `path` if nothing failed.

    Args:
        path: the file to write; missing folders are made.

    Yields:
        The temporary path, with the suffix of `path`.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _as_labels(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    array = np.asarray(labels)
    if array.ndim != 2 or not (np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_):
        raise ShapeError(f"Labels are integers of shape (H, W); got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def _as_image(image: npt.ArrayLike, size: tuple[int, ...] | None = None) -> Pixels:
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=-1)
    if array.ndim != 3 or array.shape[-1] != 3 or array.dtype != np.uint8:
        raise ShapeError(f"An image is uint8 of shape (H, W, 3) or (H, W); got {array.dtype} of shape {array.shape}.")
    if size is not None and array.shape[:2] != size:
        raise ShapeError(f"Image and labels must have one size, but have {array.shape[:2]} and {size}.")
    return array


def _borders(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    border = np.zeros(labels.shape, dtype=np.bool_)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    border[1:] |= down
    border[:-1] |= down
    border[:, 1:] |= right
    border[:, :-1] |= right
    return border


def _fit(picture: Pixels, height: int, width: int) -> Image.Image:
    image = Image.fromarray(picture)
    scale = min(1.0, height / image.height, width / image.width)
    if scale == 1.0:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    # Pillow's own font has ASCII letters only; matplotlib, not imported here, brings DejaVu Sans along as a file.
    package = find_spec("matplotlib")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if file.is_file():
            return ImageFont.truetype(file, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont), "asking for a size gives a scalable font"
    return font


def _line_height(font: ImageFont.FreeTypeFont) -> int:
    ascent, descent = font.getmetrics()
    return ascent + descent


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"
