import pytest
import torch

from segcontext.aggregation.cgnl import CGNL
from segcontext.errors import RecipeError


def published(block, x):
    """The pairwise form in the published order: attend in each group as a full matrix, then W_z, norm, residual."""
    t, p, g = block.t(x), block.p(x), block.g(x)
    groups = []
    for theta, phi, value in zip(*(each.chunk(block.groups, 1) for each in (t, p, g)), strict=True):
        shape = theta.shape
        theta, phi, value = (each.flatten(1) for each in (theta, phi, value))
        affinity = theta[:, :, None] * phi[:, None, :]
        groups.append((affinity @ value[:, :, None]).view(shape))
    return block.gn(block.z(torch.cat(groups, 1))) + x


def test_matches_the_published_order():
    block = CGNL(16, groups=4).double()
    x = torch.randn(2, 16, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(block(x).features, published(block, x))


def test_has_the_published_tensors():
    shapes = {name: tuple(tensor.shape) for name, tensor in CGNL(512).state_dict().items()}
    assert shapes == {
        "t.weight": (256, 512, 1, 1),
        "p.weight": (256, 512, 1, 1),
        "g.weight": (256, 512, 1, 1),
        "z.weight": (512, 32, 1, 1),
        "gn.weight": (512,),
        "gn.bias": (512,),
    }
    assert sum(p.numel() for p in CGNL(512).parameters()) == 410_624


def test_the_size_of_the_dot_product_hardly_matters():
    """The group norm divides it out again, as the docstring says."""
    torch.manual_seed(0)
    block = CGNL(16, groups=4).double()
    x = torch.randn(2, 16, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        # Far above the ε of the group norm, from where only the sign is left to matter.
        block.p.weight.mul_(100)
    before = block(x).features
    with torch.no_grad():
        block.p.weight.mul_(7)
    torch.testing.assert_close(block(x).features, before, rtol=1e-3, atol=1e-3)
    with torch.no_grad():
        block.p.weight.neg_()
    assert (block(x).features - before).abs().max() > 0.1


def test_half_precision_survives_a_huge_dot_product():
    block = CGNL(16, groups=4)
    x = 100 * torch.randn(1, 16, 32, 32)
    with torch.autocast("cpu", dtype=torch.float16):
        assert block(x).features.isfinite().all()


@pytest.mark.parametrize(("channels", "inner", "groups"), [(16, 8, 3), (16, 6, 4), (18, 8, 4), (16, 8, 0), (16, 0, 8)])
def test_groups_that_do_not_divide_are_refused(channels, inner, groups):
    with pytest.raises(RecipeError, match="groups must divide"):
        CGNL(channels, channels=inner, groups=groups)


def test_where_the_dot_product_passes_through_zero_gradients_grow():
    """The note on clipping: one group's number is set by the rows of p alone, to a thousand and to nothing."""
    block, x = CGNL(32, groups=4).double(), torch.randn(1, 32, 9, 11, dtype=torch.float64).relu()
    first = block.p.weight.detach()[:4].clone()
    direction, lengths = torch.randn_like(x), []
    for wanted in (1e3, 0.0):
        with torch.no_grad():
            block.p.weight[:4] = first
            terms = (block.p(x) * block.g(x))[0, :4].sum((1, 2))
            block.p.weight[0] *= (wanted - terms[1:].sum()) / terms[0]
        given = x.clone().requires_grad_()
        (block(given).features * direction).sum().backward()
        lengths.append(given.grad.norm().item())
    assert lengths[1] > 100 * lengths[0]
