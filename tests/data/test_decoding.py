import numpy as np
import pytest
import torch
from PIL import Image

from segcontext.data.decoding import quick_pixels
from segcontext.data.files import read_image
from segcontext.data.masks import class_indices
from segcontext.errors import SampleError
from segcontext.native import is_available


def picture(shape=(37, 52, 3)):
    """Smooth, as photographs are."""
    small = np.random.default_rng(0).integers(0, 256, (5, 7, *shape[2:]), np.uint8)
    return Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 30}])
@pytest.mark.parametrize("shape", [(37, 52, 3), (37, 52), (1, 1, 3)])
def test_jpeg_gives_pillows_pixels(tmp_path, options, shape):
    picture(shape).save(tmp_path / "a.jpg", **options)
    with Image.open(tmp_path / "a.jpg") as file:
        want = np.asarray(file.convert("RGB"))
    got = quick_pixels(tmp_path / "a.jpg").permute(1, 2, 0)
    # Other versions of the library may round otherwise.
    assert (got.int() - torch.tensor(want).int()).abs().max() <= 1


@pytest.mark.skipif(not is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_png_gives_the_same_pixels(tmp_path, mode):
    image = picture().convert(mode)
    image.save(tmp_path / "a.png")
    assert np.array_equal(quick_pixels(tmp_path / "a.png").permute(1, 2, 0), np.asarray(image.convert("RGB")))
    grey = quick_pixels(tmp_path / "a.png", grey=True)
    assert (grey is None) == (mode == "RGB")
    assert grey is None or np.array_equal(grey, np.asarray(image))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_what_is_not_stored_upright_is_turned(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / f"a.{suffix}", exif=exif)
    assert quick_pixels(tmp_path / f"a.{suffix}") is None
    assert read_image(tmp_path / f"a.{suffix}").shape == (3, 52, 37)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "I;16", "1"])
def test_other_kinds_of_png_are_left_to_pillow(tmp_path, mode):
    image = Image.new(mode, (8, 6)) if mode in ("I;16", "1") else picture().convert(mode)
    image.save(tmp_path / "a.png")
    assert quick_pixels(tmp_path / "a.png") is None
    assert quick_pixels(tmp_path / "a.png", grey=True) is None
    assert read_image(tmp_path / "a.png").shape == (3, *image.size[::-1])


def test_cmyk_is_left_to_pillow(tmp_path):
    picture().convert("CMYK").save(tmp_path / "a.jpg")
    assert quick_pixels(tmp_path / "a.jpg") is None


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_damaged_files_are_refused_in_pillows_words(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture().save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert quick_pixels(path) is None
    with pytest.raises(SampleError, match="truncated"):
        read_image(path)
    path.write_bytes(b"")
    assert quick_pixels(path) is None
    assert quick_pixels(tmp_path / "missing.png") is None


@pytest.mark.parametrize(
    ("raw", "known", "want"),
    [
        ([[0, 1, 255]], {0: 0, 1: 1, 255: 255}, [[0, 1, 255]]),
        ([[0, 2, 255]], {0: 0, 1: 1, 255: 255}, None),
        ([[7, 8, 0]], {7: 0, 8: 1, 0: 255, 255: 255}, [[0, 1, 255]]),
        ([[7, 9, 0]], {7: 0, 8: 1, 0: 255, 255: 255}, None),
        ([[0, 255, 254]], {255: 255, **{index: index for index in range(255)}}, [[0, 255, 254]]),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_values_are_looked_up(raw, known, want, dtype):
    found = class_indices(np.array(raw, dtype), known)
    assert (found is None) if want is None else (found.tolist() == want)
    assert found is None or found.dtype == np.uint8


def test_values_that_nobody_may_write_to_are_copied():
    raw = np.array([[0, 1, 255]], np.uint8)
    raw.flags.writeable = False
    assert class_indices(raw, {0: 0, 1: 1, 255: 255}).flags.writeable
