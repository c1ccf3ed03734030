import pytest
import torch

from segcontext.ops.compact_attention import compact_attention


def pairwise(query, key, value, groups):
    """Yue et al. 2018: every (position, channel) pair attends to every other of its group, as a full matrix."""
    out = torch.empty_like(query)
    for image in range(query.shape[0]):
        for group in range(groups):
            theta, phi, g = (x[image].chunk(groups)[group] for x in (query, key, value))
            affinity = torch.outer(theta.flatten(), phi.flatten())
            out[image].chunk(groups)[group].copy_((affinity @ g.flatten()).view_as(theta))
    return out


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("channels", "inner", "pixels"), [(4, 4, 6), (8, 4, 5), (4, 4, 1)])
def test_matches_the_pairwise_form(channels, inner, pixels, groups):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(2, channels, pixels, generator=generator, dtype=torch.float64)
    key, value = torch.randn(2, 2, inner, pixels, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(compact_attention(query, key, value, groups=groups), pairwise(query, key, value, groups))


def test_groups_do_not_see_each_other():
    query, key, value = torch.randn(3, 1, 6, 5)
    changed = value.clone()
    changed[:, 3:] += 1
    before, after = (compact_attention(query, key, v, groups=2) for v in (value, changed))
    torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def test_half_precision_neither_overflows_nor_loses_the_sum():
    """The sum of 4·32,768 ones leaves the range of float16, and the spacing of bfloat16 far behind."""
    ones = torch.ones(1, 4, 32768, dtype=torch.float16)
    out = compact_attention(ones, ones, ones)
    assert out.dtype == torch.float32
    assert out.unique().tolist() == [131072.0]


def test_gradients():
    tensors = [torch.randn(1, c, 3, dtype=torch.float64, requires_grad=True) for c in (4, 2, 2)]
    assert torch.autograd.gradcheck(lambda *x: compact_attention(*x, groups=2), tensors)


@pytest.mark.parametrize(
    "shapes",
    [((1, 4, 6), (1, 4, 6), (1, 2, 6)), ((1, 4, 6), (1, 4, 5), (1, 4, 5)), ((1, 4, 2, 3), (1, 4, 2, 3), (1, 4, 2, 3))],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="expected query"):
        compact_attention(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_are_refused(groups):
    with pytest.raises(ValueError, match="does not divide"):
        compact_attention(*torch.zeros(3, 1, 4, 5), groups=groups)
