"""Ours beside a named baseline: interleaved rounds in one process, medians, spread, and peak memory.

A benchmark script makes `Case`s and hands them to `measure`; `report.py` writes what comes out.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

__all__ = ["Case", "Curve", "Result", "Trace", "alone", "measure", "peak_memory", "table", "trace"]


@dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        topic: heading that it stands under, such as "Local attention (LDv2)".
        what: the work, with its sizes, dtype and direction.
        ours: does it once.
        baseline: does it once, the other way.
        baseline_name: what the other way is.
        agreement: compares both results and says how far they are apart ("max error 2e-7", "identical
            counts"); it raises where they do not agree.
        goal: the ratio aimed at, `None` where there is none.
        rounds: timed rounds of ours; one more warms up.
        baseline_rounds: timed rounds of the baseline, spread over ours; `None` is as many. For slow baselines.
        memory: whether peak memory is measured, which runs both once more.
        most_seconds: the time aimed at, `None` where there is none.
        most_memory: the bytes aimed at, likewise.
        memory_goal: the ratio aimed at of peak memory beyond results, the baseline's through ours, likewise. The bytes
            of the returned tensors, which both have to make, are taken off: a call backward returns its output, too.
        items: how many images or samples a call goes through, for those per second; 0 where that tells nothing.
    """

    topic: str
    what: str
    ours: Callable[[], object]
    baseline: Callable[[], object]
    baseline_name: str
    agreement: Callable[[], str]
    goal: float | None = None
    rounds: int = 7
    baseline_rounds: int | None = None
    memory: bool = True
    most_seconds: float | None = None
    most_memory: int | None = None
    memory_goal: float | None = None
    items: int = 0


@dataclass(frozen=True)
class Result:
    """What a case came to: seconds (median, lower and upper quartile), ratio (baseline through ours), peak bytes.

    `beyond` are the peak bytes beyond results, ours and the baseline's, where a case has a goal for them.
    """

    topic: str
    what: str
    baseline_name: str
    ours: tuple[float, float, float]
    baseline: tuple[float, float, float]
    ratio: tuple[float, float, float]
    goal: float | None
    agreement: str
    ours_memory: int | None
    baseline_memory: int | None
    most_seconds: float | None = None
    most_memory: int | None = None
    memory_goal: float | None = None
    beyond: tuple[int, int] | None = None
    items: int = 0


def measure(case: Case, device: str = "cpu") -> Result:
    """Runs a case: the agreement first, then interleaved rounds, then memory."""
    if Path("/proc/self/status").exists():
        _map_blocks_from(2**25)
    agreement = case.agreement()
    ours: list[float] = []
    baseline: list[float] = []
    wanted = case.rounds if case.baseline_rounds is None else case.baseline_rounds
    _seconds(case.ours, device)
    _seconds(case.baseline, device)
    for round_ in range(case.rounds):
        ours.append(_seconds(case.ours, device))
        if len(baseline) * case.rounds < wanted * (round_ + 1):
            baseline.append(_seconds(case.baseline, device))
    if len(ours) == len(baseline):
        ratios = [other / own for own, other in zip(ours, baseline, strict=True)]
    else:
        ratios = [other / statistics.median(ours) for other in baseline]
    memory = beyond = None
    if case.memory:
        (own, results), (other, others) = (_peak(call, device) for call in (case.ours, case.baseline))
        memory = own, other
        if case.memory_goal is not None and own:
            beyond = max(0, own - results), max(0, other - others)
    return Result(
        case.topic,
        case.what,
        case.baseline_name,
        _quartiles(ours),
        _quartiles(baseline),
        _quartiles(ratios),
        case.goal,
        agreement,
        *(memory or (None, None)),
        case.most_seconds,
        case.most_memory,
        case.memory_goal,
        beyond,
        case.items,
    )


@dataclass(frozen=True)
class Curve:
    """How times grow.

    Attributes:
        title: what is timed.
        axis: what grows, with its unit.
        points: its values, and for each what makes the calls by name, so that one point's tensors live at a time; a
            name may be missing where a call would take too long.
        rounds: timed rounds of each; one more warms up.
    """

    title: str
    axis: str
    points: Mapping[float, Callable[[], Mapping[str, Callable[[], object]]]]
    rounds: int = 5


@dataclass(frozen=True)
class Trace:
    """What a curve came to: for each name the median seconds at each point, `None` where it was not run."""

    title: str
    axis: str
    points: tuple[float, ...]
    seconds: Mapping[str, tuple[float | None, ...]]


def trace(curve: Curve, device: str = "cpu") -> Trace:
    """Runs a curve, the calls of each point in turn."""
    found: list[dict[str, float]] = []
    for make in curve.points.values():
        calls = make()
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for round_ in range(curve.rounds + 1):
            for name, call in calls.items():
                seconds = _seconds(call, device)
                if round_:
                    taken[name].append(seconds)
        found.append({name: statistics.median(values) for name, values in taken.items()})
    names = dict.fromkeys(name for point in found for name in point)
    seconds_of = {name: tuple(point.get(name) for point in found) for name in names}
    return Trace(curve.title, curve.axis, tuple(curve.points), seconds_of)


def peak_memory(call: Callable[[], object], device: str = "cpu") -> int:
    """The most bytes that a call holds at once beyond what was held before it, its result among them.

    On Linux's CPU this is resident memory, with the C library told to give freed blocks back; elsewhere on the CPU 0.
    """
    return _peak(call, device)[0]


def _peak(call: Callable[[], object], device: str) -> tuple[int, int]:
    """The peak, and what of it are the tensors that the call returns."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        results = _bytes(call())
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before, results
    status = Path("/proc/self/status")
    if not status.exists():
        return 0, 0
    # Blocks from 64 KiB up are mapped one by one, so that freeing them shows.
    _map_blocks_from(2**16)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status(status, "VmRSS")
    result = call()
    peak = _status(status, "VmHWM") - before
    results = _bytes(result)
    del result
    _map_blocks_from(2**25)
    return max(0, peak), results


def _bytes(result: object) -> int:
    """Of the tensors in a result."""
    if isinstance(result, torch.Tensor):
        return result.numel() * result.element_size()
    return sum(map(_bytes, result)) if isinstance(result, (tuple, list)) else 0


def _map_blocks_from(size: int) -> None:
    """Sets from which size on the C library of Linux asks the system for a block of its own, and gives it back freed.

    Every such block costs page faults when it is first written to. The library moves the size up to 32 MiB by itself as
    blocks are freed; once it was set, it stays.
    """
    library = ctypes.CDLL(None)
    # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
    library.mallopt(-3, size)
    library.mallopt(-1, 2 * size)


def _status(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _seconds(call: Callable[[], object], device: str) -> float:
    started = time.perf_counter()
    result = call()
    if device == "cuda":
        torch.cuda.synchronize()
    taken = time.perf_counter() - started
    del result
    return taken


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high


def table(results: Iterable[Result]) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as its result is there: milliseconds with quartiles, memory in MiB."""
    yield "| what | ours, ms | baseline, ms | baseline is | ratio | goal | reached | memory, MiB | its | agreement |"
    yield "|---|---:|---:|---|---:|---:|---|---:|---:|---|"
    for each in results:
        goal = reached = ""
        if each.goal is not None:
            goal, reached = f"≥ {each.goal:g}", _reached(each.ratio[0] >= each.goal)
        own, other = (_times(side, each.items) for side in (each.ours, each.baseline))
        memory = ["" if side is None else f"{side / 2**20:.3g}" for side in (each.ours_memory, each.baseline_memory)]
        if each.most_seconds is not None:
            own += f"; ≤ {1000 * each.most_seconds:.3g}: " + _reached(each.ours[0] <= each.most_seconds)
        if each.most_memory is not None and each.ours_memory is not None:
            memory[0] += f"; ≤ {each.most_memory / 2**20:.3g}: " + _reached(each.ours_memory <= each.most_memory)
        if each.beyond is not None and each.memory_goal is not None:
            mine, its = (f"{side / 2**20:.3g}" for side in each.beyond)
            reached_too = _reached(each.beyond[0] * each.memory_goal <= each.beyond[1])
            memory[0] += f"; beyond results {mine} of {its}, ≤ 1/{each.memory_goal:g}: {reached_too}"
        cells = (each.what, own, other, each.baseline_name, f"{each.ratio[0]:.3g}", goal, reached)
        cells += (*memory, each.agreement)
        yield f"| {' | '.join(cells)} |"


def _times(seconds: tuple[float, float, float], items: int) -> str:
    told = "{:.3g} ({:.3g}–{:.3g})".format(*(1000 * each for each in seconds))
    return f"{told}; {items / seconds[0]:.3g}/s" if items else told


def _reached(yes: bool) -> str:
    return "yes" if yes else "**no**"


def alone(description: str | None, cases: Callable[[bool], Iterable[Case]]) -> None:
    """The command line of a topic: measures its cases and prints them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the cases of `make bench`")
    parser.add_argument("--only", default="", metavar="WORD", help="cases whose description has this in it")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    chosen = (case for case in cases(arguments.quick) if arguments.only in case.what)
    for line in table(measure(case) for case in chosen):
        print(line, flush=True)
