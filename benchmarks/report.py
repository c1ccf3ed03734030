"""The benchmark suite: every topic, ours beside named baselines, as Markdown, CSV, JSON and pictures.

    python benchmarks/report.py [--full] [--topics local_attention mask …] [--out docs/benchmarks] [--name cpu]

Without --full it is the short form, which `make bench` runs: under ten minutes on two cores. Each topic is a script of
its own beside this one, which names its `cases` and, where something grows, its `curves`; it runs in a process of its
own, so that no topic inherits another's memory or compiled code, and what a topic came to is written down before the
next begins. Run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import multiprocessing
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from measuring import Result, measure, table, trace

TOPICS = (
    "em_attention",
    "global_attention",
    "local_attention",
    "mask",
    "evaluation",
    "data",
    "networks",
    "training",
    "growth_of_ops",
)


def run_topic(name: str, full: bool, path: Path) -> None:
    """Measures all cases and curves of a topic and writes them down; runs in a process of its own."""
    topic = importlib.import_module(name)
    rows: list[dict[str, Any]] = []
    for case in topic.cases(quick=not full):
        started = time.perf_counter()
        found = measure(case)
        rows.append(asdict(found))
        middle, low, high = (f"{each:.3g}" for each in found.ratio)
        print(
            f"  {found.what}: {1000 * found.ours[0]:.3g} ms, {middle}× {found.baseline_name} "
            f"({low} to {high}), {found.agreement}; took {time.perf_counter() - started:.0f} s",
            flush=True,
        )
    curves = [asdict(trace(curve)) for curve in getattr(topic, "curves", lambda quick: ())(quick=not full)]
    path.write_text(json.dumps({"cases": rows, "curves": curves}, ensure_ascii=False), encoding="utf-8")


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    versions = {}
    for package in ("torch", "torchvision", "numba", "numpy", "timm", "opencv-python-headless", "scikit-image"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16 products": _has_flag("avx512_bf16") or _has_flag("amx_bf16"),
        "threads": torch.get_num_threads(),
        "memory, GiB": _memory(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "commit": _commit(),
        **versions,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _has_flag(flag: str) -> bool:
    info = Path("/proc/cpuinfo")
    return info.exists() and flag in info.read_text().split()


def _memory() -> int | None:
    info = Path("/proc/meminfo")
    return round(int(info.read_text().split()[1]) / 2**20) if info.exists() else None


def _commit() -> str:
    """The commit, "-dirty" where what is measured or measures differs from it: pages that come of it may."""
    commit = _git("describe", "--always")
    changed = _git("status", "--porcelain", "--", "src", "benchmarks", "recipes", "pyproject.toml")
    return f"{commit}-dirty" if commit and changed else commit or "unknown"


def _git(*words: str) -> str:
    root = Path(__file__).parents[1]
    return subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=root).stdout.strip()


def markdown(title: str, topics: Mapping[str, Any], name: str) -> str:
    """The page."""
    facts = next(iter(topics.values()))["machine"]
    lines = [
        f"# {title}",
        "",
        "Written by `benchmarks/report.py`. Ours and its baseline run in turn in one process; times are medians,",
        "in parentheses the quartiles; the ratio is the median of the rounds' ratios, or, where a slow baseline",
        "runs fewer rounds, of its rounds' ratios to the median of ours. A figure with /s is images or samples in",
        "a second. Memory is the most that a call holds at once beyond what was there before it, its result among",
        'it; "beyond results" takes the tensors off that it returns. Before anything is timed, both results are',
        "held against each other, which the last column tells. Calls follow one another at once, as in a network.",
        "",
        ", ".join(f"{key}: {value}" for key, value in facts.items() if key != "commit") + ".",
        "",
    ]
    if any(_goals(topics)):
        lines += [f"![Each ratio beside its goal]({name}.png)", ""]
    for topic in topics.values():
        made = f"By `{topic['command']}` at commit {topic['machine']['commit']}."
        if topic["machine"] | {"commit": ""} != facts | {"commit": ""}:
            made += " Elsewhere: " + ", ".join(f"{key}: {value}" for key, value in topic["machine"].items()) + "."
        headings = dict.fromkeys(row["topic"] for row in topic["cases"])
        for heading in headings:
            rows = (Result(**row) for row in topic["cases"] if row["topic"] == heading)
            lines += [f"## {heading}", "", made, "", *table(rows), ""]
        for number, curve in enumerate(topic["curves"]):
            lines += [f"![{curve['title']}]({name}_{_slug(curve['title'], number)}.png)", ""]
    return "\n".join(lines).rstrip() + "\n"


def _slug(title: str, number: int) -> str:
    words = "".join(letter if letter.isalnum() and letter.isascii() else " " for letter in title.lower()).split()
    return "_".join([*words[:4], str(number)])


def _goals(topics: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row for topic in topics.values() for row in topic["cases"] if row["goal"] is not None]


def draw(topics: Mapping[str, Any], out: Path, name: str) -> None:
    """Ratios beside their goals, and a picture for each curve."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    rows = _goals(topics)
    if rows:
        figure, axis = plt.subplots(figsize=(11, 0.36 * len(rows) + 1.2), layout="constrained")
        for place, row in enumerate(reversed(rows)):
            middle, low, high = row["ratio"]
            reached = middle >= row["goal"]
            axis.barh(place, middle, color="tab:green" if reached else "tab:orange", alpha=0.8)
            axis.plot([low, high], [place, place], color="black", linewidth=1)
            axis.plot(row["goal"], place, marker="|", color="black", markersize=14, markeredgewidth=2)
        names = [f"{row['what']} / {row['baseline_name']}" for row in reversed(rows)]
        axis.set_yticks(range(len(rows)), names, fontsize=7)
        axis.set(xscale="log", xlabel="times as fast as the baseline; | the goal")
        axis.grid(axis="x", which="both", alpha=0.2)
        figure.savefig(out / f"{name}.png", dpi=120)
        plt.close(figure)
    for topic in topics.values():
        for number, curve in enumerate(topic["curves"]):
            figure, axis = plt.subplots(figsize=(5.6, 4.2), layout="constrained")
            for label, seconds in curve["seconds"].items():
                points = [(x, 1000 * y) for x, y in zip(curve["points"], seconds, strict=True) if y is not None]
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
            axis.set(xscale="log", yscale="log", xlabel=curve["axis"], ylabel="ms", title=curve["title"])
            axis.set_xticks(curve["points"], [f"{each:g}" for each in curve["points"]], fontsize=7)
            axis.minorticks_off()
            axis.grid(which="both", alpha=0.2)
            axis.legend(fontsize="x-small")
            figure.savefig(out / f"{name}_{_slug(curve['title'], number)}.png", dpi=110)
            plt.close(figure)


def write_csv(topics: Mapping[str, Any], path: Path) -> None:
    """All cases, one a line, seconds and bytes."""
    columns = (
        *(
            "topic",
            "what",
            "baseline_name",
            "ours",
            "ours_low",
            "ours_high",
            "baseline",
            "baseline_low",
            "baseline_high",
        ),
        *("ratio", "ratio_low", "ratio_high", "goal", "most_seconds", "most_memory", "ours_memory", "baseline_memory"),
        *("memory_goal", "ours_beyond", "baseline_beyond", "items", "agreement"),
    )
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for topic in topics.values():
            for row in topic["cases"]:
                flat = {key: value for key, value in row.items() if not isinstance(value, (list, tuple))}
                for key in ("ours", "baseline", "ratio"):
                    flat |= dict(zip((key, f"{key}_low", f"{key}_high"), row[key], strict=True))
                if row.get("beyond") is not None:
                    flat |= dict(zip(("ours_beyond", "baseline_beyond"), row["beyond"], strict=True))
                # `None` for most cases.
                flat.pop("beyond", None)
                writer.writerow(flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every case, and the curves at every point")
    parser.add_argument("--topics", nargs="*", choices=TOPICS, default=TOPICS, help="none: the pages anew")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "benchmarks")
    parser.add_argument("--name", default="cpu", help="of the machine, in the names of the files")
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    arguments.out.mkdir(parents=True, exist_ok=True)
    kept = arguments.out / f"{arguments.name}.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {"topics": {}}
    # Spawned, because compiled code and threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    began, failed = time.perf_counter(), []
    for topic in arguments.topics:
        print(topic, flush=True)
        part = arguments.out / f".{topic}.json"
        process = context.Process(target=run_topic, args=(topic, arguments.full, part))
        process.start()
        process.join()
        if process.exitcode:
            failed.append(topic)
            continue
        known["topics"][topic] = {
            "command": "make bench" if not arguments.full else "python benchmarks/report.py --full",
            "machine": machine(),
            **json.loads(part.read_text(encoding="utf-8")),
        }
        part.unlink()
        kept.write_text(json.dumps(known, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    topics = {topic: known["topics"][topic] for topic in TOPICS if topic in known["topics"]}
    if topics:
        page = markdown(f"Benchmarks ({arguments.name})", topics, arguments.name)
        (arguments.out / f"{arguments.name}.md").write_text(page, encoding="utf-8")
        write_csv(topics, arguments.out / f"{arguments.name}.csv")
        draw(topics, arguments.out, arguments.name)
    print(f"{arguments.out / (arguments.name + '.md')}, after {(time.perf_counter() - began) / 60:.1f} minutes")
    if failed:
        sys.exit(f"These topics failed, see above: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
