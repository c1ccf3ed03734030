"""Assembly: any backbone × aggregation × distribution × arrangement, from parts chosen by name."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from torch import nn

from segcontext.aggregation import AGGREGATIONS, Downsampled
from segcontext.backbone import Backbone
from segcontext.distribution import DISTRIBUTIONS
from segcontext.errors import RecipeError, nearest
from segcontext.heads import AuxiliaryHead, Decoder
from segcontext.layers import ConvNormAct, Normalize
from segcontext.model import Arrangement, LocalInput, Segmenter, SkipInput

__all__ = ["SegmenterOptions", "check_names", "option_names", "segmenter"]

_BACKBONE_OPTIONS = ("first_block", "dilations", "ceil_mode", "bn_momentum", "low_stride", "timm_options")


class SegmenterOptions(TypedDict, total=False):
    """The further options of `segmenter`, which every named network takes and may override its settings with."""

    weights: str | Path | None
    multi_grid: Sequence[int] | None
    backbone_options: Mapping[str, Any]
    aggregation: str
    aggregation_options: Mapping[str, Any]
    aggregation_stride: int
    downsampled_options: Mapping[str, Any]
    distribution: str
    distribution_options: Mapping[str, Any]
    arrangement: Arrangement
    local: LocalInput
    reduce_channels: int | None
    project_channels: int | None
    skip: SkipInput
    fuse_channels: int
    decoder_channels: int | None
    decoder_options: Mapping[str, Any]
    auxiliary: bool
    auxiliary_channels: int
    auxiliary_options: Mapping[str, Any]
    dropout: float
    align_corners: bool
    bgr: bool
    mean: Sequence[float] | None
    std: Sequence[float] | None
    bn_momentum: float | None


def segmenter(
    num_classes: int,
    *,
    backbone: str = "resnet50s",
    output_stride: int = 8,
    pretrained: bool = True,
    weights: str | Path | None = None,
    multi_grid: Sequence[int] | None = None,
    backbone_options: Mapping[str, Any] | None = None,
    aggregation: str = "ema",
    aggregation_options: Mapping[str, Any] | None = None,
    aggregation_stride: int = 1,
    downsampled_options: Mapping[str, Any] | None = None,
    distribution: str = "none",
    distribution_options: Mapping[str, Any] | None = None,
    arrangement: Arrangement = "gald",
    local: LocalInput = "reduced",
    reduce_channels: int | None = 512,
    project_channels: int | None = None,
    skip: SkipInput = "none",
    fuse_channels: int = 512,
    decoder_channels: int | None = None,
    decoder_options: Mapping[str, Any] | None = None,
    auxiliary: bool = False,
    auxiliary_channels: int = 512,
    auxiliary_options: Mapping[str, Any] | None = None,
    dropout: float = 0.1,
    align_corners: bool = True,
    bgr: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bn_momentum: float | None = None,
) -> Segmenter:
    """Any backbone × aggregation × distribution × arrangement.

    Args:
        num_classes: the classes, void not counted.
        backbone: ``"resnet50s"``, ``"resnet101s"``, ``"resnet152s"`` (the papers'), or any timm feature model.
        output_stride: 8, 16 or 32; a backbone that cannot change its stride keeps its own.
        pretrained: whether ImageNet weights are fetched from the hub.
        weights: a local weight file to use instead.
        multi_grid: dilation factors of the last stage's blocks, such as (1, 2, 4). The named networks that have it
            do without on backbones that are no ResNets.
        backbone_options: further options of `Backbone`: first_block, dilations, ceil_mode, bn_momentum, low_stride,
            timm_options.
        aggregation: ``"none"``, ``"psp"``, ``"aspp"``, ``"non_local"``, ``"cgnl"``, ``"psa"``, ``"a2"``, ``"ema"``,
            or the dotted path of a class of your own.
        aggregation_options: options of that class.
        aggregation_stride: 2 aggregates on a map downsampled by two (GALD §III-A).
        downsampled_options: options of `segcontext.aggregation.Downsampled`, which does that: padding, align_corners.
        distribution: ``"none"``, ``"mask"`` (LDv1), ``"affinity"`` (LDv2), or a dotted path.
        distribution_options: options of that class.
        arrangement: ``"gald"``, ``"ldga"`` or ``"parallel"``.
        local: what the distribution takes as local features, ``"reduced"`` or ``"deep"``.
        reduce_channels: width of the 3×3 convolution after the backbone; `None` leaves it out.
        project_channels: width of a 3×3 convolution after the context parts; `None` leaves it out.
        skip: what is concatenated to the context features, ``"none"``, ``"reduced"`` or ``"deep"``.
        fuse_channels: width of the 3×3 convolution after that concatenation.
        decoder_channels: width of a DeepLabV3+ decoder; `None` leaves it out.
        decoder_options: further options of the decoder: reduced_channels, separable.
        auxiliary: whether there is an auxiliary head on the stage before the last.
        auxiliary_channels: its width.
        auxiliary_options: further options of that head: bias, dropout.
        dropout: share of channels dropped before the classifiers.
        align_corners: of all resizing outside the backbone. A part with an option of that name (PSP, PSA, LDv1,
            `Downsampled`, or one of your own) takes it, unless that part's options say otherwise.
        bgr: whether images go in as blue, green, red.
        mean: what is subtracted from images in [0, 1], per RGB channel; `None` takes what the backbone names.
        std: what they are divided by afterwards, likewise.
        bn_momentum: momentum of every batch norm; `None` leaves PyTorch's 0.1.

    Returns:
        The network.

    Raises:
        RecipeError: for an unknown name or option; it names the nearest right one.
        PretrainedUnavailable: where pretrained weights cannot be fetched.
    """
    options = copy.deepcopy({name: value for name, value in locals().items() if name != "num_classes"})
    check_names("backbone option", backbone_options or {}, _BACKBONE_OPTIONS)
    trunk = Backbone(
        backbone,
        output_stride=output_stride,
        pretrained=pretrained,
        weights=weights,
        multi_grid=None if multi_grid is None else tuple(multi_grid),
        **(backbone_options or {}),
    )
    # What no part looks at gets no gradient, which distributed training takes for a mistake.
    used: list[Literal["low", "auxiliary", "deep"]] = ["deep"]
    if auxiliary:
        used.append("auxiliary")
    if decoder_channels is not None:
        used.append("low")
    trunk.freeze_unused(used)
    low, middle, deep = trunk.channels
    reduce = None if reduce_channels is None else ConvNormAct(deep, reduce_channels, kernel_size=3)
    reduced = deep if reduce_channels is None else reduce_channels
    local_channels = deep if local == "deep" else reduced
    common = {"align_corners": align_corners}

    def aggregate(channels: int) -> nn.Module:
        given = dict(aggregation_options or {})
        if aggregation == "aspp":
            # DeepLabV3 §3.3: the rates count pixels of the feature map, so they follow the stride.
            given.setdefault("rates", tuple(max(1, rate * 8 // trunk.output_stride) for rate in (12, 24, 36)))
        part = _make("aggregation", aggregation, AGGREGATIONS, (channels,), given, common)
        if aggregation_stride == 2 and aggregation != "none":
            part = _build("downsampled", Downsampled, (part, channels), downsampled_options, common)
        return part

    def distribute(channels: int) -> nn.Module:
        sizes = (channels, local_channels)
        return _make("distribution", distribution, DISTRIBUTIONS, sizes, distribution_options, common)

    if aggregation_stride not in (1, 2):
        raise RecipeError(f"aggregation_stride must be 1 or 2, not {aggregation_stride}.")
    for name, numbers in (("mean", mean), ("std", std)):
        if numbers is not None and len(numbers) != 3:
            raise RecipeError(f"{name} must be three numbers, for red, green and blue, not {list(numbers)}.")
    if arrangement == "ldga":
        second = distribute(reduced)
        first = aggregate(_width(second))
        width = _width(first)
    else:
        first = aggregate(reduced)
        second = distribute(_width(first) if arrangement == "gald" else reduced)
        width = _width(second) + (_width(first) if arrangement == "parallel" else 0)
    project = None if project_channels is None else ConvNormAct(width, project_channels, kernel_size=3)
    width = width if project_channels is None else project_channels
    fuse = None
    if skip != "none":
        fuse = ConvNormAct(width + (deep if skip == "deep" else reduced), fuse_channels, kernel_size=3)
        width = fuse_channels
    decoder = None
    if decoder_channels is not None:
        decoder = _build("decoder", Decoder, (width, low), {**(decoder_options or {}), "channels": decoder_channels})
    head = None
    if auxiliary:
        given = {"dropout": dropout, **(auxiliary_options or {}), "channels": auxiliary_channels}
        head = _build("auxiliary head", AuxiliaryHead, (middle, num_classes), given)
    model = Segmenter(
        trunk,
        first,
        second,
        num_classes=num_classes,
        reduce=reduce,
        arrangement=arrangement,
        local=local,
        project=project,
        skip=skip,
        fuse=fuse,
        decoder=decoder,
        auxiliary=head,
        dropout=dropout,
        normalize=Normalize(trunk.mean if mean is None else mean, trunk.std if std is None else std, bgr=bgr),
        align_corners=align_corners,
    )
    if bn_momentum is not None:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = bn_momentum
    model.options = options
    return model


def option_names() -> tuple[str, ...]:
    """The names of every option of `segmenter`."""
    return tuple(name for name in inspect.signature(segmenter).parameters if name != "num_classes")


def _make(
    kind: str,
    name: str,
    known: Mapping[str, type[nn.Module]],
    arguments: tuple[int, ...],
    options: Mapping[str, Any] | None,
    common: Mapping[str, Any],
) -> nn.Module:
    """One part by its name or dotted class path, with an error that names the nearest right option."""
    return _build(f"{kind} '{name}'", known.get(name) or _imported(kind, name, known), arguments, options, common)


def _build(
    what: str,
    part: type[nn.Module],
    arguments: tuple[Any, ...],
    options: Mapping[str, Any] | None,
    common: Mapping[str, Any] | None = None,
) -> nn.Module:
    """One part of a class, with the same errors; of the common settings it takes those that it has options for."""
    accepted = inspect.signature(part).parameters
    given = {name: value for name, value in (common or {}).items() if name in accepted} | dict(options or {})
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        check_names(f"option of {what}", given, list(accepted)[len(arguments) :])
    try:
        return part(*arguments, **given)
    except TypeError as error:
        raise RecipeError(f"{what} cannot be built with the options {given}: {error}.") from error


def check_names(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Refuses names that are not known, with the nearest one that is.

    Args:
        what: what the names are, for the message.
        given: the names.
        known: the right ones.

    Raises:
        RecipeError: for the first wrong name.
    """
    for name in given:
        if name not in known:
            hint = nearest(name, known) or f" Known: {', '.join(known) or 'none'}."
            raise RecipeError(f"There is no {what} called '{name}'.{hint}")


def _imported(kind: str, name: str, known: Mapping[str, type[nn.Module]]) -> type[nn.Module]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise RecipeError(
            f"There is no {kind} '{name}'.{nearest(name, known)} Known: {', '.join(known)}, or a dotted class path."
        )
    try:
        part = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError) as error:
        raise RecipeError(f"{kind} '{name}' cannot be imported: {error}.") from error
    if not (isinstance(part, type) and issubclass(part, nn.Module)):
        raise RecipeError(f"{kind} '{name}' must be a class derived from torch.nn.Module.")
    return part


def _width(part: nn.Module) -> int:
    return int(part.out_channels)  # type: ignore[arg-type]
