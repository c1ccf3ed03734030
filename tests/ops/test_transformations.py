"""Operations under `torch.func`: as in a loop, whichever form would run without it."""

import pytest
import torch

from segcontext import ops
from segcontext.distribution import MaskDistribution

SIZE = (90, 91)
CALLS = {
    "non_local_attention": (ops.non_local_attention, [(2, 4, 30), (2, 4, 30), (2, 5, 30)]),
    "double_attention": (lambda *given: ops.double_attention(*given).output, [(2, 4, 30), (2, 5, 30), (2, 5, 30)]),
    "point_attention": (ops.point_attention, [(2, 4, 5, 6), (2, 9, 5, 6)]),
    "distributing": (lambda *given: ops.point_attention(*given, branch="distribute"), [(2, 4, 5, 6), (2, 9, 5, 6)]),
    "em_attention": (
        lambda x, bases, weight: ops.em_attention(x, bases, projection=(weight, None), gradient="all").reconstruction,
        [(2, 30, 8), (4, 6), (6, 8)],
    ),
    "local_attention": (lambda *given: ops.local_attention(*given, kernel_size=3), [(2, 4, 5, 6)] * 3),
    "gated_by_mask": (ops.gated_by_mask, [(2, 4, 5, 6), (2, 4, 2, 3)]),
    "compact_attention": (lambda *given: ops.compact_attention(*given, groups=2), [(2, 4, 30)] * 3),
    "resized_argmax": (lambda logits: ops.resized_argmax(logits, SIZE, align_corners=False), [(2, 4, 9, 9)]),
}


@pytest.fixture(params=CALLS)
def work(request):
    """An operation, and what three calls of it take, along a first dimension."""
    call, shapes = CALLS[request.param]
    generator = torch.Generator().manual_seed(0)
    return call, [torch.randn(3, *shape, generator=generator) for shape in shapes]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_at_a_time_are_as_one_after_the_other(work, dtype):
    call, given = work
    given = [each.to(dtype) for each in given]
    wanted = torch.stack([call(*each) for each in zip(*given, strict=True)])
    bound = {"rtol": 0, "atol": 1e-5 if dtype == torch.float32 else 0.02 * wanted.abs().max().item()}
    torch.testing.assert_close(torch.func.vmap(call)(*given), wanted, **bound)
    # Tensors that have no address of their own.
    one = [each[0] for each in given]
    torch.testing.assert_close(torch.func.functionalize(call)(*one), wanted[0], **bound)


# PyTorch scripts its formulas at the first derivative of this kind.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@torch.no_grad()
def test_forward_derivatives_are_differences(work):
    call, given = work
    point, step = ([each[number].double() for each in given] for number in (0, 1))
    ahead, behind = ([x + sign * 1e-6 * d for x, d in zip(point, step, strict=True)] for sign in (1, -1))
    exact = (call(*ahead).double() - call(*behind).double()) / 2e-6
    narrow = [tuple(each.float() for each in several) for several in (point, step)]
    value, found = torch.func.jvp(call, *narrow)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=1e-4 * max(1.0, exact.abs().max().item()))
    torch.testing.assert_close(value, call(*narrow[0]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_halved_mask():
    module = MaskDistribution(4, 4).eval()
    maps = torch.randn(3, 2, 4, 33, 34, generator=torch.Generator().manual_seed(0))
    wanted = torch.stack([module(each, each).features for each in maps])
    found = torch.func.vmap(lambda each: module(each, each).features)(maps)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
