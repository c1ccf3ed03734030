"""IoU by object size against its definition, by flood filling."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.errors import RecipeError
from segcontext.metrics import SizeCounts, confusion_matrix, size_counts, size_scores


def regions_of(mask):
    """Connected regions, corners included, in reading order of their first pixels."""
    left, regions = {tuple(place) for place in np.argwhere(mask)}, []
    for start in map(tuple, np.argwhere(mask)):
        if start not in left:
            continue
        region, edge = set(), [start]
        left.discard(start)
        while edge:
            row, column = edge.pop()
            region.add((row, column))
            around = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= around
            edge += around
        regions.append(region)
    return regions


def slow_counts(prediction, target, num_classes, areas):
    counts = np.zeros((len(areas) + 1, num_classes, 4), dtype=np.int64)
    for guess, truth in zip(prediction, target, strict=True):
        for index in range(num_classes):
            objects = regions_of(truth == index)
            for pixels in objects:
                size = sum(len(pixels) >= area for area in areas)
                right = sum(guess[place] == index for place in pixels)
                counts[size, index] += [right, len(pixels) - right, 0, 1]
            for region in regions_of((guess == index) & (truth != 255)):
                overlaps = [len(region & pixels) for pixels in objects]
                owner = objects[int(np.argmax(overlaps))] if any(overlaps) else region
                counts[sum(len(owner) >= area for area in areas), index, 2] += len(region.difference(*objects))
    return counts


def random_labels(seed, shape=(2, 14, 17), classes=3, void=0.05, rough=0.2):
    draw = np.random.default_rng(seed)
    batch, height, width = shape
    cells = draw.integers(0, classes, (batch, height // 3 + 1, width // 3 + 1))
    target = cells.repeat(3, 1).repeat(3, 2)[:, :height, :width]
    prediction = np.where(draw.random(shape) < rough, draw.integers(0, classes, shape), np.roll(target, 1, 1))
    return prediction, np.where(draw.random(shape) < void, 255, target)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    areas=st.sampled_from([(4, 20), (9,), (1, 2, 3, 40), (1000,)]),
    void=st.sampled_from([0.0, 0.05, 0.6, 1.0]),
    rough=st.sampled_from([0.0, 0.2, 0.9]),
)
def test_it_equals_the_definition_and_adds_up_to_the_confusion_matrix(seed, areas, void, rough):
    prediction, target = random_labels(seed, void=void, rough=rough)
    found = size_counts(prediction, target, 3, areas=areas)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), slow_counts(prediction, target, 3, areas))
    matrix = confusion_matrix(prediction, target, 3)
    right = matrix.diagonal()
    expected = torch.stack([right, matrix.sum(1) - right, matrix.sum(0) - right], -1)
    assert torch.equal(found.sum(0)[:, :3], expected)


def test_cocos_sizes_are_the_default():
    target = np.zeros((300, 300), np.int64)
    for number, side in enumerate((31, 32, 95, 96)):
        target[:side, 97 * (number % 3) : 97 * (number % 3) + side] = 1 if number < 3 else 2
    target[200:231, :33] = 3  # 31 × 33, one pixel short of 32²
    found = size_scores(size_counts(target, target, 4))
    assert found.objects.tolist() == [[0, 0, 0, 1], [0, 2, 0, 0], [1, 0, 1, 0]]
    assert found.pixels.tolist()[0] == [0, 0, 0, 32**2 - 1]
    assert found.iou[found.pixels > 0].tolist() == [1] * 4
    assert found.iou[found.pixels == 0].isnan().all()
    assert found.miou.tolist() == found.mean_accuracy.tolist() == [1, 1, 1]


def test_touching_corners_connect_and_void_parts():
    stripe = np.eye(5, dtype=np.int64)
    assert size_counts(stripe, stripe, 2, areas=[5])[:, 1, 3].tolist() == [0, 1]
    stripe[2, 2] = 255
    assert size_counts(np.eye(5, dtype=np.int64), stripe, 2, areas=[4])[:, 1].tolist() == [[4, 0, 0, 2], [0] * 4]


def test_wrong_pixels_are_charged_to_the_object_overlapped_most():
    target, prediction = np.zeros((2, 3, 12), np.int64)
    target[1, 0] = 1  # one pixel
    target[1, 4:8] = 1  # four
    prediction[1, :6] = 1  # covers the one, two of the four, and three pixels between them
    prediction[0, 11] = 1  # and one that touches nothing
    found = size_counts(prediction, target, 2, areas=[2])[:, 1]
    assert found.tolist() == [[1, 0, 1, 1], [2, 2, 3, 1]]
    scores = size_scores(size_counts(prediction, target, 2, areas=[2]))
    assert scores.iou[:, 1].tolist() == [1 / 2, 2 / 7]
    assert scores.accuracy[:, 1].tolist() == [1, 1 / 2]


def test_of_equal_overlaps_the_first_object_in_reading_order_is_charged():
    target, prediction = np.zeros((2, 1, 9), np.int64)
    target[0, :3], target[0, 5] = 1, 1
    prediction[0, 2:6] = 1  # one pixel of either
    assert size_counts(prediction, target, 2, areas=[2])[:, 1].tolist() == [[1, 0, 0, 1], [1, 2, 2, 1]]
    assert size_counts(prediction[:, ::-1], target[:, ::-1], 2, areas=[2])[:, 1, 2].tolist() == [2, 0]


def test_classes_without_pixels_of_a_size_are_nan():
    scores = size_scores(size_counts(np.zeros((2, 2), np.int64), np.full((2, 2), 255), 2))
    assert scores.iou.isnan().all()
    assert all(math.isnan(value) for value in scores.miou.tolist())
    assert scores.pixels.sum() == scores.objects.sum() == 0


def test_the_metric_sums_batches():
    parts = [random_labels(seed) for seed in range(3)]
    metric = SizeCounts(3, areas=(4, 20))
    for part in parts:
        metric.update(*part)
    assert torch.equal(metric.compute(), sum(size_counts(*part, 3, areas=(4, 20)) for part in parts))
    assert metric.compute().shape == (3, 3, 4)


@pytest.mark.parametrize("areas", [(), (0, 4), (4, 4), (9, 4), (1.5,)])
def test_areas_must_ascend(areas):
    labels = np.zeros((2, 2), np.int64)
    with pytest.raises(RecipeError, match="areas are numbers of pixels"):
        size_counts(labels, labels, 1, areas=areas)
    with pytest.raises(RecipeError, match="areas are numbers of pixels"):
        SizeCounts(1, areas=areas)
