"""The papers' cost tables beside ours."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from segcontext.backbone import Backbone
from segcontext.costs.module_rule import by_modules
from segcontext.costs.network_cost import CONVENTION, Cost, cost
from segcontext.costs.printed import EMANET, GALD, PrintedRow
from segcontext.costs.timing import latency
from segcontext.errors import RecipeError, nearest
from segcontext.types import Features
from segcontext.zoo import build

__all__ = ["SIZES", "TableName", "paper_table"]

TableName: TypeAlias = Literal["emanet", "gald"]

#: The input size of each paper's table.
SIZES: dict[str, tuple[int, int]] = {"emanet": (513, 513), "gald": (512, 512)}


def paper_table(
    name: TableName, *, timed: bool = False, device: str = "cpu", rounds: int = 10, warmup: int = 3
) -> list[dict[str, Any]]:
    """The rows of a paper's cost table, printed and counted.

    Args:
        name: ``"emanet"`` (its Table 1) or ``"gald"`` (its Table IV).
        timed: whether latency is measured too; then every network is built with numbers and run.
        device: what it is measured on.
        rounds: how often each network is timed.
        warmup: runs before that are not timed.

    Returns:
        One mapping for each row, with plain values: `method`; `parameters`, `multiply_adds` and `memory` (in MiB),
        counted as the paper counts and, where the paper prints a difference, as that difference; the same with
        ``paper_`` before and ``_printed`` behind them for what the paper prints; `agrees`, the columns that agree to
        the printed digits; `note`, which explains the others; and our own count of the same:
        `convolutions_and_products`, `with_small_operations`, `training_memory` and `inference_memory` in bytes.
        With latency: seconds, and relative to the first row.

    Raises:
        RecipeError: for a table that there is not.
    """
    if name not in SIZES:
        raise RecipeError(f"There is no table '{name}'.{nearest(name, SIZES)} Known: {', '.join(SIZES)}.")
    printed = EMANET if name == "emanet" else GALD
    rows = [(_emanet_row if name == "emanet" else _gald_row)(row, SIZES[name]) for row in printed]
    if timed:
        seconds = _times(printed, SIZES[name], device, rounds, warmup)
        for row, written, taken in zip(printed, rows, seconds, strict=True):
            written |= {"latency": taken, "relative_latency": taken / seconds[0], "device": device}
            if row.milliseconds:
                written["paper_latency"] = row.milliseconds / 1000
                written["paper_relative_latency"] = row.milliseconds / printed[0].milliseconds
    return rows


def _emanet_row(row: PrintedRow, size: tuple[int, int]) -> dict[str, Any]:
    model = _backbone(row) if not row.network else _head(row, 21, size)
    found, layers = cost(model, size), by_modules(model, size)
    operations = sum(each.operations for each in layers.values())
    memory = sum(each.mebibytes for part, each in layers.items() if part != "classifier")
    note = row.note
    if row.network == "emanet":
        # The author's tool saw the layers, and he worked the unit out by himself (see `by_modules`).
        operations += found.part("aggregation").operations["matrix product"]
        note = note.format(memory=memory, values=_values(row, size) / 1e6)
    counts = {
        "parameters": found.total.parameters + found.total.buffers,
        "multiply_adds": operations,
        "memory": memory,
    }
    return _written(row, counts, found, note)


def _gald_row(row: PrintedRow, size: tuple[int, int]) -> dict[str, Any]:
    found = cost(_network(row, 19, "meta"), size)
    # The paper's differences are those of the distributions themselves.
    counted = found.part("distribution") if row.parameters.startswith("+") else found.total
    counts = {"parameters": counted.parameters, "multiply_adds": found.total.multiply_adds}
    return _written(row, counts, found, row.note)


def _written(row: PrintedRow, counts: Mapping[str, float], found: Cost, note: str) -> dict[str, Any]:
    """A row as plain values, in the order of the columns."""
    written: dict[str, Any] = {"method": row.method}
    agrees = []
    for column, value in counts.items():
        paper = getattr(row, column)
        shown = _as_printed(value, column, like=paper)
        written |= {
            column: value,
            f"{column}_printed": shown,
            f"paper_{column}": _number(paper, column),
            f"paper_{column}_printed": paper or None,
        }
        if paper and shown == paper:
            agrees.append(column)
    return {
        **written,
        "agrees": agrees,
        "convolutions_and_products": found.total.multiply_adds,
        "with_small_operations": found.total.with_small,
        "training_memory": found.total.training_memory,
        "inference_memory": found.total.inference_memory,
        "note": note,
        "convention": CONVENTION,
    }


def _as_printed(value: float, column: str, *, like: str) -> str:
    """A number with the digits and the unit of the paper's."""
    digits = like.lstrip("+").rstrip("GM")
    decimals = len(digits.partition(".")[2]) if like else 1
    unit = like[-1] if like else ("G" if column == "multiply_adds" else "M")
    # The paper's memory is in MiB, thousands of which it calls G.
    divisor = {"memory": {"G": 1e3, "M": 1.0}}.get(column, {"G": 1e9, "M": 1e6})[unit]
    return f"{'+' if like.startswith('+') else ''}{value / divisor:.{decimals}f}{unit}"


def _number(printed: str, column: str) -> float | None:
    if not printed:
        return None
    factor = {"memory": {"G": 1e3, "M": 1.0}}.get(column, {"G": 1e9, "M": 1e6})[printed[-1]]
    return round(float(printed[:-1]) * factor, 6)


def _values(row: PrintedRow, size: tuple[int, int]) -> int:
    """The values that each step of EMANet's head writes, from the 3×3 reduction to the last ReLU.

    Nine maps of C channels: convolution, batch norm and ReLU of the reduction; conv1, reconstruction, ReLU, conv2, its
    batch norm, and the sum. In each of three iterations three of K (logits, softmax, normalised over the pixels) and
    the bases twice (mean and unit length).
    """
    channels, bases, iterations = row.options.get("reduce_channels", 512), 64, 3
    pixels = math.prod(-(-side // 8) for side in size)
    return int((9 * channels + 3 * iterations * bases) * pixels + 2 * iterations * bases * channels)


def _times(rows: Sequence[PrintedRow], size: tuple[int, int], device: str, rounds: int, warmup: int) -> list[float]:
    """Medians of the rows' seconds, one row after the other in each round, so that a busy machine slows all alike."""
    if rounds < 1:
        raise RecipeError(f"At least one round is needed, not {rounds}.")
    images = torch.zeros(1, 3, *size, device=device)
    models = [
        _backbone(row, device) if not row.network else _network(row, 21 if row in EMANET else 19, device)
        for row in rows
    ]
    taken: list[list[float]] = [[] for _ in rows]
    for round_ in range(rounds):
        for model, seconds in zip(models, taken, strict=True):
            found, _ = latency(model, images, rounds=1, warmup=0 if round_ else warmup, parts=False)
            seconds.append(found)
    return [statistics.median(seconds) for seconds in taken]


def _network(row: PrintedRow, classes: int, device: str) -> nn.Module:
    with torch.device(device):
        return build(row.network, classes, {"backbone": row.backbone, "pretrained": False, **row.options})


def _backbone(row: PrintedRow, device: str = "meta") -> nn.Module:
    with torch.device(device):
        return nn.ModuleDict({"backbone": Backbone(row.backbone, pretrained=False)})["backbone"]


def _head(row: PrintedRow, classes: int, size: tuple[int, int]) -> nn.Module:
    """The network with given maps in place of its backbone, so that only what lies beyond it is counted."""
    network = _network(row, classes, "meta")
    backbone = network.backbone
    assert isinstance(backbone, Backbone)
    network.backbone = _Given(backbone.channels, backbone.strides, size)
    network.normalize = nn.Identity()
    return network


class _Given(nn.Module):
    """Maps of the sizes that a backbone would give; buffers, so that they count as nobody's activations."""

    low: Tensor
    auxiliary: Tensor
    deep: Tensor

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], size: tuple[int, int]) -> None:
        super().__init__()
        for name, width, stride in zip(("low", "auxiliary", "deep"), channels, strides, strict=True):
            sides = (-(-side // stride) for side in size)
            self.register_buffer(name, torch.empty(1, width, *sides, device="meta"), persistent=False)

    def forward(self, x: Tensor) -> Features:
        return Features(self.low, self.auxiliary, self.deep)
