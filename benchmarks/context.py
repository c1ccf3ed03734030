"""The demo's EMA + LDv2 against the same network without context: held-out scenes, mean over seeds.

    python benchmarks/context.py [--out docs/results/context.json] [--seeds 0 1 2] [--steps 360]

Each run trains on the demo's recipe with another seed (weights, order, augmentation) and is scored on the 100 scenes of
the test split, which no run has seen. A run that is in the output file already is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

import segcontext
from segcontext.demo import demo_recipe
from segcontext.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/results/context.json"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=360)
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    known = {(row["seed"], row["context"], row["steps"]) for row in rows}
    test = segcontext.Scenes(split="test")
    for seed in arguments.seeds:
        for context in (True, False):
            if (seed, context, arguments.steps) in known:
                continue
            started = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                recipe = demo_recipe(seed=seed, steps=arguments.steps, context=context)
                train(recipe, folder, console=Console())
                # The last weights: the best ones were chosen on other scenes, which is one choice more to explain.
                model = segcontext.load_model(folder, which="last")
            found = segcontext.evaluate(model, test, progress=False, pictures=0)
            rows.append(
                {
                    "seed": seed,
                    "context": context,
                    "steps": arguments.steps,
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                    "miou": round(found.scores.miou, 4),
                    "pixel_accuracy": round(found.scores.pixel_accuracy, 4),
                    "iou": [round(value, 3) for value in found.scores.iou.tolist()],
                    "minutes": round((time.perf_counter() - started) / 60, 2),
                    "threads": torch.get_num_threads(),
                }
            )
            print(rows[-1], flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    for context in (True, False):
        scores = [100 * row["miou"] for row in rows if row["context"] is context and row["steps"] == arguments.steps]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        name = "EMA + LDv2" if context else "no context"
        print(f"{name}: mIoU {statistics.mean(scores):.2f}{spread} ({len(scores)} seeds)")


if __name__ == "__main__":
    main()
