"""Means of shares that come out the same bit for bit, in whatever order and on however many ranks they are summed.

Sums of floats depend on the order. So each share is rounded once, to a whole number of 2⁻⁵³, which changes it by at
most 2⁻⁵⁴, and the whole numbers are summed. They are kept in two parts, 26 bits and 27, so that the int64 sums hold
2³⁶ shares without overflow.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["mean", "split", "tally"]

HIGH_BITS, LOW_BITS = 26, 27


def split(shares: Tensor) -> Tensor:
    """Shares as whole numbers that can be summed.

    Args:
        shares: floats from 0 to 1, of any shape.

    Returns:
        int64, (..., 2): multiples of 2⁻²⁶, and what is left, in multiples of 2⁻⁵³.
    """
    scaled = shares.double() * 2**HIGH_BITS
    high = scaled.floor()
    low = ((scaled - high) * 2**LOW_BITS).round()
    return torch.stack([high, low], -1).long()


def tally(shares: Tensor) -> Tensor:
    """Sum and number of shares along the first axis; NaN does not count.

    Args:
        shares: floats from 0 to 1 or NaN, (B, ...).

    Returns:
        int64, (..., 3): both parts of the sum, and how many shares there were. Tallies may be added up.
    """
    counts = ~shares.isnan()
    parts = torch.cat([split(shares.nan_to_num(0)), counts[..., None].long()], -1)
    return parts.sum(0)


def mean(sums: Tensor) -> Tensor:
    """The means that tallies stand for, correctly rounded.

    Args:
        sums: int64, (..., 3), as from `tally`.

    Returns:
        float64, (...), on the CPU; NaN where nothing was counted.

    Example:
        >>> mean(tally(torch.tensor([0.25, 1.0, float("nan")]))).item()
        0.625
    """
    rows = sums.detach().cpu().reshape(-1, 3).tolist()
    # Python's integers neither overflow nor round; its division of integers is correctly rounded.
    means = [
        ((high << LOW_BITS) + low) / (count << (HIGH_BITS + LOW_BITS)) if count else float("nan")
        for high, low, count in rows
    ]
    return torch.tensor(means, dtype=torch.float64).view(sums.shape[:-1])
