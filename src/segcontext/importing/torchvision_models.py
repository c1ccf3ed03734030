"""The layouts of torchvision's segmentation models: FCN and DeepLabV3 on ResNet-50 and 101.

Source: torchvision.models.segmentation (BSD-3-Clause) and its documentation, for the facts; the code is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from segcontext.importing.layout import Layout
from segcontext.importing.resnet import depth, stages
from segcontext.importing.shapes import Shapes

__all__ = ["TORCHVISION"]


def _common(shapes: Shapes) -> dict[str, Any]:
    return {
        "backbone": f"resnet{depth(shapes, 'backbone.layer')}",
        "auxiliary": shapes.holds("aux_classifier."),
        "auxiliary_channels": shapes.width("aux_classifier.0", 256),
    }


def _fcn(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    return {**_common(shapes), "reduce_channels": shapes.width("classifier.0", 512)}


def _deeplabv3(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    return {
        **_common(shapes),
        "multi_grid": None,
        "aggregation_options": {
            "out_channels": shapes.width("classifier.0.project.0", 256),
            "dropout": 0.5,
        },
        "project_channels": shapes.width("classifier.1", 256),
        "auxiliary_options": {"dropout": 0.1},
        "dropout": 0.0,
    }


def _pair(theirs: str, first: int, ours: str) -> tuple[tuple[str, str], ...]:
    """A convolution and its batch norm, which have numbers there."""
    return ((f"{theirs}.{first}.", f"{ours}.0."), (f"{theirs}.{first + 1}.", f"{ours}.1."))


def _layout(
    name: str,
    title: str,
    mark: str,
    options: Callable[[Shapes, bool], dict[str, Any]],
    *moves: tuple[str, str],
    fixed: Mapping[str, tuple[int, ...]],
) -> Layout:
    return Layout(
        name=f"torchvision_{name}",
        title=f"torchvision's {title}",
        model=name,
        marks=("backbone.layer1.0.conv1.weight", "classifier.4.weight", mark),
        moves=(
            ("backbone.conv1.", "backbone.net.conv1."),
            ("backbone.bn1.", "backbone.net.bn1."),
            *stages("backbone.layer"),
            *_pair("aux_classifier", 0, "auxiliary.0"),
            ("aux_classifier.4.", "auxiliary.2."),
            ("classifier.4.", "classifier."),
            *moves,
        ),
        options=options,
        align_corners=False,
        training={"crop": 480, "lr": 0.01, "weight_decay": 1e-4, "decay_norm_and_bias": True, "auxiliary_weight": 0.5},
        fixed={**fixed, "aux_classifier.0.weight": (256, 1024, 3, 3)},
    )


#: Note: torchvision's dropout before FCN's classifier drops values one by one, ours whole channels. That differs in
#: training alone.
TORCHVISION: Final = (
    _layout(
        "fcn",
        "FCN",
        "classifier.0.weight",
        _fcn,
        *_pair("classifier", 0, "reduce"),
        fixed={"classifier.0.weight": (512, 2048, 3, 3)},
    ),
    _layout(
        "deeplabv3",
        "DeepLabV3",
        "classifier.0.convs.0.0.weight",
        _deeplabv3,
        *_pair("classifier.0.convs.0", 0, "aggregation.pointwise"),
        *(move for n in range(3) for move in _pair(f"classifier.0.convs.{n + 1}", 0, f"aggregation.atrous.{n}")),
        *_pair("classifier.0.convs.4", 1, "aggregation.image"),
        *_pair("classifier.0.project", 0, "aggregation.project"),
        *_pair("classifier", 1, "project"),
        fixed={"classifier.0.project.0.weight": (256, 1280, 1, 1), "classifier.1.weight": (256, 256, 3, 3)},
    ),
)
