"""The papers' ablations on CamVid: EMANet's Figs. 3 and 4, GALD's Tables I(c) and II, trained and drawn.

    python benchmarks/ablation.py CAMVID [--out docs/results/ablation.json] [--seeds 0 1] [--steps 800] [--shrink 2]
    python benchmarks/ablation.py CAMVID --base recipes/camvid_gpu.yaml --shrink 1 --steps 12000 --out FILE.json
    python benchmarks/ablation.py --draw docs/images/ablation docs/results/ablation.json

The first form is for a CPU: a narrow ResNet-18 from random weights, images at half their size, a few minutes a run. The
second takes another recipe, of which only the context parts are replaced, by parts as wide as the papers'. Every run
goes through `segcontext.train`, and its last weights are scored on the whole val split; those with EM bases at 1 to 8
iterations. A run that is in the output file already is not run again, so it can be stopped and started. The third form
draws what a file holds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from rich.console import Console

import segcontext
from segcontext.data import CamVid
from segcontext.recipe import Recipe
from segcontext.recipe_file import read_recipe
from segcontext.training import train

ITERATIONS = range(1, 9)

#: The recipe for a CPU; of a recipe of one's own, too, rows replace the context parts.
BASE: Mapping[str, Any] = {
    "model": "segmenter", "backbone": "resnet18d", "pretrained": False, "output_stride": 8,
    "model_options": {
        "reduce_channels": 96, "fuse_channels": 96, "decoder_channels": None,
        "backbone_options": {"timm_options": {"channels": [32, 64, 96, 128], "stem_width": 16}},
    },
    "batch": 4, "crop": [160, 192], "scale": [0.7, 1.7], "optimizer": "adamw", "lr": 1.5e-3, "weight_decay": 0.01,
    "warmup": 50, "class_weights": [1.8, 1.6, 6.0, 1.4, 2.7, 2.1, 4.5, 4.0, 2.5, 5.2, 6.5], "precision": "bf16",
    "weight_averaging": 0.98, "workers": 0, "accelerator": "cpu",
}  # fmt: skip


def em(**options: object) -> dict[str, Any]:
    """EMANet: no distribution, nothing fused with what the EMA unit gives."""
    return {"aggregation": "ema", "aggregation_options": {"num_bases": 32, **options}, "distribution": "none"}


def gald(aggregation: str, distribution: str, arrangement: str = "gald", **options: object) -> dict[str, Any]:
    """GALD: what comes out is fused with what went in (eq. 3), as in its tables."""
    return {
        "aggregation": aggregation,
        "aggregation_options": {"aspp": {"rates": [6, 12, 18], "out_channels": 64}}.get(aggregation, {}),
        "distribution": distribution,
        "distribution_options": {**({"key_channels": 32, "value_channels": 96} if distribution == "affinity" else {}),
                                 **options},
        "arrangement": arrangement,
        "model_options": {"skip": "reduced"},
    }  # fmt: skip


def window(aggregation: str, kernel_size: int, dilation: int) -> dict[str, Any]:
    return gald(aggregation, "affinity", kernel_size=kernel_size, dilation=dilation)


#: What each run changes, by its name.
ROWS: dict[str, dict[str, Any]] = {
    "moving average": em(),
    "back-propagation": em(upkeep="learned"),
    "no updating": em(upkeep="fixed"),
    "LayerNorm": em(norm="layer_norm"),
    "no norm": em(norm="none"),
    **{f"T_train {number}": em(iterations=number) for number in ITERATIONS if number != 3},
    "FCN": gald("none", "none"),
    "CGNL": gald("cgnl", "none"),
    "CGNL + LDv1, parallel": gald("cgnl", "mask", "parallel"),
    "CGNL + LDv1, LDGA": gald("cgnl", "mask", "ldga"),
    # Between the two lies what docs/results.md tells of CGNL's gradients.
    "CGNL + LDv1, LDGA, clipped": {**gald("cgnl", "mask", "ldga"), "clip_gradient": 5.0},
    "CGNL + LDv1, GALD": gald("cgnl", "mask"),
    "bilinear": gald("cgnl", "mask", downsampling="bilinear"),
    "average": gald("cgnl", "mask", downsampling="average"),
    "LDv2 k3 r3": window("none", 3, 3),
    "LDv2 k5 r3": window("none", 5, 3),
    "LDv2 k5 r6": window("none", 5, 6),
    "LDv2 k7 r6": window("none", 7, 6),
    "ASPP + LDv2 k3 r3": window("aspp", 3, 3),
    "ASPP + LDv2 k3 r6": window("aspp", 3, 6),
    "ASPP + LDv2 k5 r3": window("aspp", 5, 3),
    "ASPP + LDv2 k5 r6": window("aspp", 5, 6),
    "ASPP + LDv2 k7 r6": window("aspp", 7, 6),
    "key only": gald("aspp", "affinity", kernel_size=5, dilation=6, query_input="aggregated"),
    "query only": gald("aspp", "affinity", kernel_size=5, dilation=6, key_input="aggregated"),
}

#: Options that make the context parts as narrow as the network of `BASE`; with another recipe they have the papers'.
NARROW = ("num_bases", "rates", "out_channels", "key_channels", "value_channels")

#: GALD's tables: panel, its rows as (label, run, the paper's mIoU on Cityscapes val).
TABLES: dict[str, list[tuple[str, str, float]]] = {
    "Table I(c): arrangements": [
        ("FCN", "FCN", 73.7), ("CGNL", "CGNL", 78.2), ("parallel", "CGNL + LDv1, parallel", 77.5),
        ("LDGA", "CGNL + LDv1, LDGA", 78.1), ("LDGA, clipped", "CGNL + LDv1, LDGA, clipped", 78.1),
        ("GALD", "CGNL + LDv1, GALD", 79.6),
    ],
    "Table II(a): downsampling": [
        ("depthwise", "CGNL + LDv1, GALD", 79.6), ("bilinear", "bilinear", 77.6), ("average", "average", 76.5),
    ],
    "Table II(b): k, r of LDv2": [
        ("k3 r3", "LDv2 k3 r3", 76.2), ("k5 r3", "LDv2 k5 r3", 77.2), ("k5 r6", "LDv2 k5 r6", 77.5),
        ("k7 r6", "LDv2 k7 r6", 78.9), ("ASPP k3 r3", "ASPP + LDv2 k3 r3", 79.9),
        ("ASPP k3 r6", "ASPP + LDv2 k3 r6", 79.8), ("ASPP k5 r3", "ASPP + LDv2 k5 r3", 80.2),
        ("ASPP k5 r6", "ASPP + LDv2 k5 r6", 80.8), ("ASPP k7 r6", "ASPP + LDv2 k7 r6", 80.3),
    ],
    "Table II(c): inputs": [
        ("both", "ASPP + LDv2 k5 r6", 80.8), ("key only", "key only", 80.1), ("query only", "query only", 79.8),
    ],
}  # fmt: skip


def shrink(source: Path, target: Path, factor: int) -> Path:
    """A copy of the train and val splits at a fraction of the size: areas averaged, labels picked."""
    if factor == 1:
        return source
    for split in ("train", "val"):
        data = CamVid(source, split)
        for folder in (target / split, target / f"{split}annot"):
            folder.mkdir(parents=True)
        for index in range(len(data)):
            sample = data[index]
            name = f"{Path(sample.name).stem}.png"
            image = Image.fromarray(sample.image.permute(1, 2, 0).numpy()).reduce(factor)
            image.save(target / split / name)
            # The release writes void as 11.
            mask = np.minimum(sample.mask.numpy(), 11)[::factor, ::factor][: image.height, : image.width]
            Image.fromarray(mask.astype(np.uint8)).save(target / f"{split}annot" / name)
    return target


def replaced(base: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the context parts of a row in place of its own."""
    parts = ("aggregation_options", "distribution_options")
    kept = {key: value for key, value in base.items() if key not in (*parts, "arrangement")}
    options = {**base.get("model_options", {}), **row.get("model_options", {"skip": "none"})}
    values = {**kept, **row, "model_options": options}
    if base is not BASE:
        values |= {
            part: {key: row[part][key] for key in row[part] if key not in NARROW} for part in parts if part in row
        }
    return values


def run(name: str, data: Path, base: Mapping[str, Any], steps: int, seed: int, console: Console) -> dict[str, Any]:
    """Trains one row and scores its last weights."""
    row = ROWS[name]
    values = {**replaced(base, row), "data": str(data), "steps": steps, "seed": seed}
    # Only the last weights count.
    values |= {"val_every": steps, "val_limit": 8, "checkpoint_every": steps}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        train(Recipe.from_mapping(values), folder, overwrite=True, console=console)
        trained = time.perf_counter() - started
        model = segcontext.load_model(folder, which="last")
    model = model.to("cuda" if values.get("accelerator") == "gpu" else "cpu").eval()
    val, miou = CamVid(data, "val"), []
    evaluated = ITERATIONS if row["aggregation"] == "ema" else (0,)
    for iterations in evaluated:
        if iterations:
            model.aggregation.evaluation_iterations = iterations
        found = segcontext.evaluate(model, val, progress=False, pictures=0, precision="bf16")
        miou.append(round(found.scores.miou, 5))
    return {
        "row": name, "seed": seed, "steps": steps, "miou": miou, "train_seconds": round(trained),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }  # fmt: skip


def means(rows: list[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Mean over the seeds of mIoU in percent, and the largest distance from it, for each number of iterations."""
    columns = list(zip(*(row["miou"] for row in rows if row["row"] == name), strict=True))
    middle = [100 * statistics.mean(column) for column in columns]
    return middle, [100 * max(column) - mean for column, mean in zip(columns, middle, strict=True)]


def draw(path: Path, found: dict[str, Any]) -> list[Path]:
    """EMANet's figures and GALD's tables, as far as their rows have been run."""
    mpl.use("agg")
    from matplotlib import pyplot as plt

    rows, known = found["rows"], {row["row"] for row in found["rows"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    panels = (
        ("Fig. 3, left: upkeep of the bases", ("moving average", "back-propagation", "no updating")),
        ("Fig. 3, right: normalisation of the bases", ("moving average", "LayerNorm", "no norm")),
    )
    for axis, (title, names) in zip(axes, panels, strict=False):
        for name in names:
            if name in known:
                middle, spread = means(rows, name)
                label = "L2Norm" if name == "moving average" and "norm" in title else name
                axis.errorbar(ITERATIONS, middle, spread, marker="o", capsize=3, label=label)
        axis.set(title=title, xlabel="T in evaluation (3 in training)", ylabel="mIoU % on val")
        axis.grid(alpha=0.3)
        axis.legend()
    names = {number: "moving average" if number == 3 else f"T_train {number}" for number in ITERATIONS}
    trained = [number for number in ITERATIONS if names[number] in known]
    matrix = np.array([means(rows, names[number])[0] for number in trained])
    axes[2].imshow(matrix, aspect="auto", cmap="viridis")
    for (y, x), value in np.ndenumerate(matrix):
        dark = value < (matrix.min() + matrix.max()) / 2
        axes[2].text(x, y, f"{value:.1f}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    axes[2].set(title="Fig. 4: iterations, mIoU %", xlabel="T in evaluation", ylabel="T in training")
    axes[2].set_xticks(range(len(ITERATIONS)), list(ITERATIONS))
    axes[2].set_yticks(range(len(trained)), trained)
    figure.suptitle(f"EMANet's ablations on CamVid: {found['scale']}", fontsize="medium")
    files = [path.with_name(f"{path.name}_ema.png"), path.with_name(f"{path.name}_gald.png")]
    figure.savefig(files[0], dpi=110)
    figure, axes = plt.subplots(
        1, 4, figsize=(15, 4.2), layout="constrained", width_ratios=[len(table) + 1 for table in TABLES.values()]
    )
    for axis, (title, table) in zip(axes, TABLES.items(), strict=True):
        table = [entry for entry in table if entry[1] in known]
        axis.set_title(title, fontsize="medium")
        if not table:
            continue
        places = np.arange(len(table))
        values = [means(rows, name) for _, name, _ in table]
        middle, spread = [value[0][0] for value in values], [value[1][0] for value in values]
        axis.errorbar(places, middle, spread, fmt="o", capsize=3, color="tab:blue", label="here, left axis")
        axis.set_xlim(-0.5, len(table) - 0.5)
        axis.set_ylim(min(middle) - 2, max(middle) + 2)
        paper = axis.twinx()
        paper.plot(places, [printed for *_, printed in table], "D", color="tab:orange", label="paper, right axis")
        paper.set_ylim(min(printed for *_, printed in table) - 2, max(printed for *_, printed in table) + 2)
        axis.set_xticks(places, [label for label, *_ in table], rotation=45, ha="right")
        if axis is axes[0]:
            axis.set_ylabel("mIoU %")
            axis.legend(loc="upper left", fontsize="x-small")
            paper.legend(loc="upper right", fontsize="x-small")
    figure.suptitle(f"GALD's ablations on CamVid: {found['scale']}; the paper: Cityscapes val", fontsize="medium")
    figure.savefig(files[1], dpi=110)
    return files


def table(found: dict[str, Any]) -> str:
    """All rows as Markdown: mIoU by iterations where there are any."""
    rows, lines = found["rows"], ["| run | seeds | mIoU %, at T = 1 … 8 where there are iterations |", "|---|---|---|"]
    for name in ROWS:
        mine = [row for row in rows if row["row"] == name]
        if mine:
            middle, spread = means(rows, name)
            cells = ", ".join(f"{value:.1f}" for value in middle)
            lines.append(f"| {name} | {len(mine)} | {cells} (± {max(spread):.1f}) |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="CamVid's folder, or with --draw a file of results")
    parser.add_argument("--out", type=Path, default=Path("docs/results/ablation.json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--shrink", type=int, default=2, help="by how much images are shrunk; 1 takes them whole")
    parser.add_argument("--base", help="a recipe, of which only the context parts are replaced")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--draw", type=Path, metavar="PREFIX")
    arguments = parser.parse_args()
    if arguments.draw:
        found = json.loads(arguments.data.read_text(encoding="utf-8"))
        print(*draw(arguments.draw, found), table(found), sep="\n")
        return
    base = read_recipe(arguments.base) if arguments.base else BASE
    size = f"{480 // arguments.shrink}×{360 // arguments.shrink}"
    weights = "pretrained" if base.get("pretrained", True) else "from random weights"
    known = f"{arguments.steps} steps of {base['batch']} crops, {base['backbone']} {weights}, images {size}"
    found = {"scale": known, "torch": torch.__version__, "rows": []}
    if arguments.out.exists():
        found = json.loads(arguments.out.read_text(encoding="utf-8"))
        if found["scale"] != known:
            raise SystemExit(f"{arguments.out} holds runs of another kind ({found['scale']}); give another --out.")
    with tempfile.TemporaryDirectory() as folder:
        data = shrink(arguments.data, Path(folder) / "camvid", arguments.shrink)
        for seed in arguments.seeds:
            for name in arguments.rows:
                if any((row["row"], row["seed"]) == (name, seed) for row in found["rows"]):
                    continue
                found["rows"].append(run(name, data, base, arguments.steps, seed, Console(quiet=True)))
                print(found["rows"][-1], flush=True)
                arguments.out.parent.mkdir(parents=True, exist_ok=True)
                lines = ",\n".join("  " + json.dumps(row) for row in found["rows"])
                head = json.dumps({key: value for key, value in found.items() if key != "rows"}, ensure_ascii=False)
                arguments.out.write_text(f'{head[:-1]}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(table(found))


if __name__ == "__main__":
    main()
