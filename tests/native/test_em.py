"""The loops of EM attention, number by number."""

import numpy as np
import pytest
import torch

pytest.importorskip("numba")

from segcontext.native import em


def draw(*shape, seed=0, size=1.0):
    return size * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("bases", "pixels"), [(1, 1), (3, 255), (64, 257), (5, 600)])
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e4])
def test_shares_of_the_exponential_kernel(bases, pixels, size):
    logits, offset = draw(bases, pixels, size=size), draw(bases, seed=1)
    exact = (logits.double() + offset.double().unsqueeze(1)).softmax(0)
    em.share(logits.numpy(), offset.numpy(), True, np.float32(0), 0, pixels)
    # Adding the offset in float32 costs as much as the logits are large.
    limit = 1e-6 * max(1.0, size)
    torch.testing.assert_close(logits.double(), exact, rtol=0, atol=limit)
    torch.testing.assert_close(logits.sum(0), torch.ones(pixels), rtol=2e-6, atol=0)


def test_shares_of_the_inner_product():
    logits, offset = draw(7, 300), draw(7, seed=1)
    similarity = (logits.double() + offset.double().unsqueeze(1)).relu() + 1e-3
    em.share(logits.numpy(), offset.numpy(), False, np.float32(1e-3), 0, 300)
    torch.testing.assert_close(logits.double(), similarity / similarity.sum(0), rtol=2e-6, atol=1e-9)


def test_only_the_pixels_asked_for_and_never_a_number_from_none():
    logits = draw(4, 500)
    before = logits.clone()
    logits[2, 120] = before[2, 120] = float("nan")
    em.share(logits.numpy(), np.zeros(4, np.float32), True, np.float32(0), 100, 400)
    assert torch.equal(logits[:, :100], before[:, :100])
    assert torch.equal(logits[:, 400:], before[:, 400:])
    assert logits[:, 120].isnan().all()
    assert logits[:, 100:120].isfinite().all()
    assert logits[:, 121:400].isfinite().all()


def bits(tensor):
    return tensor.view(torch.uint16).numpy()


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize(("rows", "columns", "start"), [(1, 1, 0), (5, 33, 7), (3, 64, 64)])
def test_endings(rows, columns, start, by_row):
    x, y = draw(rows, start + columns + 3), draw(rows, columns, seed=1)
    bias = draw(rows if by_row else columns, seed=2)
    x[0, start] = float("nan")
    part = slice(start, start + columns)

    def wanted(base, added):
        return (base[:, part].float() + added.float() + bias.unsqueeze(int(by_row))).relu()

    out = torch.full_like(x, -1)
    em.finish(x.numpy(), y.numpy(), bias.numpy(), by_row, out.numpy(), start, 0, rows)
    torch.testing.assert_close(out[:, part], wanted(x, y), equal_nan=True)
    assert (out[:, :start] == -1).all()
    assert (out[:, start + columns :] == -1).all()

    half = y.bfloat16()
    em.finish_mixed(x.numpy(), bits(half), bias.numpy(), by_row, out.numpy(), start, 0, rows)
    torch.testing.assert_close(out[:, part], wanted(x, half), equal_nan=True)

    base = x.bfloat16()
    out = torch.full_like(base, -1)
    em.finish_half(bits(base), bits(half), bias.numpy(), by_row, bits(out), start, 0, rows)
    torch.testing.assert_close(out[:, part].float(), wanted(base, half), rtol=2**-8, atol=1e-6, equal_nan=True)


def test_rounding_to_bfloat16_is_to_the_nearest_even():
    """Every upper half of a float32, with lower halves below, at and above the middle."""
    upper = torch.arange(1, 2**15 - 128, 7, dtype=torch.int32).unsqueeze(1) << 16
    lower = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=torch.int32)
    x = (upper + lower).view(torch.float32)
    x = x[(x < 1e38).all(1)]
    zeros = torch.zeros(len(x), 1, dtype=torch.bfloat16)
    # x as a sum of two bfloat16 numbers and a bias would be rounded; as a bias of one row each it is not.
    for column in range(x.shape[1]):
        out = torch.empty(len(x), 1, dtype=torch.bfloat16)
        bias = x[:, column].contiguous()
        em.finish_half(
            bits(zeros[:, :1].contiguous()),
            bits(zeros[:, :1].contiguous()),
            bias.numpy(),
            True,
            bits(out),
            0,
            0,
            len(x),
        )
        assert torch.equal(out[:, 0], x[:, column].bfloat16())
