"""Sheets of several pictures, with words: grids and legends."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segcontext.errors import ShapeError
from segcontext.pictures.arrays import Colour, Palette, Pixels, as_image

__all__ = ["grid", "legend"]

INK: Colour = (38, 42, 48)
PAPER: Colour = (255, 255, 255)


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
    pictures = [[as_image(picture) for picture in row] for row in rows]
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
