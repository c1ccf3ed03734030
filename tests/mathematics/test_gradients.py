"""Gradients in float64: by finite differences wherever they are promised, against explicit detachment elsewhere.

Every function of `segcontext.ops` promises its full gradient and is held to it entry by entry in ../ops, but for EM
attention with ``gradient="none"`` (the default) and ``"last"``, which hold parts constant. Those are compared with
references that detach the same parts by hand. Modules and networks are checked along random directions in the space of
all their inputs and trainable parameters together.
"""

import pytest
import torch
from tests.test_contract import build as build_part
from tests.test_contract import inputs, parts
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from segcontext.aggregation import EMA
from segcontext.ops import (
    compact_attention,
    double_attention,
    em_attention,
    local_attention,
    non_local_attention,
    point_attention,
)
from segcontext.zoo import build

KERNELS = ("exponential_inner_product", "inner_product", "euclidean", "rbf")
NORMS = ("l2", "layer_norm", "none")
EPS = 1e-6


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def assert_slopes_agree(function, tensors, *, seed=0, directions=3, step=1e-6):
    """Σ gradient · direction by autograd, and by central differences along the same direction."""
    (out,) = draw(seed, function().shape)
    gradients = torch.autograd.grad((function() * out).sum(), tensors, allow_unused=True)
    for number in range(directions):
        along = draw(seed + 1 + number, *(each.shape for each in tensors))
        wanted = sum((g * d).sum() for g, d in zip(gradients, along, strict=True) if g is not None)
        values = []
        with torch.no_grad():
            for sign in (1, -2):
                for tensor, direction in zip(tensors, along, strict=True):
                    tensor.add_(direction, alpha=sign * step)
                values.append((function() * out).sum())
            for tensor, direction in zip(tensors, along, strict=True):
                tensor.add_(direction, alpha=step)
        slope = (values[0] - values[1]) / (2 * step)
        assert abs(wanted) > 1e-3
        torch.testing.assert_close(slope, wanted, rtol=1e-5, atol=1e-6)


# --- finite differences ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("part", [each for each in parts() if each != "aggregation.EMA"])
def test_every_module_by_finite_differences(part, training):
    module = build_part(part).double().train(training)
    given = [each.requires_grad_() for each in inputs(part, (5, 7), dtype=torch.float64)]
    tensors = [*given, *(each for each in module.parameters() if each.requires_grad)]
    assert_slopes_agree(lambda: module(*given).features, tensors)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"gradient": "all"},
        {"upkeep": "learned"},
        {"upkeep": "learned", "norm": "layer_norm", "kernel": "rbf"},
        {"upkeep": "learned", "norm": "none", "kernel": "euclidean"},
        {"gradient": "all", "kernel": "inner_product", "iterations": 0},
    ],
    ids=str,
)
def test_the_ema_unit_that_follows_all_iterations_by_finite_differences(options, training):
    torch.manual_seed(0)
    module = EMA(6, num_bases=3, **options).double().train(training)
    (x,) = draw(1, (2, 6, 4, 5))
    x.requires_grad_()
    assert_slopes_agree(lambda: module(x).features, [x, *module.parameters()])
    assert any(each is module.bases for each in module.parameters()) == (options.get("upkeep") == "learned")


def smooth(model):
    """Softplus for ReLU and means for maxima: among so many units, any finite step would cross a kink."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.Softplus())
            elif isinstance(child, nn.MaxPool2d):
                setattr(module, name, nn.AvgPool2d(3, 2, 1, ceil_mode=child.ceil_mode))
    return model


@pytest.mark.parametrize("name", ["emanet", "galdnet_v1", "galdnet_v2"])
def test_whole_networks_by_finite_differences(name):
    """In training, batch norms and all; the logits and the auxiliary ones."""
    options = {"backbone": "test_resnet", "pretrained": False, "dropout": 0.0, "auxiliary": True}
    options |= {"reduce_channels": 16} if name != "galdnet_v2" else {"distribution_options": {"kernel_size": 3}}
    if name == "emanet":
        options["aggregation_options"] = {"gradient": "all", "num_bases": 4}
    torch.manual_seed(0)
    model = smooth(build(name, 3, options)).double().train()
    (images,) = draw(1, (2, 3, 33, 41))
    images = images.sigmoid().requires_grad_()

    def logits():
        output = model(images, auxiliary=True)
        return torch.cat([output.features_logits.flatten(), output.auxiliary.flatten()])

    tensors = [images, *(each for each in model.parameters() if each.requires_grad)]
    assert_slopes_agree(logits, tensors, directions=2, step=1e-7)


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (lambda q, k, v: compact_attention(q, k, v, groups=2), [(1, 4, 3)] * 3),
        (lambda a, b, v: double_attention(a, b, v).output, [(1, 2, 3), (1, 2, 3), (1, 2, 3)]),
        (lambda x, mu: em_attention(x, mu, iterations=2, gradient="all").reconstruction, [(1, 3, 2), (2, 2)]),
        (lambda q, k, v: local_attention(q, k, v, kernel_size=3, dilation=1), [(1, 2, 2, 2)] * 3),
        (non_local_attention, [(1, 2, 3)] * 3),
        (point_attention, [(1, 2, 2, 2), (1, 9, 2, 2)]),
    ],
    ids=["compact", "double", "em", "local", "non_local", "point"],
)
def test_every_function_has_second_derivatives(function, shapes):
    """The differentiated gradient, by finite differences again; PyTorch's fused attention has none."""
    given = [each.requires_grad_() for each in draw(0, *shapes)]
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(function, given, atol=1e-4)


# --- explicit detachment ---------------------------------------------------------------------------------------------


def e_step(x, means, kernel, lam):
    """Eq. 11 from pairs, (B, N, K)."""
    inner = (x[:, :, None] * means[:, None]).sum(-1)
    squared = (x[:, :, None] - means[:, None]).square().sum(-1)
    weights = {
        "exponential_inner_product": lambda: (lam * inner).exp(),
        "inner_product": lambda: inner.clamp_min(0) + EPS,
        "euclidean": lambda: (-lam * squared.sqrt()).exp(),
        "rbf": lambda: (-lam * squared).exp(),
    }[kernel]()
    return weights / weights.sum(-1, keepdim=True)


def m_step(x, z, norm):
    """Eq. 13 and §5.3, with the published 1e-6."""
    means = torch.einsum("bnk,bnc->bkc", z, x) / (z.sum(1)[..., None] + EPS)
    if norm == "l2":
        return means / (means.square().sum(-1, keepdim=True).sqrt() + EPS)
    if norm == "layer_norm":
        centred = means - means.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return means


def by_hand(x, bases, *, iterations, kernel, norm, lam, gradient):
    """EM attention with each constant detached where it is made."""
    means = bases.expand(len(x), -1, -1)
    means = means if gradient == "all" else means.detach()
    for iteration in range(max(iterations, 1)):
        z = e_step(x if gradient == "all" else x.detach(), means, kernel, lam)
        if gradient == "last" and iteration >= iterations - 1:
            free = e_step(x, means, kernel, lam)
        if iterations:
            means = m_step(x if gradient == "all" else x.detach(), z, norm)
    return (free if gradient == "last" else z) @ means


@pytest.mark.parametrize("gradient", ["none", "last", "all"])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_em_attention_holds_constant_what_it_says(kernel, norm, iterations, gradient):
    options = {"iterations": iterations, "kernel": kernel, "norm": norm, "lam": 0.7, "gradient": gradient}
    sign, *given = draw(0, (2, 7, 4), (2, 7, 4), (3, 4))
    results = []
    for function in (
        lambda *each: em_attention(*each, **options).reconstruction,
        lambda *each: by_hand(*each, **options),
    ):
        x, bases = (each.clone().requires_grad_() for each in given)
        out = function(x, bases)
        results.append([out, None, None])
        if gradient != "none":
            results[-1][1:] = torch.autograd.grad((out * sign).sum(), [x, bases], allow_unused=True)
    (out, slope, of_bases), (wanted, wanted_slope, wanted_of_bases) = results
    assert out.requires_grad == (gradient != "none")
    torch.testing.assert_close(out, wanted, rtol=1e-7, atol=1e-9)
    if gradient != "none":
        assert wanted_slope.abs().max() > 1e-3
        torch.testing.assert_close(slope, wanted_slope, rtol=1e-6, atol=1e-8)
        assert (of_bases is None) == (gradient == "last")
    if gradient == "all":
        torch.testing.assert_close(of_bases, wanted_of_bases, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradient", ["none", "last"])
def test_the_ema_unit_holds_constant_what_it_says(gradient, training):
    """As published, x̃ is a constant: x learns through the residual alone, and conv1 not at all."""
    torch.manual_seed(0)
    unit = EMA(6, num_bases=3, gradient=gradient).double().train(training)
    (x, sign) = draw(1, (2, 6, 4, 5), (2, 6, 4, 5))
    options = {"iterations": 3, "kernel": "exponential_inner_product", "norm": "l2", "lam": 1.0, "gradient": gradient}
    results = []
    for which in ("ours", "by hand"):
        given, bases = x.clone().requires_grad_(), unit.bases.clone()
        if which == "ours":
            out = unit(given).features
        else:
            drawn = by_hand(unit.conv1(given).flatten(2).mT, bases, **options)
            weight, norm = unit.conv2[0].weight, unit.conv2[1]
            drawn = F.conv2d(drawn.mT.reshape(x.shape).relu(), weight)
            statistics = (None, None) if training else (norm.running_mean, norm.running_var)
            drawn = F.batch_norm(drawn, *statistics, norm.weight, norm.bias, training=training)
            out = (given + drawn).relu()
        learning = [given, *(each for each in unit.parameters() if each.requires_grad)]
        results.append([out, *torch.autograd.grad((out * sign).sum(), learning)])
    for ours, wanted in zip(*results, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=1e-8)
    names = {name for name, each in unit.named_parameters() if each.requires_grad}
    assert ("conv1.weight" in names) == (gradient == "last")
    if gradient == "none":
        torch.testing.assert_close(results[0][1], sign * (results[0][0] > 0))
