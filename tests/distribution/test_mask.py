import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from segcontext import native
from segcontext.costs import OperationCounter
from segcontext.distribution import mask
from segcontext.distribution.mask import MaskDistribution
from segcontext.errors import RecipeError
from segcontext.layers import StridedConv2d
from segcontext.ops.implementations import asked_for, use_implementation

CHANNELS = 4


def module(**options):
    torch.manual_seed(0)
    made = MaskDistribution(CHANNELS, 3, **options).double().eval()
    for norm in (each for each in made.modules() if isinstance(each, nn.BatchNorm2d)):
        # Away from the identity, so that a norm left out would show.
        norm.weight.data.uniform_(0.5, 2)
        norm.bias.data.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return made


def maps(size, *, batch=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, c, *size, generator=generator, dtype=torch.float64) for c in (CHANNELS, 3)]


def shrunk(made, x, *, padding):
    """W_d of eq. 1, from the weights alone."""
    for conv, norm, _ in made.shrink:
        x = F.conv2d(x, conv.weight, conv.bias, stride=2, padding=padding, groups=CHANNELS)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        x = ((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).relu()
    return x


def gated(x, small, *, align_corners=True, times=1):
    mask = F.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=align_corners).sigmoid()
    return mask * x + times * x


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (15, 15), (16, 33)])
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_matches_the_equations(size, ratio):
    made, (x, local) = module(ratio=ratio), maps(size)
    assert len(made.shrink) == {2: 1, 4: 2, 8: 3}[ratio]
    torch.testing.assert_close(made(x, local).features, gated(x, shrunk(made, x, padding=1)))


@pytest.mark.parametrize("size", [(15, 15), (15, 40), (33, 17)])
def test_without_padding_the_published_layers_come_out(size):
    made, (x, local) = module(padding=0), maps(size)
    torch.testing.assert_close(made(x, local).features, gated(x, shrunk(made, x, padding=0)))


@pytest.mark.parametrize("size", [(1, 1), (14, 15), (7, 40)])
def test_without_padding_small_maps_are_filled_up_as_far_as_it_takes(size):
    made, (x, local) = module(padding=0), maps(size)
    filled = x.new_zeros(2, CHANNELS, max(15, size[0]), max(15, size[1]))
    filled[:, :, : size[0], : size[1]] = x
    torch.testing.assert_close(made(x, local).features, gated(x, shrunk(made, filled, padding=0)))


@pytest.mark.parametrize("ratio", [2, 4, 8, 16])
def test_the_least_size_without_padding_is_what_the_layers_need(ratio):
    least = 2 * ratio - 1
    made, (x, _) = module(padding=0, ratio=ratio), maps((least, least))
    assert shrunk(made, x, padding=0).shape[2:] == (1, 1)
    with pytest.raises(RuntimeError, match=r"[Kk]ernel size"):
        shrunk(made, x[:, :, 1:], padding=0)


@pytest.mark.parametrize("strategy", ["bilinear", "average"])
@pytest.mark.parametrize(("size", "small"), [((16, 33), (2, 4)), ((5, 7), (1, 1)), ((1, 1), (1, 1)), ((24, 8), (3, 1))])
def test_the_ablations_have_no_weights(strategy, size, small):
    made, (x, local) = module(downsampling=strategy), maps(size)
    assert not list(made.parameters())
    if strategy == "average":
        less = F.adaptive_avg_pool2d(x, small)
    else:
        less = F.interpolate(x, size=small, mode="bilinear", align_corners=True)
    torch.testing.assert_close(made(x, local).features, gated(x, less))


def test_average_pooling_is_the_mean_of_each_cell():
    made, (x, local) = module(downsampling="average", ratio=2), maps((4, 4))
    mask = made(x, local, evidence=True).evidence.values
    for y in (0, 3):
        for column in (0, 3):
            cell = x[:, :, y // 2 * 2 : y // 2 * 2 + 2, column // 2 * 2 : column // 2 * 2 + 2]
            torch.testing.assert_close(mask[:, :, y, column], cell.mean((2, 3)).sigmoid())


@pytest.mark.parametrize("strategy", ["depthwise", "bilinear", "average"])
def test_the_published_residual_adds_once_more(strategy):
    x, local = maps((9, 6))
    paper, published = (module(downsampling=strategy, residual=each) for each in ("paper", "published"))
    torch.testing.assert_close(published(x, local).features, paper(x, local).features + x)


def test_align_corners_is_handed_on():
    made, (x, local) = module(align_corners=False), maps((9, 16))
    wanted = gated(x, shrunk(made, x, padding=1), align_corners=False)
    torch.testing.assert_close(made(x, local).features, wanted)


def test_evidence_is_the_mask_that_was_used():
    made, (x, local) = module(), maps((9, 6))
    features, evidence = made(x, local, evidence=True)
    assert evidence.values.shape == x.shape
    assert (evidence.values >= 0).all()
    assert (evidence.values <= 1).all()
    torch.testing.assert_close(features, evidence.values * x + x)


def test_three_layers_of_512_channels_have_18432_parameters():
    with torch.device("meta"):
        made = MaskDistribution(512, 2048)
    assert sum(each.numel() for each in made.parameters()) == 18_432
    assert made.out_channels == 512


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 5)])
@pytest.mark.parametrize("padding", [0, 1])
def test_one_small_image_trains(size, padding):
    made = MaskDistribution(CHANNELS, 3, padding=padding).train()
    x, local = (each[:1].float().requires_grad_() for each in maps(size))
    made(x, local).features.sum().backward()
    assert x.grad.isfinite().all()
    assert local.grad is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"downsampling": "max"}, "depthwise, bilinear or average, not 'max'"),
        ({"ratio": 1}, "power of two from 2 up, not 1"),
        ({"ratio": 6}, "not 6"),
        ({"ratio": 0}, "not 0"),
        ({"residual": "none"}, "paper or published"),
        ({"padding": 2}, "padding 0 or 1"),
    ],
)
def test_impossible_settings_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        MaskDistribution(CHANNELS, 3, **options)


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 7), (16, 33), (40, 24)])
@pytest.mark.parametrize("ratio", [2, 4, 8])
@pytest.mark.parametrize("align_corners", [True, False])
def test_in_one_pass(size, ratio, align_corners, monkeypatch):
    """float32 in evaluation: the same as layer by layer in float64, and with the layers left out."""
    exact = module(ratio=ratio, align_corners=align_corners, residual="published")
    made, (x, local) = copy.deepcopy(exact).float(), maps(size)
    with torch.no_grad():
        wanted = exact(x, local, evidence=True)
        found = made(x.float(), local.float(), evidence=True)
        torch.testing.assert_close(found.features.double(), wanted.features, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.evidence.values.double(), wanted.evidence.values, rtol=1e-4, atol=1e-5)
        half = made.bfloat16()(x.bfloat16(), local.bfloat16()).features
        assert (half.double() - wanted.features).norm() < 0.02 * wanted.features.norm()
        if size != (1, 1):
            # One pixel lies by planes and by pixels alike.
            monkeypatch.setattr(nn.Conv2d, "forward", lambda *given: pytest.fail("a layer ran"))
            copy.deepcopy(exact).float()(x.float(), local.float())


@pytest.mark.parametrize(
    "change", ["hook", "hook on a block", "identity", "training", "float64", "channels-last", "dispatch"]
)
def test_one_pass_is_left_where_it_would_not_be_the_same(change):
    made, (x, local) = module().float(), [each.float() for each in maps((16, 20))]
    seen = []
    if change == "hook on a block":
        made.shrink[1].register_forward_hook(lambda *given: seen.append(1))
    if change == "hook":
        made.shrink[1][0].register_forward_hook(lambda *given: seen.append(1))
    elif change == "identity":
        made.shrink[0][2] = nn.Identity()
    elif change == "training":
        made.train()
    elif change == "float64":
        made, x = made.double(), x.double()
    elif change == "channels-last":
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad(), OperationCounter() if change == "dispatch" else nullcontext() as counter:
        found = made(x, local).features
        wanted = gated(x, made.shrink(x))
    torch.testing.assert_close(found, wanted)
    assert bool(seen) == change.startswith("hook")
    if change == "dispatch":
        assert counter.operations[""]["convolution"] == 2 * 4 * 9 * (8 * 10 + 4 * 5 + 2 * 3) * 2


LAYOUTS = {"planes": torch.contiguous_format, "pixels": torch.channels_last}


def weights(made):
    """Those that learn: what a convolution's bias adds, batch norm takes away in training."""
    return [each for name, each in made.named_parameters() if not (made.training and name.endswith(".0.bias"))]


def learned(made, x):
    """The result, the gradients of the features and of the weights, and the running statistics."""
    x = x.detach().requires_grad_()
    out = made(x, x).features
    sign = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
    found = torch.autograd.grad(out, [x, *weights(made)], sign)
    return [out.detach(), *found, *(each.clone().to(out) for each in made.buffers())]


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("size", [(2, 3), (16, 33), (97, 65)])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("training", [False, True])
def test_learns_as_pytorchs_layers_do(size, padding, layout, training, monkeypatch):
    """float32 in compiled loops beside float64 in PyTorch's: values, gradients, running statistics."""
    exact = module(padding=padding, residual="published").train(training)
    for parameter in exact.parameters():
        parameter.data = parameter.data.float().double()
    made, x = copy.deepcopy(exact).float(), maps(size, batch=3)[0].float()
    x = x.contiguous(memory_format=LAYOUTS[layout])
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    wanted = learned(exact, x.double())
    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda *given: pytest.fail("a layer of PyTorch's ran"))
        found = learned(made, x)
    for left, right in zip(found, wanted, strict=True):
        assert (left - right).norm() <= 1e-4 * right.norm() + 1e-6


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", ["forward", "backward", "shrink"])
def test_hooks_are_called_while_it_learns(training, kind, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, (x, local) = module().float().train(training), [each.float().requires_grad_() for each in maps((16, 20))]
    seen = []
    if kind == "forward":
        made.shrink[1][0].register_forward_hook(lambda *given: seen.append(1))
    elif kind == "backward":
        made.shrink[0][0].register_full_backward_hook(lambda *given: seen.append(1))
    else:
        made.shrink.register_forward_hook(lambda *given: seen.append(1))
    made(x, local).features.sum().backward()
    assert seen == [1]


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_autocast_rounds_where_it_did(training, layout, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, x = module().float().train(training), maps((17, 20))[0].float().contiguous(memory_format=LAYOUTS[layout])
    plain = copy.deepcopy(made)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = learned(made, x)
        with use_implementation("reference"):
            wanted = learned(plain, x)
    for left, right in zip(found, wanted, strict=True):
        assert left.dtype == right.dtype
        assert (left - right).norm() <= 0.03 * right.norm() + 0.1


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("training", [False, True])
def test_gradients_of_gradients_are_pytorchs(training, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, found = module().float().train(training), []
    for implementation in ("native", "reference"):
        x = maps((9, 12))[0].float().requires_grad_()
        with use_implementation(implementation):
            (slope,) = torch.autograd.grad(made(x, x).features.square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), [x, *weights(made)], allow_unused=True))
    for left, right in zip(*found, strict=True):
        assert (left is None) == (right is None)
        if left is not None:
            assert (left - right).norm() <= 1e-3 * right.norm()


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
def test_the_features_alone_can_learn():
    made, x = module().float().requires_grad_(False), maps((16, 20))[0].float().requires_grad_()
    made(x, x).features.sum().backward()
    wanted = x.detach().double().requires_grad_()
    made.double()(wanted, wanted).features.sum().backward()
    torch.testing.assert_close(x.grad.double(), wanted.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("faster", [(True, False, False), (False, True, True), (False, False, False)])
def test_layers_run_in_loops_or_not_one_by_one(layout, faster, monkeypatch):
    made, x = module(padding=1).float().train(), maps((20, 24))[0].float().contiguous(memory_format=LAYOUTS[layout])
    plain, answers = copy.deepcopy(made), list(faster)
    monkeypatch.setattr(mask, "is_faster", lambda features: answers.pop(0))
    found = learned(made, x)
    monkeypatch.setattr(mask, "is_faster", lambda features: False)
    for left, right in zip(found, learned(plain, x), strict=True):
        assert (left - right).norm() <= 1e-4 * right.norm() + 1e-6


class Tripled(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.convolution, self.norm, self.activation = block

    def forward(self, x):
        return 3 * self.activation(self.norm(self.convolution(x)))


class Raised(StridedConv2d):
    def forward(self, x):
        return super().forward(x) + 1


def own_forward(part):
    plain = part.forward
    part.forward = lambda x: 3 * plain(x)


def convolution(kind=StridedConv2d, size=3, **options):
    options = {"groups": CHANNELS, "padding": size // 2, **options}
    return kind(CHANNELS, CHANNELS, size, stride=2, **options)


CHANGES = {
    "dilation": lambda blocks: blocks[0].__setitem__(0, convolution(dilation=2, padding=2)),
    "reflected": lambda blocks: blocks[0].__setitem__(0, convolution(padding_mode="reflect")),
    "5x5": lambda blocks: blocks[0].__setitem__(0, convolution(size=5)),
    "dense": lambda blocks: blocks[0].__setitem__(0, convolution(groups=1)),
    "a convolution's own forward": lambda blocks: blocks[0].__setitem__(0, convolution(Raised)),
    "a block's own forward": lambda blocks: blocks.__setitem__(0, Tripled(blocks[0])),
    "a forward put onto a block": lambda blocks: own_forward(blocks[0]),
    "a forward put onto a norm": lambda blocks: own_forward(blocks[0][1]),
    "no activation": lambda blocks: blocks[0].__delitem__(2),
    "one more layer": lambda blocks: blocks[0].append(nn.Softplus()),
    "wrapped": lambda blocks: blocks.__setitem__(0, nn.Sequential(blocks[0])),
    "a convolution alone": lambda blocks: blocks.__setitem__(0, convolution()),
    "an empty block": lambda blocks: blocks.__setitem__(0, nn.Sequential()),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("learns", [False, True])
def test_layers_that_were_changed_run_as_they_stand(change, learns, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, x = module().float().train(learns), maps((16, 20))[0].float()
    CHANGES[change](made.shrink)
    with torch.set_grad_enabled(learns):
        torch.testing.assert_close(made(x, x).features, gated(x, made.shrink(x)))


@pytest.mark.parametrize("learns", [False, True])
def test_hooks_for_all_modules_are_called(learns, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, x, seen = module().float().train(learns), maps((16, 20))[0].float(), []
    handle = register_module_forward_hook(lambda called, *given: seen.append(type(called)))
    try:
        made(x, x)
    finally:
        handle.remove()
    assert seen.count(StridedConv2d) == 3


def test_features_of_other_channels_are_refused():
    made, x = module().float(), torch.zeros(1, CHANNELS + 1, 16, 20)
    with pytest.raises(RuntimeError, match="channels"):
        made(x, x)


@pytest.mark.parametrize("learns", [False, True])
def test_float16_of_autocast_is_pytorchs(learns, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, x = module().float().train(learns), maps((16, 20))[0].float()
    with torch.autocast("cpu", dtype=torch.float16):
        torch.testing.assert_close(made(x, x).features, gated(x, made.shrink(x)), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_default_device_is_nobody_watching(layout, monkeypatch):
    """Nor are the loops' own tensors made there."""
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, x = module().float(), maps((16, 20))[0].float().contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    wanted = gated(x, made.shrink(x))
    (slope,) = torch.autograd.grad(wanted.sum(), x)
    with torch.device("meta"), monkeypatch.context() as patch:
        patch.setattr(nn.Conv2d, "forward", lambda *given: pytest.fail("a layer of PyTorch's ran"))
        out = made(x, x).features
        out.backward(torch.ones_like(out))
    torch.testing.assert_close((out, x.grad), (wanted, slope))


@pytest.mark.parametrize("learns", [False, True])
def test_kernels_are_chosen_by_the_gate_alone(learns, monkeypatch):
    monkeypatch.setattr(mask, "is_faster", lambda features: True)
    made, (x, local), asked = module().float().train(learns), [each.float() for each in maps((16, 20))], []

    def gate(features, logits, *, times, align_corners):
        asked.append(asked_for(None))
        return gated(features, logits)

    monkeypatch.setattr(mask, "gated_by_mask", gate)
    with use_implementation("triton", strict=True), torch.set_grad_enabled(learns):
        made(x, local)
    assert asked == ["triton"]
