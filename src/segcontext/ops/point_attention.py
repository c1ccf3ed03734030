"""Attention by relative position (PSANet's point-wise spatial attention), as a pure function."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from segcontext.ops.implementations import Implementation, choose
from segcontext.ops.precision import widen

__all__ = ["OutsideWindow", "PointBranch", "point_attention"]

#: Weights of so many pairs are made at once (4 MiB), unless one row of pixels has more.
TOGETHER = 2**20

PointBranch: TypeAlias = Literal["collect", "distribute"]
OutsideWindow: TypeAlias = Literal["nothing", "zero_logit"]


def point_attention(
    features: Tensor,
    logits: Tensor,
    *,
    branch: PointBranch = "collect",
    outside: OutsideWindow = "nothing",
    implementation: Implementation | None = None,
) -> Tensor:
    r"""Positions exchange features by weights predicted for each offset between them.

    Zhao et al. 2018, eqs. 3-6. Each position p predicts m×m logits :math:`l_p(\Delta)`, one for each offset up to
    ⌊m/2⌋ rows and columns. Collecting, p draws by its own choice:
    :math:`y_p = \sum_q \mathrm{softmax}_q(l_p(q - p))\, x_q`. Distributing, p draws by the choice of the others:
    :math:`y_p = \sum_q \mathrm{softmax}_q(l_q(p - q))\, x_q`. Either softmax runs over the sources q.

    Args:
        features: x, (B, C, h, w).
        logits: (B, m·m, h, w); the cell (i, j) stands for the offset (i - ⌊(m-1)/2⌋, j - ⌊(m-1)/2⌋).
        branch: which of the two.
        outside: what positions beyond the window do: ``"nothing"`` exchanges nothing with them, ``"zero_logit"`` gives
            them the logit 0 in the softmax.
        implementation: ``"reference"`` or ``"rearranged"``; `None` is what
            `segcontext.ops.implementations.use_implementation` says, or the one that needs less memory.

    Returns:
        (B, C, h, w), in the dtype of the features.

    Raises:
        ValueError: where the maps do not fit together or the cells are no square.

    Note:
        Any map size will do: positions beyond the window exchange nothing, and cells beyond the map go unused. The
        published code and OpenMMLab's give positions beyond the window the logit 0. An even m, which OpenMMLab uses on
        ADE20K, reaches one row and column further down and right than up and left.
        In the reference form, which takes gradients, the weights are one N×N tensor for each image, N = h·w, and so
        are three tables of indices. Rearranged, there are the weights of a few rows of pixels at a time, w×N each, and
        where positions beyond the window exchange nothing, those of rows beyond it do not exist.
        Softmax and sums are in float32 or wider; rearranged, weights are rounded to bfloat16 before they meet features
        of that dtype.

    Example:
        >>> import torch
        >>> point_attention(torch.randn(1, 8, 4, 6), torch.randn(1, 25, 4, 6), branch="distribute").shape
        torch.Size([1, 8, 4, 6])
    """
    side = round(logits.shape[1] ** 0.5)
    if side**2 != logits.shape[1] or side == 0:
        raise ValueError(f"the logits need a square of cells (1, 9, 25, …), but have {logits.shape[1]}")
    if features.ndim != 4 or features.shape[::2] != logits.shape[::2] or features.shape[3] != logits.shape[3]:
        raise ValueError(
            "expected features (B, C, h, w) and logits (B, m·m, h, w), "
            f"but they are {tuple(features.shape)} and {tuple(logits.shape)}"
        )
    if branch not in ("collect", "distribute"):
        raise ValueError(f"branch must be collect or distribute, not {branch!r}")
    if outside not in ("nothing", "zero_logit"):
        raise ValueError(f"outside must be nothing or zero_logit, not {outside!r}")
    followed = torch.is_grad_enabled() and (features.requires_grad or logits.requires_grad)
    obstacle = "its gradients take as much memory" if followed else None
    if features.device.type != "cpu":
        obstacle = "it is faster on the CPU alone"
    if torch.compiler.is_compiling():
        obstacle = "its loop over rows would tie a compiled program to a size"
    beyond = float("-inf") if outside == "nothing" else 0.0
    with torch.autocast(features.device.type, enabled=False):
        if choose("point_attention", implementation, {"rearranged": obstacle}) == "rearranged":
            wide = features if features.dtype == torch.bfloat16 else widen(features)
            drawn = _by_row(wide, logits, side, branch, beyond)
        else:
            pairs = _by_pair(widen(logits), side, beyond)
            # Owners lie along dim 1, the positions that they look at along dim 2. Collecting, the owner is the one
            # that draws, distributing, it is the source: so the same table is read the other way round.
            weights = pairs.softmax(2) if branch == "collect" else pairs.softmax(1).mT
            drawn = widen(features).flatten(2) @ weights.mT
        return drawn.to(features.dtype).reshape(features.shape)


def _by_row(features: Tensor, logits: Tensor, side: int, branch: PointBranch, beyond: float) -> Tensor:
    """What a few rows of pixels after the others draw, (B, C, h, w)."""
    batch, _, height, width = features.shape
    half = (side - 1) // 2
    cells = logits.view(batch, side, side, height, width)
    columns = torch.arange(width, device=logits.device)
    # By the column of the other position and that of the owner.
    across = columns[:, None] - columns[None, :] + half
    inside = (across >= 0) & (across < side)
    across, outside = across.where(inside, 0), ~inside
    drawn = features.new_empty(features.shape)
    together = max(1, TOGETHER // (width * width * height))
    for begin in range(0, height, together):
        end = min(begin + together, height)
        # Rows of sources in reach of each.
        reach = [_reach(y, side, height, branch) for y in range(begin, end)]
        first, last = (0, height) if beyond == 0 else (reach[0][0], reach[-1][1])
        pairs = logits.new_full((batch, last - first, width, end - begin, width), beyond, dtype=widen(logits[:0]).dtype)
        for y, (top, bottom) in zip(range(begin, end), reach, strict=True):
            if branch == "collect":
                windows = cells[:, top - y + half : bottom - y + half, :, y]
            else:
                sources = torch.arange(top, bottom, device=logits.device)
                windows = cells[:, y - sources + half, :, sources].transpose(0, 1)
            found = windows.gather(2, across.expand(batch, bottom - top, width, width)).masked_fill_(outside, beyond)
            pairs[:, top - first : bottom - first, :, y - begin] = found if branch == "collect" else found.mT
        weights = pairs.view(batch, -1, (end - begin) * width).softmax(1)
        sources = features[:, :, first:last].flatten(2)
        drawn[:, :, begin:end] = (sources @ weights.to(features.dtype)).view(batch, -1, end - begin, width)
    return drawn


def _reach(y: int, side: int, height: int, branch: PointBranch) -> tuple[int, int]:
    """The first row of sources that a row draws from, and the one behind the last."""
    half = (side - 1) // 2
    top, bottom = (y - half, y - half + side) if branch == "collect" else (y + half - side + 1, y + half + 1)
    return max(top, 0), min(bottom, height)


def _by_pair(logits: Tensor, side: int, beyond: float) -> Tensor:
    """The logit of each (owner, other) pair, (B, N, N); `beyond` where the other is outside the window."""
    height, width = logits.shape[2:]
    rows = torch.arange(height, device=logits.device).repeat_interleave(width)
    columns = torch.arange(width, device=logits.device).repeat(height)
    half = (side - 1) // 2
    down = rows[None, :] - rows[:, None] + half
    across = columns[None, :] - columns[:, None] + half
    inside = (down >= 0) & (down < side) & (across >= 0) & (across < side)
    cells = (down * side + across).where(inside, 0)
    windows = logits.flatten(2).mT
    return windows.gather(2, cells.expand(logits.shape[0], -1, -1)).masked_fill(~inside, beyond)
