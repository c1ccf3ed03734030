import pytest
import torch
from torch.nn import functional as F

from segcontext.aggregation.aspp import ASPP
from segcontext.errors import RecipeError


def slow_dilated(x, weight, rate):
    """A 3×3 convolution dilated by `rate`, as a sum of nine shifted products."""
    height, width = x.shape[2:]
    padded = F.pad(x, (rate,) * 4)
    taps = [
        torch.einsum("oc,bchw->bohw", weight[:, :, i, j], padded[:, :, i * rate :, j * rate :][:, :, :height, :width])
        for i in range(3)
        for j in range(3)
    ]
    return sum(taps)


def test_matches_a_slow_reference():
    module = ASPP(6, out_channels=4, rates=(2, 5)).double().eval()
    x = torch.randn(2, 6, 7, 4, dtype=torch.float64)
    branches = [module.pointwise(x)]
    for branch, rate in zip(module.atrous, (2, 5), strict=True):
        branches.append(branch[2](branch[1](slow_dilated(x, branch[0].weight, rate))))
    mean = x.flatten(2).sum(2)[:, :, None, None] / 28
    branches.append(module.image(mean).repeat(1, 1, 7, 4))
    torch.testing.assert_close(module(x).features, module.project(torch.cat(branches, 1)))


@pytest.mark.parametrize("separable", [False, True])
def test_other_projections_and_separable_branches(separable):
    module = ASPP(6, out_channels=4, rates=(2, 5), project_kernel=3, separable=separable, dropout=0.5).double().eval()
    x = torch.randn(2, 6, 7, 4, dtype=torch.float64)
    kinds = [tuple(each.weight.shape) for each in module.atrous.modules() if isinstance(each, torch.nn.Conv2d)]
    assert kinds == ([(6, 1, 3, 3), (4, 6, 1, 1)] * 2 if separable else [(4, 6, 3, 3)] * 2)
    if separable:
        depth, point = module.atrous[1]
        depthwise = torch.stack(
            [slow_dilated(x[:, n : n + 1], depth[0].weight[n : n + 1], 5)[:, 0] for n in range(6)], 1
        )
        torch.testing.assert_close(module.atrous[1](x), point(depth[2](depth[1](depthwise))))
    mean = x.mean((2, 3), keepdim=True)
    image = module.image(mean).expand(-1, -1, 7, 4)
    branches = torch.cat([module.pointwise(x), *(atrous(x) for atrous in module.atrous), image], 1)
    conv, norm, act = module.project
    wanted = act(norm(slow_dilated(branches, conv.weight, 1)))
    torch.testing.assert_close(module(x).features, wanted)
    module.train()
    assert not torch.equal(module(x).features, module(x).features), "nothing is dropped"


def test_without_the_mean_a_pixel_sees_no_further_than_the_rates():
    module = ASPP(6, out_channels=4, rates=(2, 3), image_pooling=False).double().eval()
    assert module.project[0].weight.shape == (4, 12, 1, 1)
    x = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    branches = torch.cat([module.pointwise(x), *(atrous(x) for atrous in module.atrous)], 1)
    torch.testing.assert_close(module(x).features, module.project(branches))
    changed = x.clone()
    changed[..., 8] += 10
    torch.testing.assert_close(module(changed).features[..., :5], module(x).features[..., :5])
    module = ASPP(6, out_channels=32, rates=(2, 3)).double().eval()
    assert not torch.allclose(module(changed).features[..., :5], module(x).features[..., :5])


def test_has_the_size_that_the_papers_count():
    """EMANet's Table 1 prints +15.5M for DeepLabV3; 5,397 of it is the classifier of 21 classes."""
    parameters = sum(p.numel() for p in ASPP(2048).parameters()) + 256 * 21 + 21
    assert round(parameters / 1e6, 1) == 15.5


def test_the_mean_of_a_large_half_precision_map_is_taken_in_float32():
    module = ASPP(1, out_channels=1, rates=(1,)).eval()
    seen = []
    module.image.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        module(torch.ones(1, 1, 128, 128, dtype=torch.bfloat16))
    assert seen[0].item() == 1.0


@pytest.mark.parametrize("rates", [(), (0, 6)])
def test_impossible_rates_are_refused(rates):
    with pytest.raises(RecipeError, match="rates"):
        ASPP(4, rates=rates)


def test_even_kernels_are_refused():
    with pytest.raises(RecipeError, match="project_kernel must be odd, not 2"):
        ASPP(4, project_kernel=2)
