import itertools

import numpy as np
import pytest
from PIL import Image

from segcontext.errors import LabelError, OutputExists, ShapeError
from segcontext.pictures import (
    colourise,
    default_palette,
    error_map,
    grid,
    legend,
    overlay,
    save_labels,
    save_picture,
)

PALETTE = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
LABELS = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


def photo(height=12, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_default_palette_is_stable_distinct_and_never_void():
    palette = default_palette(256)
    assert len(set(palette)) == 256
    assert (0, 0, 0) not in palette
    assert all(0 <= value <= 255 for colour in palette for value in colour)
    assert default_palette(19) == palette[:19]
    assert default_palette(0) == ()
    near = min(
        sum((a - b) ** 2 for a, b in zip(first, second, strict=True))
        for first, second in itertools.combinations(palette[:21], 2)
    )
    assert near > 50**2
    assert len(default_palette(5000)) == 5000
    with pytest.raises(ShapeError):
        default_palette(-1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_colourise_paints_classes_and_void(dtype):
    picture = colourise(LABELS.astype(dtype), PALETTE, void=(7, 8, 9))
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [list(colour) for colour in PALETTE]
    assert picture[1].tolist() == [[0, 0, 200], [7, 8, 9], [200, 0, 0]]


@pytest.mark.parametrize("wrong", [3, -1, 254])
def test_colourise_refuses_other_labels(wrong):
    with pytest.raises(LabelError, match=f"hold {wrong}"):
        colourise(np.array([[0, wrong]]), PALETTE)


def test_with_many_classes_255_is_a_class():
    palette = default_palette(300)
    assert tuple(colourise(np.array([[255, 299]]), palette)[0, 0]) == palette[255]
    with pytest.raises(LabelError, match="hold 300"):
        colourise(np.array([[300]]), palette)


def test_labels_must_be_a_map_of_integers():
    with pytest.raises(ShapeError, match="float"):
        colourise(np.zeros((2, 2)), PALETTE)
    with pytest.raises(ShapeError, match="shape"):
        colourise(np.zeros((1, 2, 2), dtype=int), PALETTE)


def test_overlay_mixes_by_share_and_leaves_void_alone():
    image = np.full((2, 3, 3), 100, dtype=np.uint8)
    mixed = overlay(image, LABELS, PALETTE, 0.25, outline=False)
    assert mixed[0, 0].tolist() == [125, 75, 75]
    assert mixed[1, 1].tolist() == [100, 100, 100]
    assert np.array_equal(overlay(image, LABELS, PALETTE, 0.0), image)
    full = overlay(image, LABELS, PALETTE, 1.0)
    assert np.array_equal(full[LABELS != 255], colourise(LABELS, PALETTE)[LABELS != 255])


def test_outlines_lie_on_borders_only():
    labels = np.zeros((6, 6), dtype=np.uint8)
    labels[:, 3:] = 1
    image = np.zeros((6, 6, 3), dtype=np.uint8)
    changed = (overlay(image, labels, PALETTE) != overlay(image, labels, PALETTE, outline=False)).any(-1)
    assert changed[:, 2:4].all()
    assert not changed[:, [0, 1, 4, 5]].any()


def test_overlay_takes_grey_and_refuses_other_sizes():
    assert overlay(np.zeros((2, 3), dtype=np.uint8), LABELS, PALETTE).shape == (2, 3, 3)
    with pytest.raises(ShapeError, match="one size"):
        overlay(photo(), LABELS, PALETTE)
    with pytest.raises(ShapeError, match="alpha"):
        overlay(photo(2, 3), LABELS, PALETTE, 1.5)
    with pytest.raises(ShapeError, match="uint8"):
        overlay(np.zeros((2, 3, 3)), LABELS, PALETTE)


@pytest.mark.parametrize("image", [None, photo(2, 3)])
def test_the_error_map_tells_right_wrong_and_void_apart(image):
    prediction = np.array([[0, 1, 1], [2, 2, 1]])
    shown = error_map(prediction, LABELS, image=image).astype(int)
    saturation = shown.max(-1) - shown.min(-1)
    wrong = np.array([[False, False, True], [False, False, True]])
    assert (saturation[wrong] > 100).all()
    assert (saturation[~wrong] < 20).all()
    right = ~wrong & (LABELS != 255)
    assert shown[right].max() < shown[1, 1].min()
    with pytest.raises(ShapeError, match="one size"):
        error_map(prediction, LABELS[:1])


def test_a_grid_holds_its_pictures_and_grows_by_its_words():
    first, second = photo(seed=1), photo(seed=2)
    plain = grid([[first, second], [second]], gap=4)
    assert plain.shape == (2 * 12 + 3 * 4, 2 * 16 + 3 * 4, 3)
    assert np.array_equal(plain[4:16, 4:20], first)
    assert np.array_equal(plain[4:16, 24:40], second)
    assert (plain[20:32, 24:40] == 255).all()
    worded = grid([[first, second], [second]], gap=4, titles=["a", "b"], captions=["one", "two"])
    assert worded.shape[0] > plain.shape[0]
    assert worded.shape[1] == plain.shape[1]


def test_a_grid_makes_large_pictures_smaller_and_no_small_one_larger():
    sheet = grid([[photo(40, 80), photo(4, 4)]], cell=(20, 20), gap=0)
    assert sheet.shape == (10, 40, 3)


def test_a_grid_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="at least one"):
        grid([])
    with pytest.raises(ShapeError, match="2 places for titles, but 1"):
        grid([[photo(), photo()]], titles=["a"])
    with pytest.raises(ShapeError, match="captions"):
        grid([[photo()]], captions=["a", "b"])


def test_a_legend_shows_every_colour():
    palette = default_palette(30)
    picture = legend([f"a class called {index}" for index in range(30)], palette, width=400)
    assert picture.shape[1] == 400
    shown = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert set(palette) <= shown
    with pytest.raises(ShapeError, match="2 names and 1 colours"):
        legend(["a", "b"], palette[:1])


def test_a_legend_shortens_names_that_do_not_fit():
    narrow = legend(["x" * 300, "é–"], PALETTE[:2], width=120)
    assert narrow.shape[1] == 120
    assert (narrow[:, -1] == 255).all()


def test_saved_labels_keep_indices_and_colours(tmp_path):
    path = tmp_path / "new" / "labels.png"
    save_labels(path, LABELS, PALETTE)
    with Image.open(path) as picture:
        assert picture.mode == "P"
        assert np.array_equal(np.asarray(picture), LABELS)
        assert np.array_equal(np.asarray(picture.convert("RGB")), colourise(LABELS, PALETTE))
    assert [file.name for file in path.parent.iterdir()] == ["labels.png"]


def test_more_than_256_classes_take_16_bits(tmp_path):
    labels = np.array([[0, 255], [256, 299]])
    save_labels(tmp_path / "labels.png", labels, default_palette(300))
    with Image.open(tmp_path / "labels.png") as picture:
        assert picture.mode.startswith("I;16")
        assert np.array_equal(np.asarray(picture), labels)


def test_saving_checks_labels_and_does_not_replace_unasked(tmp_path):
    path = tmp_path / "labels.png"
    with pytest.raises(LabelError):
        save_labels(path, np.array([[3]]), PALETTE)
    assert not path.exists()
    save_labels(path, LABELS, PALETTE)
    before = path.read_bytes()
    with pytest.raises(OutputExists, match=r"labels\.png is already there"):
        save_labels(path, LABELS * 0, PALETTE, overwrite=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_pictures_are_saved_by_their_suffix(tmp_path, name):
    picture = np.full((8, 8, 3), (200, 40, 40), dtype=np.uint8)
    save_picture(tmp_path / name, picture)
    with Image.open(tmp_path / name) as image:
        assert image.format == {"a.png": "PNG", "a.jpg": "JPEG"}[name]
        assert np.abs(np.asarray(image).astype(int) - picture).max() <= 4
