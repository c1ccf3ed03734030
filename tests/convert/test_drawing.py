"""Objects drawn into one mask, against masks of the image's size, and with little memory."""

import tracemalloc

import numpy as np
import pytest

from segcontext.convert import decode_rle, encode_rle, fill_polygon
from segcontext.convert.drawing import Drawn, draw
from segcontext.convert.shapes import fill_disc, fill_stroke
from segcontext.errors import DataError

HEIGHT, WIDTH = 23, 31


def whole(each):
    """What an object covers, by the plain functions, at the size of the mask."""
    if each.kind == "polygons":
        parts = [fill_polygon(np.reshape(polygon, (-1, 2)), HEIGHT, WIDTH) for polygon in each.data]
        return np.any([np.zeros((HEIGHT, WIDTH), bool), *parts], axis=0)
    if each.kind == "rle":
        return decode_rle(each.data)
    if each.kind == "disc":
        return fill_disc(*each.data, HEIGHT, WIDTH)
    if each.kind == "stroke":
        return fill_stroke(*each.data, HEIGHT, WIDTH)
    pixels, top, left = each.data
    found = np.zeros((HEIGHT + 50, WIDTH + 50), bool)
    found[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return found[:HEIGHT, :WIDTH]


def slow(objects, background, overlap):
    """Pixel by pixel: who covers it, in the order of drawing."""
    masks = [whole(each) for each in objects]
    order = list(range(len(objects)))
    if overlap == "smaller":
        order.sort(key=lambda index: -masks[index].sum())
    order.sort(key=lambda index: not objects[index].crowd)
    found = np.full((HEIGHT, WIDTH), background)
    for place in np.ndindex(HEIGHT, WIDTH):
        others = False
        for index in order:
            if masks[index][place]:
                label = objects[index].label
                clash = overlap == "void" and others and found[place] != label
                found[place] = 255 if clash else label
                others |= not objects[index].crowd
    return found


def some_object(rng):
    kind = rng.choice(["polygons", "rle", "disc", "stroke", "patch"])
    points = rng.uniform(-8, 40, (int(rng.integers(1, 6)), 2))
    data = {
        "polygons": [rng.uniform(-8, 40, 2 * int(rng.integers(1, 5))).tolist() for _ in range(rng.integers(0, 4))],
        "rle": encode_rle(rng.random((HEIGHT, WIDTH)) < rng.choice([0, 0.01, 0.2])),
        "disc": (tuple(points[0]), float(rng.uniform(0, 9))),
        "stroke": (points[: int(rng.integers(0, 6))], float(rng.uniform(0.5, 6))),
        "patch": (rng.random((5, 9)) < 0.5, int(rng.integers(0, HEIGHT)), int(rng.integers(0, WIDTH))),
    }[kind]
    return Drawn(int(rng.choice([1, 2, 3, 255])), str(kind), data, bool(rng.random() < 0.2))


@pytest.mark.parametrize("overlap", ["smaller", "later", "void"])
@pytest.mark.parametrize("seed", range(8))
def test_boxes_are_drawn_as_whole_masks_are(seed, overlap):
    rng = np.random.default_rng(seed)
    objects = [some_object(rng) for _ in range(rng.integers(0, 12))]
    np.testing.assert_array_equal(
        draw(objects, HEIGHT, WIDTH, background=0, overlap=overlap), slow(objects, 0, overlap)
    )


@pytest.mark.parametrize("overlap", ["smaller", "later", "void"])
def test_small_objects_take_little_memory_however_many_they_are(overlap):
    height, width = 1500, 2000
    rng = np.random.default_rng(0)
    corners = rng.integers(0, [width - 40, height - 40], (60, 2))
    triangles = [
        Drawn(1 + place % 5, "polygons", [[x, y, x + 30, y, x + 30, y + 30]]) for place, (x, y) in enumerate(corners)
    ]
    dots = [Drawn(7, "disc", ((float(x), float(y)), 5.0)) for x, y in corners]
    tracemalloc.start()
    try:
        found = draw([*triangles, *dots], height, width, background=0, overlap=overlap)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert set(np.unique(found)) - {255} == {0, 1, 2, 3, 4, 5, 7}
    # The mask, what is taken, and something for the objects.
    assert peak < 4 * height * width


@pytest.mark.parametrize("overlap", ["later", "void"])
def test_large_objects_do_not_pile_up(overlap):
    height, width = 600, 800
    everything = [Drawn(1, "polygons", [[0, 0, width, 0, width, height, 0, height]]) for _ in range(30)]
    tracemalloc.start()
    try:
        assert (draw(everything, height, width, background=0, overlap=overlap) == 1).all()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 12 * height * width


@pytest.mark.parametrize(
    "each",
    [
        Drawn(1, "disc", ((float("nan"), 3.0), 2.0)),
        Drawn(1, "stroke", ([(1.0, float("inf"))], 2.0)),
        Drawn(1, "patch", (np.ones((3, 3), bool), -1, 0)),
        Drawn(1, "patch", (np.ones((3, 3), bool), HEIGHT + 1, 0)),
    ],
)
def test_what_cannot_be_drawn_is_refused(each):
    with pytest.raises(DataError):
        draw([each], HEIGHT, WIDTH, background=0, overlap="later")
