"""The Segmenter: joins injected parts, nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from segcontext.errors import RecipeError, ShapeError
from segcontext.layers import Normalize
from segcontext.types import Context, Features, Output, Stages

__all__ = [
    "Arrangement",
    "LocalInput",
    "Segmenter",
    "SkipInput",
    "options_at_stride",
    "update_bases",
]

Arrangement: TypeAlias = Literal["gald", "ldga", "parallel"]
LocalInput: TypeAlias = Literal["reduced", "deep"]
SkipInput: TypeAlias = Literal["none", "reduced", "deep"]


class Segmenter(nn.Module):
    """Backbone → reduce → aggregation → distribution → project → fuse → decode → classify.

    Every part is handed in ready-made and knows its `out_channels`; the Segmenter checks that they fit, runs them in
    the chosen arrangement and adds the 1×1 classifier. To assemble parts by name use `segcontext.segmenter` or one of
    the named builders.

    Args:
        backbone: image → `Features`; has `channels` (low, auxiliary, deep).
        aggregation: (B, C, h, w) → `Context`; has `in_channels` and `out_channels`.
        distribution: (aggregated, local) → `Context`; has `in_channels`, `local_channels` and `out_channels`.
        num_classes: the classes, void not counted.
        reduce: what stands between the backbone and the context parts; `None` hands the deep features on as they are.
        arrangement: ``"gald"``: aggregation, then distribution (GALD's default); ``"ldga"``: distribution first;
            ``"parallel"``: both on the same input, concatenated (GALD Fig. 6).
        local: what the distribution sees as local features: the reduced or the deep ones. Under ``"ldga"`` and
            ``"parallel"`` nothing was aggregated yet: the reduced features stand in for the aggregated ones.
        project: an optional convolution after the context parts.
        skip: what is concatenated to the context features before `fuse` (GALD eq. 3).
        fuse: the convolution after that concatenation; required with a skip.
        decoder: an optional decoder on the stride-4 features.
        auxiliary: an optional head on the backbone's auxiliary features, run where its logits are asked for.
        dropout: share of channels dropped before the classifier in training.
        normalize: applied to the images.
        align_corners: of the decoder's and the logits' upsampling (True in the papers' code); the aggregation and the
            distribution have been built with their own.
        classes: class names, for those who use the model later.
        palette: an RGB colour per class.

    Shape:
        images (B, 3, H, W), RGB, uint8 or floats in [0, 1], of any size.

    Raises:
        ShapeError: where channels of neighbouring parts differ; it names both.
        RecipeError: for an unknown arrangement, local or skip input.
    """

    def __init__(
        self,
        backbone: nn.Module,
        aggregation: nn.Module,
        distribution: nn.Module,
        *,
        num_classes: int,
        reduce: nn.Module | None = None,
        arrangement: Arrangement = "gald",
        local: LocalInput = "reduced",
        project: nn.Module | None = None,
        skip: SkipInput = "none",
        fuse: nn.Module | None = None,
        decoder: nn.Module | None = None,
        auxiliary: nn.Module | None = None,
        dropout: float = 0.1,
        normalize: nn.Module | None = None,
        align_corners: bool = True,
        classes: Sequence[str] = (),
        palette: Sequence[tuple[int, int, int]] = (),
    ) -> None:
        super().__init__()
        _check_choice("arrangement", arrangement, ("gald", "ldga", "parallel"))
        _check_choice("local", local, ("reduced", "deep"))
        _check_choice("skip", skip, ("none", "reduced", "deep"))
        if num_classes < 1:
            raise RecipeError(f"num_classes must be at least 1, not {num_classes}.")
        deep = _channels(backbone, "channels")[-1]
        reduced = deep if reduce is None else _width(reduce, "reduce")
        _check_fit("reduce", reduce, deep, "the backbone's deep features")
        width = _join(arrangement, aggregation, distribution, reduced, deep if local == "deep" else reduced)
        _check_fit("project", project, width, "the context features")
        width = width if project is None else _width(project, "project")
        if (fuse is None) != (skip == "none"):
            raise RecipeError(f"A skip needs a fuse and a fuse a skip, but skip is {skip!r} and fuse is {fuse}.")
        if fuse is not None:
            _check_fit("fuse", fuse, width + (deep if skip == "deep" else reduced), "context features and skip")
            width = _width(fuse, "fuse")
        if decoder is not None:
            _check_fit("decoder", decoder, width, "the context features")
            width = _width(decoder, "decoder")

        self.normalize = Normalize() if normalize is None else normalize
        self.backbone = backbone
        self.reduce = nn.Identity() if reduce is None else reduce
        self.aggregation = aggregation
        self.distribution = distribution
        self.project = nn.Identity() if project is None else project
        self.fuse = fuse
        self.decoder = decoder
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, 1)
        self.auxiliary = auxiliary
        self.arrangement: Arrangement = arrangement
        self.local: LocalInput = local
        self.skip: SkipInput = skip
        self.align_corners = align_corners
        self.num_classes = num_classes
        self.classes = tuple(classes)
        self.palette = tuple(palette)
        #: How images are padded in use unless a protocol says otherwise: ``"none"`` or ``"stride_plus_one"``.
        self.padding = "none"
        #: What `segcontext.zoo.segmenter` was called with, so that a checkpoint can build the model again.
        self.options: dict[str, Any] = {}

    def forward(self, images: Tensor, *, evidence: bool = False, auxiliary: bool = False) -> Output:
        """Segments images.

        Args:
            images: (B, 3, H, W), RGB, uint8 in 0..255 or floats in [0, 1].
            evidence: whether the attending parts say what they attended to, and the maps between the parts are kept.
            auxiliary: whether the auxiliary head runs, where the network has one; training asks for it.

        Returns:
            An `Output` in every mode; `Output.logits` is (B, classes, H, W).

        Raises:
            ShapeError: for anything that is not a batch of three-channel images, in uint8 or floats.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ShapeError(f"Expected images (B, 3, H, W), RGB, but they are {tuple(images.shape)}.")
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ShapeError(f"Expected images in uint8 (0..255) or floats in [0, 1], but they are {images.dtype}.")
        features: Features = self.backbone(self.normalize(images))
        reduced = self.reduce(features.deep)
        local = features.deep if self.local == "deep" else reduced
        if self.arrangement == "ldga":
            distributed: Context = self.distribution(reduced, local, evidence=evidence)
            aggregated: Context = self.aggregation(distributed.features, evidence=evidence)
            x = aggregated.features
        else:
            aggregated = self.aggregation(reduced, evidence=evidence)
            given = aggregated.features if self.arrangement == "gald" else reduced
            distributed = self.distribution(given, local, evidence=evidence)
            x = distributed.features
            if self.arrangement == "parallel":
                x = torch.cat([aggregated.features, x], 1)
        x = self.project(x)
        if self.fuse is not None:
            x = self.fuse(torch.cat([x, features.deep if self.skip == "deep" else reduced], 1))
        if self.decoder is not None:
            x = self.decoder(x, features.low, align_corners=self.align_corners)
        stages = Stages(features.deep, reduced, aggregated.features, distributed.features, x) if evidence else None
        return Output(
            features_logits=self.classifier(self.dropout(x)),
            size=(images.shape[-2], images.shape[-1]),
            align_corners=self.align_corners,
            auxiliary=self.auxiliary(features.auxiliary) if auxiliary and self.auxiliary is not None else None,
            aggregation=aggregated.evidence,
            distribution=distributed.evidence,
            stages=None if stages is None else Stages(*(stage.detach() for stage in stages)),
        )


@runtime_checkable
class KeepsBases(Protocol):
    """A part whose bases move once per optimizer step."""

    def update_bases(self) -> int:
        """Moves them; returns how many had no mass."""
        ...


def update_bases(model: nn.Module) -> int:
    """Moves the bases of every EMA unit in a model; call it once after each optimizer step, on every rank.

    Args:
        model: any module that holds parts with an `update_bases` method.

    Returns:
        How many bases had no mass since the last call, over all units, images and ranks.

    Example:
        >>> # in a training loop of your own:
        >>> # optimizer.step()
        >>> # segcontext.update_bases(model)
    """
    return sum(module.update_bases() for module in model.modules() if isinstance(module, KeepsBases))


@runtime_checkable
class CountsPixels(Protocol):
    """A part with options in pixels of the feature map, which mean another distance at another output stride."""

    def options_at_stride(self, options: Mapping[str, Any], *, trained: int, now: int) -> dict[str, Any]:
        """The part's options for another stride than that of the training; logs what it cannot scale."""
        ...


def options_at_stride(model: Segmenter, options: Mapping[str, Any], *, trained: int) -> dict[str, Any]:
    """The options of a network that is to run at another output stride than it was trained at.

    Another stride makes the feature map finer or coarser, and what counts pixels of that map would reach less or more
    far in the image. Where no weights hang on it, it is scaled, so that it keeps its extent in the image: the rates of
    ASPP (DeepLabV3 §3.3), the dilation of LDv2, the shrinking before PSA, and the ratio of an LDv1 that shrinks the map
    without weights. LDv1's depthwise convolutions are learned and stay as they are, which is logged. A part of your own
    is asked by a method `options_at_stride`.

    Args:
        model: the network as built for the new stride; its backbone may have kept its own whatever was asked for.
        options: of `segcontext.segmenter`, with which it was built.
        trained: the output stride of the training.

    Returns:
        The options to build it with anew, which are the same where nothing has to change.

    Note:
        Ours; the papers evaluate LDv1, LDv2 and PSA at the stride of their training. Numbers of pixels are rounded to
        the nearest whole one, halves up: from stride 8 to 16, LDv2's default dilation 3 becomes 2.
    """
    found, now = dict(options), getattr(model.backbone, "output_stride", trained)
    aggregation = getattr(model.aggregation, "inner", model.aggregation)
    for name, part in (("aggregation_options", aggregation), ("distribution_options", model.distribution)):
        if now == trained or not isinstance(part, CountsPixels):
            continue
        given = options.get(name) or {}
        changed = part.options_at_stride(given, trained=trained, now=now)
        if changed != given:
            found[name] = changed
    return found


def _join(arrangement: Arrangement, aggregation: nn.Module, distribution: nn.Module, reduced: int, local: int) -> int:
    """Checks the two context parts against their inputs and returns the width of what they give together."""
    aggregated, distributed = _width(aggregation, "aggregation"), _width(distribution, "distribution")
    first, second = ("the reduced features", "the reduced features")
    given, handed = reduced, reduced
    if arrangement == "gald":
        handed, second = aggregated, "the aggregated features"
    elif arrangement == "ldga":
        given, first = distributed, "the distributed features"
    _check_fit("aggregation", aggregation, given, first)
    _check_fit("distribution", distribution, handed, second)
    expected = getattr(distribution, "local_channels", local)
    if expected != local:
        raise ShapeError(f"The distribution expects {expected} local channels, but they are {local}.")
    return {"gald": distributed, "ldga": aggregated, "parallel": aggregated + distributed}[arrangement]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def _check_fit(name: str, part: nn.Module | None, channels: int, source: str) -> None:
    expected = getattr(part, "in_channels", channels)
    if expected != channels:
        raise ShapeError(f"{name} expects {expected} channels, but {source} have {channels}: give both the same.")


def _width(part: nn.Module, name: str) -> int:
    width = getattr(part, "out_channels", None)
    if not isinstance(width, int):
        raise ShapeError(f"{name} ({type(part).__name__}) must say its width in an integer attribute out_channels.")
    return width


def _channels(part: nn.Module, attribute: str) -> tuple[int, ...]:
    channels = getattr(part, attribute, None)
    if not isinstance(channels, tuple) or len(channels) != 3:
        raise ShapeError(
            f"The backbone ({type(part).__name__}) must say its widths in channels = (low, auxiliary, deep)."
        )
    return channels
