"""LDv1's kernels against PyTorch in float64."""

import pytest
import torch
from tests.gpu.conftest import check_operator
from torch.nn import functional as F

from segcontext.gpu.gating import _gate, gate, gate_obstacle


def plainly(x, logits, plain, align_corners):
    mask = F.interpolate(logits, x.shape[2:], mode="bilinear", align_corners=align_corners).sigmoid()
    return mask * x + plain * x


def draw(device, dtype, size, small, *, channels=5, last=False):
    maps = [torch.randn(1, channels, *each) for each in (size, small)]
    if last:
        maps = [each.contiguous(memory_format=torch.channels_last) for each in maps]
    maps = [each.to(dtype) for each in maps]
    return [each.to(device, copy=True).requires_grad_() for each in maps], [
        each.double().detach().requires_grad_() for each in maps
    ]


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("size", "small", "more"),
    [
        ((9, 17), (3, 3), {"last": True}),
        ((6, 33), (2, 5), {"channels": 18}),
        ((1, 1), (1, 1), {}),
        ((9, 1), (2, 1), {"last": True}),
        ((3, 4), (5, 7), {}),
        ((3, 7), (1, 1), {}),
        ((3, 4), (3, 4), {"last": True}),
    ],
)
def test_matches_the_equations(device, precision, far, size, small, more, align_corners):
    dtype, slack = precision
    ours, exact = draw(device, dtype, size, small, **more)
    assert gate_obstacle(*ours) is None
    found = gate(*ours, plain=2.0, align_corners=align_corners)
    wanted = plainly(*exact, 2.0, align_corners)
    assert found.dtype == dtype
    assert found.stride() == ours[0].stride()
    assert far(found, wanted) < slack
    slope = torch.randn_like(wanted).to(dtype)
    found.backward(slope.to(device))
    wanted.backward(slope.double())
    for mine, theirs in zip(ours, exact, strict=True):
        assert far(mine.grad, theirs.grad) < slack


def test_cropped_maps(device, far):
    (x, logits), _ = draw(device, torch.float32, (6, 7), (2, 3))
    x = x.detach()[:, 1:3, 1:, ::2].requires_grad_()
    logits = logits.detach()[:, 1:3].requires_grad_()
    found = gate(x, logits)
    wanted = plainly(x, logits, 1.0, True)
    assert far(found, wanted) < 1e-6
    slopes = torch.autograd.grad(found.square().sum(), (x, logits))
    for mine, theirs in zip(slopes, torch.autograd.grad(wanted.square().sum(), (x, logits)), strict=True):
        assert far(mine, theirs) < 1e-6


def test_the_operator_is_whole(device):
    for last in (True, False):
        ours, _ = draw(device, torch.float32, (5, 6), (2, 2), last=last)
        check_operator(_gate, (*ours, 1.0, True))


def test_compiles_in_one_graph(device, far):
    ours, _ = draw(device, torch.float32, (5, 6), (2, 2))
    compiled = torch.compile(gate, backend="aot_eager", fullgraph=True)(*ours)
    assert far(compiled, gate(*ours)) < 1e-6
    compiled.square().sum().backward()


def test_logits_that_are_too_wide(device):
    assert "512 columns" in gate_obstacle(*(torch.zeros(1, 1, 1, each, device=device) for each in (600, 600)))
