"""The layouts of OpenMMLab's mmsegmentation: ResNet v1c at output stride 8 under six heads, and the auxiliary head.

Source: open-mmlab/mmsegmentation on GitHub (mmseg/models/backbones/resnet.py, decode_heads/*.py, configs/_base_/models)
and open-mmlab/mmcv (mmcv/cnn/bricks/non_local.py, mmcv/ops/psa_mask.py), for the facts; the code is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import Tensor

from segcontext.errors import WeightsError
from segcontext.importing.authors import bases
from segcontext.importing.layout import Layout, Turn, leading, unit
from segcontext.importing.openmmlab_meta import configuration, told
from segcontext.importing.resnet import DEEP, depth, stages
from segcontext.importing.shapes import Shapes
from segcontext.model import Segmenter

__all__ = ["OPENMMLAB"]


def _context(options: Callable[[Shapes, bool], dict[str, Any]]) -> Callable[[Shapes, bool], dict[str, Any]]:
    """Options of the head, with those of backbone and auxiliary head that all have in common."""

    def complete(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
        return {
            "backbone": f"resnet{depth(shapes, 'backbone.layer')}c",
            "multi_grid": None,
            "auxiliary": shapes.holds("auxiliary_head."),
            "auxiliary_channels": shapes.width("auxiliary_head.convs.0.conv", 256),
            **options(shapes, align_corners),
        }

    return complete


def _concatenated(shapes: Shapes) -> dict[str, Any]:
    """The convolution over deep and context features before the classifier, where there is one."""
    if not shapes.holds("decode_head.conv_cat."):
        return {}
    # It is as wide as the classifier's input.
    width = shapes.size("decode_head.conv_seg.weight", 1, 512)
    return {"skip": "deep", "fuse_channels": shapes.width("decode_head.conv_cat.conv", width)}


@_context
def _ema(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    return {
        "reduce_channels": shapes.width("decode_head.ema_in_conv.conv", 512),
        "project_channels": shapes.width("decode_head.bottleneck.conv", 256),
        "aggregation_options": {
            "num_bases": shapes.size("decode_head.ema_module.bases", 2, 64),
            "eps": 1e-12,
            "without_mass": "published",
            "unit_update": True,
        },
        **_concatenated(shapes),
    }


@_context
def _psp(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    width = shapes.width("decode_head.bottleneck.conv", 512)
    return {"aggregation_options": {"out_channels": width, "align_corners": align_corners}}


@_context
def _deeplabv3(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    width = shapes.width("decode_head.bottleneck.conv", 512)
    return {"aggregation_options": {"out_channels": width, "project_kernel": 3}}


@_context
def _deeplabv3_plus(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    width = shapes.width("decode_head.bottleneck.conv", 512)
    return {
        "aggregation_options": {"out_channels": width, "project_kernel": 3, "separable": True},
        "decoder_channels": shapes.width("decode_head.sep_bottleneck.1.pointwise_conv.conv", width),
        "decoder_options": {
            "reduced_channels": shapes.width("decode_head.c1_bottleneck.conv", 48),
            "separable": True,
        },
    }


@_context
def _non_local(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    block = "decode_head.nl_block"
    return {
        "reduce_channels": shapes.width("decode_head.convs.0.conv", 512),
        "project_channels": shapes.width("decode_head.convs.1.conv", 512),
        "aggregation_options": {
            "key_channels": shapes.width(f"{block}.phi.conv", 256, (f"{block}.theta.conv.weight", 0)),
            "value_channels": shapes.width(f"{block}.g.conv", 256, (f"{block}.conv_out.conv.weight", 1)),
            "scaled": True,
            "biases": "all",
        },
        **_concatenated(shapes),
    }


@_context
def _psa(shapes: Shapes, align_corners: bool) -> dict[str, Any]:
    cells = shapes.size("decode_head.attention.1.weight", 0, 97**2, ("decode_head.attention_p.1.weight", 0))
    if math.isqrt(cells) ** 2 != cells:
        raise WeightsError(
            f"decode_head.attention.1.weight has windows of {cells} cells, and only square ones can be rebuilt"
        )
    return {
        "aggregation_options": {
            "channels": shapes.width("decode_head.reduce.conv", 512),
            "mask_size": math.isqrt(cells),
            "align_corners": align_corners,
            "shrink_rule": "divisible",
            "outside": "zero_logit",
            "project_padding": 1,
        },
        "project_channels": shapes.width("decode_head.bottleneck.conv", 512),
    }


def _separable(theirs: str, ours: str) -> tuple[tuple[str, str], ...]:
    return (*unit(f"{theirs}.depthwise_conv", f"{ours}.0"), *unit(f"{theirs}.pointwise_conv", f"{ours}.1"))


_HEAD: Final = "decode_head"
_CONCATENATED: Final = unit(f"{_HEAD}.conv_cat", "fuse")
_POOLED: Final = (
    *unit(f"{_HEAD}.image_pool.1", "aggregation.image"),
    *unit(f"{_HEAD}.aspp_modules.0", "aggregation.pointwise"),
    *unit(f"{_HEAD}.bottleneck", "aggregation.project"),
)
#: Theirs has the concatenated deep features, or the image's mean, before what we have first.
_DEEP_FIRST: Final = {"fuse.0.weight": leading(lambda channels: DEEP)}
_MEAN_FIRST: Final = {"aggregation.project.0.weight": leading(lambda channels: channels // 5)}


def _as_runner(tensors: dict[str, Tensor], model: Segmenter) -> dict[str, Any]:
    meta: dict[str, Any] = {"config": configuration(model)}
    if model.classes:
        meta["CLASSES"] = tuple(model.classes)
    if model.palette:
        meta["PALETTE"] = [list(colour) for colour in model.palette]
    return {"meta": meta, "state_dict": tensors}


def _layout(
    name: str,
    title: str,
    model: str,
    mark: str,
    options: Callable[[Shapes, bool], dict[str, Any]],
    *moves: tuple[str, str],
    turns: Mapping[str, Turn] | None = None,
) -> Layout:
    return Layout(
        name=f"openmmlab_{name}",
        title=f"OpenMMLab's {title}",
        model=model,
        marks=(f"{_HEAD}.{mark}",),
        moves=(
            *((f"backbone.stem.{number}.", f"backbone.net.conv1.{number}.") for number in (0, 1, 3, 4, 6)),
            ("backbone.stem.7.", "backbone.net.bn1."),
            *stages("backbone.layer"),
            (f"{_HEAD}.conv_seg.", "classifier."),
            *unit("auxiliary_head.convs.0", "auxiliary.0"),
            ("auxiliary_head.conv_seg.", "auxiliary.2."),
            *moves,
        ),
        turns=turns or {},
        options=options,
        align_corners=None,
        told=told,
        training={"lr": 0.01, "weight_decay": 5e-4, "decay_norm_and_bias": True},
        wrap=_as_runner,
    )


OPENMMLAB: Final = (
    _layout(
        "emanet",
        "EMANet",
        "emanet",
        "ema_module.bases",
        _ema,
        *unit(f"{_HEAD}.ema_in_conv", "reduce"),
        (f"{_HEAD}.ema_module.bases", "aggregation.bases"),
        (f"{_HEAD}.ema_mid_conv.conv.", "aggregation.conv1."),
        *unit(f"{_HEAD}.ema_out_conv", "aggregation.conv2"),
        *unit(f"{_HEAD}.bottleneck", "project"),
        *_CONCATENATED,
        turns={**_DEEP_FIRST, "aggregation.bases": bases},
    ),
    _layout(
        "pspnet",
        "PSPNet",
        "pspnet",
        "psp_modules.0.1.conv.weight",
        _psp,
        *(move for n in range(4) for move in unit(f"{_HEAD}.psp_modules.{n}.1", f"aggregation.levels.{n}")),
        *unit(f"{_HEAD}.bottleneck", "aggregation.fuse"),
    ),
    _layout(
        "deeplabv3_plus",
        "DeepLabV3+",
        "deeplabv3_plus",
        "aspp_modules.1.depthwise_conv.conv.weight",
        _deeplabv3_plus,
        *_POOLED,
        *(m for n in range(3) for m in _separable(f"{_HEAD}.aspp_modules.{n + 1}", f"aggregation.atrous.{n}")),
        *unit(f"{_HEAD}.c1_bottleneck", "decoder.low"),
        *(move for n in range(2) for move in _separable(f"{_HEAD}.sep_bottleneck.{n}", f"decoder.mix.{n}")),
        turns=_MEAN_FIRST,
    ),
    _layout(
        "deeplabv3",
        "DeepLabV3",
        "deeplabv3",
        "aspp_modules.1.conv.weight",
        _deeplabv3,
        *_POOLED,
        *(move for n in range(3) for move in unit(f"{_HEAD}.aspp_modules.{n + 1}", f"aggregation.atrous.{n}")),
        turns=_MEAN_FIRST,
    ),
    _layout(
        "nonlocal",
        "Non-local network",
        "nonlocal_net",
        "nl_block.theta.conv.weight",
        _non_local,
        *unit(f"{_HEAD}.convs.0", "reduce"),
        (f"{_HEAD}.nl_block.theta.conv.", "aggregation.query."),
        (f"{_HEAD}.nl_block.phi.conv.", "aggregation.key."),
        (f"{_HEAD}.nl_block.g.conv.", "aggregation.value."),
        *unit(f"{_HEAD}.nl_block.conv_out", "aggregation.project"),
        *unit(f"{_HEAD}.convs.1", "project"),
        *_CONCATENATED,
        turns=_DEEP_FIRST,
    ),
    _layout(
        "psanet",
        "PSANet",
        "psanet",
        "attention_p.1.weight",
        _psa,
        *unit(f"{_HEAD}.reduce", "aggregation.collect_reduce"),
        *unit(f"{_HEAD}.attention.0", "aggregation.collect_attention.0"),
        (f"{_HEAD}.attention.1.", "aggregation.collect_attention.1."),
        *unit(f"{_HEAD}.reduce_p", "aggregation.distribute_reduce"),
        *unit(f"{_HEAD}.attention_p.0", "aggregation.distribute_attention.0"),
        (f"{_HEAD}.attention_p.1.", "aggregation.distribute_attention.1."),
        *unit(f"{_HEAD}.proj", "aggregation.project"),
        *unit(f"{_HEAD}.bottleneck", "project"),
    ),
)
