"""The papers' cost tables, as they print them, and which networks stand for their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EMANET", "GALD", "PrintedRow"]


@dataclass(frozen=True)
class PrintedRow:
    """A row of a paper's table.

    Attributes:
        method: as the paper calls it.
        network: the named network that stands for it; empty for the backbone alone.
        options: its options, besides backbone and output stride.
        backbone: of the network.
        multiply_adds: as printed; empty where the paper gives none. A sign means: beyond the table's first row (EMANet)
            or beyond the row of ASPP (GALD).
        memory: as printed.
        parameters: as printed.
        milliseconds: as printed; 0 where the paper gives none.
        note: what the row stands for, and what explains a difference.
    """

    method: str
    network: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    backbone: str = "resnet101s"
    multiply_adds: str = ""
    memory: str = ""
    parameters: str = ""
    milliseconds: int = 0
    note: str = ""


_EMANET_MEMORY = (
    "Memory: the layers alone put out {memory:.1f} MiB. The printed figure is the number of values, in millions, that "
    "every step of the unit writes, (9C + 3·3K)·N + 2·3·K·C = {values:.2f} M."
)

#: EMANet, Table 1: ResNet-101 at stride 8, 513×513, 21 classes.
EMANET: tuple[PrintedRow, ...] = (
    PrintedRow(
        "ResNet-101",
        multiply_adds="190.6G",
        memory="2.603G",
        parameters="42.6M",
        note="Deep stem, without classifier. Memory is in units of 2²⁰ bytes.",
    ),
    PrintedRow(
        "DeepLabV3",
        "deeplabv3",
        multiply_adds="+63.4G",
        memory="+66.0M",
        parameters="+15.5M",
        note="Branches of 256 channels, no 3×3 after the projection. Memory with the dropout, without the classifier.",
    ),
    PrintedRow(
        "DeepLabV3+",
        "deeplabv3_plus",
        multiply_adds="+84.1G",
        memory="+99.3M",
        parameters="+16.3M",
        note="As published (48 channels of stage 1, two 3×3 of 256). No reading near that one gives the printed "
        "figures. Without image pooling the parameters are 16.3 M, but the multiply-adds 84.9 G. Memory: two layers of "
        "256 channels at stride 4 with batch norm and ReLU are 97.5 MiB by themselves.",
    ),
    PrintedRow(
        "PSANet",
        "psanet",
        {"aggregation_options": {"mask_size": 65}, "project_channels": 256, "auxiliary": False},
        multiply_adds="+56.3G",
        memory="+59.4M",
        parameters="+18.5M",
        note="As published, with the mask of a 513 crop (65×65) and 256 instead of 512 channels in the last 3×3; the "
        "two matrix products (1.2 G) are not counted, as by the paper's tool. No reading gives the printed memory.",
    ),
    PrintedRow(
        "EMANet (256)",
        "emanet",
        {"reduce_channels": 256, "project_channels": None, "dropout": 0.0},
        multiply_adds="+21.1G",
        memory="+12.3M",
        parameters="+4.87M",
        note="Parameters with the bases. Multiply-adds: the parts of the unit add up to 21.0 G; nothing that adds 0.05 "
        "here would leave 43.1 G in the next row. " + _EMANET_MEMORY,
    ),
    PrintedRow(
        "EMANet (512)",
        "emanet",
        {"project_channels": None, "dropout": 0.0},
        multiply_adds="+43.1G",
        memory="+22.1M",
        parameters="+10.0M",
        note="Parameters with the bases. " + _EMANET_MEMORY,
    ),
)

# One reading of a head that the paper does not describe, see docs/cost.md: the head of GALDNet v1's code with ASPP in
# CGNL's place, and the stem of a plain ResNet.
_HEAD: Mapping[str, Any] = {
    "auxiliary": False,
    "reduce_channels": 512,
    "aggregation_options": {"image_pooling": False},
}

#: GALD, Table IV: 512×512 on one V100, 19 classes.
GALD: tuple[PrintedRow, ...] = (
    PrintedRow(
        "FCN",
        "fcn",
        # The backbone of the other rows, whose pooling rounds up: 65×65 pixels and not 64×64.
        {"backbone_options": {"ceil_mode": True}},
        "resnet50",
        milliseconds=60,
        note="3×3 to 512 channels and the classifier.",
    ),
    PrintedRow(
        "FCN + ASPP",
        "galdnet_v2",
        {**_HEAD, "distribution": "none"},
        "resnet50",
        parameters="47.5M",
        milliseconds=65,
        note="A reading: plain ResNet-50, 3×3 to 512 channels, ASPP of 256 channels without image pooling, its output "
        "beside the 2048 channels of the ResNet, fused by a 3×3 to 512. The paper does not describe its head, and many "
        "have 47.5 M.",
    ),
    PrintedRow(
        "FCN + ASPP + LDv1",
        "galdnet_v2",
        {**_HEAD, "distribution": "mask"},
        "resnet50",
        parameters="+0.4M",
        milliseconds=70,
        note="Parameters of LDv1 itself: three depthwise 3×3 layers. Even on 512 channels they are 18,432, so the "
        "printed 0.4 M cannot be LDv1 alone; CGNL has 410,624.",
    ),
    PrintedRow(
        "FCN + ASPP + LDv2",
        "galdnet_v2",
        _HEAD,
        "resnet50",
        parameters="+2.3M",
        milliseconds=82,
        note="Parameters of LDv2 itself, 2304·1024 weights and 1024 biases: cut off, not rounded, 2.3 M. Its 512 "
        "channels widen the fusing 3×3 by another 1.18 M.",
    ),
    PrintedRow(
        "FCN (ResNet-101) + ASPP",
        "galdnet_v2",
        {**_HEAD, "distribution": "none"},
        "resnet101",
        parameters="65.4M",
        milliseconds=120,
        note="The head of the second row. The printed difference to ResNet-50 is 17.9 M, the backbones' own is 18.99 "
        "M, so no one head meets both rows.",
    ),
)
