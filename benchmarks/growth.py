"""How time and memory of each aggregation grow with the number of pixels.

    python benchmarks/growth.py [--device cpu|cuda] [--sides 16 24 32 48 64 96 128] [--rounds 7] [--out FILE.json]
    python benchmarks/growth.py --draw docs/images/growth.png FILE.json [FILE.json ...]

The first form measures on square maps of 512 channels, one image, evaluation mode, in interleaved rounds, so that a
busy machine slows every module alike; run it where nothing else runs. Memory is counted, not measured: the most bytes
alive at once beside input and weights, and what training keeps for the backward pass, with the input where a module
keeps that; on a GPU the allocator's peak is measured as well.
A map on which a module would need more than --limit GiB is not timed for that module, and with --rounds 0 none is. The
second form draws the results of one or more machines, with the exponent that the last step of each curve has.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from segcontext import aggregation
from segcontext.costs.activations import LiveMemory, SavedMemory
from segcontext.costs.counter import OperationCounter
from segcontext.costs.stand_in import without_numbers

MODULES = {
    "PSP": aggregation.PSP, "ASPP": aggregation.ASPP, "Non-local": aggregation.NonLocal, "CGNL": aggregation.CGNL,
    "PSA": aggregation.PSA, "A²": aggregation.A2, "EMA": aggregation.EMA,
}  # fmt: skip


def counted(module: nn.Module, channels: int, side: int) -> dict[str, int]:
    """Multiply-adds and bytes at a size, without computing anything."""
    with FakeTensorMode() as mode:
        twin, x = without_numbers(module, mode), torch.empty(1, channels, side, side)
        own = (*twin.parameters(), *twin.buffers(), x)
        with torch.no_grad(), LiveMemory(own) as live, OperationCounter() as counter:
            twin.eval()(x)
        with SavedMemory(twin) as saved:
            twin.train()(x.requires_grad_())
    kinds = counter.operations[""]
    return {
        "multiply_adds": counter.products[""],
        "with_small": kinds.total(),
        "inference_bytes": live.peak[""],
        "training_bytes": saved.bytes[""],
    }


def measured(modules: dict[str, nn.Module], x: torch.Tensor, rounds: int) -> dict[str, dict[str, Any]]:
    """Medians of the time in interleaved rounds, and the allocator's peak on a GPU."""
    times: dict[str, list[float]] = {name: [] for name in modules}
    peaks: dict[str, int] = {}
    with torch.inference_mode():
        for round_ in range(rounds + 1):
            for name, module in modules.items():
                if x.is_cuda:
                    torch.cuda.reset_peak_memory_stats()
                    before = torch.cuda.memory_allocated()
                    torch.cuda.synchronize()
                started = time.perf_counter()
                module(x)
                if x.is_cuda:
                    torch.cuda.synchronize()
                    peaks[name] = torch.cuda.max_memory_allocated() - before
                # The first round warms up.
                if round_:
                    times[name].append(time.perf_counter() - started)
    found = {}
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else 3 * taken
        found[name] = {"seconds": middle, "spread": (high - low) / 2}
        if name in peaks:
            found[name]["allocated_bytes"] = peaks[name]
    return found


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every module on every map that it has the memory for."""
    torch.manual_seed(0)
    device, channels = arguments.device, arguments.channels
    modules = {name: kind(channels).eval().to(device) for name, kind in MODULES.items()}
    rows = []
    for side in arguments.sides:
        counts = {name: counted(kind(channels), channels, side) for name, kind in MODULES.items()}
        fitting = [name for name, each in counts.items() if each["inference_bytes"] <= arguments.limit * 2**30]
        x = torch.randn(1, channels, side, side, device=device)
        times = measured({name: modules[name] for name in fitting}, x, arguments.rounds) if arguments.rounds else {}
        rows += [{"module": name, "pixels": side**2, **counts[name], **times.get(name, {})} for name in MODULES]
        print(f"{side}×{side}: " + ", ".join(f"{name} {1000 * each['seconds']:.1f} ms" for name, each in times.items()))
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {
        "device": machine if arguments.rounds else "counted, not timed",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "channels": channels,
        "rounds": arguments.rounds,
        "rows": rows,
    }


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """Time for each machine, and memory, against the pixels of the map."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    panels = [
        (f"time in ms, {each['device']}, {each['threads']} threads", each, "seconds", 1e3)
        for each in results
        if each["rounds"]
    ]
    panels.append(("multiply-adds, with small operations, in G", results[0], "with_small", 1e-9))
    panels.append(("peak memory of inference in MiB", results[0], "inference_bytes", 2**-20))
    panels.append(("memory kept in training in MiB", results[0], "training_bytes", 2**-20))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 4.4), squeeze=False, layout="constrained")
    for axis, (title, result, column, factor) in zip(axes[0], panels, strict=True):
        for name in MODULES:
            points = [
                (row["pixels"], row[column] * factor)
                for row in result["rows"]
                if row["module"] == name and column in row
            ]
            if not points:
                continue
            label = name
            if len(points) > 1:
                (x0, y0), (x1, y1) = points[-2:]
                label = f"{name}, N^{math.log(y1 / y0) / math.log(x1 / x0):.1f}"
            axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
        axis.set(xscale="log", yscale="log", xlabel="N, pixels of the map", title=title)
        axis.title.set_size("medium")
        axis.grid(which="both", alpha=0.2)
        axis.legend(fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="*", help="earlier results, for --draw")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sides", type=int, nargs="+", default=[16, 24, 32, 48, 64, 96, 128])
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--limit", type=float, default=6.0, help="GiB")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--draw", type=Path)
    arguments = parser.parse_args()
    if arguments.results:
        results = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.results]
    else:
        results = [measure(arguments)]
        if arguments.out:
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results[0], ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if arguments.draw:
        draw(arguments.draw, results)


if __name__ == "__main__":
    main()
