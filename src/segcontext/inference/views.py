"""One pass of the network: what it is given, and its answer in the view's own pixels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.errors import RecipeError
from segcontext.inference.protocol import Protocol
from segcontext.types import Output

__all__ = ["Answer", "activate", "ask", "device_of", "is_whole", "pad", "rescale", "resize"]


class Answer(NamedTuple):
    """What the network says of a view, at the resolution of its features.

    Attributes:
        output: the network's output; its size has the padding in it.
        size: (height, width) of the view without padding.
        flipped: whether the view is a mirror image.
    """

    output: Output
    size: tuple[int, int]
    flipped: bool = False

    def logits(self, features_logits: Tensor | None = None) -> Tensor:
        """Logits at the size of the view.

        Args:
            features_logits: logits to take instead of all the network's own, such as those of a few classes.

        Returns:
            float32, (B, classes, height, width).
        """
        chosen = self.output.features_logits if features_logits is None else features_logits
        height, width = self.size
        return self.output.upsample(chosen.float())[..., :height, :width]


def ask(model: nn.Module, x: Tensor, protocol: Protocol) -> Answer:
    """Asks the network once, with the protocol's padding.

    Args:
        model: images (B, 3, H, W) → `Output`.
        x: floats in [0, 1], (B, 3, height, width).
        protocol: says whether `x` is padded.

    Raises:
        RecipeError: the stride to pad to is not known.
    """
    height, width = int(x.shape[-2]), int(x.shape[-1])
    if protocol.padding == "stride_plus_one":
        stride = protocol.stride or _output_stride(model)
        x = pad(model, x, height + (1 - height) % stride, width + (1 - width) % stride)
    return Answer(model(x), (height, width))


def is_whole(size: tuple[int, int], protocol: Protocol) -> bool:
    """Whether the network sees a view of this (height, width) at once: no windows, or one that covers it."""
    if protocol.mode == "whole":
        return True
    height, width = protocol.sides()
    return height >= size[0] and width >= size[1]


def activate(logits: Tensor, protocol: Protocol) -> Tensor:
    """What is averaged: the logits' softmax, or they themselves."""
    return logits.softmax(1) if protocol.average == "probabilities" else logits


def resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings answers back to image size by pixel edges, as `rescale` took them away; no antialiasing."""
    if values.shape[-2:] == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def rescale(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes images by pixel edges (align_corners=False), antialiased where they become smaller."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def pad(model: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    """Extends images to the right and below with the mean colour, which is 0 to the network."""
    if x.shape[-2:] == (height, width):
        return x
    # ImageNet's mean, for networks that do not say theirs.
    mean = getattr(getattr(model, "normalize", None), "mean", (0.485, 0.456, 0.406))
    colour = torch.as_tensor(mean, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    padded = colour.expand(x.shape[0], 3, height, width).clone()
    padded[..., : x.shape[-2], : x.shape[-1]] = x
    return padded


def device_of(model: nn.Module, otherwise: torch.device) -> torch.device:
    """Where a model is; `otherwise` for one without parameters and buffers."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return otherwise


def _output_stride(model: nn.Module) -> int:
    stride = getattr(getattr(model, "backbone", None), "output_stride", None)
    if not isinstance(stride, int):
        raise RecipeError(
            "Padding to the stride plus one needs a stride, which this model does not say: give `stride`."
        )
    return stride
