"""Evidence as pictures."""

import numpy as np
import pytest
import torch

from segcontext import segmenter
from segcontext.errors import ShapeError
from segcontext.explain import (
    affinity_picture,
    basis_pictures,
    heat,
    mask_pictures,
    offset_picture,
    panel,
    telling_bases,
)
from segcontext.types import Affinity, Mask, OffsetMap, Responsibilities

IMAGE = np.full((24, 36, 3), 90, dtype=np.uint8)


def test_heat_is_hottest_where_the_weight_is():
    weights = torch.zeros(4, 6)
    weights[1, 4] = 1
    shown = heat(IMAGE, weights)
    assert shown.shape == IMAGE.shape
    assert shown.dtype == np.uint8
    y, x = np.unravel_index(shown.astype(int).sum(-1).argmax(), shown.shape[:2])
    assert (round(y * 3 / 23), round(x * 5 / 35)) == (1, 4)


def test_heat_of_nothing_and_of_a_wrong_shape():
    assert np.ptp(heat(IMAGE, torch.zeros(4, 6))) < 60
    with pytest.raises(ShapeError, match=r"weights \(h, w\)"):
        heat(IMAGE, torch.zeros(1, 4, 6))


def test_the_telling_bases_are_those_that_differ_over_the_image():
    maps = torch.full((2, 1, 3, 4, 4), 1 / 3)
    maps[-1, 0, 2, :2], maps[-1, 0, 2, 2:] = 0.9, 0.0
    maps[-1, 0, 0, :1] = 0.5
    evidence = Responsibilities(maps, torch.zeros(1, 3, 8))
    assert telling_bases(evidence, 2) == [2, 0]
    assert len(telling_bases(evidence, 9)) == 3
    first, second = basis_pictures(IMAGE, evidence, [2, 1])
    assert not np.array_equal(first, second)


def test_an_affinity_is_marked_at_its_pixel():
    torch.manual_seed(0)
    evidence = Affinity(torch.randn(1, 4, 6, 9), torch.randn(1, 4, 6, 9), 3, 1)
    shown = affinity_picture(IMAGE, evidence, (0.5, 0.5))
    marked = np.argwhere((shown == (64, 255, 96)).all(-1))
    assert np.abs(marked.mean(0) - (11.5, 17.5)).max() < 1.5
    for corner in ((0.0, 0.0), (1.0, 1.0)):
        assert affinity_picture(IMAGE, evidence, corner).shape == IMAGE.shape


def test_offsets_are_hot_where_the_pixel_draws_from():
    """Every pixel of a 5×5 map collects from its lower right neighbour, and hands itself to its left one."""
    collect, distribute = torch.zeros(2, 9, 5, 5), torch.zeros(2, 9, 5, 5)
    collect[:, 8] = distribute[:, 3] = 20
    evidence = OffsetMap(collect, distribute)
    square = np.full((101, 101, 3), 90, dtype=np.uint8)
    for branch, hot in (("collect", (75, 75)), ("distribute", (50, 75))):
        shown = offset_picture(square, evidence, (0.5, 0.5), branch=branch, index=1)
        unmarked = (shown != (64, 255, 96)).any(-1)
        brightest = np.argwhere(unmarked & (shown.astype(int).sum(-1) >= shown.astype(int).sum(-1)[unmarked].max()))
        assert np.abs(brightest.mean(0) - hot).max() < 2
        assert np.abs(np.argwhere(~unmarked).mean(0) - 50).max() < 1.5
    for corner in ((0.0, 0.0), (1.0, 1.0)):
        assert offset_picture(IMAGE, evidence, corner, branch="distribute").shape == IMAGE.shape


def test_masks_keep_their_scale():
    low, high = mask_pictures(IMAGE, Mask(torch.stack([torch.zeros(3, 3), torch.ones(3, 3)])[None]), [0, 1])
    assert low.astype(int).sum() < high.astype(int).sum()


@pytest.mark.parametrize(("aggregation", "distribution", "rows"), [
    ("ema", "affinity", 3), ("a2", "mask", 3), ("non_local", "none", 2), ("psp", "none", 1),
    ("psa", "mask", 3), ("psa", "none", 2),
])  # fmt: skip
def test_a_panel_shows_what_there_is(aggregation, distribution, rows):
    network = segmenter(
        4,
        backbone="test_resnet",
        pretrained=False,
        aggregation=aggregation,
        distribution=distribution,
        reduce_channels=16,
    ).eval()
    image = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        output = network(image[None], evidence=True)
    palette = ((0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    alone = panel(image, output, palette)
    judged = panel(image, output, palette, truth=torch.randint(0, 4, (64, 96)))
    assert judged.shape[1] >= alone.shape[1]
    assert round(alone.shape[0] / (64 + 30)) == rows
