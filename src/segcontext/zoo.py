"""Named networks with the papers' settings, all assembled by `segcontext.segmenter`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Unpack

from segcontext.assembly import SegmenterOptions, check_names, option_names, segmenter
from segcontext.backbone import is_resnet
from segcontext.errors import RecipeError, nearest
from segcontext.model import Segmenter

__all__ = [
    "a2net",
    "build",
    "cgnl_net",
    "deeplabv3",
    "deeplabv3_plus",
    "emanet",
    "fcn",
    "galdnet_v1",
    "galdnet_v2",
    "nonlocal_net",
    "psanet",
    "pspnet",
    "segmenter",
]

_RESNET_ONLY = ("multi_grid", "backbone_options")


def fcn(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """FCN on a dilated backbone: the baseline without context, a 3×3 convolution and the classifier."""
    return _preset(num_classes, (backbone, output_stride, pretrained), options, aggregation="none")


def pspnet(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """PSPNet (Zhao et al. 2017): pyramid pooling on the deep features, with the auxiliary head."""
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="psp",
        reduce_channels=None,
        auxiliary=True,
    )


def deeplabv3(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """DeepLabV3 (Chen et al. 2017): ASPP on the deep features, multi-grid (1, 2, 4).

    Note:
        No 3×3 convolution after the projection, the variant that EMANet's Table 1 counts (15.5M beyond the
        backbone); ``project_channels=256`` adds the one that torchvision and OpenMMLab have.
    """
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="aspp",
        reduce_channels=None,
        multi_grid=(1, 2, 4),
    )


def deeplabv3_plus(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """DeepLabV3+ (Chen et al. 2018): DeepLabV3 with a decoder on the stride-4 features."""
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="aspp",
        reduce_channels=None,
        multi_grid=(1, 2, 4),
        decoder_channels=256,
    )


def nonlocal_net(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """Non-local network (Wang et al. 2018) for segmentation: one block on the reduced features."""
    return _preset(num_classes, (backbone, output_stride, pretrained), options, aggregation="non_local")


def cgnl_net(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """Compact generalised non-local network (Yue et al. 2018): one block on the reduced features."""
    return _preset(num_classes, (backbone, output_stride, pretrained), options, aggregation="cgnl")


def psanet(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """PSANet (Zhao et al. 2018): collect and distribute attention on the deep features, with the auxiliary head."""
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="psa",
        reduce_channels=None,
        auxiliary=True,
        project_channels=512,
    )


def a2net(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """Double attention network (Chen et al. 2018) for segmentation: one block on the reduced features."""
    return _preset(num_classes, (backbone, output_stride, pretrained), options, aggregation="a2")


def emanet(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """EMANet (Li et al. 2019): the EMA unit on the reduced features, multi-grid (1, 2, 4).

    Note:
        Has the 3×3 convolution to 256 channels before the classifier, as the published code and weights do;
        ``project_channels=None`` gives the variant that the paper's Table 1 counts. The rest is the published code's,
        too, but for bases without mass, see `segcontext.aggregation.EMA`. OpenMMLab's EMANet is another variant (no
        multi-grid, a narrower stem, a convolution over context and deep features together).
        `segcontext.import_weights` builds either to the digit.
    """
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="ema",
        multi_grid=(1, 2, 4),
        project_channels=256,
    )


def galdnet_v1(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """GALDNet v1 (Li et al. 2019 BMVC): CGNL on a map downsampled by two, LDv1, fused with the deep features.

    Note:
        Dilations (every block of the last two stages; 4, 8, 16 in the last) and the max-pool that rounds up are the
        published code's. So is the mask's residual, (M ⊙ X + X) + X: where the mask is one, it triples the aggregated
        features, while eq. 2, M ⊙ X + X, doubles them. The code is the default since it is the one form of the network
        that the authors published; ``distribution_options={"residual": "paper"}`` gives eq. 2.
        Unlike there, the depthwise convolutions are padded, so that maps of every size will do, the auxiliary head's
        convolution has no bias, and images go in as RGB with ImageNet's mean and deviation. The published network to
        the digit, as `segcontext.import_weights` builds it, has ``downsampled_options={"padding": 0}``,
        ``distribution_options={"padding": 0}``, ``auxiliary_options={"bias": True}``, and BGR images without division.
    """
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="cgnl",
        aggregation_stride=2,
        distribution="mask",
        distribution_options={"residual": "published"},
        project_channels=512,
        skip="deep",
        auxiliary=True,
        multi_grid=(1, 2, 4),
        backbone_options={"first_block": "same", "ceil_mode": True},
    )


def galdnet_v2(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    **options: Unpack[SegmenterOptions],
) -> Segmenter:
    """GALDNet v2 (Li et al. 2021): ASPP on the deep features, LDv2, fused with the deep features.

    Note:
        No code of v2 was published; the backbone's dilations are those of the authors' code of v1.
    """
    return _preset(
        num_classes,
        (backbone, output_stride, pretrained),
        options,
        aggregation="aspp",
        distribution="affinity",
        local="deep",
        reduce_channels=None,
        skip="deep",
        auxiliary=True,
        multi_grid=(1, 2, 4),
        backbone_options={"first_block": "same", "ceil_mode": True},
    )


BUILDERS: Mapping[str, Callable[..., Segmenter]] = {
    builder.__name__: builder
    for builder in (
        segmenter,
        fcn,
        pspnet,
        deeplabv3,
        deeplabv3_plus,
        nonlocal_net,
        cgnl_net,
        psanet,
        a2net,
        emanet,
        galdnet_v1,
        galdnet_v2,
    )
}


def build(model: str, num_classes: int, options: Mapping[str, Any] | None = None) -> Segmenter:
    """Builds a network by name.

    Args:
        model: a named network of this file, or ``"segmenter"``.
        num_classes: the classes.
        options: options of `segmenter`; they override the network's settings.

    Returns:
        The network.

    Raises:
        RecipeError: for an unknown network or option; it names the nearest right one.

    Example:
        >>> build("emanet", 11, {"backbone": "resnet18", "pretrained": False}).num_classes
        11
    """
    if model not in BUILDERS:
        raise RecipeError(f"There is no model '{model}'.{nearest(model, BUILDERS)} Known: {', '.join(BUILDERS)}.")
    check_names("model option", options or {}, option_names())
    return BUILDERS[model](num_classes, **dict(options or {}))


def _preset(num_classes: int, trunk: tuple[str, int, bool], options: SegmenterOptions, **preset: Any) -> Segmenter:
    """`segmenter` with a network's settings below the caller's options."""
    check_names("model option", options, option_names())
    backbone, output_stride, pretrained = trunk
    of_backbone = options.get("backbone_options") or {}
    if not is_resnet(backbone) or "dilations" in of_backbone:
        # The settings of the papers' ResNets mean nothing to other families; asked for expressly, they are refused.
        # Dilations block by block leave nothing of them to say.
        preset = {name: value for name, value in preset.items() if name not in _RESNET_ONLY}
    merged: dict[str, Any] = {**preset, **options}
    if "backbone_options" in preset:
        merged["backbone_options"] = {**preset["backbone_options"], **of_backbone}
    for part in ("aggregation", "distribution"):
        # A part's options are that part's own: another part in its place starts from its own defaults.
        if merged.get(part) == preset.get(part):
            own, given = preset.get(f"{part}_options", {}), dict(options).get(f"{part}_options")
            merged[f"{part}_options"] = {**own, **(given or {})}  # type: ignore[dict-item]
        elif f"{part}_options" not in options:
            merged.pop(f"{part}_options", None)
    return segmenter(num_classes, backbone=backbone, output_stride=output_stride, pretrained=pretrained, **merged)
