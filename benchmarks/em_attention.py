"""EM attention: the unit and its loop, beside the papers' own form and beside Non-local attention.

    python benchmarks/em_attention.py [--quick] [--threads 2] [--only WORD]

Prints a Markdown table.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from measuring import Case, alone
from segcontext.aggregation import EMA
from segcontext.ops import em_attention

TOPIC = "EM attention (EMANet)"
CHANNELS, BASES = 512, 64


def plain_em(x: Tensor, mu: Tensor, iterations: int = 3) -> Tensor:
    """EMANet eqs. 12-14 on x (B, C, N) and bases (B, C, K), with batched products, as the paper's code has them."""
    with torch.no_grad():
        for _ in range(iterations):
            z = torch.bmm(x.permute(0, 2, 1), mu).softmax(dim=2)
            mu = torch.bmm(x, z / (1e-6 + z.sum(dim=1, keepdim=True)))
            mu = mu / (1e-6 + mu.norm(dim=1, keepdim=True))
    return mu.matmul(z.permute(0, 2, 1))


def plain_unit(unit: EMA, x: Tensor) -> Tensor:
    """The EMA unit likewise: convolution, EM, ReLU, convolution with batch norm, residual, ReLU."""
    batch, channels, height, width = x.shape
    pixels = F.conv2d(x, unit.conv1.weight, unit.conv1.bias).view(batch, channels, height * width)
    mu = unit.bases.mT.unsqueeze(0).repeat(batch, 1, 1)
    again = plain_em(pixels, mu, unit.iterations).view(batch, channels, height, width)
    return F.relu(unit.conv2(F.relu(again)) + x)


def non_local_by_blocks(query: Tensor, key: Tensor, value: Tensor, block: int = 512) -> Tensor:
    """Attention of (N, D) queries over all positions, some queries at a time: on CPUs the fastest in bfloat16."""
    keys, out = key.mT.contiguous(), torch.empty_like(value)
    for start in range(0, len(query), block):
        weights = (query[start : start + block] @ keys).softmax(-1)
        torch.mm(weights, value, out=out[start : start + block])
    return out


def non_local_by_sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same through PyTorch's fused attention: on CPUs the fastest in float32."""
    return F.scaled_dot_product_attention(*(each[None, None] for each in (query, key, value)), scale=1.0)[0, 0]


def _apart(found: Tensor, wanted: Tensor, limit: float) -> str:
    error = ((found.double() - wanted.double()).norm() / wanted.double().norm()).item()
    if error > limit:
        raise AssertionError(f"off by {error:.1e} of the norm, where {limit:.1e} is allowed")
    return f"{error:.1e} of the norm"


def _unit(training: bool = False) -> EMA:
    torch.manual_seed(0)
    return EMA(CHANNELS, num_bases=BASES).train(training)


def _inference(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.inference_mode():
            return call()

    return run


def _autocast(call: Callable[[], Tensor]) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return call()

    return run


def _unit_cases(height: int, width: int, goal: float | None) -> Iterator[Case]:
    unit = _unit()
    narrow = copy.deepcopy(unit).bfloat16()
    x = torch.randn(1, CHANNELS, height, width)
    half = x.bfloat16()
    last = half.contiguous(memory_format=torch.channels_last)
    plain = _inference(lambda: plain_unit(unit, x))
    for what, ours, limit, aim in (
        ("float32", lambda: unit(x).features, 1e-6, None),
        ("bfloat16 under autocast, float32 maps", _autocast(lambda: unit(x).features), 1e-2, None),
        ("bfloat16, channels-first maps", lambda: narrow(half).features, 1e-2, goal),
        ("bfloat16, channels-last maps", lambda: narrow(last).features, 1e-2, goal),
    ):
        ours = _inference(ours)
        yield Case(
            TOPIC,
            f"EMA unit, evaluation, 1×{CHANNELS}×{height}×{width}, {what}",
            ours,
            plain,
            "plain form, float32",
            lambda ours=ours, limit=limit: _apart(ours(), plain(), limit),
            aim,
        )


def _training_cases(batch: int, height: int, width: int) -> Iterator[Case]:
    x = torch.randn(batch, CHANNELS, height, width, requires_grad=True)
    units = [_unit(training=True) for _ in range(2)]
    # The published unit computes conv1 with gradients, though none ever arrives.
    units[1].conv1.requires_grad_(True)

    def step(forward: Callable[[], Tensor]) -> Tensor:
        x.grad = None
        out = forward()
        out.sum().backward()
        # The gradient says where the output is not zero, which rounding decides for a few of its values.
        return out.detach()

    def ours() -> Tensor:
        return step(lambda: units[0](x).features)

    def plain() -> Tensor:
        return step(lambda: plain_unit(units[1], x))

    for what, run, limit in (
        ("float32", ours, 1e-5),
        ("bfloat16 under autocast", lambda: step(_autocast(lambda: units[0](x).features)), 3e-2),
    ):
        yield Case(
            TOPIC,
            f"EMA unit, training step, {batch}×{CHANNELS}×{height}×{width}, {what}",
            run,
            plain,
            "plain form, float32",
            lambda run=run, limit=limit: _apart(run(), plain(), limit),
            rounds=5,
        )


def _non_local_cases(height: int, width: int, goals: tuple[float | None, float | None]) -> Iterator[Case]:
    """The same map, 512 channels; Non-local has keys and values of 256. Both are handed what they attend to."""
    large = height * width > 10_000
    for dtype, goal in zip((torch.float32, torch.bfloat16), goals, strict=True):
        torch.manual_seed(0)
        pixels = torch.randn(1, CHANNELS, height * width, dtype=dtype).mT
        bases = F.normalize(torch.randn(BASES, CHANNELS), dim=1)
        query, key, value = torch.randn(3, height * width, 256).mul(0.25).to(dtype)
        attend = non_local_by_sdpa if dtype == torch.float32 else non_local_by_blocks
        yield Case(
            TOPIC,
            f"EM attention, 3 iterations, 1×{CHANNELS}×{height}×{width}, {dtype}".replace("torch.", ""),
            _inference(lambda pixels=pixels, bases=bases: em_attention(pixels, bases).reconstruction),
            _inference(lambda query=query, key=key, value=value, attend=attend: attend(query, key, value)),
            "Non-local (256-channel keys and values) by " + ("SDPA" if dtype == torch.float32 else "blocks"),
            lambda: "another function",
            goal,
            baseline_rounds=1 if large else None,
            memory=not large,
        )


def cases(quick: bool) -> Iterable[Case]:
    """The comparisons; quick ones take about a minute together."""
    yield from _unit_cases(128, 256, 4.5)
    yield from _training_cases(2, 65, 65)
    if quick:
        yield from _non_local_cases(65, 65, (None, None))
    else:
        for side in (65, 97, 128):
            yield from _non_local_cases(side, side, (None, None))
        yield from _non_local_cases(128, 256, (40, 60))


def main() -> None:
    alone(__doc__, cases)


if __name__ == "__main__":
    main()
