"""The compiled form of local attention on maps of contiguous rows, against the reference in float64."""

import pytest
import torch

from segcontext import native
from segcontext.ops.local_attention import local_attention

pytestmark = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

LAYOUTS = {
    "whole": lambda x: x.contiguous(),
    "columns of more": lambda x: torch.cat([x, x.flip(3), x], 3)[..., : x.shape[3]],
    "channels of more": lambda x: torch.cat([x.flip(1), x], 1)[:, x.shape[1] :],
    "every second channel": lambda x: torch.stack([x, x.flip(1)], 2).flatten(1, 2)[:, ::2],
    "rows turned over": lambda x: x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3),
}


def maps(size, *, batch=1, depth=5, channels=3, dtype=torch.float32, layout="whole"):
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, each, *size) for each in (depth, depth, channels)]
    return [LAYOUTS[layout](torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


def with_gradients(given, implementation, **options):
    tensors = [each.detach().requires_grad_() for each in given]
    out = local_attention(*tensors, implementation=implementation, **options)
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).bfloat16().to(out.dtype)
    return [out, *torch.autograd.grad(out, tensors, sign)]


def assert_close(given, **options):
    """float32 to five digits of the largest; bfloat16 rounds each result once, to half of 2⁻⁷."""
    exact = with_gradients([each.double() for each in given], "reference", **options)
    for found, right in zip(with_gradients(given, "native", **options), exact, strict=True):
        bound = 2**-8 * right.abs() if found.dtype == torch.bfloat16 else 0
        assert ((found.double() - right).abs() <= bound + 1e-5 * right.abs().max() + 1e-5).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(dtype, layout):
    # More channels than are taken at a time, and rows with some columns behind the last whole vector.
    given = maps((7, 21), batch=2, depth=37, channels=65, dtype=dtype, layout=layout)
    assert_close(given, kernel_size=3, dilation=2, scale=0.3)


@pytest.mark.parametrize("size", [(1, 1), (1, 19), (19, 1), (2, 3), (17, 33), (6, 300)])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (5, 3), (5, 6), (7, 2), (7, 40)])
def test_sizes(size, kernel_size, dilation):
    assert_close(maps(size), kernel_size=kernel_size, dilation=dilation, scale=0.5)


def test_a_window_of_more_positions_than_there_are_registers():
    assert_close(maps((9, 35)), kernel_size=17, dilation=1, scale=0.5)


def test_windows_far_larger_than_the_map():
    given = maps((6, 19))
    results = [with_gradients(given, "native", kernel_size=3, dilation=dilation) for dilation in (20, 10**6)]
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_do_not_change_a_bit(threads):
    given, before = maps((9, 70), batch=2, depth=40, channels=33), torch.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            results.append(with_gradients(given, "native", kernel_size=3, dilation=2))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_what_is_no_number_stays_where_it_is_seen():
    query, key, value = maps((9, 11))
    key[0, 0, 4, 10] = torch.nan
    found = with_gradients((query, key, value), "native", kernel_size=3, dilation=2)
    seen = [[y, x] for y in (2, 4, 6) for x in (8, 10)]
    assert found[0][0, 0].isnan().nonzero().tolist() == seen
    assert found[1][0, 0].isnan().nonzero().tolist() == seen
    # The gradients of keys and values within reach of those, and of no others: rows 0 to 8, columns 6 to 10.
    for each in found[2:]:
        reached = each[0, 0].isnan().nonzero()
        assert (reached % 2 == 0).all()
        assert reached[:, 1].min() == 6


def test_a_gradient_of_another_layout():
    given = maps((8, 20))
    for sign in (
        torch.randn(1, 3, 8, 20).contiguous(memory_format=torch.channels_last),
        torch.ones(1).expand(1, 3, 8, 20),
    ):
        found = []
        for maps_ in (given, [each.double() for each in given]):
            tensors = [each.detach().requires_grad_() for each in maps_]
            out = local_attention(*tensors, kernel_size=3, dilation=2)
            found.append(torch.autograd.grad(out, tensors, sign.to(out.dtype)))
        for each, right in zip(*found, strict=True):
            torch.testing.assert_close(each.double(), right, rtol=1e-4, atol=1e-5)
