"""Encodings, fillings and outlines, against their definitions and against COCO's own code where it is installed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segcontext.convert import decode_rle, encode_rle, fill_polygon, trace_outlines
from segcontext.convert.shapes import fill_disc, fill_stroke
from segcontext.errors import DataError


def blobs(seed, *, height=37, width=52, share=0.5):
    """Smooth regions with holes, islands and pixels that touch at corners."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), 1.0 + seed % 3)
    return noise > np.quantile(noise, 1 - share)


MASKS = {
    "empty": np.zeros((5, 4), bool),
    "full": np.ones((5, 4), bool),
    "first pixel": np.pad(np.ones((1, 1), bool), ((0, 4), (0, 3))),
    "last pixel": np.pad(np.ones((1, 1), bool), ((4, 0), (3, 0))),
    "one row": np.array([[1, 0, 1, 1]], bool),
    "one column": np.array([[0], [1], [1]], bool),
    "checks": np.indices((6, 7)).sum(0) % 2 == 0,
    "long": np.pad(np.ones((40, 50), bool), ((3, 70), (90, 1))),
    **{f"blobs {seed}": blobs(seed) for seed in range(4)},
}
with_coco_s_code = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())


# Run-length encoding


@every_mask
def test_a_mask_comes_back_from_its_encoding(mask):
    rle = encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    np.testing.assert_array_equal(decode_rle(rle), mask)
    np.testing.assert_array_equal(decode_rle({**rle, "counts": rle["counts"].encode()}), mask)


@every_mask
def test_runs_go_down_the_columns_from_zeros(mask):
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    np.testing.assert_array_equal(decode_rle({"size": mask.shape, "counts": runs}), mask)


@with_coco_s_code
@every_mask
def test_encodings_are_those_of_coco_s_code(mask):
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert encode_rle(mask)["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(coco.decode(encode_rle(mask)).astype(bool), mask)


def test_an_encoding_from_coco_s_documentation():
    assert encode_rle(np.array([[0, 0, 1, 1, 1, 0, 1]]))["counts"] == "231N"
    assert decode_rle({"size": [1, 7], "counts": [2, 3, 1, 1]}).tolist() == [[False] * 2 + [True] * 3 + [False, True]]


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [2, 3], "counts": [2, 3]},
        {"size": [2, 3], "counts": [8, -2]},
        {"size": [2, 3], "counts": "231P"},
        {"size": [2, 3], "counts": "2 1"},
        {"size": [2, 3]},
        {"size": "big", "counts": "231"},
        {"size": [2, 3], "counts": 6},
    ],
)
def test_a_damaged_encoding_is_refused(rle):
    with pytest.raises(DataError, match="run-length encoding"):
        decode_rle(rle)


# Polygons


def slow_fill(points, height, width):
    """Counts for every pixel's centre how many edges a ray to the left crosses; and says which it only touches."""
    found, touched = np.zeros((2, height, width), bool)
    for row in range(height):
        for column in range(width):
            x, y = column + 0.5, row + 0.5
            for (x1, y1), (x2, y2) in zip(points, [*points[1:], points[0]], strict=True):
                if (y1 <= y) != (y2 <= y):
                    across = x1 + (y - y1) * (x2 - x1) / (y2 - y1)
                    found[row, column] ^= across <= x
                    touched[row, column] |= abs(across - x) < 1e-6
    return found, touched


numbers = st.one_of(st.integers(-3, 11).map(float), st.floats(-3, 11, width=32))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=8))
def test_polygons_cover_the_pixels_whose_centres_they_hold(points):
    expected, touched = slow_fill(points, 7, 8)
    # A centre within a rounding error of an edge may lie on either side of it.
    np.testing.assert_array_equal(fill_polygon(points, 7, 8)[~touched], expected[~touched])


def test_polygons_with_common_edges_fill_the_plane_once():
    rng = np.random.default_rng(3)
    centre = rng.uniform(8, 24, 2)
    corners = [(0, 0), (13.3, 0), (32, 0), (32, 17.5), (32, 32), (5.2, 32), (0, 32), (0, 11)]
    parts = [(centre, corners[place - 1], corner) for place, corner in enumerate(corners)]
    assert (sum(fill_polygon(part, 32, 32).astype(int) for part in parts) == 1).all()


@with_coco_s_code
@pytest.mark.parametrize("seed", range(6))
def test_polygons_are_those_of_coco_s_code_but_for_its_rounding(seed):
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
    radius = rng.uniform(12, 45, 9)
    points = np.stack([60 + radius * np.cos(angles), 50 + radius * np.sin(angles)], 1)
    ours = fill_polygon(points, 100, 120)
    theirs = coco.decode(coco.frPyObjects([points.ravel().tolist()], 100, 120))[..., 0].astype(bool)
    different = ours != theirs
    # It rounds corners to fifths of a pixel, which decides pixels whose centres lie that near to an edge.
    assert different.sum() <= 0.02 * ours.sum() + 4
    near = ndimage.binary_dilation(ours) & ~ndimage.binary_erosion(ours)
    assert not (different & ~near).any()


def test_few_corners_cover_nothing():
    assert not fill_polygon([], 3, 3).any()
    assert not fill_polygon([(0, 0), (3, 3)], 3, 3).any()
    assert not fill_polygon([(50, 50), (60, 50), (60, 60)], 3, 3).any()


@pytest.mark.parametrize("points", [[(3, 4)], [(2, 2), (12, 9)], [(-3, 5), (7, 5), (7, 30)], [(4, 4), (4, 4)]])
def test_strokes_cover_what_is_near(points):
    found = fill_stroke(points, 5, 14, 16)
    y, x = np.indices((14, 16)) + 0.5
    segments = itertools.pairwise(points) if len(points) > 1 else [(points[0], points[0])]
    near = np.full((14, 16), np.inf)
    for start, end in segments:
        for share in np.linspace(0, 1, 4001):
            here = np.array(start) + share * (np.array(end) - np.array(start))
            near = np.minimum(near, np.hypot(x - here[0], y - here[1]))
    assert found.any()
    np.testing.assert_array_equal(found[abs(near - 2.5) > 1e-3], (near <= 2.5)[abs(near - 2.5) > 1e-3])


def test_discs_have_their_area():
    assert abs(fill_disc((40.2, 30.7), 25, 70, 80).sum() / (np.pi * 625) - 1) < 0.01


# Outlines


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0.1, 0.5, 0.85])
def test_outlines_without_holes_give_the_region_back(seed, share):
    regions, count = ndimage.label(blobs(seed, share=share))
    assert count
    for number in range(1, count + 1):
        region = regions == number
        outlines = trace_outlines(region)
        holes = ndimage.label(~np.pad(region, 1), structure=np.ones((3, 3)))[1] - 1
        assert len(outlines) == 1 + holes
        filled = np.zeros(region.shape, bool)
        for outline in outlines:
            filled ^= fill_polygon(outline, *region.shape)
        np.testing.assert_array_equal(filled, region)


def test_outlines_turn_at_every_corner_and_go_clockwise():
    (outline,) = trace_outlines(np.ones((2, 3), bool))
    assert outline == [(0, 0), (3, 0), (3, 2), (0, 2)]
    assert trace_outlines(np.zeros((2, 3), bool)) == []
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    areas = []
    for points in trace_outlines(ring):
        x, y = np.array(points).T
        areas.append((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
    assert areas == [9, -1]
