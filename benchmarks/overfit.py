"""Every aggregation × distribution learns eight CamVid images by heart: steps, seconds and parameters it takes.

    python benchmarks/overfit.py CAMVID [--out docs/results/overfit.json] [--only ema/affinity] [--shrink 2]

The images are shrunk to 240×180 (areas averaged, labels picked), a quarter of the pixels and of the time. A combination
that is in the output file already is not run again. The whole line is exercised but the Trainer: the data set, the
network with its decoder, the loss, the bases' upkeep, the confusion matrix.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch.nn import functional as F

import segcontext
from segcontext.aggregation import AGGREGATIONS
from segcontext.data import CamVid
from segcontext.distribution import DISTRIBUTIONS
from segcontext.losses import cross_entropy
from segcontext.metrics import confusion_matrix, scores

BACKBONE, GOAL, LIMIT, EVERY = "resnet18d", 0.90, 1000, 20
#: A narrow trunk with a decoder at stride 2: poles are one to three pixels wide.
TRUNK = {"low_stride": 2, "timm_options": {"channels": [32, 48, 64, 96], "stem_width": 16}}


def overfit(
    aggregation: str, distribution: str, images: torch.Tensor, masks: torch.Tensor, rate: float
) -> dict[str, object]:
    """Trains one combination until it has the eight images at 90 % mIoU, or gives up.

    The running statistics of batch norm follow at a momentum of 0.3, since the network moves fast.
    """
    torch.manual_seed(0)
    options = {"affinity": {"key_channels": 32, "value_channels": 96}}.get(distribution, {})
    model = segcontext.segmenter(
        11, backbone=BACKBONE, pretrained=False, output_stride=16, aggregation=aggregation, distribution=distribution,
        aggregation_options={"num_bases": 32} if aggregation == "ema" else {}, distribution_options=options,
        backbone_options=TRUNK, reduce_channels=96, decoder_channels=32, dropout=0.0, bn_momentum=0.3,
    ).to(memory_format=torch.channels_last)  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    best, seconds = 0.0, []
    for step in range(1, LIMIT + 1):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, step / 20)
        # All eight at once: batch norm then sees in training what it averages for evaluation.
        model.train()
        with torch.autocast("cpu", torch.bfloat16):
            total, weight = cross_entropy(model(images).logits, masks)
        optimizer.zero_grad()
        (total / weight).backward()
        optimizer.step()
        segcontext.update_bases(model)
        seconds.append(time.perf_counter() - started)
        if step % EVERY == 0:
            model.eval()
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                found = torch.cat([model(images[i : i + 4]).logits.argmax(1) for i in (0, 4)])
            best = max(best, scores(confusion_matrix(found, masks, 11)).miou)
            if best >= GOAL:
                break
    return {
        "aggregation": aggregation,
        "distribution": distribution,
        "rate": rate,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": step,
        "seconds_per_step": round(sorted(seconds)[len(seconds) // 2], 3),
        "miou": round(best, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/overfit.json"))
    parser.add_argument("--shrink", type=int, default=2, help="by how much images are shrunk; 1 takes them whole")
    parser.add_argument("--rate", type=float, default=3e-3, help="AdamW's learning rate")
    parser.add_argument("--only", help="one combination, aggregation/distribution")
    arguments = parser.parse_args()
    data = CamVid(arguments.camvid, "train")
    # Spread over the four sequences, so that all eleven classes occur.
    samples = [data[index * len(data) // 8] for index in range(8)]
    shrink = arguments.shrink
    images = F.avg_pool2d(torch.stack([sample.image for sample in samples]).float(), shrink).round().to(torch.uint8)
    masks = torch.stack([sample.mask for sample in samples])[:, ::shrink, ::shrink].contiguous()
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    known = {(row["aggregation"], row["distribution"]) for row in rows}
    for aggregation in AGGREGATIONS:
        for distribution in DISTRIBUTIONS:
            wanted = arguments.only in (None, f"{aggregation}/{distribution}")
            if (aggregation, distribution) in known or not wanted:
                continue
            rows.append(overfit(aggregation, distribution, images, masks, arguments.rate))
            print(rows[-1], flush=True)
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print("| aggregation | distribution | parameters | steps to 90 % | s/step | mIoU |\n|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['aggregation']} | {row['distribution']} | {row['parameters']:,} | {row['steps']} | "
            f"{row['seconds_per_step']:.2f} | {100 * row['miou']:.1f} |"
        )


if __name__ == "__main__":
    main()
