"""Cases of the operations on feature maps: EM attention, LDv2, LDv1."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext import ops
from segcontext.gpu_check.case import Case, Results, Work, far
from segcontext.ops.em_attention import EMGradient, Residual

__all__ = ["em_cases", "gate_cases", "local_cases"]

#: Relative errors that rounding explains.
SLACK = {torch.float32: 2e-5, torch.float16: 1e-2, torch.bfloat16: 3e-2}


def _case(
    operation: str,
    what: str,
    function: Callable[..., Results],
    draw: Callable[[], Sequence[Tensor]],
    dtype: torch.dtype,
    gradients: bool,
    timed: bool,
) -> Case:
    """A case of a function of float tensors, held against itself in float64 by the equations."""

    def make(device: torch.device) -> Work:
        torch.manual_seed(0)
        tensors = [each.to(device).to(dtype) for each in draw()]
        given: dict[int, Tensor] = {}

        def run(tensors: Sequence[Tensor]) -> Results:
            if not gradients:
                with torch.no_grad():
                    return function(*tensors)
            twins = [each.detach().requires_grad_() for each in tensors]
            results = function(*twins)
            answers = [each for each in results if each.requires_grad]
            for number, each in enumerate(answers):
                given.setdefault(number, torch.randn_like(each).to(dtype))
            slopes = [given[number].to(each.dtype) for number, each in enumerate(answers)]
            found = torch.autograd.grad(answers, twins, slopes, allow_unused=True)
            return (*results, *(each for each in found if each is not None))

        def error(found: Results) -> float:
            with ops.use_implementation("reference"):
                return far(found, run([each.double() for each in tensors]))

        return Work(partial(run, tensors), error, SLACK[dtype])

    return Case(operation, dtype, gradients, what, timed, make)


def em_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """EM attention with its projection: the unit in prediction, and learning through the last or all iterations."""

    def draw(pixels: int, given: int, channels: int, bases: int, residual: bool) -> list[Tensor]:
        # Pixels around as many centres, and bases near those: elsewhere EM magnifies every rounding.
        centres, weight = F.normalize(torch.randn(bases, given), dim=1), torch.randn(channels, given) / given**0.5
        x = 4 * centres[torch.randint(bases, (2, pixels))] + 2 * torch.randn(2, pixels, given) / given**0.5
        start = F.normalize(centres @ weight.mT + 0.5 * torch.randn(bases, channels) / channels**0.5, dim=1)
        tensors = [x.mT.contiguous().mT, start, weight, 0.1 * torch.randn(channels)]
        if residual:
            after = torch.randn(channels, channels) * (2 / channels) ** 0.5
            tensors += [torch.randn(2, pixels, channels), after, torch.randn(channels)]
        return tensors

    def attend(mode: EMGradient, x: Tensor, bases: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Results:
        residual = Residual(*rest) if rest else None
        found = ops.em_attention(x, bases, gradient=mode, projection=(weight, bias), residual=residual)
        return (found.reconstruction, found.bases, found.mass) if mode == "all" else (found.reconstruction,)

    sizes = [(35, 12, 20, 5)] if small else [(203, 21, 37, 5), (1, 16, 16, 19), (97 * 97, 512, 512, 64)]
    modes: Sequence[tuple[EMGradient, bool]] = (("none", False), ("none", True), ("last", False), ("all", False))
    for size in sizes:
        timed = size[0] > 1000
        for mode, residual in modes:
            # The gradient of a single pixel through one iteration is nothing but rounding.
            if size[0] == 1 and mode == "last":
                continue
            what = "2×{}×{} to {} channels, K = {}".format(*size)
            what += ", with what follows" if residual else "" if mode == "none" else f", gradient {mode}"
            yield _case(
                *("em_attention", what, partial(attend, mode), partial(draw, *size, residual)),
                *(dtype, mode != "none", timed),
            )


def local_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """LDv2's attention."""

    def draw(batch: int, depth: int, channels: int, height: int, width: int) -> list[Tensor]:
        maps = [torch.randn(batch, each, height, width) for each in (depth, depth, channels)]
        return [each.contiguous(memory_format=torch.channels_last) for each in maps]

    def attend(window: tuple[int, int], *maps: Tensor) -> Results:
        scale = maps[0].shape[1] ** -0.5
        return (ops.local_attention(*maps, kernel_size=window[0], dilation=window[1], scale=scale),)

    sizes = (
        [((1, 3, 5, 4, 5), (3, 1))]
        if small
        else [
            ((2, 20, 37, 9, 4), (5, 1)),
            ((1, 16, 3, 1, 1), (5, 2)),
            ((1, 3, 150, 13, 10), (11, 1)),
            ((1, 256, 512, 97, 97), (5, 3)),
            ((1, 64, 256, 128, 256), (5, 6)),
        ]
    )
    for size, window in sizes:
        for gradients in (False, True):
            what = f"{'×'.join(map(str, size))}, k = {window[0]}, r = {window[1]}"
            yield _case(
                *("local_attention", what, partial(attend, window), partial(draw, *size)),
                *(dtype, gradients, size[3] > 50),
            )


def gate_cases(dtype: torch.dtype, *, small: bool) -> Iterator[Case]:
    """LDv1's gate, in both layouts."""

    def draw(channels: int, large: tuple[int, int], few: tuple[int, int], last: bool) -> list[Tensor]:
        maps = [torch.randn(2, channels, *each) for each in (large, few)]
        return [each.contiguous(memory_format=torch.channels_last) for each in maps] if last else maps

    def gate(align_corners: bool, x: Tensor, logits: Tensor) -> Results:
        return (ops.gated_by_mask(x, logits, times=2.0, align_corners=align_corners),)

    sizes = (
        [(5, (4, 7), (2, 3))]
        if small
        else [(18, (6, 33), (2, 5)), (3, (1, 1), (1, 1)), (5, (3, 4), (5, 7)), (512, (97, 129), (13, 17))]
    )
    for channels, large, few in sizes:
        for last in (False, True):
            for gradients in (False, True):
                what = f"2×{channels}×{large[0]}×{large[1]} by {few[0]}×{few[1]}" + ", channels last" * last
                yield _case(
                    *("gated_by_mask", what, partial(gate, channels != 5), partial(draw, channels, large, few, last)),
                    *(dtype, gradients, channels > 500),
                )
