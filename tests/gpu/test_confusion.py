"""Counts from logits against upsampling, argmax and bincount."""

import pytest
import torch
from tests.gpu.conftest import check_operator
from torch.nn import functional as F

from segcontext.gpu.confusion import _count, confusion, confusion_obstacle
from segcontext.metrics import confusion_matrix


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("classes", "small", "size"),
    [
        (3, (3, 4), (24, 32)),
        (30, (4, 2), (9, 150)),
        (5, (1, 1), (40, 3)),
        (2, (5, 5), (5, 5)),
        (4, (2, 3), (33, 41)),
        (4, (6, 3), (7, 7)),
        (2, (1, 2), (1, 9)),
    ],
)
def test_the_same_counts(device, classes, small, size, align_corners):
    logits = torch.randn(2, classes, *small)
    target = torch.randint(0, classes, (2, *size), dtype=torch.uint8)
    target[:, 0] = 255
    assert confusion_obstacle(logits.to(device), target.to(device)) is None
    found = confusion(logits.to(device), target.to(device), align_corners=align_corners)
    labels = F.interpolate(logits, size, mode="bilinear", align_corners=align_corners).argmax(1)
    assert torch.equal(found.matrix.cpu(), confusion_matrix(labels, target, classes))
    assert found.bad == 0


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
    check_operator(
        _count, (torch.randn(1, 2, 2, 2, device=device), torch.zeros(1, 3, 3, dtype=torch.int64).to(device), 255, True)
    )


def test_smaller_targets_are_left_to_others(device):
    logits = torch.zeros(1, 2, 4, 4, device=device)
    assert "larger than" in confusion_obstacle(logits, torch.zeros(1, 3, 8, dtype=torch.int64, device=device))
    assert "no integers" in confusion_obstacle(logits, torch.zeros(1, 8, 8, device=device))
