"""The boundary F-score against its definition, written out pixel by pixel."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from segcontext.errors import LabelError, RecipeError, ShapeError
from segcontext.metrics import PAPER_SLACKS, BoundaryFScore, boundary_f_score, boundary_matches, boundary_points

BOTH = pytest.mark.parametrize("protocol", ["paper", "strict"])


def is_boundary(mask, row, column):
    """The definition: the mask differs from its right, lower or lower-right neighbour."""
    height, width = mask.shape
    last_row, last_column = row == height - 1, column == width - 1
    if last_row and last_column:
        return False
    if last_row:
        steps = [(0, 1)]
    elif last_column:
        steps = [(1, 0)]
    else:
        steps = [(0, 1), (1, 0), (1, 1)]
    return any(mask[row, column] != mask[row + down, column + right] for down, right in steps)


def boundary_of(mask):
    return [place for place in np.ndindex(mask.shape) if is_boundary(mask, *place)]


def dilated(points, shape, radius):
    """Every pixel in a disk around one of the points."""
    reach = int(radius)
    disk = [
        (down, right)
        for down, right in itertools.product(range(-reach, reach + 1), repeat=2)
        if down**2 + right**2 <= radius**2
    ]
    covered = {(row + down, column + right) for row, column in points for down, right in disk}
    return {(row, column) for row, column in covered if 0 <= row < shape[0] and 0 <= column < shape[1]}


def slow_f(prediction, target, index, slack, protocol, ignore_index=255):
    """F of one class in one image, `None` where the image does not count."""
    void = target == ignore_index
    found, true = (prediction == index) & ~void, (target == index) & ~void
    if protocol == "strict" and not found.any() and not true.any():
        return None
    radius = math.ceil(slack * math.hypot(*target.shape)) if slack < 1 else slack
    ours, theirs = boundary_of(found), boundary_of(true)
    if not ours and not theirs:
        return 0.0 if protocol == "strict" and found.any() != true.any() else 1.0
    if not ours or not theirs:
        return 0.0
    near_theirs, near_ours = dilated(theirs, target.shape, radius), dilated(ours, target.shape, radius)
    precision = sum(place in near_theirs for place in ours) / len(ours)
    recall = sum(place in near_ours for place in theirs) / len(theirs)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def slow_score(prediction, target, num_classes, slacks, protocol, ignore_index=255):
    table = np.full((len(slacks), num_classes), np.nan)
    for place, slack in enumerate(slacks):
        for index in range(num_classes):
            pairs = zip(prediction, target, strict=True)
            values = [slow_f(ours, theirs, index, slack, protocol, ignore_index) for ours, theirs in pairs]
            counted = [value for value in values if value is not None]
            if counted:
                table[place, index] = sum(counted) / len(counted)
    return table


def blobs(seed, *, shape, classes, void=0.1, coarse=3):
    """Blocks of labels, and a prediction that is wrong here and there."""
    draw = np.random.default_rng(seed)
    batch, height, width = shape
    cells = draw.integers(0, classes, (batch, -(-height // coarse), -(-width // coarse)))
    target = cells.repeat(coarse, 1).repeat(coarse, 2)[:, :height, :width]
    prediction = np.roll(target, draw.integers(-2, 3, 2), (1, 2))
    prediction = np.where(draw.random(shape) < 0.1, draw.integers(0, classes, shape), prediction)
    return prediction, np.where(draw.random(shape) < void, 255, target)


@BOTH
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    classes=st.integers(1, 4),
    coarse=st.integers(1, 9),
    void=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_it_equals_the_definition(protocol, seed, height, width, classes, coarse, void):
    prediction, target = blobs(seed, shape=(2, height, width), classes=classes, void=void, coarse=coarse)
    slacks = [1, 1.5, 3, 0.05, 0.3]
    found = boundary_f_score(prediction, target, classes, slacks, protocol=protocol)
    assert found.dtype == torch.float64
    expected = slow_score(prediction, target, classes, slacks, protocol)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14, atol=0, equal_nan=True)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), coarse=st.integers(1, 12))
def test_counts_equal_dilation_by_a_disk(seed, coarse):
    prediction, target = blobs(seed, shape=(1, 41, 53), classes=5, coarse=coarse)
    prediction, target = (np.where(target == 255, -1, labels)[0].astype(np.int32) for labels in (prediction, target))
    radii = [1, 3, 5, 9, 12]
    found = boundary_matches(prediction, target, 5, radii)
    for index in range(5):
        masks = [np.zeros(target.shape, dtype=bool) for _ in range(2)]
        for mask, labels in zip(masks, (prediction, target), strict=True):
            for place in boundary_of(labels == index):
                mask[place] = True
        assert (found.predicted[index], found.true[index]) == tuple(mask.sum() for mask in masks)
        for place, radius in enumerate(radii):
            rows, columns = np.ogrid[-radius : radius + 1, -radius : radius + 1]
            disk = rows**2 + columns**2 <= radius**2
            grown = [ndimage.binary_dilation(mask, disk) for mask in masks]
            assert found.predicted_matched[place, index] == (masks[0] & grown[1]).sum()
            assert found.true_matched[place, index] == (masks[1] & grown[0]).sum()


def test_which_pixels_are_boundary():
    labels = np.array([[0, 0, 1], [0, 2, 1], [0, 0, -1]], dtype=np.int32)
    classes, points = boundary_points(labels)
    found = {(int(index), *point) for index, point in zip(classes, points.tolist(), strict=True)}
    assert len(found) == len(classes)
    assert found == {(index, *place) for index in range(3) for place in boundary_of(labels == index)}
    assert (2, 0, 0) in found  # only its lower-right neighbour is of class 2
    assert (1, 1, 2) in found  # void below
    assert not any(point == (2, 2) for _, *point in found)


def test_the_papers_slacks_are_its_pixels():
    labels = np.zeros((1024, 2048), np.uint8)
    prediction = labels.copy()
    labels[:, 1000:] = 1
    prediction[:, 1009:] = 1
    found = boundary_f_score(prediction, labels, 2, PAPER_SLACKS)
    assert torch.equal(found, boundary_f_score(prediction, labels, 2, [3, 5, 9, 12]))
    assert found.tolist() == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(("slack", "reaches"), [(0.05, True), (0.049, True), (0.04, False), (2, False), (2.99, False)])
def test_shares_of_the_diagonal_are_rounded_up(slack, reaches):
    target = np.zeros((30, 40), np.int64)
    target[:, :20] = 1
    # Three pixels apart; 0.05 and 0.049 of the diagonal, 50, are 2.5 and 2.45.
    prediction = np.roll(target, 3, 1)
    prediction[:, :3] = 1
    assert boundary_f_score(prediction, target, 2, [slack]).tolist() == [[float(reaches)] * 2]


def test_the_distance_is_that_of_a_disk():
    target, prediction = np.zeros((2, 12, 12), np.int64)
    target[0, 0] = prediction[3, 4] = 1
    # The first has one boundary pixel, the second four; the farthest of them lies 5 away, the nearest √13.
    assert boundary_of(target == 1) == [(0, 0)]
    assert len(boundary_of(prediction == 1)) == 4
    found = boundary_f_score(prediction, target, 2, [3, 3.6, 3.7, 4.9, 5])[:, 1]
    assert found.tolist() == pytest.approx([0, 0, 2 * 0.25 / 1.25, 2 * 0.75 / 1.75, 1])


def test_the_two_protocols_differ_where_a_class_is_absent():
    halves = np.zeros((1, 8, 8), np.int64)
    halves[:, :, 4:] = 1
    nothing = np.zeros((1, 8, 8), np.int64)
    target, prediction = np.concatenate([halves, nothing]), np.concatenate([nothing, nothing])
    # Image 1 lacks class 1 in both masks, and class 2 is nowhere.
    assert boundary_f_score(prediction, target, 3, [2]).tolist() == [[0.5, 0.5, 1]]
    strict = boundary_f_score(prediction, target, 3, [2], protocol="strict")
    assert strict[0, :2].tolist() == [0.5, 0]
    assert strict[0, 2].isnan()


def test_masks_without_a_boundary():
    full, other = np.zeros((6, 6), np.int64), np.ones((6, 6), np.int64)
    assert boundary_f_score(full, full, 3, [3]).tolist() == [[1, 1, 1]]
    strict = boundary_f_score(full, full, 3, [3], protocol="strict")[0]
    assert (strict[0], strict.isnan().tolist()) == (1, [False, True, True])
    assert boundary_f_score(full, other, 3, [3]).tolist() == [[1, 1, 1]]
    strict = boundary_f_score(full, other, 3, [3], protocol="strict")[0]
    assert (strict[:2].tolist(), strict[2].isnan().item()) == ([0, 0], True)
    # Class 0 fills the prediction, and the truth, which has boundaries, lacks it.
    other[:, 3:] = 2
    assert boundary_f_score(full, other, 3, [3], protocol="strict").tolist() == [[0, 0, 0]]


@BOTH
def test_void_is_background_in_both_masks(protocol):
    target = np.zeros((9, 9), np.int64)
    target[3:6, 3:6] = 255
    # What is predicted under void is not read, not even where it is no class.
    guesses = [np.where(target == 255, guess, 0) for guess in (0, 1, 200, -7)]
    found = [boundary_f_score(guess, target, 2, [1], protocol=protocol) for guess in guesses]
    assert all(torch.equal(score.nan_to_num(9), found[0].nan_to_num(9)) for score in found)
    assert found[0][0, 0] == 1
    assert found[0][0, 1].isnan() if protocol == "strict" else found[0][0, 1] == 1
    # Class 0 has a boundary to void: without it there would be none in the truth.
    prediction = np.zeros((9, 9), np.int64)
    prediction[0, 0] = 1
    assert 0 < boundary_f_score(prediction, target, 2, [1], protocol=protocol)[0, 0] < 1
    void = np.full((4, 4), 255)
    assert boundary_f_score(void, void, 2, [1], protocol=protocol).isnan().all() == (protocol == "strict")


@BOTH
def test_another_label_can_be_void(protocol):
    prediction, target = blobs(7, shape=(2, 12, 9), classes=4, void=0)
    expected = slow_score(prediction, target, 4, [1, 2], protocol, ignore_index=2)
    found = boundary_f_score(prediction, target, 4, [1, 2], protocol=protocol, ignore_index=2)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-14, equal_nan=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64])
def test_arrays_tensors_maps_and_batches(dtype):
    prediction, target = (labels.astype(dtype) for labels in blobs(3, shape=(3, 14, 11), classes=3))
    expected = boundary_f_score(prediction, target, 3, [1, 0.1])
    tensors = (torch.from_numpy(labels.astype(np.int64)) for labels in (prediction, target))
    assert torch.equal(boundary_f_score(*tensors, 3, [1, 0.1]), expected)
    assert torch.equal(boundary_f_score(np.asfortranarray(prediction), target[:, ::1], 3, (1, 0.1)), expected)
    single = [boundary_f_score(*pair, 3, [1, 0.1]) for pair in zip(prediction, target, strict=True)]
    torch.testing.assert_close(torch.stack(single).mean(0), expected)
    assert boundary_f_score(prediction[:0], target[:0], 3, [1]).isnan().all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"slacks": []}, RecipeError, "a list of at least one slack"),
        ({"slacks": 3}, RecipeError, r"a list of at least one slack.*not 3\."),
        ({"slacks": [0]}, RecipeError, "above 0"),
        ({"slacks": [2, -0.1]}, RecipeError, "not -0.1"),
        ({"slacks": [math.nan]}, RecipeError, "nan"),
        ({"slacks": [math.inf]}, RecipeError, "inf"),
        ({"protocol": "lenient"}, RecipeError, "'paper' or 'strict', not 'lenient'"),
        ({"target": np.full((4, 4), 3)}, LabelError, "The target may hold 0..1"),
        ({"prediction": np.full((4, 4), 2)}, LabelError, "The prediction may hold 0..1"),
        ({"prediction": np.zeros((4, 4))}, ShapeError, "integers"),
        ({"prediction": np.zeros((4, 5), np.int64)}, ShapeError, "one shape"),
        ({"prediction": np.zeros(4, np.int64), "target": np.zeros(4, np.int64)}, ShapeError, r"\(B, H, W\)"),
    ],
)
def test_wrong_input_is_refused(change, error, words):
    given_ = {"prediction": np.zeros((4, 4), np.int64), "target": np.zeros((4, 4), np.int64), "slacks": [1], **change}
    with pytest.raises(error, match=words):
        boundary_f_score(given_.pop("prediction"), given_.pop("target"), 2, given_.pop("slacks"), **given_)


@BOTH
def test_the_metric_is_the_same_to_the_last_bit_in_any_order(protocol):
    prediction, target = blobs(11, shape=(30, 13, 17), classes=4, coarse=5)
    target[::3] = np.where(target[::3] == 3, 0, target[::3])
    expected = boundary_f_score(prediction, target, 4, [1, 2, 0.1], protocol=protocol)
    for seed in range(3):
        metric = BoundaryFScore(4, [1, 2, 0.1], protocol=protocol)
        order = np.random.default_rng(seed).permutation(30)
        for part in np.array_split(order, 7):
            metric.update(torch.from_numpy(prediction[part]), torch.from_numpy(target[part]))
        assert torch.equal(metric.compute(), expected)
    metric.reset()
    metric.update(prediction[0], target[0])
    single = boundary_f_score(prediction[0], target[0], 4, [1, 2, 0.1], protocol=protocol)
    assert torch.equal(metric.compute().nan_to_num(9), single.nan_to_num(9))


def test_the_mean_is_that_of_exact_arithmetic():
    prediction, target = blobs(5, shape=(40, 9, 9), classes=2, coarse=4)
    singles = torch.stack([boundary_f_score(*pair, 2, [1]) for pair in zip(prediction, target, strict=True)])
    for index in range(2):
        exact = sum(Fraction(value) for value in singles[:, 0, index].tolist()) / 40
        found = Fraction(boundary_f_score(prediction, target, 2, [1])[0, index].item())
        assert abs(found - exact) < Fraction(1, 2**52)


def test_images_of_several_sizes_have_their_own_slack():
    metric = BoundaryFScore(2, [0.05], protocol="strict")
    scores = []
    for side in (20, 60):
        target = np.zeros((side, side), np.int64)
        target[:, : side // 2] = 1
        prediction = np.zeros_like(target)
        prediction[:, : side // 2 + 4] = 1
        metric.update(prediction, target)
        scores.append(boundary_f_score(prediction, target, 2, [0.05]).tolist())
    assert scores == [[[0, 0]], [[1, 1]]]
    assert metric.compute().tolist() == [[0.5, 0.5]]
    with pytest.raises(RecipeError, match="strict"):
        BoundaryFScore(2, [1], protocol="both")
