"""Local attention (LDv2) beside F.unfold, and beside one shift at a time under torch.compile.

    python benchmarks/local_attention.py [--quick]

Baselines are written here from the equations: `F.unfold` copies every window out, as code for windowed attention is
commonly written; the shifts are views of the padded map, which torch.compile fuses where there is a C++ compiler.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from measuring import Case, alone
from segcontext.ops import local_attention
from segcontext.ops.local_attention_reference import local_attention_reference

TOPIC = "Local attention (LDv2)"
#: Height, width and dilation: half of a 769² crop's map is 97², of Cityscapes' images 128×256.
SIZES = ((97, 97, 3), (128, 256, 6))
CHANNELS = 256
SCALE = CHANNELS**-0.5
LAYOUTS = {"channels-last": torch.channels_last, "channels-first": torch.contiguous_format}

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_unfold(query: Tensor, key: Tensor, value: Tensor, *, kernel_size: int, dilation: int, scale: float) -> Tensor:
    """Every window copied out: k² times the keys and the values."""
    reach = kernel_size // 2 * dilation
    batch, channels, height, width = query.shape
    window = {"kernel_size": kernel_size, "dilation": dilation, "padding": reach}
    keys = F.unfold(key, **window).view(batch, channels, kernel_size**2, height, width)
    values = F.unfold(value, **window).view(batch, value.shape[1], kernel_size**2, height, width)
    weights = (scale * (query[:, :, None] * keys).sum(1, keepdim=True)).softmax(2)
    return (values * weights).sum(2)


def _maps(height: int, width: int, memory_format: torch.memory_format, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, CHANNELS, height, width, generator=generator) for _ in range(3)]
    return [each.to(dtype).contiguous(memory_format=memory_format) for each in drawn]


def _forward(attention: Attention, maps: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return attention(*maps)


def _both(attention: Attention, maps: list[Tensor], sign: Tensor) -> tuple[Tensor, ...]:
    given = [each.detach().requires_grad_() for each in maps]
    out = attention(*given)
    return out.detach(), *torch.autograd.grad(out, given, sign)


def distance(ours: Callable[[], object], baseline: Callable[[], object], bound: float) -> str:
    pairs = [ours(), baseline()]
    found, wanted = ([each] if isinstance(each, Tensor) else list(each) for each in pairs)
    error = max(
        ((left.float() - right.float()).abs().max() / right.float().abs().max()).item()
        for left, right in zip(found, wanted, strict=True)
    )
    if not error < bound:
        raise AssertionError(f"the results differ by {error:.1e} of the largest value")
    return f"max error {error:.0e} of the largest value"


def cases(quick: bool) -> Iterator[Case]:
    """k = 5, 256 channels of keys and of values."""
    for height, width, dilation in SIZES[: 1 if quick else None]:
        options = {"kernel_size": 5, "dilation": dilation, "scale": SCALE}
        ours = partial(local_attention, **options, implementation="native")
        unfold = partial(by_unfold, **options)
        plain = _maps(height, width, torch.contiguous_format, torch.float32)
        for layout, memory_format in LAYOUTS.items():
            maps = _maps(height, width, memory_format, torch.float32)
            sign = torch.randn_like(maps[2])
            for direction, goal, own, other in (
                ("forward", 80, partial(_forward, ours, maps), partial(_forward, unfold, plain)),
                (
                    "with backward",
                    50,
                    partial(_both, ours, maps, sign),
                    partial(_both, unfold, plain, sign.contiguous()),
                ),
            ):
                what = f"k 5, r {dilation}, {height}×{width}, 256 channels, float32, {layout}, {direction}"
                yield _case(what, own, other, "F.unfold", goal, 11, 2, memory_goal=50)
        if not quick:
            half = _maps(height, width, torch.channels_last, torch.bfloat16)
            what = f"k 5, r {dilation}, {height}×{width}, 256 channels, bfloat16, channels-last, forward"
            wide = [each.float().contiguous() for each in half]
            other = partial(_forward, unfold, wide)
            yield _case(what, partial(_forward, ours, half), other, "F.unfold in float32", None, 11, 2, bound=1e-2)
        if not quick and any(map(shutil.which, ("g++", "clang++", "c++"))):
            shifts = torch.compile(partial(local_attention_reference, **options))
            maps = _maps(height, width, torch.channels_last, torch.float32)
            sign = torch.randn_like(maps[2])
            for direction, own, other in (
                ("forward", partial(_forward, ours, maps), partial(_forward, shifts, maps)),
                ("with backward", partial(_both, ours, maps, sign), partial(_both, shifts, maps, sign)),
            ):
                what = f"k 5, r {dilation}, {height}×{width}, 256 channels, float32, channels-last, {direction}"
                yield _case(what, own, other, "shifts under torch.compile", None, 11, 11)


def _case(
    what: str,
    ours: Callable[[], object],
    baseline: Callable[[], object],
    name: str,
    goal: float | None,
    rounds: int,
    baseline_rounds: int,
    *,
    bound: float = 1e-4,
    memory_goal: float | None = None,
) -> Case:
    agreement = partial(distance, ours, baseline, bound)
    return Case(TOPIC, what, ours, baseline, name, agreement, goal, rounds, baseline_rounds, memory_goal=memory_goal)


def main() -> None:
    alone(__doc__, cases)


if __name__ == "__main__":
    main()
