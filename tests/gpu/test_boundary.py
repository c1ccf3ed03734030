"""Boundary counts against the reference's k-d trees."""

import numpy as np
import pytest
import torch
from tests.gpu.conftest import check_operator

from segcontext.gpu.boundary import _count, boundary_matches, boundary_obstacle
from segcontext.metrics.boundary_matches import boundary_matches as reference


@pytest.mark.parametrize(
    ("size", "classes", "slacks"),
    [((23, 31), 4, [3, 1, 3**0.5, 2.5]), ((1, 9), 2, [1]), ((9, 1), 40, [2, 2]), ((12, 17), 70, [1.5, 2])],
)
def test_the_same_counts(device, size, classes, slacks):
    maps = [torch.randint(-1, classes, size, dtype=torch.int32) for _ in range(2)]
    for labels in maps:
        labels[: size[0] // 2, : size[1] // 2] = 1
    ours = [each.to(device) for each in maps]
    assert boundary_obstacle(ours[0], classes, slacks) is None
    found = boundary_matches(*ours, classes, slacks)
    for mine, theirs in zip(found, reference(*(each.numpy() for each in maps), classes, slacks), strict=True):
        np.testing.assert_array_equal(mine.cpu().numpy(), theirs)


def test_masks_without_boundary(device):
    labels = torch.zeros(5, 6, dtype=torch.int32, device=device)
    assert all(each.sum() == 0 for each in boundary_matches(labels, labels, 3, [2]))


def test_the_operator_is_whole(device):
    check_operator(_count, (torch.eye(4, dtype=torch.int32, device=device).expand(2, 4, 4).contiguous(), 2, [1.0]))


def test_other_labels_are_left_to_others(device):
    assert "int32" in boundary_obstacle(torch.zeros(2, 2, dtype=torch.int64, device=device), 2, [1])
    assert "64 pixels" in boundary_obstacle(torch.zeros(2, 2, dtype=torch.int32, device=device), 2, [65])
