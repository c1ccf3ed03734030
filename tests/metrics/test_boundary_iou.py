"""Boundary IoU against its definition, mask by mask and pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.errors import LabelError, RecipeError, ShapeError
from segcontext.metrics import BoundaryIoU, boundary_iou, boundary_iou_counts


def rim(mask, reach):
    """The mask's pixels in whose square there is a pixel outside of the mask, or of the image."""
    height, width = mask.shape
    kept = set()
    for row, column in zip(*np.nonzero(mask), strict=True):
        for down in range(row - reach, row + reach + 1):
            for right in range(column - reach, column + reach + 1):
                inside = 0 <= down < height and 0 <= right < width
                if not inside or not mask[down, right]:
                    kept.add((row, column))
    return kept


def slow_iou(prediction, target, num_classes, width):
    reach = max(1, round(width * math.hypot(*target.shape[1:]))) if width < 1 else int(width)
    found = []
    for index in range(num_classes):
        both = either = 0
        for guess, truth in zip(prediction, target, strict=True):
            ours, theirs = (rim((labels == index) & (truth != 255), reach) for labels in (guess, truth))
            both, either = both + len(ours & theirs), either + len(ours | theirs)
        found.append(both / either if either else math.nan)
    return found


def random_labels(seed, shape, classes, coarse):
    draw = np.random.default_rng(seed)
    batch, height, width = shape
    cells = draw.integers(0, classes, (batch, -(-height // coarse), -(-width // coarse)))
    target = cells.repeat(coarse, 1).repeat(coarse, 2)[:, :height, :width]
    prediction = np.where(draw.random(shape) < 0.1, 0, np.roll(target, 1, 2))
    return prediction, np.where(draw.random(shape) < 0.05, 255, target)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 11),
    width=st.integers(1, 11),
    coarse=st.integers(1, 11),
    reach=st.sampled_from([1, 2, 3.9, 20, 0.001, 0.02, 0.3]),
)
def test_it_equals_the_definition(seed, height, width, coarse, reach):
    prediction, target = random_labels(seed, (2, height, width), 3, coarse)
    found = boundary_iou(prediction, target, 3, width=reach)
    assert found.dtype == torch.float64
    np.testing.assert_array_equal(found.numpy(), slow_iou(prediction, target, 3, reach))


def test_a_band_as_wide_as_the_image_gives_the_iou_of_the_masks():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    prediction, target = random_labels(3, (3, 20, 16), 4, 5)
    found = boundary_iou(prediction, target, 4, width=20)
    guess, truth = (torch.from_numpy(labels) for labels in (prediction, target))
    expected = multiclass_jaccard_index(guess, truth, 4, average=None, ignore_index=255)
    torch.testing.assert_close(found.float(), expected)


def test_it_sees_what_mask_iou_hardly_sees():
    target = np.zeros((60, 60), np.int64)
    target[10:50, 10:50] = 1
    prediction = np.roll(target, 2, 1)
    small, large = (boundary_iou(prediction, target, 2, width=width)[1] for width in (2, 20))
    assert small < 0.6 < 0.9 < large


def test_the_metric_sums_batches_and_images_of_any_size():
    parts = [random_labels(seed, (2, 9 + seed, 12), 3, 4) for seed in range(3)]
    metric = BoundaryIoU(3, width=0.1)
    for part in parts:
        metric.update(*part)
    counts = sum(boundary_iou_counts(*part, 3, width=0.1) for part in parts)
    both, predicted, true = counts.double().unbind(-1)
    assert counts.dtype == torch.int64
    assert torch.equal(metric.compute(), both / (predicted + true - both))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"width": 0}, RecipeError, "The width of boundary IoU .* not 0"),
        ({"target": np.full((3, 3), 9)}, LabelError, "holds 9"),
        ({"target": np.zeros((3, 4), np.int64)}, ShapeError, "one shape"),
    ],
)
def test_wrong_input_is_refused(change, error, words):
    labels = np.zeros((3, 3), np.int64)
    given_ = {"target": labels, "width": 1, **change}
    with pytest.raises(error, match=words):
        boundary_iou(labels, given_.pop("target"), 2, **given_)
    with pytest.raises(RecipeError, match="The width of boundary IoU"):
        BoundaryIoU(2, width=-1)
