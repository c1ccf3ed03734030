import pytest
import torch
from torch.nn import functional as F

from segcontext.aggregation.psa import PSA
from segcontext.errors import RecipeError


def module(*, mask_size=9, shrink=2):
    torch.manual_seed(0)
    return PSA(6, channels=4, mask_size=mask_size, shrink=shrink).double().eval()


def as_matrix(logits, side, *, branch):
    """Published layout: for each target a column of logits over the sources, minus infinity out of the window."""
    _, _, height, width = logits.shape
    half = side // 2
    matrix = torch.full((len(logits), height * width, height * width), float("-inf"), dtype=logits.dtype)
    for y in range(height):
        for x in range(width):
            for i in range(max(0, half - y), min(side, height + half - y)):
                for j in range(max(0, half - x), min(side, width + half - x)):
                    here, there = y * width + x, (y + i - half) * width + x + j - half
                    source, target = (there, here) if branch == "collect" else (here, there)
                    matrix[:, source, target] = logits[:, i * side + j, y, x]
    return matrix


@pytest.mark.parametrize(("mask_size", "shrink"), [(9, 2), (3, 2), (13, 1)])
def test_matches_a_slow_reference(mask_size, shrink):
    block = module(mask_size=mask_size, shrink=shrink)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    small = ((5 - 1) // shrink + 1, (7 - 1) // shrink + 1)
    results = []
    for branch in ("collect", "distribute"):
        reduce, attention = getattr(block, f"{branch}_reduce"), getattr(block, f"{branch}_attention")
        sources = F.interpolate(reduce(x), size=small, mode="bilinear", align_corners=True)
        weights = as_matrix(attention(sources), mask_size, branch=branch).softmax(1)
        results.append((sources.flatten(2) @ weights).view_as(sources))
    context = block.project(torch.cat(results, 1))
    context = F.interpolate(context, size=(5, 7), mode="bilinear", align_corners=True)
    torch.testing.assert_close(block(x).features, torch.cat([x, context], 1))


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (8, 3), (2, 12)])
def test_any_map_will_do(size):
    block = module(mask_size=5)
    out, evidence = block(torch.randn(1, 6, *size, dtype=torch.float64), evidence=True)
    assert out.shape == (1, 12, *size)
    assert out.isfinite().all()
    small = tuple((side + 1) // 2 for side in size)
    assert evidence.collect.shape == evidence.distribute.shape == (1, 25, *small)
    for branch in ("collect", "distribute"):
        row = evidence.row(0, small[1] - 1, branch=branch)
        torch.testing.assert_close(row.sum((1, 2)).double(), torch.ones(1).double(), rtol=1e-5, atol=0)


def test_a_window_that_covers_the_map_reaches_every_pixel():
    block = module(mask_size=2 * 7 - 1, shrink=1)
    x = torch.randn(1, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    # The input's own channels come first and reach nothing but themselves.
    block(x).features[0, 6:, 0, 0].sum().backward()
    assert (x.grad.abs().sum(1) > 0).all()


@pytest.mark.parametrize("options", [{"mask_size": 0}, {"mask_size": -1}, {"shrink": 0}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(RecipeError, match="mask_size"):
        PSA(6, channels=4, **options)
    for name in ("shrink_rule", "outside"):
        with pytest.raises(RecipeError, match=name):
            PSA(6, channels=4, **{name: "floor"})


@pytest.mark.parametrize(
    ("size", "small", "aligned"),
    [((5, 7), (3, 4), True), ((6, 7), (3, 3), False), ((5, 8), (2, 4), False), ((2, 1), (1, 1), False)],
)
def test_the_size_may_go_by_what_divides_it(size, small, aligned):
    block = PSA(6, channels=4, mask_size=5, shrink_rule="divisible").eval()
    assert block._small(*size) == (small, aligned)
    out, evidence = block(torch.randn(1, 6, *size), evidence=True)
    assert evidence.collect.shape[-2:] == small
    assert out.shape == (1, 12, *size)


def test_a_padded_projection_resizes_its_border_along():
    torch.manual_seed(0)
    block = PSA(6, channels=4, mask_size=5, shrink=1, project_padding=1).eval()
    projected = []
    block.project.register_forward_hook(lambda module, given, found: projected.append(found))
    context = block(torch.randn(1, 6, 4, 5)).features[:, 6:]
    assert projected[0].shape == (1, 6, 6, 7)
    wanted = F.interpolate(projected[0], size=(4, 5), mode="bilinear", align_corners=True)
    torch.testing.assert_close(context, wanted)
