"""Prediction by whole networks: EMANet-50 beside itself as it is, and beside its peers of other libraries.

    python benchmarks/networks.py [--quick] [--size 1024 2048]

From an image to the class of each of its pixels; random weights, 19 classes, ResNet-50 but for SegFormer-B2, which has
a backbone of its own and 27 M weights beside EMANet-50's 35 M. "At its best" is what PyTorch does for any network:
channels-last and bfloat16 autocast; "compiled", also `torch.compile` with frozen weights. Ours compiled is held against
each peer compiled and uncompiled; quick, neither is compiled. UPerNet is that of transformers on its ResNet-50, at its
own stride 32; smp's PSPNet has three of the backbone's stages by default.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import segcontext
from measuring import Case, measure, table
from segcontext.inference import predict_labels
from segcontext.speed import fast_network

CLASSES = 19


def emanet() -> nn.Module:
    torch.manual_seed(0)
    return segcontext.emanet(CLASSES, pretrained=False).eval()


def deeplab_torchvision() -> nn.Module:
    from torchvision.models.segmentation import deeplabv3_resnet50

    return deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)


def deeplab_smp() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.DeepLabV3("resnet50", encoder_weights=None, classes=CLASSES)


def pspnet_smp() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.PSPNet("resnet50", encoder_weights=None, classes=CLASSES)


def upernet() -> nn.Module:
    from transformers import ResNetConfig, UperNetConfig, UperNetForSemanticSegmentation

    stages = ["stage1", "stage2", "stage3", "stage4"]
    backbone = ResNetConfig(out_features=stages)
    return UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, num_labels=CLASSES))


def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES, **sizes))


PEERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision DeepLabV3-50": deeplab_torchvision,
    "smp DeepLabV3-50": deeplab_smp,
    "smp PSPNet-50": pspnet_smp,
    "transformers UPerNet-50": upernet,
    "transformers SegFormer-B2": segformer,
}


def at_its_best(network: nn.Module, *, compiled: bool) -> Callable[[Tensor], Tensor]:
    """A peer's fastest form, with or without the compiler."""
    network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    kernels = torch.compile(network, dynamic=False) if compiled else network

    def ask(image: Tensor) -> Tensor:
        with (
            torch.no_grad(),
            torch.autocast(image.device.type, dtype=torch.bfloat16),
            torch._inductor.config.patch(freezing=image.device.type == "cpu"),
        ):
            return likeliest(kernels(image.contiguous(memory_format=torch.channels_last)), image)

    return ask


def likeliest(output: Any, image: Tensor) -> Tensor:
    """The classes in what a peer returns: a tensor, a dict with "out", or an object with `logits`.

    All but SegFormer bring their logits to image size themselves.
    """
    logits = output["out"] if isinstance(output, dict) and "out" in output else getattr(output, "logits", output)
    if logits.shape[2:] != image.shape[2:]:
        logits = F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=False)
    return logits.argmax(1)


def cases(quick: bool, size: tuple[int, int] | None = None, beside: str = "") -> Iterable[Case]:
    """EMANet-50 against itself, and against each peer that is installed; those alone whose name holds `beside`."""
    height, width = size or ((512, 512) if quick else (1024, 2048))
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    network = emanet()
    fast = fast_network(network, speed="folded" if quick else "compiled")
    # The first image of a size is not compiled.
    fast(image)

    def agreement() -> str:
        with torch.no_grad():
            found, wanted = fast(image).features_logits, network(image).features_logits
        same = (found.argmax(1) == wanted.argmax(1)).float().mean().item()
        worst = ((found - wanted).abs().max() / wanted.abs().max()).item()
        assert worst < 0.1, worst
        return f"worst logit error {100 * worst:.1f} % of the largest, {100 * same:.2f} % of the labels"

    make = functools.partial(
        Case,
        topic="Whole network, prediction",
        what=f"EMANet-50{'' if quick else ' compiled'}, {height}×{width}",
        ours=functools.partial(predict_labels, fast, image),
        rounds=3,
    )
    itself = "itself, eager float32"
    if beside in itself:
        goal = None if quick else 3.5
        plain = functools.partial(predict_labels, network, image)
        yield make(baseline=plain, baseline_name=itself, agreement=agreement, goal=goal, memory=not quick)
    words = ("uncompiled",) if quick else ("compiled", "uncompiled")
    for name, word in itertools.product(list(PEERS)[: 2 if quick else None], words):
        label = f"{name} at its best, {word}"
        if beside not in label:
            continue
        try:
            peer = at_its_best(PEERS[name](), compiled=word == "compiled")
        except ImportError:
            continue
        yield make(
            baseline=functools.partial(peer, image),
            baseline_name=label,
            agreement=lambda: "another network",
            goal=1.0 if "DeepLab" in name else None,
            memory=False,
        )


def eager_times(image: Tensor) -> list[tuple[str, float]]:
    """Each peer as it is, in float32: one warm pass, two timed."""
    found = []
    for name, build in PEERS.items():
        try:
            network = build().eval()
        except ImportError:
            continue
        seconds = []
        with torch.no_grad():
            for _ in range(3):
                started = time.perf_counter()
                likeliest(network(image), image)
                seconds.append(time.perf_counter() - started)
        found.append((name, statistics.median(seconds[1:])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--eager", action="store_true", help="time the peers as they are in float32, too")
    parser.add_argument("--beside", default="", metavar="WORD", help="only the pairs whose name holds this")
    parser.add_argument("--size", type=int, nargs=2, metavar=("H", "W"))
    arguments = parser.parse_args()
    size = tuple(arguments.size) if arguments.size else None
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    for line in table(measure(case) for case in cases(arguments.quick, size, arguments.beside)):
        print(line, flush=True)
    if arguments.eager:
        height, width = size or ((512, 512) if arguments.quick else (1024, 2048))
        print("\n| eager float32 | ms |\n|---|---|")
        for name, seconds in eager_times(torch.rand(1, 3, height, width)):
            print(f"| {name} | {1000 * seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
