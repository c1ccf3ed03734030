"""Which networks did the papers' cost tables count? A search through the readings that come to mind.

    python benchmarks/table_readings.py [--out docs/results/table_readings.json] [--show 8]

EMANet's Table 1 prints +84.1G, +99.3M and +16.3M for DeepLabV3+ and +56.3G, +59.4M and +18.5M for PSANet, beyond a
ResNet-101 of stride 8 at 513×513; GALD's Table IV prints 47.5M parameters for a ResNet-50 with ASPP. Neither describes
the networks. The script goes through every combination of the choices below and lists those that round to the printed
numbers, the ones nearest to the published networks first. Nothing is run: a layer is its numbers.

Memory is the size of what the layers put out, in MiB of float32, which is how the first rows of Table 1 come about (see
docs/cost.md). Each reading is tried under several rules of which layers count; those under which DeepLabV3 has its
printed +66.0M are marked.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

DEEP = 2048
# Sides of the maps of a 513×513 image: strides 16, 8, 4 and 2.
HALF, FULL, LOW, STEM = 33, 65, 129, 257
MIB = 2**20 / 4


class Layers(NamedTuple):
    """What some layers add up to: parameters, multiply-adds, and the values that they put out, by kind."""

    parameters: int = 0
    products: int = 0
    convolved: int = 0
    normed: int = 0

    def __add__(self, other: Layers) -> Layers:  # type: ignore[override]
        a, b, c, d = self
        e, f, g, h = other
        return Layers(a + e, b + f, c + g, d + h)

    @property
    def counted(self) -> int:
        """Multiply-adds with batch norms at 2 per value and ReLUs at 1, as in Table 1's first row."""
        return self.products + 3 * self.normed


def block(inputs: int, outputs: int, kernel: int, side: int, *, norm: bool = True, bias: bool = False) -> Layers:
    """A convolution on a square map, with batch norm and ReLU unless it is the last of its kind."""
    weights, values = inputs * outputs * kernel**2, outputs * side**2
    extra = (2 * outputs if norm else 0) + (outputs if bias else 0)
    return Layers(weights + extra, weights * side**2, values, values * norm)


class Reading(NamedTuple):
    """One way of building a network: its choices, in a fixed order, and its counts."""

    choices: tuple[object, ...]
    layers: Layers
    #: Values of concatenations and of resized maps, which some rules of counting memory take in.
    joined: int = 0
    resized: int = 0

    def memory(self) -> dict[str, float]:
        """MiB under each rule."""
        layers = self.layers
        rules = {"convolutions": layers.convolved, "and norms": layers.convolved + layers.normed}
        rules["and ReLUs"] = layers.convolved + 2 * layers.normed
        extras = {"": 0, ", joined": self.joined, ", resized": self.resized}
        extras[", joined, resized"] = self.joined + self.resized
        return {rule + extra: (base + more) / MIB for rule, base in rules.items() for extra, more in extras.items()}


def aspp(pointwise: bool, pooled: bool, projected: bool) -> tuple[Layers, int, int, int]:
    """ASPP's layers, its width, and the values of its concatenation and of its resized mean."""
    layers, branches = block(DEEP, 256, 3, FULL) + block(DEEP, 256, 3, FULL) + block(DEEP, 256, 3, FULL), 3
    if pointwise:
        layers, branches = layers + block(DEEP, 256, 1, FULL), branches + 1
    if pooled:
        layers, branches = layers + block(DEEP, 256, 1, 1), branches + 1
    joined, resized = 256 * branches * FULL**2, 256 * FULL**2 * pooled
    if not projected:
        return layers, 256 * branches, joined, resized
    return layers + block(256 * branches, 256, 1, FULL), 256, joined, resized


PLUS = (
    *("1×1 branch", "image pooling", "projection", "1×1 behind ASPP", "fine map", "its convolution", "join"),
    *("first convolution", "second convolution", "classifier"),
)
PLUS_PUBLISHED = (True, True, True, 0, "stage 1", (48, 1), "concatenate", (256, 3), (256, 3), 1)


def deeplabv3_plus() -> Iterator[Reading]:
    """ASPP, optionally narrowed, joined with a fine map, up to two convolutions, the classifier counted or not."""
    sources = {"stage 1": (256, LOW), "pooled stem": (128, LOW), "shallow stem, pooled": (64, LOW)}
    sources |= {"stem": (128, STEM), "shallow stem": (64, STEM), "stage 2": (512, FULL), "none": (0, LOW)}
    lows = [(0, 1), *itertools.product((12, 16, 21, 24, 32, 48, 64, 96, 128, 256), (1, 3))]
    widths = [None, *itertools.product((21, 48, 64, 128, 256, 512), (1, 3))]
    for parts in itertools.product((True, False), repeat=3):
        context, width, joined, resized = aspp(*parts)
        for narrow, (source, (low, side)) in itertools.product((0, 21, 48, 64, 128, 256), sources.items()):
            narrowed = context + block(width, narrow, 1, FULL) if narrow else context
            coarse = narrow or width
            for low_width, kernel in lows:
                if low == 0 and low_width:
                    continue
                fine = narrowed + block(low, low_width, kernel, side) if low_width else narrowed
                kept = low_width or low
                for join in ("concatenate", "add"):
                    if join == "add" and kept != coarse:
                        continue
                    together = coarse + kept if join == "concatenate" else coarse
                    given = (*parts, narrow, source, (low_width, kernel) if low_width else None, join)
                    joins = joined + (together * side**2 if join == "concatenate" else 0)
                    for first in widths:
                        once = fine + block(together, *first, side) if first else fine
                        if once.products > 85e9:
                            continue
                        for second in widths if first else (None,):
                            twice = once + block(first[0], *second, side) if first and second else once
                            channels = (second or first or (together,))[0]
                            for last in (0, 1, 3):
                                layers = twice
                                if last:
                                    layers += block(channels, 21, last, side, norm=False, bias=True)
                                choices = (*given, first, second, last)
                                yield Reading(choices, layers, joins, resized + coarse * side**2)


PSA = (
    *("reduction", "branch", "branches", "attended map", "branch before shrinking", "mask", "hidden convolution"),
    *("projection", "projection before growing", "beside its input", "last convolution", "classifier"),
    "matrix products counted",
)
PSA_PUBLISHED = (None, (512, 1), 2, HALF, True, "over-complete", 1, 2048, True, True, (512, 3), True, False)


def psanet() -> Iterator[Reading]:
    """Reduction, one or two branches of attention on a full or shrunk map, projection, last convolution, classifier."""
    first = [None, (256, 3), (512, 3), (1024, 3), (256, 1), (512, 1), (1024, 1)]
    inner = [*itertools.product((128, 256, 512, 1024), (1, 3)), None]
    last = [None, (256, 1), (512, 1), (256, 3), (512, 3), (1024, 3)]
    fixed = {f"{side}²": side**2 for side in (57, 59, 60, 61, 64, 97)}
    for reduce, branch, side in itertools.product(first, inner, (FULL, HALF, 32)):
        masks = {**fixed, "compact": side**2, "over-complete": (2 * side - 1) ** 2}
        base = block(DEEP, *reduce, FULL) if reduce else Layers()
        entering = reduce[0] if reduce else DEEP
        width = branch[0] if branch else entering
        for early, (mask, cells), hidden, branches in itertools.product(
            (True, False), masks.items(), (None, 1, 3), (1, 2)
        ):
            if not early and (branch is None or side == FULL):
                continue
            each = block(entering, *branch, FULL if early else side) if branch else Layers()
            if hidden:
                each += block(width, width, hidden, side)
            each += block(width, cells, 1, side, norm=False)
            attended = base + each + (each if branches == 2 else Layers())
            if attended.parameters > 18.6e6 or attended.products > 56.4e9:
                continue
            drawn = branches * width * side**4
            for project, before in itertools.product((None, 256, 512, 1024, 2048), (True, False)):
                if not before and (project is None or side == FULL):
                    continue
                layers, channels = attended, width * branches
                if project:
                    layers, channels = layers + block(channels, project, 1, side if before else FULL), project
                resized = 2 * channels * FULL**2 if side != FULL else 0
                for joins, final in itertools.product((True, False), last):
                    total = channels + entering if joins else channels
                    out = layers + block(total, *final, FULL) if final else layers
                    seen = final[0] if final else total
                    for classifier in (True, False):
                        done = out + block(seen, 21, 1, FULL, norm=False, bias=True) if classifier else out
                        for counted in (True, False):
                            found = done._replace(products=done.products + drawn) if counted else done
                            yield Reading(
                                (
                                    *(reduce, branch, branches, side, early, mask, hidden, project, before, joins),
                                    *(final, classifier, counted),
                                ),
                                found,
                                total * FULL**2 if joins else 0,
                                resized,
                            )


HEAD = (
    *("reduction", "ASPP's width", "1×1 branch", "image pooling", "projection", "3×3 behind it", "skip", "fuse"),
    *("auxiliary head", "stem"),
)
HEAD_PUBLISHED = ((512, 3), 256, True, True, (256, 1), 512, 2048, (512, 3), False, "deep")


def gald_head() -> Iterator[Reading]:
    """Heads with ASPP between the layers that the GALD authors' code has around it; parameters with the backbone."""
    for reduce, width, pointwise, pooled in itertools.product(
        (None, (512, 3), (256, 3), (512, 1), (1024, 3)), (256, 512), (True, False), (True, False)
    ):
        base, entering = (block(DEEP, *reduce, FULL), reduce[0]) if reduce else (Layers(), DEEP)
        for kernel in (3, 3, 3, *((1,) * pointwise), *((1,) * pooled)):
            base += block(entering, width, kernel, FULL)
        given = width * (3 + pointwise + pooled)
        for project, behind in itertools.product((None, (256, 1), (512, 1), (256, 3), (512, 3)), (None, 256, 512)):
            layers, channels = (base + block(given, *project, FULL), project[0]) if project else (base, given)
            if behind:
                layers, channels = layers + block(channels, behind, 3, FULL), behind
            for skip, fuse in itertools.product((0, entering, DEEP), (None, (256, 3), (512, 3), (256, 1), (512, 1))):
                if (skip and not fuse) or (skip == entering and reduce is None):
                    continue
                out = layers + block(channels + skip, *fuse, FULL) if fuse else layers
                out += block(fuse[0] if fuse else channels, 19, 1, FULL, norm=False, bias=True)
                for auxiliary, stem in itertools.product((True, False), ("deep", "7×7")):
                    whole = out + Layers(23_631_808 if stem == "deep" else 23_508_032)
                    if auxiliary:
                        whole += block(1024, 512, 3, FULL) + block(512, 19, 1, FULL, norm=False, bias=True)
                    choices = (reduce, width, pointwise, pooled, project, behind, skip, fuse, auxiliary, stem)
                    yield Reading(choices, whole)


class Search(NamedTuple):
    """What is searched for: printed numbers (0 where there is none) and the choices of the published network."""

    readings: Iterator[Reading]
    names: tuple[str, ...]
    published: tuple[object, ...]
    multiply_adds: float
    memory: float
    parameters: float

    def run(self, show: int) -> dict[str, Any]:
        """Counts all readings, and keeps those that round to the printed numbers, nearest to the published first."""
        tried, near, fitting = 0, [], 0
        for reading in self.readings:
            tried += 1
            layers = reading.layers
            if abs(layers.parameters / 1e6 - self.parameters) >= 0.05:
                continue
            # Whether the tool's batch norms and ReLUs are in it moves less than 0.1 G: either will do.
            least, most = self.multiply_adds - 0.05, self.multiply_adds + 0.05
            if self.multiply_adds and not (
                least <= layers.products / 1e9 < most or least <= layers.counted / 1e9 < most
            ):
                continue
            rules = [
                rule for rule, found in reading.memory().items() if self.memory and abs(found - self.memory) < 0.05
            ]
            fitting += bool(rules)
            departs = sum(a != b for a, b in zip(reading.choices, self.published, strict=True))
            near.append((departs, not rules, len(near), reading, rules))
        best = [self.described(*each) for each in heapq.nsmallest(show, near)]
        return {"printed": self[3:], "tried": tried, "fit": len(near), "fit_memory_too": fitting, "nearest": best}

    def described(self, departs: int, _: bool, __: int, reading: Reading, rules: list[str]) -> dict[str, Any]:
        """A reading as plain values, with what it changes of the published network."""
        pairs = zip(self.names, reading.choices, self.published, strict=True)
        found: dict[str, Any] = {"changes": {name: mine for name, mine, theirs in pairs if mine != theirs}}
        found |= {"departures": departs, "parameters": round(reading.layers.parameters / 1e6, 4)}
        if self.multiply_adds:
            found["multiply_adds"] = round(reading.layers.products / 1e9, 3)
            found["with_norms_and_relus"] = round(reading.layers.counted / 1e9, 3)
            found["memory"] = {rule: round(mib, 1) for rule, mib in reading.memory().items()}
            found["memory_fits"] = rules
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", type=int, default=8)
    arguments = parser.parse_args()
    plain = aspp(True, True, True)
    possible = [
        rule
        for rule, mib in Reading((), plain[0], plain[2], plain[3]).memory().items()
        if math.isclose(mib, 66, abs_tol=0.05)
    ]
    print(f"DeepLabV3 has its printed 66.0 MiB under: {'; '.join(possible)} (without a dropout that counts).")
    results: dict[str, Any] = {"rules that give DeepLabV3's memory": possible}
    for name, search in {
        "DeepLabV3+": Search(deeplabv3_plus(), PLUS, PLUS_PUBLISHED, 84.1, 99.3, 16.3),
        "PSANet": Search(psanet(), PSA, PSA_PUBLISHED, 56.3, 59.4, 18.5),
        "GALD, FCN + ASPP": Search(gald_head(), HEAD, HEAD_PUBLISHED, 0, 0, 47.5),
    }.items():
        started = time.perf_counter()
        found = results[name] = search.run(arguments.show)
        print(
            f"\n{name}: {found['tried']:,} readings in {time.perf_counter() - started:.0f} s; {found['fit']} round to"
        )
        print(f"the printed multiply-adds and parameters, {found['fit_memory_too']} to the memory too. Nearest:")
        for each in found["nearest"]:
            print(f"  {each['departures']} changes: {each['changes']}")
            rest = {key: value for key, value in each.items() if key not in ("changes", "departures", "memory")}
            print(f"    {rest}")
    if arguments.out:
        arguments.out.write_text(json.dumps(results, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
