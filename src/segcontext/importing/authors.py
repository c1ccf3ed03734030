"""The layouts of the two papers' authors: EMANet and GALDNet v1.

Sources: XiaLiPKU/EMANet (network.py, settings.py, train.py) and lxtGH/GALD-DGCNet (libs/models/GALDNet.py,
libs/datasets/cityscapes.py) on GitHub, for the facts; the code is ours.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from segcontext.importing.layout import Layout, Turn, leading, unit
from segcontext.importing.resnet import DEEP, depth, stages
from segcontext.importing.shapes import Shapes
from segcontext.model import Segmenter

__all__ = ["EMANET", "GALD", "bases"]


def _from_columns(tensor: Tensor) -> Tensor:
    return tensor[0].mT.contiguous()


def _to_columns(tensor: Tensor) -> Tensor:
    return tensor.mT[None].contiguous()


#: Bases are columns there, (1, C, K).
bases: Final = Turn(_from_columns, _to_columns)


def _emanet(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    return {
        "backbone": f"resnet{depth(shapes, 'extractor.', 4)}s",
        "reduce_channels": shapes.width("fc0.conv", 512),
        "project_channels": shapes.width("fc1.0.conv", 256),
        "aggregation_options": {"num_bases": shapes.size("emau.mu", 2, 64), "without_mass": "published"},
    }


def _as_session(tensors: dict[str, Tensor], model: Segmenter) -> dict[str, Any]:
    return {"net": tensors, "step": 0}


#: Note: the checkpoint does not say at which stride it was trained. Multi-grid fits both 8 and 16; it is built at 8,
#: the stride that the paper evaluates at.
EMANET: Final = Layout(
    name="emanet",
    title="EMANet as its authors save it",
    model="emanet",
    marks=("emau.mu",),
    moves=(
        ("extractor.0.", "backbone.net.conv1."),
        ("extractor.1.", "backbone.net.bn1."),
        *stages("extractor.", 4),
        *unit("fc0", "reduce"),
        ("emau.mu", "aggregation.bases"),
        ("emau.conv1.", "aggregation.conv1."),
        ("emau.conv2.", "aggregation.conv2."),
        *unit("fc1.0", "project"),
        ("fc2.", "classifier."),
    ),
    turns={"aggregation.bases": bases},
    options=_emanet,
    align_corners=True,
    padding="stride_plus_one",
    training={
        **{"crop": 513, "batch": 16, "steps": 30_000, "lr": 0.009, "weight_decay": 1e-4, "bias_lr_factor": 2.0},
        **{"scale": [0.5, 2.0], "scale_step": 0.25, "loss_average": "all", "bn_momentum": 3e-4},
        "padding": "stride_plus_one",
    },
    wrap=_as_session,
    fixed={"fc0.conv.weight": (512, 2048, 3, 3), "emau.mu": (1, 512, 64), "fc1.0.conv.weight": (256, 512, 3, 3)},
)


def _gald(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    relation = "head.a2block.long_relation."
    width = shapes.width("head.conva.0", 512)
    query = shapes.size(f"{relation}t.weight", 0, 256, (f"{relation}p.weight", 0), (f"{relation}g.weight", 0))
    inside = shapes.size(f"{relation}z.weight", 1, query // 8)
    # Where the groups do not come out, z itself is misshapen, and is found out later.
    groups = query // inside if inside and query % inside == 0 and width % (query // inside) == 0 else 8
    return {
        "backbone": f"resnet{depth(shapes, 'layer')}s",
        "reduce_channels": width,
        "aggregation_options": {"channels": query, "groups": groups},
        "downsampled_options": {"padding": 0},
        "distribution_options": {"padding": 0},
        "project_channels": shapes.width("head.convb.0", 512),
        "fuse_channels": shapes.width("head.bottleneck.0", 512),
        "auxiliary": shapes.holds("dsn."),
        "auxiliary_channels": shapes.width("dsn.0", 512),
        "auxiliary_options": {"bias": True, "dropout": 0.1},
        "dropout": 0.0,
    }


#: Note: their images are blue, green, red, 0 to 255, less a mean, and not divided. Here images are RGB in [0, 1], so
#: mean and deviation are divided by 255 and turned round.
GALD: Final = Layout(
    name="gald",
    title="GALDNet v1 as its authors save it",
    model="galdnet_v1",
    marks=("head.a2block.long_relation.t.weight",),
    moves=(
        ("conv1.", "backbone.net.conv1."),
        ("bn1.", "backbone.net.bn1."),
        *stages("layer"),
        ("head.conva.", "reduce."),
        ("head.a2block.down.", "aggregation.down."),
        ("head.a2block.long_relation.", "aggregation.inner."),
        *((f"head.a2block.local_attention.dconv{n + 1}.", f"distribution.shrink.{n}.") for n in range(3)),
        ("head.convb.", "project."),
        ("head.bottleneck.", "fuse."),
        ("head.bottleneck.3.", "classifier."),
        ("dsn.", "auxiliary.0."),
        ("dsn.4.", "auxiliary.2."),
    ),
    turns={"fuse.0.weight": leading(lambda channels: DEEP)},
    options=_gald,
    align_corners=True,
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
    training={
        **{"crop": 769, "batch": 8, "steps": 50_000, "lr": 0.01, "weight_decay": 5e-4, "decay_norm_and_bias": True},
        **{"scale": [0.7, 2.1], "scale_step": 0.1, "loss": "ohem", "ohem_threshold": 0.7, "ohem_min_kept": 100_000},
    },
    fixed={
        "head.conva.0.weight": (512, 2048, 3, 3),
        "head.a2block.long_relation.t.weight": (256, 512, 1, 1),
        "head.a2block.long_relation.z.weight": (512, 32, 1, 1),
        "head.convb.0.weight": (512, 512, 3, 3),
        "head.bottleneck.0.weight": (512, 2560, 3, 3),
        "dsn.0.weight": (512, 1024, 3, 3),
    },
    required=("dsn.0.weight",),
)
