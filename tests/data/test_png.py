"""Own decoding of PNG files, held against Pillow's."""

import io
import itertools
import re
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segcontext import native
from segcontext.data import png
from segcontext.data.decoding import LARGEST, quick_pixels
from segcontext.data.files import read_image
from segcontext.data.masks import raw_labels
from segcontext.data.png import GREY, PALETTE, RGB
from segcontext.errors import SampleError

compiled = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

COLOURS = bytes(range(256)) * 3


def chunk(name, content=b""):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def header(width, height, kind=GREY, bits=8, methods=(0, 0, 0)):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, *methods))


def file_of(*chunks):
    return png.SIGNATURE + b"".join(chunks) + chunk(b"IEND")


def written(pixels, filters, kind=GREY, parts=1):
    """A PNG file whose rows are stored by the filters that are given, which repeat themselves."""
    step = 3 if kind == RGB else 1
    values = pixels.reshape(len(pixels), -1).astype(int)
    padded = np.pad(values, ((1, 0), (step, 0)))
    left, above, corner = padded[1:, :-step], padded[:-1, step:], padded[:-1, :-step]
    apart = np.abs(left + above - corner - np.stack([left, above, corner]))
    paeth = np.take_along_axis(np.stack([left, above, corner]), apart.argmin(0)[None], 0)[0]
    guesses = [np.zeros_like(values), left, above, (left + above) // 2, paeth]
    rows = bytearray()
    for row, used in zip(range(len(values)), itertools.cycle(filters), strict=False):
        rows += bytes([used]) + (values[row] - guesses[used][row]).astype(np.uint8).tobytes()
    packed = zlib.compress(bytes(rows))
    cuts = [len(packed) * part // parts for part in range(parts + 1)]
    chunks = [chunk(b"IDAT", packed[first:last]) for first, last in itertools.pairwise(cuts)]
    palette = [chunk(b"PLTE", COLOURS)] if kind == PALETTE else []
    return file_of(header(pixels.shape[1], pixels.shape[0], kind), *palette, *chunks)


def decoded(data, kinds=(GREY, RGB, PALETTE)):
    return png.png_pixels(memoryview(data), kinds, LARGEST)


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)))


FILTERS = st.lists(st.integers(0, 4), min_size=1, max_size=9)


@st.composite
def masks(draw):
    """Blobs with straight and slanted edges, as masks have, or noise."""
    height, width, seed = draw(st.integers(1, 40)), draw(st.integers(1, 140)), draw(st.integers(0, 2**32 - 1))
    noise = np.random.default_rng(seed)
    if draw(st.booleans()):
        return noise.integers(0, 256, (height, width), np.uint8)
    rows, columns = np.mgrid[:height, :width]
    pixels = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(0, 6))):
        slope, start = noise.normal(0, 2), noise.integers(-width, 2 * width)
        pixels[columns > start + slope * rows] = noise.integers(0, 256)
    return pixels


@compiled
@settings(max_examples=150, deadline=None)
@given(
    masks(), st.lists(st.integers(0, 4), min_size=1, max_size=9), st.sampled_from([GREY, PALETTE]), st.integers(1, 3)
)
def test_every_filter_gives_pillows_pixels(pixels, filters, kind, parts):
    data = written(pixels, filters, kind, parts)
    assert np.array_equal(decoded(data), pixels)
    assert np.array_equal(by_pillow(data), pixels)


@compiled
@settings(max_examples=150, deadline=None)
@given(masks(), FILTERS, st.data())
def test_damaged_files_are_left_alone(pixels, filters, data):
    whole = written(pixels, filters, PALETTE)
    place = data.draw(st.integers(0, len(whole) - 1))
    broken = bytearray(whole)
    broken[place] ^= data.draw(st.integers(1, 255))
    assert decoded(bytes(broken)) is None
    assert decoded(whole[:place]) is None
    # What follows the end is no part of the file.
    assert np.array_equal(decoded(whole + b"more"), pixels)


@compiled
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (31, 33), (64, 96)])
@pytest.mark.parametrize("mode", ["L", "P"])
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"compress_level": 0}, {"compress_level": 1}])
def test_pillows_files(size, mode, options):
    pixels = np.kron(np.random.default_rng(0).integers(0, 200, (8, 8), np.uint8), np.ones((38, 38), np.uint8))
    image = Image.fromarray(pixels[: size[0], : size[1]])
    if mode == "P":
        image.putpalette(COLOURS)
    file = io.BytesIO()
    image.save(file, "PNG", bits=8, dpi=(72, 72), **options)
    assert np.array_equal(decoded(file.getvalue()), by_pillow(file.getvalue()))
    assert (decoded(file.getvalue(), (GREY,)) is None) == (mode == "P")


@compiled
def test_indices_of_a_palette_are_no_picture(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(written(np.arange(6, dtype=np.uint8).reshape(2, 3), [0], PALETTE))
    assert quick_pixels(path) is quick_pixels(path, palette=True) is quick_pixels(path, grey=True) is None
    assert quick_pixels(path, grey=True, palette=True).tolist() == [[0, 1, 2], [3, 4, 5]]


ROWS = chunk(b"IDAT", zlib.compress(bytes(6)))
UNUSUAL = {
    "nothing": b"",
    "no PNG": b"GIF89a" + bytes(99),
    "no header": file_of(ROWS),
    "alpha": file_of(header(2, 2, 6), ROWS),
    "cut off": file_of(header(2, 2), ROWS)[:-12],
    "16 bits": file_of(header(2, 2, bits=16), ROWS),
    "4 bits": file_of(header(2, 2, bits=4), ROWS),
    "interlaced": file_of(header(2, 2, methods=(0, 0, 1)), ROWS),
    "another method": file_of(header(2, 2, methods=(1, 0, 0)), ROWS),
    "no pixels": file_of(header(2, 2)),
    "no width": file_of(header(0, 6), ROWS),
    "too large": file_of(header(2**14, 2**13), ROWS),
    "too few rows": file_of(header(2, 3), ROWS),
    "too many rows": file_of(header(2, 1), ROWS),
    "no palette": file_of(header(2, 2, PALETTE), ROWS),
    "late palette": file_of(header(2, 2, PALETTE), ROWS, chunk(b"PLTE", COLOURS)),
    "odd palette": file_of(header(2, 2, PALETTE), chunk(b"PLTE", COLOURS[:4]), ROWS),
    "palette of grey": file_of(header(2, 2), chunk(b"PLTE", COLOURS), ROWS),
    "orientation": file_of(header(2, 2), chunk(b"eXIf", b"MM"), ROWS),
    "orientation in text": file_of(header(2, 2), chunk(b"zTXt", b"Raw profile type exif\0\0"), ROWS),
    "animation": file_of(header(2, 2), chunk(b"acTL", bytes(8)), ROWS),
    "unknown chunk": file_of(header(2, 2), chunk(b"naMe"), ROWS),
    "parted rows": file_of(header(2, 2), ROWS, chunk(b"gAMA", bytes(4)), ROWS),
    "unknown filter": file_of(header(2, 2), chunk(b"IDAT", zlib.compress(b"\5\0\0" * 2))),
    "not compressed": file_of(header(2, 2), chunk(b"IDAT", bytes(6))),
    "wrong sum": file_of(header(2, 2), chunk(b"IDAT", zlib.compress(bytes(6))[:-1] + b"x")),
    "unfinished": file_of(header(2, 2), chunk(b"IDAT", zlib.compress(bytes(6))[:-4])),
    "a bomb": file_of(header(2, 2), chunk(b"IDAT", zlib.compress(bytes(10**7)))),
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_the_unusual_is_left_alone(data):
    assert decoded(data) is None


@compiled
@pytest.mark.parametrize("name", [b"tRNS", b"gAMA", b"tEXt"])
@pytest.mark.parametrize("kind", [GREY, PALETTE])
def test_what_changes_no_pixel_is_passed_over(name, kind):
    palette = [chunk(b"PLTE", COLOURS)] if kind == PALETTE else []
    assert decoded(file_of(header(2, 2, kind), *palette, chunk(name, bytes(4)), ROWS)).tolist() == [[0, 0], [0, 0]]


@compiled
def test_zlib_takes_zlib_ngs_place(monkeypatch):
    monkeypatch.setitem(sys.modules, "zlib_ng", None)
    assert png._library.__wrapped__() is zlib
    monkeypatch.setattr(png, "_library", lambda: zlib)
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    data = written(pixels, [4])
    assert np.array_equal(decoded(data), pixels)
    assert decoded(data[:-30] + bytes(30)) is None


@pytest.mark.parametrize("switch", ["0", "1"])
@pytest.mark.parametrize("colours", [None, {(0, 0, 0): 0}])
def test_masks_are_read_alike_in_every_form(tmp_path, monkeypatch, switch, colours):
    monkeypatch.setenv("SEGCONTEXT_NATIVE", switch)
    pixels = np.random.default_rng(0).integers(0, 3, (20, 50), np.uint8)
    path = tmp_path / "a.png"
    for kind in (GREY, PALETTE):
        path.write_bytes(written(pixels, range(5), kind))
        assert np.array_equal(raw_labels(path, colours), pixels)


@pytest.mark.parametrize("kind", [GREY, RGB])
@pytest.mark.parametrize("place", [60, 200, -20])
def test_damage_is_refused_in_pillows_words(tmp_path, kind, place):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 30, 3)[: 3 if kind == RGB else 2], np.uint8)
    data = bytearray(written(pixels, range(5), kind))
    data[place] ^= 255
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert quick_pixels(path) is None
    try:
        want = by_pillow(data)
    except Exception as error:
        with pytest.raises(SampleError, match=re.escape(str(error))):
            read_image(path)
    else:
        assert np.array_equal(read_image(path).permute(1, 2, 0), np.broadcast_to(want.reshape(30, 30, -1), (30, 30, 3)))
