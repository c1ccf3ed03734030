"""Labels from several views against resizing each of them in PyTorch."""

import pytest
import torch
from tests.gpu.conftest import check_operator
from torch.nn import functional as F

from segcontext.gpu.fusion import View, _fuse, _tables, fuse, fuse_obstacle


def plainly(views, size, *, probabilities, align_corners):
    total = 0
    for logits, padded, view, mirrored in views:
        values = F.interpolate(logits.double(), padded, mode="bilinear", align_corners=align_corners)
        values = F.interpolate(values[..., : view[0], : view[1]], size, mode="bilinear", align_corners=False)
        values = values.flip(-1) if mirrored else values
        total = total + (values.softmax(1) if probabilities else values)
    return total.argmax(1)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("classes", "probabilities"), [(3, True), (19, False)])
def test_the_same_labels(device, classes, probabilities, align_corners):
    views = [
        View(torch.randn(1, classes, 3, 4), (17, 25), (14, 20)),
        View(torch.randn(1, classes, 3, 4), (17, 25), (14, 20), True),
        View(torch.randn(1, classes, 5, 2), (9, 9), (9, 9)),
    ]
    options = {"probabilities": probabilities, "align_corners": align_corners}
    there = [view._replace(logits=view.logits.to(device)) for view in views]
    assert fuse_obstacle(there) is None
    assert torch.equal(fuse(there, (5, 13), **options).cpu(), plainly(views, (5, 13), **options))


def test_the_operator_is_whole(device):
    tables = _tables(((2, 2, 3, 3, 3, 3, 0),), 2, True, str(torch.empty(0, device=device).device))
    check_operator(_fuse, (torch.randn(8, device=device), *tables, [1, 2, 3, 3], True, True, torch.uint8))
