"""The layouts of the two papers' authors: EMANet and GALDNet v1.

Sources: XiaLiPKU/EMANet (network.py, settings.py, train.py) and lxtGH/GALD-DGCNet (libs/models/GALDNet.py,
libs/datasets/cityscapes.py) on GitHub, for the facts; the code is ours.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor

from segcontext.importing.layout import Layout, Shapes, Turn, leading, unit
from segcontext.importing.resnet import DEEP, depth, stages
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
        "reduce_channels": shapes.size("fc0.conv.weight", 0, 512),
        "project_channels": shapes.size("fc1.0.conv.weight", 0, 256),
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
    classifier="fc2.weight",
    align_corners=True,
    padding="stride_plus_one",
    training={
        **{"crop": 513, "batch": 16, "steps": 30_000, "lr": 0.009, "weight_decay": 1e-4, "bias_lr_factor": 2.0},
        **{"scale": [0.5, 2.0], "scale_step": 0.25, "loss_average": "all", "bn_momentum": 3e-4},
        "padding": "stride_plus_one",
    },
    wrap=_as_session,
)


def _gald(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    query = shapes.size("head.a2block.long_relation.t.weight", 0, 256)
    return {
        "backbone": f"resnet{depth(shapes, 'layer')}s",
        "reduce_channels": shapes.size("head.conva.0.weight", 0, 512),
        "aggregation_options": {
            "channels": query,
            "groups": query // max(1, shapes.size("head.a2block.long_relation.z.weight", 1, query // 8)),
        },
        "downsampled_options": {"padding": 0},
        "distribution_options": {"padding": 0},
        "project_channels": shapes.size("head.convb.0.weight", 0, 512),
        "fuse_channels": shapes.size("head.bottleneck.0.weight", 0, 512),
        "auxiliary": "dsn.0.weight" in shapes,
        "auxiliary_channels": shapes.size("dsn.0.weight", 0, 512),
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
    classifier="head.bottleneck.3.weight",
    align_corners=True,
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
    training={
        **{"crop": 769, "batch": 8, "steps": 50_000, "lr": 0.01, "weight_decay": 5e-4, "decay_norm_and_bias": True},
        **{"scale": [0.7, 2.1], "scale_step": 0.1, "loss": "ohem", "ohem_threshold": 0.7, "ohem_min_kept": 100_000},
    },
)
