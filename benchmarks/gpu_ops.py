"""The operations' kernels on a GPU: checked, timed against named baselines, and held against the machine's ceilings.

    python benchmarks/gpu_ops.py [--out FILE.md] [--rounds 15]
    TRITON_INTERPRET=1 python benchmarks/gpu_ops.py --small

One command, for a few minutes of an H200 with compilation. It needs torch with its triton, and no data. Each line is
checked against float64 first; then both forms are captured as CUDA graphs, so that launches from Python do not count,
and replayed in interleaved rounds with the L2 cache emptied before each. "Launched" is ours without a graph. The floor
is the longer of two times: what is computed at the peak of the tensor cores, and what has to be read and written once
at the peak of the memory. What fails is told in its line, and the others go on. --small tries the script with tiny
maps, on the CPU under Triton's interpreter: checks, no times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from gpu_evaluation import boundaries, counting, fusion
from gpu_works import SMALL, Sizes, Work, em_unit, gating, local
from measuring import peak_memory

TOPICS = (em_unit, local, gating, counting, boundaries, fusion)


def replayed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def seconds(call: Callable[[], object], emptying: Tensor) -> float:
    """One call's time on the GPU, with nothing of its tensors in the cache."""
    emptying.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def line(work: Work, rounds: int) -> str:
    """Checks and times one comparison."""
    case = work.case
    agreement = case.agreement()
    emptying = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
    memory = [peak_memory(each, "cuda") / 2**20 for each in (case.ours, case.baseline)]
    ours, baseline = replayed(case.ours), case.baseline if work.waits else replayed(case.baseline)
    times: dict[str, list[float]] = {"ours": [], "baseline": [], "launched": []}
    for _ in range(rounds):
        for name, call in (("ours", ours), ("baseline", baseline), ("launched", case.ours)):
            times[name].append(seconds(call, emptying))
    own, other, launched = (statistics.median(each) * 1e6 for each in times.values())
    reached = [] if case.goal is None else [f"≥ {case.goal:.3g}×: {_yes(other / own >= case.goal)}"]
    if work.microseconds is not None:
        reached.append(f"≤ {work.microseconds:g} µs: {_yes(own <= work.microseconds)}")
    floor = work.floor * 1e6
    return (
        f"| {case.topic} | {case.what} | {case.baseline_name} | {own:.1f} | {launched:.1f} | {other:.1f} | "
        f"{other / own:.2f}× | {'; '.join(reached) or '–'} | {floor:.1f} ({own / floor:.2f}×) | "
        f"{memory[0]:.0f} / {memory[1]:.0f} | {agreement} |"
    )


def _yes(reached: bool) -> str:
    return "reached" if reached else "missed"


HEAD = (
    "| topic | what | baseline | ours, µs | launched, µs | baseline, µs | ratio | goals | floor, µs | MiB | error |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.small:
        for topic in TOPICS:
            for work in topic(SMALL):
                print(work.case.topic, work.case.what, work.case.agreement(), sep=" | ", flush=True)
                work.case.baseline()
        return
    if not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; --small with TRITON_INTERPRET=1 tries the script without one.")
    lines = [f"{torch.cuda.get_device_name()}, torch {torch.__version__}, medians of {arguments.rounds}", "", HEAD]
    print(*lines, sep="\n", flush=True)
    failed = False
    for topic in TOPICS:
        for work in topic(Sizes()):
            try:
                lines.append(line(work, arguments.rounds))
            # One that does not compile or agree must not cost the others their turn on a machine lent for minutes.
            except Exception as error:
                failed = True
                lines.append(f"| {work.case.topic} | {work.case.what} | failed: {type(error).__name__}: {error} |")
            print(lines[-1], flush=True)
            torch.cuda.empty_cache()
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")
    sys.exit(failed)


if __name__ == "__main__":
    main()
