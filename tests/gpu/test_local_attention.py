"""Local attention's kernels against the reference in float64."""

import pytest
import torch
from tests.gpu.conftest import check_operator

from segcontext import ops
from segcontext.gpu.local_attention import _attend, local_attention, local_obstacle


def draw(device, dtype, size, *, batch=1, depth=20, channels=37):
    maps = [torch.randn(batch, each, *size).to(dtype) for each in (depth, depth, channels)]
    return [each.to(device, copy=True).requires_grad_() for each in maps], [
        each.double().detach().requires_grad_() for each in maps
    ]


@pytest.mark.parametrize(
    ("size", "kernel_size", "dilation", "more"),
    [
        ((9, 4), 5, 1, {"batch": 2}),
        ((4, 7), 3, 2, {"depth": 16, "channels": 16}),
        ((1, 1), 5, 2, {"channels": 3}),
        ((3, 10), 11, 1, {"depth": 3, "channels": 5}),
        ((3, 4), 3, 1, {"depth": 40, "channels": 150}),
    ],
)
def test_matches_the_reference(device, precision, far, size, kernel_size, dilation, more):
    dtype, slack = precision
    ours, exact = draw(device, dtype, size, **more)
    assert local_obstacle(*ours) is None
    options = {"kernel_size": kernel_size, "dilation": dilation, "scale": 0.3}
    found, wanted = local_attention(*ours, **options), ops.local_attention(*exact, **options)
    assert found.dtype == dtype
    assert far(found, wanted) < slack
    slope = torch.randn_like(wanted).to(dtype)
    found.backward(slope.to(device))
    wanted.backward(slope.double())
    for mine, theirs in zip(ours, exact, strict=True):
        assert far(mine.grad, theirs.grad) < slack


def test_a_window_of_one_gives_the_value_back(device):
    (query, key, value), _ = draw(device, torch.float32, (3, 4))
    torch.testing.assert_close(local_attention(query, key, value, kernel_size=1), value)


def test_layouts_make_no_difference(device):
    maps, _ = draw(device, torch.float32, (5, 6))
    wide = [torch.cat([each, each], 3)[:, :, :, ::2].to(memory_format=torch.channels_last) for each in maps]
    close = [each.contiguous() for each in wide]
    assert torch.equal(local_attention(*wide), local_attention(*close))


def test_large_logits_stay_finite(device):
    (query, key, value), _ = draw(device, torch.float32, (4, 5))
    assert local_attention(1e4 * query, 1e4 * key, value).isfinite().all()


def test_the_operator_is_whole(device):
    maps, _ = draw(device, torch.float32, (2, 3), depth=3, channels=5)
    last = [each.detach().permute(0, 2, 3, 1).contiguous().requires_grad_() for each in maps]
    check_operator(_attend, (*last, 1, 1, 0.5))


def test_compiles_in_one_graph(device, far):
    maps, _ = draw(device, torch.float32, (2, 3))
    options = {"kernel_size": 3, "dilation": 1}
    compiled = torch.compile(local_attention, backend="aot_eager", fullgraph=True)(*maps, **options)
    plain = local_attention(*maps, **options)
    assert far(compiled, plain) < 1e-6
    wanted = torch.autograd.grad(plain.square().sum(), maps)
    for mine, theirs in zip(torch.autograd.grad(compiled.square().sum(), maps), wanted, strict=True):
        assert far(mine, theirs) < 1e-6


def test_the_compiler_can_ask(device):
    maps, _ = draw(device, torch.float32, (2, 3))
    asking = torch.compile(lambda *each: each[0] + (local_obstacle(*each) is None), backend="eager", fullgraph=True)
    assert torch.equal(asking(*maps), maps[0] + 1)


def test_maps_of_several_dtypes_are_left_to_others(device):
    x = torch.zeros(1, 2, 3, 3, device=device)
    assert "several dtypes" in local_obstacle(x, x, x.half())
