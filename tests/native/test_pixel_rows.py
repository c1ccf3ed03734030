"""Rows of pixels between layouts and widths, against PyTorch's own copies."""

import pytest
import torch

from segcontext import native

pytestmark = pytest.mark.skipif(not native.is_available(), reason="numba cannot be imported")

LAYOUTS = {
    "pixels": lambda x: x.contiguous(),
    "planes": lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0),
    "every second": lambda x: torch.stack([x, x], 3).flatten(2)[..., ::2],
}


def described(x):
    return (x.data_ptr(), *(x.element_size() * step for step in x.stride()), (0,) * x.element_size())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("out_layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtypes", [(torch.float32,) * 2, (torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 8, 16), (3, 9, 21), (2, 17, 7)])
def test_copies(layout, out_layout, dtypes, size):
    from segcontext.native.pixel_rows import move_rows

    source = LAYOUTS[layout](torch.randn(size).to(dtypes[0]))
    out = LAYOUTS[out_layout](torch.zeros(size, dtype=dtypes[1]))
    move_rows(described(source), described(out), *size)
    assert torch.equal(out, source.to(dtypes[1]))


def test_rounding():
    from segcontext.native.pixel_rows import move_rows

    source = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.4e38, torch.inf, torch.nan, 1e-40, 0.0, 1 / 3])
    out = torch.zeros(9, dtype=torch.bfloat16)
    move_rows(described(source.view(1, 1, 9)), described(out.view(1, 1, 9)), 1, 1, 9)
    assert torch.equal(out.nan_to_num(7), source.bfloat16().nan_to_num(7))
    assert out[5].isnan()
