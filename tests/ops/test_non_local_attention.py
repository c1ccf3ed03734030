import math

import pytest
import torch

from segcontext.ops.non_local_attention import non_local_attention


def slow(query, key, value, scale):
    """Wang et al. 2018, eqs. 1 and 4, one pair of positions at a time."""
    out = torch.zeros(query.shape[0], value.shape[1], query.shape[2], dtype=query.dtype)
    for image in range(query.shape[0]):
        for p in range(query.shape[2]):
            kernel = [math.exp(scale * float(query[image, :, p] @ key[image, :, m])) for m in range(key.shape[2])]
            for m, affinity in enumerate(kernel):
                out[image, :, p] += affinity / sum(kernel) * value[image, :, m]
    return out


@pytest.mark.parametrize("scale", [1.0, 0.3])
@pytest.mark.parametrize(("depth", "channels", "queries", "keys"), [(3, 3, 6, 6), (4, 2, 5, 3), (2, 5, 1, 1)])
def test_matches_the_equations(depth, channels, queries, keys, scale):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, depth, queries, generator=generator, dtype=torch.float64)
    key = torch.randn(2, depth, keys, generator=generator, dtype=torch.float64)
    value = torch.randn(2, channels, keys, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        non_local_attention(query, key, value, scale=scale), slow(query, key, value, scale), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("depth", "channels", "queries", "keys"), [(8, 8, 300, 300), (8, 5, 257, 91), (3, 3, 1, 1)])
@pytest.mark.parametrize("layout", ["dense", "turned", "apart"])
def test_by_block_as_by_the_fused_kernel(dtype, depth, channels, queries, keys, layout):
    """In float32 to six digits, in bfloat16 to within u of the norm."""
    turn = {
        "dense": lambda each: each,
        "turned": lambda each: each.mT.contiguous().mT,
        "apart": lambda each: torch.stack([each, each], -1)[..., 0],
    }[layout]
    shapes = ((2, depth, queries), (2, depth, keys), (2, channels, keys))
    given = [turn(torch.randn(shape).to(dtype)) for shape in shapes]
    exact = non_local_attention(*(each.double() for each in given), scale=0.5, implementation="reference")
    for each in (given, [tensor.float() for tensor in given]):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != each[0].dtype):
            found = non_local_attention(*each, scale=0.5, implementation="rearranged")
        assert found.dtype == dtype
        limit = 1e-6 if dtype == torch.float32 else 2**-8
        assert (found.double() - exact).norm() <= limit * exact.norm()


def test_gradients():
    generator = torch.Generator().manual_seed(1)
    tensors = [
        torch.randn(1, c, n, generator=generator, dtype=torch.float64, requires_grad=True)
        for c, n in ((2, 4), (2, 3), (3, 3))
    ]
    assert torch.autograd.gradcheck(non_local_attention, tensors)


def test_a_shift_of_all_keys_changes_nothing():
    query, key, value, shift = (torch.randn(1, 4, n, dtype=torch.float64) for n in (7, 7, 7, 1))
    torch.testing.assert_close(non_local_attention(query, key + shift, value), non_local_attention(query, key, value))


def test_half_precision_inputs_are_summed_in_float32():
    """Each of 4,096 equal weights times 1 is far below the spacing of bfloat16 near 1."""
    query = torch.zeros(1, 8, 16, dtype=torch.bfloat16)
    key = torch.zeros(1, 8, 4096, dtype=torch.bfloat16)
    out = non_local_attention(query, key, torch.ones(1, 8, 4096, dtype=torch.bfloat16))
    torch.testing.assert_close(out, torch.ones_like(out), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 4, 6), (1, 3, 6), (1, 4, 6)),
        ((1, 4, 6), (1, 4, 6), (1, 4, 5)),
        ((2, 4, 6), (1, 4, 6), (1, 4, 6)),
        ((1, 4, 2, 3), (1, 4, 2, 3), (1, 4, 2, 3)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="expected query"):
        non_local_attention(*(torch.zeros(shape) for shape in shapes))
