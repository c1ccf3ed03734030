import pytest
import torch

from segcontext.ops.double_attention import double_attention


def slow(features, gather_logits, distribute_logits):
    """Chen et al. 2018, eqs. 3-6: descriptors first, one at a time, then each position's mixture of them."""
    batch, channels, pixels = features.shape
    maps = gather_logits.shape[1]
    out = torch.zeros_like(features)
    for image in range(batch):
        descriptors = []
        for k in range(maps):
            weights = gather_logits[image, k].exp() / gather_logits[image, k].exp().sum()
            descriptors.append(sum(weights[n] * features[image, :, n] for n in range(pixels)))
        for n in range(pixels):
            mixture = distribute_logits[image, :, n].exp() / distribute_logits[image, :, n].exp().sum()
            out[image, :, n] = sum(mixture[k] * descriptors[k] for k in range(maps))
    assert out.shape[1] == channels
    return out


def tensors(*, channels=3, maps=2, pixels=5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, c, pixels, generator=generator).to(dtype) for c in (channels, maps, maps)]


@pytest.mark.parametrize(("channels", "maps", "pixels"), [(3, 2, 5), (2, 4, 1), (1, 1, 7)])
def test_matches_the_equations(channels, maps, pixels):
    given = tensors(channels=channels, maps=maps, pixels=pixels)
    torch.testing.assert_close(double_attention(*given).output, slow(*given))


def test_attention_maps_sum_to_one_over_their_own_axis():
    found = double_attention(*tensors(maps=4, pixels=9))
    torch.testing.assert_close(found.gather.sum(2), torch.ones(2, 4, dtype=torch.float64))
    torch.testing.assert_close(found.distribute.sum(1), torch.ones(2, 9, dtype=torch.float64))


def test_output_has_at_most_the_rank_of_the_maps():
    output = double_attention(*tensors(channels=6, maps=2, pixels=20)).output
    assert torch.linalg.matrix_rank(output).tolist() == [2, 2]


def test_constant_features_come_back():
    _, gather, distribute = tensors(maps=3, pixels=8)
    features = torch.full((2, 4, 8), 2.5, dtype=torch.float64)
    torch.testing.assert_close(double_attention(features, gather, distribute).output, features)


def test_autocast_keeps_softmax_and_sums_in_float32():
    given = tensors(channels=8, maps=4, pixels=500, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = double_attention(*given)
    assert found.gather.dtype == torch.float32
    torch.testing.assert_close(found.output, double_attention(*given).output, rtol=0, atol=0)


def test_output_has_the_dtype_of_the_features():
    assert double_attention(*tensors(dtype=torch.bfloat16)).output.dtype == torch.bfloat16


def test_gradients():
    given = [each.requires_grad_() for each in tensors()]
    assert torch.autograd.gradcheck(lambda *x: double_attention(*x).output, given)


@pytest.mark.parametrize(
    "shapes",
    [((1, 4, 6), (1, 2, 6), (1, 3, 6)), ((1, 4, 6), (1, 2, 5), (1, 2, 5)), ((1, 4, 2, 3), (1, 2, 2, 3), (1, 2, 2, 3))],
)
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="expected features"):
        double_attention(*(torch.zeros(shape) for shape in shapes))


@pytest.mark.parametrize("layout", ["dense", "turned", "apart"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 5, 3, 35), (1, 16, 8, 700)])
def test_bfloat16_products_stay_within_their_bound(layout, sizes):
    """Maps, descriptors and the result are rounded: 0.7 u of the norm expected, 1.5 u allowed."""
    batch, channels, maps, pixels = sizes
    turn = {
        "dense": lambda each: each,
        "turned": lambda each: each.mT.contiguous().mT,
        "apart": lambda each: torch.stack([each, each], -1)[..., 0],
    }[layout]
    shapes = ((batch, channels, pixels), (batch, maps, pixels), (batch, maps, pixels))
    given = [turn(torch.randn(shape).bfloat16()) for shape in shapes]
    exact = double_attention(*(each.double() for each in given), implementation="reference")
    found = double_attention(*given, implementation="rearranged")
    assert found.output.dtype == torch.bfloat16
    assert (found.output.double() - exact.output).norm() <= 1.5 * 2**-8 * exact.output.norm()
    torch.testing.assert_close(found.gather.double(), exact.gather, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.distribute.double(), exact.distribute, rtol=1e-5, atol=1e-7)
    alone = double_attention(*given, keep_maps=False, implementation="rearranged")
    assert (alone.output.double() - exact.output).norm() <= 1.5 * 2**-8 * exact.output.norm()


@pytest.mark.parametrize("form", ["reference", "rearranged"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maps_that_nobody_asks_for_are_not_there(form, dtype):
    given = tensors(dtype=dtype)
    found = double_attention(*given, keep_maps=False, implementation=form)
    assert found.gather is None
    assert found.distribute is None
    torch.testing.assert_close(found.output, double_attention(*given, implementation=form).output)
