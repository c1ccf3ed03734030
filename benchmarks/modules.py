"""Time and memory of every context module, paired with a plain form of the same thing in the same process.

    python benchmarks/modules.py [--size 65 65] [--channels 512] [--device cpu|cuda] [--dtype float32|bfloat16]

Prints medians over interleaved rounds and the spread (half the distance between the quartiles), so that a busy machine
slows both sides of a ratio. Baselines are written here from the equations, the way the papers' code evaluates them.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext import aggregation, distribution, ops


def em_by_matrices(x: Tensor, bases: Tensor, iterations: int = 3) -> Tensor:
    """EM attention step by step on (B, C, N), as eqs. 12-14 read."""
    x = x.mT
    mu = bases.mT.expand(len(x), -1, -1)
    for _ in range(iterations):
        z = torch.bmm(x.mT, mu).softmax(2)
        mu = torch.bmm(x, z / (1e-6 + z.sum(1, keepdim=True)))
        mu = mu / (1e-6 + mu.norm(dim=1, keepdim=True))
    return torch.bmm(mu, z.mT).mT


def local_by_unfold(query: Tensor, key: Tensor, value: Tensor, kernel_size: int = 5, dilation: int = 3) -> Tensor:
    """LDv2's attention by copying every window out."""
    reach = kernel_size // 2 * dilation
    batch, channels, height, width = query.shape
    window = {"kernel_size": kernel_size, "dilation": dilation, "padding": reach}
    keys = F.unfold(key, **window).view(batch, channels, kernel_size**2, height, width)
    values = F.unfold(value, **window).view(batch, value.shape[1], kernel_size**2, height, width)
    return (values * (query[:, :, None] * keys).sum(1, keepdim=True).softmax(2)).sum(2)


def measure(calls: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each call, in interleaved rounds after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            if device == "cuda":
                torch.cuda.synchronize()
            if round_:
                times[name].append(time.perf_counter() - started)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=[65, 65])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    height, width = arguments.size
    channels, device, dtype = arguments.channels, arguments.device, getattr(torch, arguments.dtype)
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    print(f"{name}, {threads} threads, torch {torch.__version__}, {dtype}, 1×{channels}×{height}×{width}\n")
    x = torch.randn(1, channels, height, width, device=device, dtype=dtype)
    pixels, bases = x.flatten(2).mT.contiguous(), torch.randn(64, channels, device=device, dtype=dtype)
    query, key = (torch.randn(1, 256, height, width, device=device, dtype=dtype) for _ in range(2))
    with torch.inference_mode():
        pairs = {
            "EM attention": (
                lambda: ops.em_attention(pixels, bases), lambda: em_by_matrices(pixels, bases), "matrix products"
            ),
            "local attention": (
                lambda: ops.local_attention(query, key, x), lambda: local_by_unfold(query, key, x), "F.unfold"
            ),
        }  # fmt: skip
        print("| op | ours, ms | baseline, ms | ratio | baseline is |\n|---|---|---|---|---|")
        for label, (ours, plain, what) in pairs.items():
            times = measure({"ours": ours, "plain": plain}, arguments.rounds, device)
            ratio = [b / a for a, b in zip(times["ours"], times["plain"], strict=True)]
            shown = " | ".join(show(times[side]) for side in ("ours", "plain"))
            print(f"| {label} | {shown} | {statistics.median(ratio):.2f} | {what} |")
        print("\n| module | ms | parameters |\n|---|---|---|")
        modules = {
            "EMA": aggregation.EMA(channels), "Non-local": aggregation.NonLocal(channels),
            "CGNL": aggregation.CGNL(channels), "A²": aggregation.A2(channels), "PSA": aggregation.PSA(channels),
            "PSP": aggregation.PSP(channels), "ASPP": aggregation.ASPP(channels),
        }  # fmt: skip
        calls: dict[str, Callable[[], object]] = {}
        for label, module in modules.items():
            module.eval().to(device, dtype)
            calls[label] = lambda module=module: module(x)
        for label, part in (
            ("LDv1", distribution.MaskDistribution(channels, channels)),
            ("LDv2", distribution.AffinityDistribution(channels, channels)),
        ):
            modules[label] = part.eval().to(device, dtype)
            calls[label] = lambda part=part: part(x, x)
        for label, times in measure(calls, arguments.rounds, device).items():
            parameters = sum(parameter.numel() for parameter in modules[label].parameters())
            print(f"| {label} | {show(times)} | {parameters:,} |")
    if device == "cuda":
        print(f"\npeak memory {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    else:
        print(f"\npeak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


def show(seconds: list[float]) -> str:
    """Median ± half the interquartile distance, in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{1000 * middle:.1f} ± {500 * (high - low):.1f}"


if __name__ == "__main__":
    main()
