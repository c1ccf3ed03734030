"""What every exported aggregation and distribution must do; a new one is covered by its export alone."""

import pytest
import torch
from torch import nn

from segcontext import aggregation, distribution
from segcontext.types import Context

CHANNELS, LOCAL_CHANNELS = 16, 12
SIZES = [(1, 1), (5, 7), (16, 9)]

# Smaller than the papers' settings, so that the tests are quick.
OPTIONS = {
    "aggregation.ASPP": {"out_channels": 8, "rates": (2, 4, 12)},
    "aggregation.EMA": {"num_bases": 4},
    "aggregation.PSA": {"channels": 8, "mask_size": 7},
    "aggregation.PSP": {"out_channels": 8},
    "distribution.AffinityDistribution": {"key_channels": 8, "value_channels": 16},
}

# Parameters that learn nothing, and why.
BEFORE_NORM = "batch norm takes away what a bias before it adds; it stays because the published weights have it"
WITHOUT_GRADIENT = {
    "aggregation.Downsampled": {"down.0.bias": BEFORE_NORM},
    "distribution.MaskDistribution": {f"shrink.{n}.0.bias": BEFORE_NORM for n in range(3)},
}
# Inputs that play no part.
UNUSED_INPUTS = {"distribution.Identity": {1}, "distribution.MaskDistribution": {1}}


def parts():
    for package in (aggregation, distribution):
        for name in package.__all__:
            kind = getattr(package, name)
            if isinstance(kind, type) and issubclass(kind, nn.Module):
                yield f"{package.__name__.removeprefix('segcontext.')}.{name}"


def build(part, *, seed=0):
    """The part with random weights throughout, so that nothing hides behind a zero-initialised layer."""
    package, name = part.split(".")
    torch.manual_seed(seed)
    if package == "distribution":
        module = getattr(distribution, name)(CHANNELS, LOCAL_CHANNELS, **OPTIONS.get(part, {}))
    elif name == "Downsampled":
        module = aggregation.Downsampled(aggregation.NonLocal(CHANNELS), CHANNELS)
    else:
        module = getattr(aggregation, name)(CHANNELS, **OPTIONS.get(part, {}))
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.normal_()
    return module


def inputs(part, size, *, batch=2, dtype=torch.float32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    depths = (CHANNELS, LOCAL_CHANNELS) if part.startswith("distribution") else (CHANNELS,)
    return tuple(torch.randn(batch, depth, *size, generator=generator).to(dtype) for depth in depths)


def copy_of_state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=0, atol=0)


every_part = pytest.mark.parametrize("part", list(parts()))
every_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))


def test_the_named_parts_are_exported():
    assert set(parts()) >= {
        *(f"aggregation.{name}" for name in ("Identity", "PSP", "ASPP", "NonLocal", "CGNL", "PSA", "A2", "EMA")),
        *(f"distribution.{name}" for name in ("Identity", "MaskDistribution", "AffinityDistribution")),
    }


@every_part
@every_size
@pytest.mark.parametrize("batch", [1, 2])
def test_any_map_keeps_its_size_and_channels_are_known_up_front(part, size, batch):
    module = build(part).eval()
    out = module(*inputs(part, size, batch=batch))
    assert isinstance(out, Context)
    assert out.features.shape == (batch, module.out_channels, *size)
    assert out.features.isfinite().all()
    assert module.in_channels == CHANNELS
    if part.startswith("distribution"):
        assert module.local_channels == LOCAL_CHANNELS


@every_part
@every_size
def test_one_image_trains(part, size):
    module = build(part).train()
    given = [each.requires_grad_() for each in inputs(part, size, batch=1)]
    out = module(*given)
    assert out.features.shape == (1, module.out_channels, *size)
    assert out.features.isfinite().all()
    out.features.square().sum().backward()
    gradients = [each.grad for each in (*module.parameters(), *given) if each.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


@every_part
def test_every_trainable_parameter_and_every_input_gets_a_gradient(part):
    """In double precision, where a gradient that cancels is told from a small one."""
    module = build(part).double().train()
    given = [each.requires_grad_() for each in inputs(part, (16, 9), dtype=torch.float64)]
    features = module(*given).features
    (features * torch.randn_like(features)).sum().backward()

    sizes = {name: p.grad for name, p in module.named_parameters() if p.requires_grad}
    without = {name for name, gradient in sizes.items() if gradient is None or gradient.abs().max() < 1e-10}
    assert without == set(WITHOUT_GRADIENT.get(part, {}))

    unused = {n for n, each in enumerate(given) if each.grad is None or not each.grad.any()}
    assert unused == UNUSED_INPUTS.get(part, set())


@every_part
@pytest.mark.parametrize("training", [False, True])
def test_evidence_is_asked_for_detached_and_changes_nothing(part, training):
    module, twin = build(part).train(training), build(part).train(training)
    given = inputs(part, (5, 7))
    quiet, told = module(*given), twin(*given, evidence=True)
    assert quiet.evidence is None
    assert_same(quiet.features, told.features)
    assert told.features.requires_grad == quiet.features.requires_grad
    if told.evidence is not None:
        tensors = [each for each in told.evidence if isinstance(each, torch.Tensor)]
        assert tensors
        for tensor in tensors:
            assert not tensor.requires_grad
            assert tensor.isfinite().all()


@every_part
def test_parts_that_attend_have_evidence(part):
    silent = {
        "aggregation.Identity",
        "aggregation.PSP",
        "aggregation.ASPP",
        "aggregation.CGNL",
        "distribution.Identity",
    }
    told = build(part).eval()(*inputs(part, (5, 7)), evidence=True)
    assert (told.evidence is None) == (part in silent)


@every_part
def test_evaluation_is_deterministic_and_leaves_the_state(part):
    module = build(part).eval()
    state = copy_of_state(module)
    given = inputs(part, (5, 7))
    before = module(*given).features
    module(*inputs(part, (16, 9), seed=2))
    assert_same(module(*given).features, before)
    assert_same(copy_of_state(module), state)


@every_part
def test_images_do_not_see_each_other_in_evaluation(part):
    module = build(part).double().eval()
    given = inputs(part, (5, 7), batch=3, dtype=torch.float64)
    alone = torch.cat([module(*(each[n : n + 1] for each in given)).features for n in range(3)])
    torch.testing.assert_close(module(*given).features, alone)


@every_part
def test_state_makes_a_round_trip(part):
    module, other = build(part).eval(), build(part, seed=3).eval()
    given = inputs(part, (5, 7))
    other.load_state_dict(module.state_dict(), strict=True)
    assert_same(other(*given).features, module(*given).features)


@every_part
def test_channels_last_gives_the_same(part):
    module = build(part).double().eval()
    given = inputs(part, (5, 7), dtype=torch.float64)
    turned = [each.contiguous(memory_format=torch.channels_last) for each in given]
    torch.testing.assert_close(module(*turned).features, module(*given).features)


@every_part
def test_evaluation_can_be_exported(part):
    module = build(part).eval()
    given = inputs(part, (5, 7))
    program = torch.export.export(module, given)
    torch.testing.assert_close(program.module()(*given).features, module(*given).features)


@every_part
def test_bfloat16_autocast_stays_close(part):
    module = build(part).eval()
    given = inputs(part, (16, 9))
    with torch.no_grad():
        exact = module(*given).features
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = module(*given).features.float()
    assert (rounded - exact).norm() < 0.02 * exact.norm()
