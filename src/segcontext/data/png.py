"""The usual kinds of PNG files, inflated by zlib-ng and told from their rows by compiled loops."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Collection, Iterator
from functools import cache
from types import ModuleType
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native import is_available

__all__ = ["GREY", "PALETTE", "RGB", "SIGNATURE", "png_pixels"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Kinds of pixels.
GREY, RGB, PALETTE = 0, 2, 3
#: Chunks that change no pixel.
IDLE = {b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"tIME"}
TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
#: Marks of an orientation in texts.
TURNED = (b"exif", b"XML:com.adobe.xmp")


class _Image(NamedTuple):
    kind: int
    width: int
    height: int
    compressed: bytes | memoryview


def png_pixels(data: memoryview, kinds: Collection[int], largest: int) -> Pixels | None:
    """Decodes a whole PNG file of 8 bits a channel that is not interlaced.

    Args:
        data: the file.
        kinds: what its pixels may be: `GREY`, `RGB` or `PALETTE`, of which the indices are returned.
        largest: more pixels are left alone.

    Returns:
        (H, W), or (H, W, 3) for RGB. `None` where the file is of another kind, holds anything out of the ordinary, is
        damaged in the least, or where no loop can be compiled: Pillow then knows what to do, or what to say.
    """
    if not is_available():
        return None
    try:
        image = _parse(data, kinds, largest)
    except (ValueError, struct.error):
        return None
    from segcontext.native.png_rows import undo_filters

    step = 3 if image.kind == RGB else 1
    length = step * image.width
    size = image.height * (1 + length)
    stream = _library().decompressobj()
    try:
        # One byte more, so that the checksum behind the last is looked at.
        stored = stream.decompress(image.compressed, size + 1)
    except _library().error:
        return None
    if not stream.eof or len(stored) != size:
        return None
    rows = np.empty((image.height, length), np.uint8)
    if not undo_filters(np.frombuffer(stored, np.uint8).reshape(image.height, 1 + length), step, rows):
        return None
    return rows.reshape(image.height, image.width, 3) if image.kind == RGB else rows


@cache
def _library() -> ModuleType:
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        # The slower one gives the same bytes.
        return zlib
    found: ModuleType = zlib_ng
    return found


def _parse(data: memoryview, kinds: Collection[int], largest: int) -> _Image:
    """Raises `ValueError` for anything unusual."""
    chunks = _chunks(data)
    name, content = next(chunks)
    width, height, bits, kind, *methods = struct.unpack(">IIBBBBB", content)
    wanted = kind in kinds and 0 < width * height <= largest
    if not wanted or name != b"IHDR" or bits != 8 or methods != [0, 0, 0]:
        raise ValueError("another kind of PNG")
    before = [name]
    rows: list[memoryview] = []
    for name, content in chunks:
        if name == b"IDAT" and (not rows or before[-1] == name):
            rows.append(content)
        elif name == b"PLTE":
            if kind == GREY or rows or name in before or len(content) % 3 or not 0 < len(content) <= 768:
                raise ValueError("a palette that does not belong there")
        elif name not in IDLE and not (name in TEXTS and not any(mark in bytes(content) for mark in TURNED)):
            raise ValueError("a chunk that may turn the picture, or mean anything")
        before.append(name)
    if not rows or (kind == PALETTE and b"PLTE" not in before):
        raise ValueError("no pixels, or no colours")
    return _Image(kind, width, height, rows[0] if len(rows) == 1 else b"".join(rows))


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Names and contents before the end mark; raises `ValueError` where there is none or a checksum is off."""
    if data[: len(SIGNATURE)] != SIGNATURE:
        raise ValueError("no PNG")
    place = len(SIGNATURE)
    crc32 = _library().crc32
    while True:
        length, name = struct.unpack_from(">I4s", data, place)
        content = data[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack_from(">I", data, place + 8 + length)
        if crc32(content, crc32(name)) != checksum:
            raise ValueError("a damaged chunk")
        if name == b"IEND":
            return
        yield name, content
        place += 12 + length
