"""The band along boundaries against its definition, by all pairs of pixels."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.errors import RecipeError, ShapeError
from segcontext.metrics import BandConfusionMatrix, band_confusion_matrix, band_scores, boundary_band, confusion_matrix


def slow_band(labels, width):
    height, breadth = labels.shape
    reach = max(1, round(width * math.hypot(height, breadth))) if width < 1 else int(width)
    border = []
    for row, column in np.ndindex(labels.shape):
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            place = (row + down, column + right)
            if 0 <= place[0] < height and 0 <= place[1] < breadth and labels[place] != labels[row, column]:
                border.append((row, column))
    band = np.zeros(labels.shape, dtype=bool)
    for place in np.ndindex(labels.shape):
        # Of squared distances, which are integers.
        band[place] = any((place[0] - row) ** 2 + (place[1] - column) ** 2 < reach**2 for row, column in border)
    return band


def random_labels(seed, shape, coarse):
    draw = np.random.default_rng(seed)
    batch, height, width = shape
    cells = draw.integers(0, 3, (batch, -(-height // coarse), -(-width // coarse)))
    target = cells.repeat(coarse, 1).repeat(coarse, 2)[:, :height, :width]
    return draw.integers(0, 3, shape), np.where(draw.random(shape) < 0.03, 255, target)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    coarse=st.integers(1, 14),
    reach=st.sampled_from([1, 2, 3, 5.5, 0.01, 0.2]),
)
def test_it_equals_the_definition(seed, height, width, coarse, reach):
    prediction, target = random_labels(seed, (2, height, width), coarse)
    expected = np.stack([slow_band(labels, reach) for labels in target])
    band = boundary_band(torch.from_numpy(target), reach)
    assert np.array_equal(band.numpy(), expected)
    found = band_confusion_matrix(prediction, target, 3, width=reach)
    for matrix, chosen in zip(found, (expected, ~expected), strict=True):
        assert torch.equal(matrix, confusion_matrix(prediction[chosen], target[chosen], 3))
    assert torch.equal(found.sum(0), confusion_matrix(prediction, target, 3))


def test_a_straight_boundary_has_its_width_on_either_side():
    labels = np.zeros((6, 20), np.uint8)
    labels[:, 10:] = 1
    for width in (1, 2, 4):
        assert boundary_band(labels, width)[3].nonzero().flatten().tolist() == list(range(10 - width, 10 + width))
    assert not boundary_band(labels[:, :10], 5).any()
    assert boundary_band(labels[None, :0].repeat(0, 0).reshape(0, 6, 20), 2).shape == (0, 6, 20)


def test_boundaries_to_void_count_and_void_itself_does_not():
    target = np.array([[0, 0, 0, 255, 255, 255, 0, 0, 0]])
    prediction = np.array([[0, 1, 1, 7, 1, 1, 0, 1, 0]])
    found = band_confusion_matrix(prediction, target, 2, width=1)
    assert found.tolist() == [[[1, 1], [0, 0]], [[2, 2], [0, 0]]]
    assert band_scores(found).inside.pixel_accuracy == band_scores(found).outside.pixel_accuracy == 0.5


def test_the_metric_sums_batches():
    parts = [random_labels(seed, (2, 9, 11), 4) for seed in range(3)]
    metric = BandConfusionMatrix(3, width=2)
    for part in parts:
        metric.update(*part)
    found = metric.compute()
    assert torch.equal(found, sum(band_confusion_matrix(*part, 3, width=2) for part in parts))
    assert band_scores(found).inside.pixels.sum() == found[0].sum() > 0


def test_wrong_input_is_refused():
    with pytest.raises(RecipeError, match=r"The width of the band .* not 0"):
        boundary_band(np.zeros((3, 3), np.int64), 0)
    with pytest.raises(RecipeError, match="The width of the band"):
        BandConfusionMatrix(2, width=math.nan)
    with pytest.raises(ShapeError, match="label maps"):
        boundary_band(np.zeros(3, np.int64), 1)
    with pytest.raises(ShapeError, match="integers"):
        boundary_band(np.zeros((3, 3)), 1)
