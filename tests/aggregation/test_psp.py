import math

import pytest
import torch

from segcontext.aggregation.psp import PSP
from segcontext.errors import RecipeError


def slow_level(x, level, bins):
    """One level: means over cells, projection, and bilinear interpolation with aligned corners, written out."""
    batch, _, height, width = x.shape
    cells = torch.zeros(batch, x.shape[1], bins, bins, dtype=x.dtype)
    for i in range(bins):
        for j in range(bins):
            rows = slice(i * height // bins, math.ceil((i + 1) * height / bins))
            columns = slice(j * width // bins, math.ceil((j + 1) * width / bins))
            cells[:, :, i, j] = x[:, :, rows, columns].mean((2, 3))
    values = level(cells)
    out = torch.zeros(batch, values.shape[1], height, width, dtype=x.dtype)
    for y in range(height):
        for u in range(width):
            row = y * (bins - 1) / (height - 1)
            column = u * (bins - 1) / (width - 1)
            for i in range(bins):
                for j in range(bins):
                    weight = max(0.0, 1 - abs(row - i)) * max(0.0, 1 - abs(column - j))
                    out[:, :, y, u] += weight * values[:, :, i, j]
    return out


def test_matches_a_slow_reference():
    module = PSP(8, out_channels=4).double().eval()
    x = torch.randn(2, 8, 7, 9, dtype=torch.float64)
    levels = [slow_level(x, level, bins) for level, bins in zip(module.levels, (1, 2, 3, 6), strict=True)]
    torch.testing.assert_close(module(x).features, module.fuse(torch.cat([x, *levels], 1)))


def test_levels_share_the_input_channels():
    module = PSP(2048)
    assert [level[0].out_channels for level in module.levels] == [512] * 4
    assert module.fuse[0].in_channels == 4096
    assert sum(p.numel() for p in module.parameters()) == 4 * 2048 * 512 + 4096 * 512 * 9 + 5 * 2 * 512


def test_every_pixel_sees_the_whole_map():
    module = PSP(8, out_channels=4, bins=(1,)).double()
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64, requires_grad=True)
    module(x).features[0, :, 0, 0].sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).all()


def test_the_channels_that_do_not_divide_are_left_out_of_the_levels():
    module = PSP(10, out_channels=4)
    assert [level[0].out_channels for level in module.levels] == [2] * 4
    assert module(torch.randn(2, 10, 4, 4)).features.shape == (2, 4, 4, 4)


@pytest.mark.parametrize("bins", [(), (0, 1), (1, 2, 3)])
def test_impossible_bins_are_refused(bins):
    with pytest.raises(RecipeError, match="bins"):
        PSP(2, bins=bins)
