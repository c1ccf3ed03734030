"""Global aggregations beside EM attention: Non-local, A², CGNL and PSA, ours beside the plain form.

    python benchmarks/global_attention.py [--quick] [--threads 2] [--only WORD]

Prints a Markdown table; maps are those of 512×1024 images at stride 8 and of crops of 520 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from measuring import Case, alone
from segcontext.ops import compact_attention, double_attention, non_local_attention, point_attention

Form: TypeAlias = Callable[[], Tensor]

TOPIC = "Global aggregation (Non-local, A², CGNL, PSA)"


def plain_non_local(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Wang et al. 2018, eqs. 1 and 4: one N×N matrix, its softmax, one product, on (B, C, N)."""
    weights = torch.bmm(query.permute(0, 2, 1), key).softmax(-1)
    return torch.bmm(value, weights.permute(0, 2, 1))


def plain_compact(query: Tensor, key: Tensor, value: Tensor, groups: int) -> Tensor:
    """Yue et al. 2018, eq. 8, group by group, on (B, C, N)."""
    out = []
    for theta, phi, g in zip(*(each.chunk(groups, 1) for each in (query, key, value)), strict=True):
        batch = len(theta)
        affinity = torch.bmm(phi.reshape(batch, 1, -1), g.reshape(batch, -1, 1))
        out.append(torch.bmm(theta.reshape(batch, -1, 1), affinity).view_as(theta))
    return torch.cat(out, 1)


def plain_double(features: Tensor, gather: Tensor, distribute: Tensor) -> Tensor:
    """Chen et al. 2018, eqs. 3-6, on (B, C, N)."""
    descriptors = torch.bmm(features, gather.softmax(-1).permute(0, 2, 1))
    return torch.bmm(descriptors, distribute.softmax(1))


def plain_point(features: Tensor, logits: Tensor, branch: str) -> Tensor:
    """Zhao et al. 2018, eqs. 3-6: the map of offsets is turned into one of positions, then one N×N product."""
    batch, _, height, width = logits.shape
    side = round(logits.shape[1] ** 0.5)
    half, pixels = (side - 1) // 2, height * width
    moved = logits.new_zeros(batch, pixels, height, width)
    maps, table = logits.view(batch, side, side, height, width), moved.view(batch, height, width, height, width)
    # The published kernel copies pixel by pixel, by the same ranges.
    for y in range(height):
        for x in range(width):
            rows = slice(max(0, half - y), min(side, height + half - y))
            columns = slice(max(0, half - x), min(side, width + half - x))
            to_rows, to_columns = (
                slice(rows.start + y - half, rows.stop + y - half),
                slice(columns.start + x - half, columns.stop + x - half),
            )
            table[:, to_rows, to_columns, y, x] = maps[:, rows, columns, y, x]
    weights = moved.view(batch, pixels, pixels)
    weights = weights.softmax(1) if branch == "collect" else weights.permute(0, 2, 1).softmax(1)
    return torch.bmm(features.flatten(2), weights).view_as(features)


def _compared(ours: Form, plain: Form, limit: float) -> str:
    found, wanted = ours().double(), plain().double()
    error = ((found - wanted).norm() / wanted.norm()).item()
    if error > limit:
        raise AssertionError(f"off by {error:.1e} of the norm, where {limit:.1e} is allowed")
    return f"{error:.1e} of the norm"


def _case(
    what: str, ours: Callable[[], Tensor], plain: Callable[[], Tensor], dtype: torch.dtype, **options: int
) -> Case:
    def quietly(call: Form) -> Tensor:
        with torch.inference_mode():
            return call()

    ours, plain = partial(quietly, ours), partial(quietly, plain)
    limit = 1e-5 if dtype == torch.float32 else 3e-2
    name = f"{what}, {dtype}".replace("torch.", "")
    return Case(TOPIC, name, ours, plain, "plain form", partial(_compared, ours, plain, limit), **options)


def _at(height: int, width: int, shrunk: tuple[int, int]) -> Iterator[Case]:
    pixels, small = height * width, shrunk[0] * shrunk[1]
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        query, key, value = torch.randn(3, 1, 256, pixels).mul(0.5).to(dtype)
        for values in (256, 128):
            given = (query, key, value[:, :values])
            yield _case(
                f"Non-local, keys of 256, values of {values} channels, {height}×{width}",
                partial(non_local_attention, *given),
                partial(plain_non_local, *given),
                dtype,
                rounds=5,
            )
        yield _case(
            f"CGNL, 8 groups, 256 channels, {height}×{width}",
            lambda given=(query, key, value): compact_attention(*given, groups=8),
            partial(plain_compact, query, key, value, 8),
            dtype,
        )
        maps = (query[:, :128], key[:, :128], value[:, :128])
        yield _case(
            f"A², 128 maps, 128 channels, {height}×{width}",
            lambda maps=maps: double_attention(*maps, keep_maps=False).output,
            partial(plain_double, *maps),
            dtype,
        )
        features, logits = torch.randn(1, 512, *shrunk).to(dtype), torch.randn(1, 59**2, *shrunk).to(dtype)
        for branch in ("collect", "distribute"):
            yield _case(
                f"PSA, {branch}, 59×59 offsets, 512 channels, {shrunk[0]}×{shrunk[1]} ({small} pixels)",
                partial(point_attention, features, logits, branch=branch, outside="zero_logit"),
                partial(plain_point, features, logits, branch),
                dtype,
                rounds=5,
            )


def cases(quick: bool) -> Iterable[Case]:
    """The comparisons; quick ones take about a minute together."""
    yield from _at(65, 65, (33, 33))
    if not quick:
        yield from _at(64, 128, (32, 64))


def main() -> None:
    alone(__doc__, cases)


if __name__ == "__main__":
    main()
