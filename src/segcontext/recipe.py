"""The recipe: everything that defines a training run, flat, one key per line of a YAML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml

from segcontext.errors import RecipeError, nearest
from segcontext.recipe_file import read_recipe
from segcontext.recipe_values import check_ranges, coerce

__all__ = ["Recipe"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that defines a training run. The defaults follow EMANet's recipe; each key overrides one.

    Args:
        data: the folder of a data set, or ``demo`` for the embedded street scenes.
        data_root: where a relative `data` lies, of this recipe and of those it comes after; empty: where one works.
        dataset: ``auto`` recognises the folder's layout; or a data set's name, or the dotted path of a class.
        train_split: the split to train on.
        val_split: the split to validate on.
        model: a named network (fcn, pspnet, deeplabv3, deeplabv3_plus, nonlocal_net, cgnl_net, psanet, a2net, emanet,
            galdnet_v1, galdnet_v2), or ``segmenter`` to choose every part.
        backbone: resnet50s, resnet101s, resnet152s, or any timm feature model.
        output_stride: stride of the deep features: 8, 16 or 32.
        pretrained: whether ImageNet weights are fetched from the hub.
        weights: a local file of backbone weights, used instead of fetching them.
        aggregation: none, psp, aspp, non_local, cgnl, psa, a2, ema, or a dotted class path; empty keeps the model's.
        aggregation_options: options of the aggregation, such as {num_bases: 64, iterations: 3}.
        distribution: none, mask (LDv1), affinity (LDv2), or a dotted class path; empty keeps the model's.
        distribution_options: options of the distribution, such as {kernel_size: 5, dilation: 3}.
        arrangement: gald, ldga or parallel; empty keeps the model's.
        model_options: further options of the network, such as {reduce_channels: 256, auxiliary: true}.
        after: another recipe file, relative to this one, that is trained first, into the folder ``before`` of the run;
            this one starts from its last weights.
        init: a run folder or weight file of segcontext to start from.
        init_classifier: whether the classifiers are taken over too; false where the classes differ.
        steps: optimizer steps.
        epochs: passes over the training split; above 0 they count instead of `steps`.
        batch: images in one optimizer step, over all processes and micro-batches together.
        accumulate: micro-batches that one optimizer step is split into, to save memory.
        crop: crop of the training images, in pixels: one side, or height and width.
        scale: smallest and largest factor of the random scaling.
        scale_step: distance between the scales drawn from; 0 draws any scale.
        flip: probability of a horizontal flip.
        color_jitter: strength of random brightness, contrast, saturation and hue; the papers use none (0).
        optimizer: sgd (the papers') or adamw.
        lr: the initial learning rate.
        momentum: of SGD.
        weight_decay: of the weights.
        power: exponent of the poly schedule, lr·(1 − step/steps)^power.
        warmup: steps of linear warm-up before it.
        head_lr_factor: learning rate of everything beside the backbone, as a multiple of `lr`.
        bias_lr_factor: learning rate of biases, as a multiple (2 in EMANet's code).
        decay_norm_and_bias: whether biases and batch norms decay too (false in EMANet's code, true in GALD's).
        clip_gradient: largest gradient norm; 0 does not clip.
        loss: cross_entropy or ohem.
        ohem_threshold: pixels whose true class has at most this probability are hard.
        ohem_min_kept: the least number of hard pixels that are kept.
        ohem_scope: process (as published) or global (independent of the number of processes).
        loss_average: valid divides by the valid pixels of the whole step, all by all its pixels (EMANet's code).
        auxiliary_weight: weight of the auxiliary head's loss, where the network has that head.
        class_weights: none, median_frequency, inverse_log or inverse_sqrt, computed from the training labels; or one
            number per class.
        bn_momentum: momentum of batch norm (EMANet's code: 3e-4, from pretrained weights only).
        freeze_bn: whether batch norm keeps its running statistics in training.
        sync_bn: whether batch norm is synchronised over several GPUs.
        weight_averaging: decay of an exponential average of the weights, which is then what is validated and kept as
            best; 0 keeps none.
        precision: ``32`` or ``bf16``.
        channels_last: whether maps are stored channels-last.
        compile: whether the network is compiled (`torch.compile`), which takes a minute or more at the first step;
            where that cannot be done it trains uncompiled and logs it.
        padding: stride_plus_one pads images in validation and later use until each side is 1 modulo the stride, as
            EMANet's authors do at evaluation; none leaves them.
        test_protocol: how ``segcontext evaluate``, ``submit`` and ``predict`` ask the network where they are not told
            otherwise: any of mode, window, overlap, blend, context, thumbnail, scales, flip, average, padding,
            output_stride and iterations. Validation during the run takes the whole image once.
        val_every: steps between validations; 0 validates ten times, evenly spread (a run of fewer steps at each).
        val_limit: validate on this many images, spread over the split; 0 takes all.
        checkpoint_every: steps between saved training states.
        seed: of every random draw.
        workers: processes that load data, for each training process.
        cache: where decoded images and masks are kept, so that each is decoded once: a folder; auto for the user's
            cache folder (``~/.cache/segcontext/pixels``); none (the default) writes nothing. A 1024 × 2048 image with
            its mask takes 8.4 MB.
        cache_size: the most that all of it may take, in GB; beyond that images are decoded each time.
        devices: processes to train with, or GPUs.
        accelerator: auto, cpu or gpu.

    Raises:
        RecipeError: for a value out of range or of the wrong type.
    """

    data: str
    data_root: str | None = None
    dataset: str = "auto"
    train_split: str = "train"
    val_split: str = "val"
    model: str = "emanet"
    backbone: str = "resnet50s"
    output_stride: int = 8
    pretrained: bool = True
    weights: str | None = None
    aggregation: str | None = None
    aggregation_options: dict[str, Any] = field(default_factory=dict)
    distribution: str | None = None
    distribution_options: dict[str, Any] = field(default_factory=dict)
    arrangement: str | None = None
    model_options: dict[str, Any] = field(default_factory=dict)
    after: str | None = None
    init: str | None = None
    init_classifier: bool = True
    steps: int = 30_000
    epochs: float = 0.0
    batch: int = 16
    accumulate: int = 1
    crop: int | list[int] = 513
    scale: list[float] = field(default_factory=lambda: [0.5, 2.0])
    scale_step: float = 0.0
    flip: float = 0.5
    color_jitter: float = 0.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.009
    momentum: float = 0.9
    weight_decay: float = 1e-4
    power: float = 0.9
    warmup: int = 0
    head_lr_factor: float = 1.0
    bias_lr_factor: float = 1.0
    decay_norm_and_bias: bool = False
    clip_gradient: float = 0.0
    loss: Literal["cross_entropy", "ohem"] = "cross_entropy"
    ohem_threshold: float = 0.7
    ohem_min_kept: int = 100_000
    ohem_scope: Literal["process", "global"] = "process"
    loss_average: Literal["valid", "all"] = "valid"
    auxiliary_weight: float = 0.4
    class_weights: Literal["none", "median_frequency", "inverse_log", "inverse_sqrt"] | list[float] = "none"
    bn_momentum: float = 0.1
    freeze_bn: bool = False
    sync_bn: bool = True
    weight_averaging: float = 0.0
    precision: Literal["32", "bf16"] = "32"
    channels_last: bool = True
    compile: bool = False
    padding: Literal["none", "stride_plus_one"] = "none"
    test_protocol: dict[str, Any] = field(default_factory=dict)
    val_every: int = 0
    val_limit: int = 0
    checkpoint_every: int = 500
    seed: int = 0
    workers: int = 2
    cache: str = "none"
    cache_size: float = 50.0
    devices: int = 1
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in hints:
            object.__setattr__(self, name, coerce(name, getattr(self, name), hints[name]))
        check_ranges({name: getattr(self, name) for name in hints})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], *, source: str = "the recipe") -> Recipe:
        """Builds a recipe from keys and values.

        Args:
            values: what a YAML file held.
            source: what to call it in errors.

        Returns:
            The recipe.

        Raises:
            RecipeError: for an unknown or missing key; it names the nearest right one.
        """
        names = [item.name for item in dataclasses.fields(cls)]
        for key in values:
            if key not in names:
                raise RecipeError(f"{source} has an unknown key '{key}'.{nearest(str(key), names)}")
        if "data" not in values:
            raise RecipeError(f"{source} does not say what to train on: give it the key 'data', a folder or 'demo'.")
        return cls(**values)

    @classmethod
    def load(cls, path: str | Path, **overrides: Any) -> Recipe:
        """Reads a flat YAML file.

        Args:
            path: the file, or the name of a recipe that comes with the package, such as ``camvid_cpu``.
            overrides: keys that replace those of the file.

        Returns:
            The recipe.

        Raises:
            RecipeError: where the file is missing, no flat YAML, or holds an unknown key.
        """
        return cls.from_mapping({**read_recipe(path), **overrides}, source=str(path))

    def save(self, path: str | Path, *, header: str = "") -> None:
        """Writes every key, so that the file alone repeats the run.

        Args:
            path: where to.
            header: lines of comment for the top.
        """
        comment = "".join(f"# {line}\n" for line in header.splitlines())
        text = yaml.safe_dump(dataclasses.asdict(self), sort_keys=False, default_flow_style=None, width=110)
        Path(path).write_text(comment + text, encoding="utf-8")

    @property
    def data_path(self) -> str:
        """Where the data lie: `data` below `data_root`."""
        if self.data_root is None or self.data == "demo":
            return self.data
        return str(Path(self.data_root) / self.data)

    def absolute(self) -> Recipe:
        """The same recipe with absolute paths, which mean the same from any working directory."""
        given = {name: getattr(self, name) for name in ("data_root", "after", "init", "weights")}
        if self.data_root is None and self.data != "demo":
            given["data"] = self.data
        given["cache"] = None if self.cache in ("auto", "none") else self.cache
        absolute: dict[str, Any] = {name: str(Path(path).absolute()) for name, path in given.items() if path}
        return dataclasses.replace(self, **absolute)

    def before(self) -> Recipe | None:
        """The recipe that is to be trained first, or `None`. It is run where this one is, on as many processes."""
        if self.after is None:
            return None
        return Recipe.load(
            self.after,
            **{name: getattr(self, name) for name in ("workers", "devices", "accelerator", "cache", "cache_size")},
            **{name: value for name in ("data_root", "weights") if (value := getattr(self, name))},
        )

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of the training crops, in pixels."""
        return (self.crop[0], self.crop[-1]) if isinstance(self.crop, list) else (self.crop, self.crop)

    def network(self) -> dict[str, Any]:
        """The options for `segcontext.zoo.build`; keys left empty stay with the named network's settings."""
        options: dict[str, Any] = {
            "backbone": self.backbone,
            "output_stride": self.output_stride,
            "pretrained": self.pretrained,
            "weights": self.weights,
            "bn_momentum": self.bn_momentum,
        }
        for name in ("aggregation", "distribution", "arrangement"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        for name in ("aggregation_options", "distribution_options"):
            if getattr(self, name):
                options[name] = getattr(self, name)
        clash = sorted(set(options) & set(self.model_options))
        if clash:
            raise RecipeError(f"model_options repeats keys that the recipe has of its own: {', '.join(clash)}.")
        return {**options, **self.model_options}
