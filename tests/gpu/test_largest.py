"""Labels and counts from logits against resizing, argmax and bincount."""

import pytest
import torch
from tests.gpu.conftest import check_operator
from torch.nn import functional as F

from segcontext.gpu.largest import (
    _argmax,
    _count,
    confusion,
    confusion_obstacle,
    resized_argmax,
    resized_argmax_obstacle,
)
from segcontext.gpu_check.spoilt_cases import spoilt
from segcontext.metrics import confusion_matrix


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("classes", "small", "size"),
    [
        (3, (3, 4), (24, 32)),
        (23, (2, 2), (5, 150)),
        (5, (1, 1), (40, 3)),
        (2, (5, 5), (5, 5)),
        (4, (2, 3), (33, 41)),
        (4, (6, 3), (7, 7)),
        (2, (1, 2), (1, 9)),
        (3, (9, 7), (4, 5)),
    ],
)
def test_the_same_labels_and_counts(device, classes, small, size, align_corners):
    logits = torch.randn(2, classes, *small)
    target = torch.randint(0, classes, (2, *size), dtype=torch.uint8)
    target[:, 0] = 255
    assert confusion_obstacle(logits.to(device), target.to(device)) is None
    found = confusion(logits.to(device), target.to(device), align_corners=align_corners)
    labels = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners).argmax(1)
    assert torch.equal(found.matrix.cpu(), confusion_matrix(labels, target, classes))
    assert found.bad == 0
    assert resized_argmax_obstacle(logits.to(device)) is None
    named = resized_argmax(logits.to(device), size, align_corners=align_corners, dtype=torch.uint8)
    assert torch.equal(named.cpu(), labels.byte())


# NumPy, which the interpreter uses, warns of what is no number.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(("align_corners", "size"), [(True, (17, 21)), (False, (20, 24)), (False, (20, 3))])
def test_what_is_not_finite(device, align_corners, size, dtype):
    """On sizes with exact weights: where one is 0, an infinity becomes no number."""
    logits = spoilt(torch.randn(2, 5, 5, 6)).to(dtype)
    labels = F.interpolate(logits.float(), size, mode="bilinear", align_corners=align_corners).argmax(1)
    found = resized_argmax(logits.to(device), size, align_corners=align_corners)
    assert torch.equal(found.cpu(), labels)
    target = torch.randint(0, 5, labels.shape)
    counts = confusion(logits.to(device), target.to(device), align_corners=align_corners).matrix
    assert torch.equal(counts.cpu(), confusion_matrix(labels, target, 5))


def test_what_is_not_resized_is_copied(device):
    logits = spoilt(torch.randn(2, 5, 5, 6))
    found = resized_argmax(logits.to(device), (5, 6), align_corners=True)
    # On a GPU F.interpolate copies; on the CPU it multiplies infinities by 0.
    assert torch.equal(found.cpu(), logits.argmax(1))


def test_a_part_of_the_resized(device):
    logits = torch.randn(2, 3, 4, 5, device=device)
    whole = resized_argmax(logits, (20, 30), align_corners=True)
    part = resized_argmax(logits, (20, 30), align_corners=True, crop=(17, 9))
    assert torch.equal(part, whole[:, :17, :9])
    counted = confusion(logits, part, size=(20, 30)).matrix
    assert counted.diagonal().sum() == part.numel()


def test_bad_targets_are_counted_apart(device):
    target = torch.tensor([[[0, 1, 7, -3, 255]]], device=device)
    found = confusion(torch.randn(1, 2, 1, 1, device=device), target)
    assert found.matrix.sum() == 2
    assert found.bad == 2


def test_layouts_make_no_difference(device):
    logits = torch.randn(1, 3, 4, 5, device=device)
    target = torch.randint(0, 3, (1, 20, 30), device=device)
    last = logits.contiguous(memory_format=torch.channels_last)
    found = confusion(last, target.mT.contiguous().mT)
    assert torch.equal(found.matrix, confusion(logits, target).matrix)


def test_ties_go_to_the_first(device):
    found = confusion(torch.zeros(1, 4, 2, 2, device=device), torch.ones(1, 4, 4, dtype=torch.int64, device=device))
    assert found.matrix[1].tolist() == [16, 0, 0, 0]


def test_the_operator_is_whole(device):
    logits, target = torch.randn(1, 2, 2, 2, device=device), torch.zeros(1, 3, 3, dtype=torch.int64, device=device)
    check_operator(_count, (logits, target, [3, 3], 255, True))
    check_operator(_argmax, (logits, [4, 4], [3, 4], True, torch.uint8))


def test_floats_as_targets_are_left_to_others(device):
    logits = torch.zeros(1, 2, 4, 4, device=device)
    assert "no integers" in confusion_obstacle(logits, torch.zeros(1, 8, 8, device=device))
