"""How far bfloat16 may lie from float64, part by part.

bfloat16 keeps 8 significant bits: rounding changes a number by at most u = 2⁻⁸ of itself, and a whole map by about
0.4 u of its norm. Independent roundings add as squares, so r of them in a row are expected to cost 0.4 u √r.

* A function of `segcontext.ops` computes in float32 and rounds its result once: at most u, number by number, whatever
  the logits, the iterations and the number of pixels. Rounded logits alone would cost |logit| · u. The same holds for
  its gradients, but for those of LDv2's keys and values, whose k² shares are added in the dtype of the keys.
  PyTorch's fused attention, which Non-local with as many values as keys runs in where gradients are asked for, rounds
  its weights to bfloat16 before they meet the values, and the logits' gradients before they meet queries and keys: a
  little of the norm, but more than u of those numbers that nearly cancel. Non-local by blocks rounds its weights, too.
  EM attention without gradients rounds its bases and responsibilities before they meet pixels, and its logits, taken
  about their mean: 3 u of the norm, ../ops/test_em_folded.py says why. Its reference form rounds once.
* A module rounds before and after each of its convolutions, and its weights. The bounds below are in u of the norm of
  its output; each says where its roundings are, and is about twice what is expected. That softmax and sums inside stay
  wide is what the bounds of the functions show.

The float64 references take the same inputs and weights, unrounded for modules.
"""

import copy

import pytest
import torch
from tests.test_contract import build, inputs, parts
from torch.nn import functional as F

from segcontext.ops import (
    compact_attention,
    double_attention,
    em_attention,
    em_responsibilities,
    local_attention,
    non_local_attention,
    point_attention,
)
from segcontext.zoo import build as build_network

U = 2.0**-8
FUSED = "non_local, as many values"

# For each module: under autocast, and with weights and maps cast to bfloat16 as a whole.
BOUNDS = {
    # Nothing is computed; casting rounds the map itself.
    "aggregation.Identity": (0, 0.5),
    "distribution.Identity": (0, 0.5),
    # Residual: what is added is rounded six or seven times, that is 1 u of a part that is smaller than the whole.
    "aggregation.A2": (1, 1.5),
    "aggregation.CGNL": (1, 1.5),
    "aggregation.EMA": (1, 1.5),
    "aggregation.NonLocal": (1, 1.5),
    # Half of the output is the input itself.
    "aggregation.PSA": (1, 1.5),
    # Two convolutions in a row: input, weights, output and norm of either, 1.1 u.
    "aggregation.ASPP": (2, 2),
    "aggregation.PSP": (2, 2),
    "aggregation.Downsampled": (2, 2),
    # Input, weights and output of the value, and the result: 0.8 u; and what rounded queries and keys do to the logits.
    "distribution.AffinityDistribution": (2, 2),
    # The mask is a sigmoid, which hands on at most a quarter of an error; cast, X and its products are rounded too.
    "distribution.MaskDistribution": (0.5, 1.5),
}


def draw(*shape, seed, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def functions(pixels):
    """Each with its inputs: logits are around 4, and up to 15, unless they are EM's, which are around 1."""
    height, width = pixels
    flat, square = (height * width,), (height, width)

    def three(*shape, channels=8):
        return draw(2, 16, *shape, seed=1), draw(2, 16, *shape, seed=2), draw(2, channels, *shape, seed=3)

    bases = F.normalize(draw(8, 16, seed=4), dim=1)
    maps = (draw(2, 8, *flat, seed=5, size=4), draw(2, 8, *flat, seed=6, size=4))
    return {
        "compact": (lambda q, k, v: compact_attention(q, k, v, groups=4), three(*flat, channels=16)),
        "double": (lambda x, a, b: double_attention(x, a, b).output, (draw(2, 16, *flat, seed=7), *maps)),
        "em": (
            lambda x, mu: em_attention(x, mu, gradient="all", implementation="reference").reconstruction,
            (draw(2, *flat, 16, seed=8), bases),
        ),
        "em without gradients": (
            lambda x, mu: em_attention(x, mu).reconstruction,
            (draw(2, *flat, 16, seed=8), bases),
        ),
        "local": (local_attention, three(*square)),
        "non_local": (non_local_attention, three(*flat)),
        FUSED: (non_local_attention, three(*flat, channels=16)),
        "point": (point_attention, (draw(2, 8, *square, seed=9), draw(2, 49, *square, seed=10, size=4))),
    }


NAMES = tuple(functions((1, 1)))


def assert_rounded_once(found, exact, times=1.0):
    """To within times · u of each number; 1e-4 of the largest for what float32 sums lose."""
    error = (found.double() - exact).abs()
    assert (error <= times * U * exact.abs() + 1e-4 * exact.abs().max()).all()


def norm_of_error(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item() / U


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pixels", [(1, 1), (5, 7), (40, 41)])
def test_a_function_rounds_once(name, pixels):
    function, given = functions(pixels)[name]
    given = [each.bfloat16() for each in given]
    exact = function(*(each.double() for each in given))
    found = function(*given)
    assert found.dtype == (torch.float32 if name == "compact" else torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Only what PyTorch's fused kernel is given is rounded under autocast, and these numbers can be already.
        cast = function(*(each.float() for each in given))
    for each in (found, cast):
        if name.startswith("non_local"):
            assert norm_of_error(each, exact) < 1
        elif name == "em without gradients":
            assert norm_of_error(each, exact) < 3
        elif name in ("double", "point"):
            # Without gradients, weights (and A²'s descriptors) are rounded before they meet bfloat16 features.
            assert norm_of_error(each, exact) < 1.5
        else:
            assert_rounded_once(each, exact)


@pytest.mark.parametrize("name", [name for name in NAMES if "without" not in name])
def test_so_do_its_gradients(name):
    function, given = functions((5, 7))[name]
    given = [each.bfloat16() for each in given]
    results = []
    for dtype in (torch.bfloat16, torch.float64):
        tensors = [each.to(dtype).requires_grad_() for each in given]
        out = function(*tensors)
        sign = draw(*out.shape, seed=11).bfloat16().to(out.dtype)
        results.append(torch.autograd.grad((out * sign).sum(), tensors))
    for number, (found, exact) in enumerate(zip(*results, strict=True)):
        if name == FUSED or (name == "local" and number > 0):
            # LDv2: 25 shares, rounded as they are added; 2 u of the norm would be 0.4 u √25.
            assert norm_of_error(found, exact) < 2
        else:
            assert_rounded_once(found, exact)


@pytest.mark.parametrize("kernel", ["exponential_inner_product", "inner_product", "euclidean", "rbf"])
@pytest.mark.parametrize("norm", ["l2", "layer_norm", "none"])
def test_what_em_keeps_is_single_precision(kernel, norm):
    """Responsibilities, masses and bases of bfloat16 pixels, in the reference form.

    Three iterations in float32 lose five of seven digits.
    """
    _, (x, bases) = functions((5, 7))["em"]
    x, bases = x.bfloat16(), bases.bfloat16()
    options = {"kernel": kernel, "norm": norm, "implementation": "reference"}
    found, exact = em_attention(x, bases, **options), em_attention(x.double(), bases.double(), **options)
    for name in ("responsibilities", "bases", "mass"):
        assert getattr(found, name).dtype == torch.float32
        torch.testing.assert_close(getattr(found, name).double(), getattr(exact, name), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        em_responsibilities(x, bases, kernel=kernel).double(),
        em_responsibilities(x.double(), bases.double(), kernel=kernel),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("part", list(parts()))
@pytest.mark.parametrize("size", [(5, 7), (24, 20)])
def test_a_module_stays_within_its_bound(part, size):
    under_autocast, cast = BOUNDS[part]
    module = build(part).double().eval()
    given = inputs(part, size, dtype=torch.float64)
    with torch.no_grad():
        exact = module(*given).features
        single = copy.deepcopy(module).float()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = single(*(each.float() for each in given)).features
        assert norm_of_error(found, exact) <= under_autocast + 1e-3
        found = module.bfloat16()(*(each.bfloat16() for each in given)).features
        assert found.dtype == torch.bfloat16
        assert norm_of_error(found, exact) <= cast


@pytest.mark.parametrize("name", ["emanet", "galdnet_v1", "galdnet_v2"])
def test_a_network_under_autocast_stays_within_six_u(name):
    """A dozen convolutions in a row, each with four roundings, are expected to cost 0.4 u √48, or 3 u."""
    options = {"backbone": "test_resnet", "pretrained": False}
    if name != "galdnet_v2":
        options["reduce_channels"] = 32
    torch.manual_seed(0)
    model = build_network(name, 3, options).double().eval()
    images = torch.rand(2, 3, 65, 97, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.inference_mode():
        exact = model(images).features_logits
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.float()(images.float()).features_logits
    # A constant in all logits says nothing.
    assert norm_of_error(found.double() - exact.mean(), exact - exact.mean()) < 6
