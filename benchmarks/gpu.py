"""What only a GPU can show, in one command: the networks in bfloat16 against the CPU, and a serious run on CamVid.

    python benchmarks/gpu.py CAMVID --out runs/gpu [--steps 12000] [--skip-training]

Checks every named network forward and backward on CUDA (float32 and bfloat16) against the same network in float64 on
the CPU, then trains `recipes/camvid_gpu.yaml`. It needs torch, torchvision, timm, lightning, torchmetrics, safetensors,
rich, matplotlib and pyyaml, and no network. `--device cpu` tries the checks without a GPU.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from rich.console import Console

import segcontext
from segcontext.losses import cross_entropy
from segcontext.training import train
from segcontext.zoo import BUILDERS


def check(name: str, device: str) -> None:
    """Prints how far a network's logits and gradients on the device are from float64 on the CPU."""
    torch.manual_seed(0)
    network = segcontext.build(name, 11, {"backbone": "resnet18", "pretrained": False, "dropout": 0.0}).eval()
    images, target = torch.rand(2, 3, 97, 129), torch.randint(0, 11, (2, 97, 129))
    results = []
    for where, dtype in (("cpu", torch.float64), (device, torch.float32), (device, torch.bfloat16)):
        twin = copy.deepcopy(network).to(where)
        twin = twin.double() if dtype == torch.float64 else twin
        with torch.autocast(where, torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = twin(images.to(where, torch.float64 if dtype == torch.float64 else torch.float32)).logits
        total, weight = cross_entropy(logits, target.to(where))
        (total / weight).backward()
        gradient = twin.classifier.weight.grad
        results.append((logits.detach().cpu().double(), gradient.cpu().double()))
    (logits, gradient), *others = results
    shown = [
        f"{(found - logits).norm() / logits.norm():.1e} / {(slope - gradient).norm() / gradient.norm():.1e}"
        for found, slope in others
    ]
    print(f"| {name} | {shown[0]} | {shown[1]} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("camvid", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--skip-training", action="store_true")
    arguments = parser.parse_args()
    print("| network | float32: logits / gradient | bfloat16: logits / gradient |\n|---|---|---|")
    for name in BUILDERS:
        check(name, arguments.device)
    if arguments.skip_training:
        return
    path = Path(__file__).parent.parent / "recipes" / "camvid_gpu.yaml"
    recipe = segcontext.Recipe.load(path, data=str(arguments.camvid), steps=arguments.steps)
    print(train(recipe, arguments.out, console=Console()))


if __name__ == "__main__":
    main()
