"""Local distribution (GALD §III-A, §III-B): LDv2 as masked global attention, LDv1's mask and its two residuals.

Zero padding takes part in LDv2's softmax, so a window that covers the map is global attention with a null key (logit 0,
value 0) for each of its positions outside. Without those null keys it is global attention only up to a factor per
pixel, the share of the softmax that fell on the map.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from segcontext.distribution import AffinityDistribution, MaskDistribution
from segcontext.ops.local_attention import local_attention
from segcontext.ops.non_local_attention import non_local_attention
from segcontext.zoo import galdnet_v1

sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))


def draw(seed, *shapes):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


# --- LDv2 ------------------------------------------------------------------------------------------------------------


def masked_global_attention(query, key, value, *, kernel_size, dilation, scale):
    """All pixels by PyTorch's attention, those out of the window masked, a null key for the positions off the map."""
    batch, _, height, width = query.shape
    place = [(y, x) for y in range(height) for x in range(width)]
    reach = kernel_size // 2 * dilation
    bias = torch.full((len(place), len(place) + 1), float("-inf"), dtype=query.dtype)
    for p, (y, x) in enumerate(place):
        for m, (v, u) in enumerate(place):
            down, across = v - y, u - x
            if max(abs(down), abs(across)) <= reach and down % dilation == across % dilation == 0:
                bias[p, m] = 0
        # n keys of logit 0 weigh as much as one of logit log n.
        bias[p, -1] = torch.log(kernel_size**2 - (bias[p] == 0).sum().double())
    query, key, value = (each.flatten(2).mT for each in (query, key, value))
    key, value = (F.pad(each, (0, 0, 0, 1)) for each in (key, value))
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale).mT.reshape(
        batch, -1, height, width
    )


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=sizes,
    kernel_size=st.sampled_from([1, 3, 5, 7]),
    dilation=st.integers(1, 4),
    scale=st.floats(0.1, 1.5),
)
def test_any_window_is_global_attention_with_a_mask(seed, size, kernel_size, dilation, scale):
    maps = draw(seed, (2, 3, *size), (2, 3, *size), (2, 4, *size))
    options = {"kernel_size": kernel_size, "dilation": dilation, "scale": scale}
    torch.testing.assert_close(local_attention(*maps, **options), masked_global_attention(*maps, **options))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), size=sizes, beyond=st.integers(0, 2), scale=st.floats(0.1, 1.5))
def test_a_window_that_covers_the_map_is_global_attention_less_the_share_of_the_padding(seed, size, beyond, scale):
    """From every pixel, k ≥ 2·max(h, w) - 1 reaches the whole map and k² - h·w positions beyond it."""
    query, key, value = draw(seed, (2, 3, *size), (2, 3, *size), (2, 4, *size))
    kernel_size = 2 * (max(size) + beyond) - 1
    found = local_attention(query, key, value, kernel_size=kernel_size, dilation=1, scale=scale)
    everywhere = non_local_attention(query.flatten(2), key.flatten(2), value.flatten(2), scale=scale).view_as(value)
    on_the_map = torch.einsum("bdp,bdm->bpm", query.flatten(2), key.flatten(2)).mul(scale).exp().sum(2)
    share = on_the_map / (on_the_map + kernel_size**2 - size[0] * size[1])
    torch.testing.assert_close(found, share.view(2, 1, *size) * everywhere)


def test_only_without_padding_is_it_global_attention_itself():
    maps = draw(0, (1, 3, 1, 1), (1, 3, 1, 1), (1, 4, 1, 1))
    torch.testing.assert_close(local_attention(*maps, kernel_size=1), maps[2])
    assert (local_attention(*maps, kernel_size=3).abs() < maps[2].abs()).all()


@pytest.mark.parametrize("scale", [None, 1.0])
@pytest.mark.parametrize("inputs", ["both", "aggregated", "local"])
def test_a_window_of_one_is_the_value_projection(inputs, scale):
    torch.manual_seed(0)
    made = AffinityDistribution(
        5, 3, kernel_size=1, key_channels=4, value_channels=6, query_input=inputs, key_input=inputs, scale=scale
    ).double()
    aggregated, local = draw(1, (2, 5, 4, 7), (2, 3, 4, 7))
    weight, bias = made.value.weight[..., 0, 0], made.value.bias
    wanted = torch.einsum("oc,bchw->bohw", weight, torch.cat([aggregated, local], 1)) + bias[:, None, None]
    torch.testing.assert_close(made(aggregated, local).features, wanted)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), shift=st.tuples(st.integers(-2, 2), st.integers(-2, 2)))
def test_away_from_the_border_a_shifted_map_gives_a_shifted_output(seed, shift):
    """The window moves along with the pixel."""
    maps = draw(seed, (1, 3, 13, 13), (1, 3, 13, 13), (1, 2, 13, 13))
    found = local_attention(*maps, kernel_size=3, dilation=2)
    moved = local_attention(*(each.roll(shift, (2, 3)) for each in maps), kernel_size=3, dilation=2)
    torch.testing.assert_close(moved.roll((-shift[0], -shift[1]), (2, 3))[..., 4:9, 4:9], found[..., 4:9, 4:9])


# --- LDv1 ------------------------------------------------------------------------------------------------------------


def ones(made, aggregated):
    """The mask becomes one everywhere: a logit of a thousand is one to all digits of float64."""
    if len(made.shrink):
        made.shrink[-1][1].bias.data.fill_(1e3)
        return aggregated
    # The ablations have no weights: their mask is the sigmoid of what they are given.
    return aggregated.abs() + 1e3


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    magnitude=st.sampled_from([1e-3, 1.0, 30.0, 1e6]),
    downsampling=st.sampled_from(["depthwise", "bilinear", "average"]),
    residual=st.sampled_from(["paper", "published"]),
    padding=st.sampled_from([0, 1]),
    training=st.booleans(),
)
def test_the_mask_lies_in_0_1(seed, size, magnitude, downsampling, residual, padding, training):
    """And in [½, 1] for the learned one: a ReLU stands before the sigmoid, so it never takes away, only adds less."""
    torch.manual_seed(seed)
    made = MaskDistribution(4, 3, downsampling=downsampling, residual=residual, padding=padding)
    made.double().train(training)
    x, local = draw(seed, (2, 4, *size), (2, 3, *size))
    x = magnitude * x
    out, evidence = made(x, local, evidence=True)
    mask = evidence.values
    least = 0.5 if downsampling == "depthwise" else 0.0
    assert mask.min() >= least - 1e-15
    assert mask.max() <= 1
    # So the output has the input's sign, and between 1 (1½) and 2, or between 2 (2½) and 3 times its size.
    extra = 2 if residual == "published" else 1
    assert (out.abs() >= (least + extra - 1e-12) * x.abs()).all()
    assert (out.abs() <= (1 + extra + 1e-12) * x.abs()).all()
    assert (out * x >= 0).all()


def test_only_the_ablations_masks_come_near_zero():
    low = torch.full((1, 4, 9, 9), -50.0, dtype=torch.float64)
    for downsampling in ("bilinear", "average"):
        mask = MaskDistribution(4, 3, downsampling=downsampling)(low, low, evidence=True).evidence
        assert mask.values.max() < 1e-20
    learned = MaskDistribution(4, 3).double().eval()
    learned.shrink[-1][1].bias.data.fill_(-1e3)
    mask = learned(low, low, evidence=True).evidence.values
    assert torch.equal(mask, torch.full_like(mask, 0.5))


@pytest.mark.parametrize("downsampling", ["depthwise", "bilinear", "average"])
@pytest.mark.parametrize(("residual", "times"), [("paper", 2), ("published", 3)])
def test_a_mask_of_ones_doubles_its_input_or_triples_it_as_published(downsampling, residual, times):
    """Eq. 2, M ⊙ X + X, is 2 X; the published block's (M ⊙ X + X) + X is 3 X."""
    made = MaskDistribution(4, 3, downsampling=downsampling, residual=residual).double().eval()
    x, local = draw(0, (2, 4, 9, 12), (2, 3, 9, 12))
    x = ones(made, x)
    out, evidence = made(x, local, evidence=True)
    assert (evidence.values == 1).all()
    torch.testing.assert_close(out, times * x)


@pytest.mark.parametrize(("options", "times"), [({}, 3), ({"residual": "paper"}, 2), ({"residual": "published"}, 3)])
def test_galdnet_v1_triples_like_the_published_code_unless_eq_2_is_asked_for(options, times):
    network = galdnet_v1(3, backbone="test_resnet", pretrained=False, reduce_channels=16, distribution_options=options)
    made = network.distribution.double().eval()
    x, local = draw(0, (1, 16, 9, 9), (1, 16, 9, 9))
    torch.testing.assert_close(made(ones(made, x), local).features, times * x)


def test_elsewhere_the_default_is_eq_2():
    made = MaskDistribution(4, 3).double().eval()
    x, local = draw(0, (1, 4, 9, 9), (1, 3, 9, 9))
    torch.testing.assert_close(made(ones(made, x), local).features, 2 * x)
