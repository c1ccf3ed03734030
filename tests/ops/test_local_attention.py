import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segcontext.ops.local_attention import local_attention


def slow(query, key, value, *, kernel_size, dilation, scale):
    """GALD eqs. 6-8, one pixel and one position at a time; outside the map the logit is 0 and so is the value."""
    batch, _, height, width = query.shape
    out = torch.zeros_like(value)
    reach = kernel_size // 2
    for image in range(batch):
        for y in range(height):
            for x in range(width):
                logits, values = [], []
                for down in range(-reach, reach + 1):
                    for across in range(-reach, reach + 1):
                        row, column = y + dilation * down, x + dilation * across
                        inside = 0 <= row < height and 0 <= column < width
                        position = (image, slice(None), row, column)
                        logits.append(scale * float(query[image, :, y, x] @ key[position]) if inside else 0.0)
                        values.append(value[position] if inside else torch.zeros_like(value[image, :, 0, 0]))
                total = sum(math.exp(logit) for logit in logits)
                out[image, :, y, x] = sum(
                    math.exp(logit) / total * each for logit, each in zip(logits, values, strict=True)
                )
    return out


def maps(size, *, batch=2, depth=3, channels=2, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, each, *size, generator=generator, dtype=torch.float64).to(dtype)
        for each in (depth, depth, channels)
    ]


@settings(max_examples=15, deadline=None)
@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel_size=st.sampled_from([1, 3, 5]),
    dilation=st.integers(1, 4),
    scale=st.sampled_from([1.0, 0.25]),
)
def test_matches_the_equations(size, kernel_size, dilation, scale):
    given_maps = maps(size, batch=1)
    options = {"kernel_size": kernel_size, "dilation": dilation, "scale": scale}
    torch.testing.assert_close(local_attention(*given_maps, **options), slow(*given_maps, **options))


def test_the_defaults_are_the_papers():
    given_maps = maps((4, 8))
    wanted = slow(*given_maps, kernel_size=5, dilation=3, scale=1.0)
    torch.testing.assert_close(local_attention(*given_maps), wanted)


def test_padding_takes_its_share_of_the_softmax_and_gives_nothing():
    query, key, value = maps((1, 1), batch=1)
    own = (query * key).sum().exp()
    torch.testing.assert_close(local_attention(query, key, value), value * own / (own + 24))


def test_a_window_of_one_gives_the_value_back():
    query, key, value = maps((3, 4))
    torch.testing.assert_close(local_attention(query, key, value, kernel_size=1), value)


def test_a_pixel_reaches_its_window_and_nothing_else():
    query, key, value = maps((9, 11), batch=1)
    value.requires_grad_()
    local_attention(query, key, value, kernel_size=3, dilation=2)[0, 0, 4, 5].backward()
    reached = value.grad.abs().sum((0, 1)).nonzero().tolist()
    assert reached == [[y, x] for y in (2, 4, 6) for x in (3, 5, 7)]


@pytest.mark.parametrize(("size", "kernel_size", "dilation"), [((3, 4), 3, 1), ((2, 3), 3, 2), ((1, 1), 5, 3)])
def test_gradients(size, kernel_size, dilation):
    given_maps = [each.requires_grad_() for each in maps(size, batch=1, depth=2)]
    assert torch.autograd.gradcheck(
        lambda *each: local_attention(*each, kernel_size=kernel_size, dilation=dilation, scale=0.5), given_maps
    )


@pytest.mark.parametrize("scale", [1.0, 1 / 16])
def test_half_precision_is_rounded_once(scale):
    """bfloat16 keeps 8 bits, so that rounding the right answer alone costs 0.17 % on average."""
    given_maps = maps((9, 9), batch=1, depth=256, channels=16, dtype=torch.bfloat16)
    exact = local_attention(*(each.double() for each in given_maps), scale=scale)
    found = local_attention(*given_maps, scale=scale)
    assert found.dtype == torch.bfloat16
    assert (found.double() - exact).norm() < 0.002 * exact.norm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = local_attention(*(each.float() for each in given_maps), scale=scale)
    torch.testing.assert_close(wide.double(), exact, rtol=1e-3, atol=1e-4)


def test_large_logits_stay_finite():
    query, key, value = maps((4, 5), dtype=torch.float32)
    assert local_attention(1e4 * query, 1e4 * key, value).isfinite().all()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"kernel_size": 4}, "odd and positive, not 4"), ({"kernel_size": -1}, "not -1"), ({"dilation": 0}, "not 0")],
)
def test_impossible_windows_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        local_attention(*maps((3, 3)), **options)


@pytest.mark.parametrize(
    "shapes",
    [
        ((1, 3, 4, 4), (1, 2, 4, 4), (1, 2, 4, 4)),
        ((1, 3, 4, 4), (1, 3, 4, 5), (1, 2, 4, 4)),
        ((1, 3, 4, 4), (1, 3, 4, 4), (1, 2, 5, 4)),
        ((2, 3, 4, 4), (2, 3, 4, 4), (1, 2, 4, 4)),
        ((3, 4, 4), (3, 4, 4), (2, 4, 4)),
    ],
)
def test_maps_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="expected query and key"):
        local_attention(*(torch.zeros(shape) for shape in shapes))
