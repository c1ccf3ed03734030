"""Scores against their definitions; `test_evaluation.py` counts in two processes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.errors import LabelError, ShapeError
from segcontext.metrics import ConfusionMatrix, RankSlice, confusion_matrix, scores


def slow_matrix(prediction, target, num_classes, ignore_index=255):
    matrix = np.zeros((num_classes, num_classes), dtype=np.int64)
    for guess, truth in zip(np.ravel(prediction), np.ravel(target), strict=True):
        if truth != ignore_index:
            matrix[truth, guess] += 1
    return matrix


def slow_scores(prediction, target, num_classes):
    """From the definitions, by sets of pixels."""
    guess, truth = np.ravel(prediction), np.ravel(target)
    guess, truth = guess[truth != 255], truth[truth != 255]
    iou, recall, share = [], [], []
    for index in range(num_classes):
        both, either = ((guess == index) & (truth == index)).sum(), ((guess == index) | (truth == index)).sum()
        true = (truth == index).sum()
        if either:
            iou.append(both / either)
            share.append(true / len(truth))
        if true:
            recall.append(both / true)
    weighted = sum(a * b for a, b in zip(iou, share, strict=True))
    return sum(iou) / len(iou), (guess == truth).mean(), sum(recall) / len(recall), weighted


def random_labels(seed, shape=(2, 9, 7), num_classes=5, void=0.2):
    draw = np.random.default_rng(seed)
    prediction = draw.integers(0, num_classes, shape)
    target = np.where(draw.random(shape) < void, 255, np.where(draw.random(shape) < 0.6, prediction, 1))
    return prediction, target


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), num_classes=st.integers(2, 9), void=st.floats(0, 0.9))
def test_matrix_and_scores_equal_the_definitions(seed, num_classes, void):
    prediction, target = random_labels(seed, num_classes=num_classes, void=void)
    matrix = confusion_matrix(prediction, target, num_classes)
    assert matrix.dtype == torch.int64
    assert (matrix.numpy() == slow_matrix(prediction, target, num_classes)).all()
    expected = slow_scores(prediction, target, num_classes)
    found = scores(matrix)
    assert (found.miou, found.pixel_accuracy, found.mean_accuracy, found.frequency_weighted_iou) == pytest.approx(
        expected, rel=1e-12
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
def test_any_integer_type_as_array_or_tensor(dtype):
    prediction, target = random_labels(1)
    expected = slow_matrix(prediction, target, 5)
    assert (confusion_matrix(prediction.astype(dtype), target.astype(dtype), 5).numpy() == expected).all()
    if dtype not in (np.uint16, np.uint32, np.uint64):
        tensors = (torch.from_numpy(labels.astype(dtype)) for labels in (prediction, target))
        assert (confusion_matrix(*tensors, 5).numpy() == expected).all()


def test_agrees_with_torchmetrics():
    from torchmetrics.functional.classification import multiclass_jaccard_index

    prediction, target = (torch.from_numpy(labels) for labels in random_labels(3, shape=(4, 30, 30)))
    expected = multiclass_jaccard_index(prediction, target, 5, average=None, ignore_index=255)
    found = scores(confusion_matrix(prediction, target, 5)).iou
    torch.testing.assert_close(found.float(), expected)


def test_the_ignored_label_can_be_another_one_and_may_be_a_class_index():
    prediction, target = torch.tensor([0, 1, 2, 2]), torch.tensor([0, 0, 0, 2])
    assert confusion_matrix(prediction, target, 3, ignore_index=0).tolist() == [[0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert confusion_matrix(prediction, target, 3, ignore_index=-1).sum() == 4


def test_classes_without_pixels_are_nan_and_left_out_of_the_means():
    # Class 1 is predicted but never true, class 2 true but never predicted, class 3 neither.
    found = scores(confusion_matrix(torch.tensor([0, 0, 0, 1, 0]), torch.tensor([0, 0, 0, 0, 2]), 4))
    assert found.iou[:3].tolist() == [0.6, 0.0, 0.0]
    assert found.iou[3].isnan()
    assert found.miou == pytest.approx(0.2)
    assert found.accuracy.isnan().tolist() == [False, True, False, True]
    assert found.mean_accuracy == pytest.approx((0.75 + 0) / 2)
    assert found.precision.isnan().tolist() == [False, False, True, True]
    assert found.precision[0] == pytest.approx(0.75)
    assert found.pixels.tolist() == [4, 0, 1, 0]


def test_nothing_but_void_scores_nan():
    found = scores(confusion_matrix(torch.tensor([0, 1]), torch.tensor([255, 255]), 2))
    assert all(math.isnan(value) for value in found[:4])
    assert found.pixels.tolist() == [0, 0]


def test_large_counts_stay_exact():
    matrix = torch.tensor([[2**53 + 1, 0], [1, 2**53]])
    found = scores(matrix)
    assert found.iou.dtype == torch.float64
    assert found.pixels.tolist() == [2**53 + 1, 2**53 + 1]
    assert (matrix + 1).diagonal().tolist() == [2**53 + 2, 2**53 + 1]


@pytest.mark.parametrize(
    ("prediction", "target", "error", "words"),
    [
        ([0, 3], [0, 1], LabelError, "The prediction may hold 0..2, but holds 3"),
        ([0, 1], [0, 7], LabelError, "The target may hold 0..2 \\(or 255 for void\\), but holds 7"),
        ([0, 1], [0, -1], LabelError, "holds -1"),
        ([0, 1, 2], [0, 1], ShapeError, "one shape"),
        ([0.0, 1.0], [0, 1], ShapeError, "integers"),
        ([[0, 1]], [0, 1], ShapeError, "one shape"),
    ],
)
def test_wrong_input_is_refused_with_the_value(prediction, target, error, words):
    with pytest.raises(error, match=words):
        confusion_matrix(torch.tensor(prediction), torch.tensor(target), 3)
    with pytest.raises(error, match=words):
        confusion_matrix(np.array(prediction), np.array(target), 3)


def test_what_is_predicted_under_void_does_not_matter():
    assert confusion_matrix(torch.tensor([99, 0]), torch.tensor([255, 0]), 2).tolist() == [[1, 0], [0, 0]]


def test_scores_refuse_what_is_no_square():
    with pytest.raises(ShapeError, match="classes, classes"):
        scores(torch.zeros(2, 3, dtype=torch.int64))


def test_the_metric_sums_partial_batches_and_starts_anew():
    prediction, target = (torch.from_numpy(labels) for labels in random_labels(5, shape=(5, 6, 6)))
    metric = ConfusionMatrix(5)
    for rows in (slice(0, 3), slice(3, 5)):
        metric.update(prediction[rows], target[rows])
    assert torch.equal(metric.compute(), confusion_matrix(prediction, target, 5))
    metric.reset()
    metric.half()
    metric.update(prediction[:1], target[:1])
    assert torch.equal(metric.compute(), confusion_matrix(prediction[:1], target[:1], 5))


@given(length=st.integers(0, 50), world=st.integers(1, 9))
def test_ranks_share_every_sample_once(length, world):
    shares = [RankSlice(range(length), rank=rank, world=world) for rank in range(world)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert [len(share) for share in shares] == [len(list(share)) for share in shares]


def test_a_rank_outside_its_group_is_refused():
    with pytest.raises(ShapeError, match="rank 2"):
        RankSlice(range(3), rank=2, world=2)
