"""How a network is asked: whole or in sliding windows, at which scales, mirrored or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from segcontext.errors import RecipeError

__all__ = ["Protocol"]


@dataclass(frozen=True)
class Protocol:
    """How an image is put before a network, and how the answers are averaged.

    Args:
        mode: ``"whole"`` gives the network the whole image; ``"sliding"`` gives it windows of one size, which cover
            the image and overlap; where windows overlap their answers are averaged, see `blend`.
        window: the window, in pixels: its side, or (height, width). Sliding only.
        overlap: share of the window that it has in common with its neighbour, at least; 1/3 in the GALD authors' code.
        blend: how much a window's answers count where windows overlap: ``"uniform"`` is the same everywhere, as in
            the GALD authors' code; ``"gaussian"`` falls off from the window's centre with a standard deviation of an
            eighth of its side (nnU-Net, Isensee et al. 2021), which hides seams.
        context: where the EM bases of an EMA unit come from when windows slide. ``"window"``: each window finds its
            own. ``"image"``: they are found once, on a thumbnail of the whole view, and held for all its windows, so
            that windows share one global context.
        thumbnail: the longer side of that thumbnail, in pixels; by default the longer side of the window.
        scales: factors by which the image is resized before; the answers are brought back and averaged.
        flip: whether the mirrored image is answered too, at every scale.
        average: what is averaged over windows, scales and flips: ``"probabilities"``, or ``"logits"`` as in the GALD
            authors' code. The result is probabilities either way.
        padding: ``"stride_plus_one"`` pads what the network is given with the mean colour, to the right and below,
            until each side is 1 modulo the network's stride, as the EMANet authors do at evaluation.
        stride: the stride meant there; by default the backbone's output stride.

    Raises:
        RecipeError: a value is out of range, or two of them contradict each other.

    Note:
        Images are made smaller with antialiasing, which the authors' code does without; features of a smaller image
        are then those of a blurred picture instead of one with missing pixels.

    Example:
        >>> str(Protocol(scales=(0.5, 1, 1.5), flip=True))
        'whole image, scales 0.5, 1, 1.5, flip, mean of probabilities'
    """

    mode: Literal["whole", "sliding"] = "whole"
    window: int | tuple[int, int] | None = None
    overlap: float = 1 / 3
    blend: Literal["uniform", "gaussian"] = "uniform"
    context: Literal["window", "image"] = "window"
    thumbnail: int | None = None
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: Literal["probabilities", "logits"] = "probabilities"
    padding: Literal["none", "stride_plus_one"] = "none"
    stride: int | None = None

    def __post_init__(self) -> None:
        # Recipes and JSON bring lists, which could not be hashed.
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        if isinstance(self.window, list | tuple):
            object.__setattr__(self, "window", tuple(self.window))
        for name, choices in (
            ("mode", ("whole", "sliding")),
            ("blend", ("uniform", "gaussian")),
            ("context", ("window", "image")),
            ("average", ("probabilities", "logits")),
            ("padding", ("none", "stride_plus_one")),
        ):
            if getattr(self, name) not in choices:
                raise RecipeError(f"The protocol's {name} is one of {choices}, not {getattr(self, name)!r}.")
        if (self.mode == "sliding") != (self.window is not None):
            raise RecipeError(
                "A window's size goes with mode 'sliding', and mode 'sliding' needs one: set both or none."
            )
        if self.mode == "whole" and (self.blend != "uniform" or self.context != "window"):
            raise RecipeError("blend and context are about windows: they go with mode 'sliding' and a window.")
        if self.thumbnail is not None and (self.context != "image" or self.thumbnail < 1):
            raise RecipeError(
                f"The thumbnail is a side in pixels, from 1 up, and goes with context 'image'; got "
                f"{self.thumbnail} with context '{self.context}'."
            )
        if self.window is not None and (len(self.sides()) != 2 or min(self.sides()) < 1):
            raise RecipeError(f"The window is a side or (height, width) in pixels, from 1 up, not {self.window!r}.")
        if not 0 <= self.overlap < 1:
            raise RecipeError(f"The overlap is a share of the window, from 0 to below 1, not {self.overlap}.")
        if not self.scales or not all(scale > 0 and math.isfinite(scale) for scale in self.scales):
            raise RecipeError(f"The scales are factors above 0, at least one, not {self.scales}.")
        if self.stride is not None and self.stride < 1:
            raise RecipeError(f"The stride is a number of pixels, from 1 up, not {self.stride}.")

    def sides(self) -> tuple[int, int]:
        """Height and width of the sliding window, in pixels."""
        assert self.window is not None
        return (self.window, self.window) if isinstance(self.window, int) else self.window

    def __str__(self) -> str:
        parts = ["whole image"]
        if self.mode == "sliding":
            height, width = self.sides()
            parts = [f"sliding window {height}×{width}, overlap {self.overlap:.0%}"]
            if self.blend == "gaussian":
                parts.append("gaussian blending")
            if self.context == "image":
                parts.append("bases of the whole image")
        views = len(self.scales) * (1 + self.flip)
        if self.scales != (1.0,):
            parts.append(f"scale{'s' * (len(self.scales) > 1)} {', '.join(f'{scale:g}' for scale in self.scales)}")
        if self.flip:
            parts.append("flip")
        if views > 1 or self.mode == "sliding":
            parts.append(f"mean of {self.average}")
        if self.padding != "none":
            parts.append("padded to the stride plus one")
        return ", ".join(parts)

    @classmethod
    def of(cls, model: nn.Module) -> Protocol:
        """The whole image, once, padded as the network was validated in training (its attribute `padding`).

        Args:
            model: any network.

        Returns:
            The protocol for it where no other is asked for.
        """
        return cls(padding=getattr(model, "padding", "none"))
