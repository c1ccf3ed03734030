"""The backbone: any timm feature model, image in, three channels-first maps out.

The papers use deep-stem ResNets (`resnet50s`, `resnet101s`, `resnet152s` in timm) whose last stages are dilated instead
of strided. `segcontext.backbone_creation` asks timm for the network, `segcontext.backbone_dilations` sets the dilations
that timm has no option for, `segcontext.backbone_weights` loads the weights; this file puts them together and freezes
what none of the three maps depends on.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext import backbone_weights
from segcontext.backbone_creation import create, pick
from segcontext.backbone_dilations import set_dilations
from segcontext.errors import RecipeError, ShapeError
from segcontext.types import Features

__all__ = ["Backbone", "is_resnet"]

_logger = logging.getLogger(__name__)


def is_resnet(name: str) -> bool:
    """Whether a timm name belongs to the ResNet family, whose stages take multi-grid and dilations of one's own.

    Args:
        name: a timm name, with or without a pretrained tag.

    Returns:
        True for ResNet, ResNeXt, wide and squeeze-excitation ResNets; False for anything else, unknown names too.
    """
    return timm.models.is_model_in_modules(name.split(".")[0], ["resnet"])


class Backbone(nn.Module):
    """A timm network that hands on its low, auxiliary and deep maps, always channels-first.

    Source: EMANet §6.1 and GALD §IV-B, IV-C3 for the dilated ResNets; multi-grid is DeepLabV3's (arXiv:1706.05587).

    With `first_block="previous"` the first block of a dilated stage keeps the dilation of the stage before it, as timm,
    torchvision and EMANet do; with ``"same"`` it is dilated like the others. `multi_grid` multiplies the dilation of
    the last stage block by block. What comes out for ResNet-50, 101 and 152, third and fourth stage:

    | output stride | `multi_grid` | `first_block` | third | fourth | as in |
    |---|---|---|---|---|---|
    | 8 | none | previous | 1, 2, 2, … | 2, 4, 4 | timm |
    | 8 | (1, 2, 4) | previous | 1, 2, 2, … | 2, 8, 16 | EMANet's code |
    | 16 | (1, 2, 4) | previous | 1, 1, 1, … | 1, 4, 8 | EMANet's code |
    | 8 | (1, 2, 4) | same | 2, 2, 2, … | 4, 8, 16 | GALD's code, with `ceil_mode=True` |

    Note:
        Both papers name multi-grid and leave the details open; the first block's dilation and GALD's rounded-up pooling
        are facts of their published code. A stage with more blocks than `multi_grid` has numbers begins again from the
        first number, one with fewer uses the first ones (both ours: ResNets of 50 layers and more have three blocks).
        A basic block (ResNet-18, 34) has two 3×3 convolutions. As in timm, only its first one keeps the previous
        stage's dilation.
        ResNets take any size. Many other networks would drop the pixels left over at the right and bottom edge, or
        fail, so for them the image is padded there to a multiple of the output stride, with zeros (the mean colour
        once normalised), and the maps are cut back.
        Swin keeps shifting its windows in the last stage, as its authors' segmentation code does; timm alone stops
        where the map of a 224-pixel image fills one window.
        A plain vision transformer has one stride throughout: its three maps come from the ends of the first, third and
        last quarter of its blocks.
        Some families (HRNet, CoaT, CrossViT) hold parameters that none of their three maps depends on. Distributed
        training waits for their gradients in vain, so they are frozen: `requires_grad` is False, names and values stay.
        A list in `dilations` belongs to one output stride and is never scaled: the first block of a dilated stage can
        be meant to keep the previous stage's dilation or not, and numbers alone do not say. A list whose greatest
        number is below what the stride itself needs in the stage is refused.

    Args:
        name: a timm model, with or without the tag of its weights, such as ``"resnet50s"`` or ``"resnet18.a1_in1k"``.
        output_stride: pixels of the image per pixel of the deep map: 8, 16 or 32. A network that cannot change its
            stride keeps its own and logs it; read the attribute of the same name.
        pretrained: whether to start from the published weights, fetched once from the Hugging Face hub.
        weights: a local weight file to use instead of the hub, ``.safetensors`` or a PyTorch file of tensors.
        multi_grid: multipliers for the blocks of the last stage, for ResNets.
        first_block: dilation of the first block of a dilated stage, for ResNets.
        dilations: for full control, one list per stage with one dilation per block (`None` leaves a stage as it is),
            for ResNets; every 3×3 convolution of the block takes it. They are meant for this `output_stride` alone. Not
            together with `multi_grid` or `first_block`.
        ceil_mode: whether the ResNet's stem pooling rounds its output size up.
        bn_momentum: overrides the momentum of every batch norm, where there are any.
        low_stride: pixels of the image per pixel of the low map: 4 as in DeepLabV3+, or 2, which costs a decoder four
            times as much and finds thin things. A network with no map that fine gives its finest.
        timm_options: further options of the timm model itself, such as ``{"drop_path_rate": 0.1}`` for most families or
            ``{"channels": [64, 128, 128, 128]}`` for the widths of a ResNet's stages.

    Attributes:
        channels: channels of the low, auxiliary and deep map.
        strides: pixels of the image per pixel of the low, auxiliary and deep map.
        output_stride: the stride that the deep map really has.
        mean: what to subtract from images in [0, 1], one number per RGB channel.
        std: what to divide by afterwards.
        in_channels: 3.
        net: the timm network, with timm's own tensor names, without its classifier.

    Shape:
        (B, 3, H, W), normalised, to three maps of (B, channels[i], ⌈H / strides[i]⌉, ⌈W / strides[i]⌉); with
        `ceil_mode` one pixel larger at most, and a little smaller where a network convolves without padding, as
        Inception does.

    Raises:
        RecipeError: no such model, no such stride, or ResNet settings for another network.
        PretrainedUnavailable: the hub cannot be reached, or has no weights for this model.
        WeightsError: the weight file is missing, damaged, unsafe, or of another network.

    Example:
        >>> backbone = Backbone("resnet18", output_stride=16, pretrained=False)
        >>> backbone.channels, backbone.strides
        ((64, 256, 512), (4, 16, 16))
        >>> [tuple(x.shape) for x in backbone(torch.randn(1, 3, 33, 47))]
        [(1, 64, 9, 12), (1, 256, 3, 3), (1, 512, 3, 3)]
    """

    net: Any

    def __init__(
        self,
        name: str = "resnet50s",
        *,
        output_stride: int = 8,
        pretrained: bool = True,
        weights: str | Path | None = None,
        multi_grid: Sequence[int] | None = None,
        first_block: Literal["previous", "same"] = "previous",
        dilations: Sequence[Sequence[int] | None] | None = None,
        ceil_mode: bool = False,
        bn_momentum: float | None = None,
        low_stride: int = 4,
        timm_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if low_stride not in (2, 4):
            raise RecipeError(f"low_stride must be 2 or 4, not {low_stride!r}.")
        self.name = name
        self.in_channels = 3
        self.net, self._fixed_size = create(name, output_stride, dict(timm_options or {}))
        info = self.net.feature_info
        reductions = [int(stage["reduction"]) for stage in info]
        picks = pick(reductions, low_stride)
        low, auxiliary, deep = picks
        self.channels = (int(info[low]["num_chs"]), int(info[auxiliary]["num_chs"]), int(info[deep]["num_chs"]))
        self.strides = (reductions[low], reductions[auxiliary], reductions[deep])
        self.output_stride = reductions[deep]
        if self.output_stride != output_stride:
            own = self.output_stride
            _logger.warning(
                "backbone '%s' cannot have output stride %d; it keeps its own, %d", name, output_stride, own
            )
        cfg = self.net.pretrained_cfg
        self.mean: tuple[float, float, float] = tuple(cfg["mean"])
        self.std: tuple[float, float, float] = tuple(cfg["std"])

        set_dilations(self.net, name, self.output_stride, multi_grid, first_block, dilations)
        if ceil_mode:
            pool = getattr(self.net, "maxpool", None)
            if not isinstance(pool, nn.MaxPool2d):
                raise RecipeError(f"ceil_mode needs a max-pool in the stem; backbone '{name}' has none. Leave it out.")
            pool.ceil_mode = True
        if bn_momentum is not None:
            for module in self.net.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.momentum = bn_momentum

        self._indices = sorted(set(picks))
        self._places = tuple(self._indices.index(pick) for pick in picks)
        self._pad_to = 1 if isinstance(self.net, ResNet) or self._fixed_size else self.output_stride
        self._features_only = not hasattr(self.net, "forward_intermediates")
        fetched = backbone_weights.fetch(name, cfg) if pretrained and weights is None else None
        source = fetched if weights is None else Path(weights)
        known: set[str] = set()
        if source is not None:
            state = backbone_weights.convert(self.net, backbone_weights.read(source))
            known = set(
                (timm.create_model(name, **(timm_options or {})) if self._features_only else self.net).state_dict()
            )
        if not self._features_only:
            # The classifier and whatever else no map depends on would be parameters that never get a gradient.
            self.net.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)
        if source is not None:
            backbone_weights.load(self.net, state, known, name, source)
        self.freeze_unused()

    def freeze_unused(self, maps: Sequence[Literal["low", "auxiliary", "deep"]] = ("low", "auxiliary", "deep")) -> None:
        """Freezes every parameter that none of the given maps depends on.

        A copy without numbers runs once on PyTorch's meta device: that takes a fraction of a second, and no value,
        statistic or random state changes. Construction does it for all three maps; whoever uses fewer may do it again.

        Args:
            maps: the maps that are used.

        Note:
            A ResNet needs no run: each of its maps depends on everything before it, and the deep one on all.
            A network that cannot run on the meta device (timm's Gemma), or is slow there for its recurrent layers
            (Sequencer), keeps every parameter trainable.
        """
        if isinstance(self.net, ResNet) and "deep" in maps:
            return
        if any(isinstance(module, nn.RNNBase) for module in self.net.modules()):
            return
        height, width = self._fixed_size or self.net.pretrained_cfg["input_size"][1:]
        # Modes of the caller's, such as inference mode, would keep the graph from being built.
        with torch.inference_mode(False), torch.enable_grad():
            # The memo makes the copy share no tensor with this network and spares copying any number.
            # `torch.func.functional_call` would leave its stand-ins in networks that use a module twice (CoaT).
            stand_ins = {
                id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), parameter.requires_grad)
                for parameter in self.parameters()
            }
            numberless = {id(buffer): torch.empty_like(buffer, device="meta") for buffer in self.buffers()}
            images = torch.empty(2, 3, height, width, dtype=next(self.parameters()).dtype, device="meta")
            try:
                features = copy.deepcopy(self, {**numberless, **stand_ins})(images)
            except (RuntimeError, NotImplementedError) as error:
                _logger.debug("the unused parameters of backbone '%s' are not known: %s", self.name, error)
                return
            trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
            gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
                torch.stack([getattr(features, name).sum() for name in maps]).sum(),
                [stand_ins[id(parameter)] for parameter in trainable],
                allow_unused=True,
            )
        for parameter, gradient in zip(trainable, gradients, strict=True):
            if gradient is None:
                parameter.requires_grad_(False)

    def forward(self, x: Tensor) -> Features:
        """Runs the network.

        Args:
            x: normalised RGB images, (B, 3, H, W).

        Returns:
            The three maps.

        Raises:
            ShapeError: the network takes images of one size only, and these have another.
        """
        height, width = x.shape[-2:]
        if self._fixed_size is not None and (height, width) != self._fixed_size:
            raise ShapeError(
                f"backbone '{self.name}' takes images of {self._fixed_size[0]}×{self._fixed_size[1]} only, "
                f"these are {height}×{width}. Resize or crop them, or choose another backbone."
            )
        if self._pad_to > 1:
            x = F.pad(x, (0, -width % self._pad_to, 0, -height % self._pad_to))
        if self._features_only:
            every = self.net(x)
            maps = [every[index] for index in self._indices]
        else:
            maps = self.net.forward_intermediates(
                x, indices=self._indices, norm=False, output_fmt="NCHW", intermediates_only=True
            )
        low, auxiliary, deep = (maps[place] for place in self._places)
        if self._pad_to > 1:
            low, auxiliary, deep = (
                feature[..., : -(-height // stride), : -(-width // stride)]
                for feature, stride in zip((low, auxiliary, deep), self.strides, strict=True)
            )
        return Features(low=low, auxiliary=auxiliary, deep=deep)
