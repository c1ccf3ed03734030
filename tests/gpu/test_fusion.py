"""Labels from several views against resizing each of them in PyTorch."""

import pytest
import torch
from tests.gpu.conftest import check_operator
from torch.nn import functional as F

from segcontext.gpu.fusion import View, _fuse, _tables, fuse, fuse_obstacle
from segcontext.gpu_check.spoilt_cases import spoilt


def plainly(views, size, *, probabilities, align_corners):
    total = 0
    for logits, padded, view, mirrored in views:
        # What has its size already is left as it is, infinities too.
        values = logits.double()
        if values.shape[2:] != padded:
            values = F.interpolate(values, padded, mode="bilinear", align_corners=align_corners)
        values = values[..., : view[0], : view[1]]
        if view != size:
            values = F.interpolate(values, size, mode="bilinear", align_corners=False)
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


# NumPy, which the interpreter uses, warns of what is no number.
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("probabilities", [True, False])
def test_what_is_not_finite(device, probabilities, align_corners):
    """On sizes with exact weights: where one is 0, an infinity becomes no number."""
    more = int(align_corners)
    views = [
        View(torch.randn(1, 5, 4 + more, 10 + more), (16 + more, 80 + more), (16, 80)),
        View(spoilt(torch.randn(1, 5, 4 + more, 10 + more)), (16 + more, 80 + more), (16, 80), True),
        View(torch.randn(1, 5, 4 + more, 5 + more), (8 + more, 40 + more), (8, 40)),
        View(torch.randn(1, 5, 9, 41), (9, 41), (8, 40), True),
    ]
    views[2].logits[0, 3, 1, 4] = float("inf")
    views[3].logits[0, 4, 6, 30:40:4] = -float("inf")
    options = {"probabilities": probabilities, "align_corners": align_corners}
    there = [view._replace(logits=view.logits.to(device)) for view in views]
    wanted = plainly(views, (8, 40), **options)
    assert len(wanted.unique()) == 5
    assert torch.equal(fuse(there, (8, 40), **options).cpu(), wanted)


def test_the_operator_is_whole(device):
    tables = _tables(((2, 2, 3, 3, 3, 3, 0),), (3, 3), 2, True, str(torch.empty(0, device=device).device))
    check_operator(_fuse, (torch.randn(8, device=device), *tables, [1, 2, 3, 3], True, True, torch.uint8))
