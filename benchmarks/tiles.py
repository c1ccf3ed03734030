"""Tiles of one image, each with a context of its own or all with the image's: what happens at the seams.

    python benchmarks/tiles.py RUN DATA [--window 192] [--limit 20] [--out docs/results/tiles.json]

A network with an EMA unit predicts each image whole, and then in windows that find their EM bases themselves
(context "window") or hold those of a thumbnail of the whole image (context "image"). Along the lines where windows
meet it counts the pairs of neighbouring pixels that get different labels, beyond those that the whole image's
prediction has on the same lines. Agreement is the share of all pixels labelled as in the whole image.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor

import segcontext
from segcontext.data import open_dataset
from segcontext.evaluation import spread
from segcontext.inference import Protocol, predict_labels
from segcontext.metrics import confusion_matrix, scores


def seams(labels: Tensor, window: int, overlap: float) -> float:
    """Share of the pixel pairs across the borders of windows that have different labels; labels are (H, W)."""
    pairs = []
    step = round(window * (1 - overlap))
    for axis in (0, 1):
        length = labels.shape[axis]
        starts = [min(index * step, length - window) for index in range(-(-(length - window) // step) + 1)]
        edges = sorted({*starts[1:], *(start + window for start in starts[:-1])})
        for edge in edges:
            before, after = labels.narrow(axis, edge - 1, 1), labels.narrow(axis, edge, 1)
            pairs.append((before != after).flatten())
    return torch.cat(pairs).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data")
    parser.add_argument("--split", default="val")
    parser.add_argument("--window", type=int, default=192)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model = segcontext.load_model(arguments.run)
    samples = spread(open_dataset(arguments.data, arguments.split), arguments.limit)
    window = arguments.window
    rows = []
    for overlap, blend in ((0.0, "uniform"), (1 / 3, "uniform"), (1 / 3, "gaussian")):
        for context in ("window", "image"):
            protocol = Protocol("sliding", window, overlap, blend=blend, context=context)
            matrix, whole_matrix, extra, agreement, started = 0, 0, 0.0, 0.0, time.perf_counter()
            for index in range(len(samples)):
                sample = samples[index]
                image, classes = sample.image[None], model.num_classes
                whole, tiled = predict_labels(model, image)[0], predict_labels(model, image, protocol)[0]
                matrix = matrix + confusion_matrix(tiled, sample.mask, classes)
                whole_matrix = whole_matrix + confusion_matrix(whole, sample.mask, classes)
                extra += seams(tiled, window, overlap) - seams(whole, window, overlap)
                agreement += (tiled == whole).double().mean().item()
            count = len(samples)
            rows.append(
                {
                    "overlap": round(overlap, 3),
                    "blend": blend,
                    "context": context,
                    "extra_seams": round(extra / count, 5),
                    "agreement": round(agreement / count, 5),
                    "miou": round(scores(matrix).miou, 5),
                    "whole_miou": round(scores(whole_matrix).miou, 5),
                    "images": count,
                    "window": window,
                    "seconds": round(time.perf_counter() - started, 1),
                }
            )
            print(rows[-1], flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print("| overlap | blending | bases of | extra label changes at seams % | as in the whole image % | mIoU % |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['overlap']:.0%} | {row['blend']} | {row['context']} | {100 * row['extra_seams']:.2f} | "
            f"{100 * row['agreement']:.2f} | {100 * row['miou']:.2f} |"
        )


if __name__ == "__main__":
    main()
