"""From images to class probabilities: whole or in sliding windows, at several scales, mirrored; and the Predictor."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.data.dataset import read_image
from segcontext.errors import RecipeError, SampleError, ShapeError
from segcontext.pictures import Colour, colourise, default_palette, overlay, save_labels
from segcontext.types import Output

__all__ = ["ImageSource", "Prediction", "Predictor", "Protocol", "evaluating", "predict_probabilities", "read_source"]

ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor


@dataclass(frozen=True)
class Protocol:
    """How an image is put before a network, and how the answers are averaged.

    Args:
        mode: ``"whole"`` gives the network the whole image; ``"sliding"`` gives it windows of one size, which cover
            the image and overlap; where windows overlap their answers are averaged with equal weights.
        window: the window, in pixels: its side, or (height, width). Sliding only.
        overlap: share of the window that it has in common with its neighbour, at least; 1/3 in the GALD authors' code.
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
            ("average", ("probabilities", "logits")),
            ("padding", ("none", "stride_plus_one")),
        ):
            if getattr(self, name) not in choices:
                raise RecipeError(f"The protocol's {name} is one of {choices}, not {getattr(self, name)!r}.")
        if (self.mode == "sliding") != (self.window is not None):
            raise RecipeError(
                "A window's size goes with mode 'sliding', and mode 'sliding' needs one: set both or none."
            )
        if self.window is not None and (len(self._sides()) != 2 or min(self._sides()) < 1):
            raise RecipeError(f"The window is a side or (height, width) in pixels, from 1 up, not {self.window!r}.")
        if not 0 <= self.overlap < 1:
            raise RecipeError(f"The overlap is a share of the window, from 0 to below 1, not {self.overlap}.")
        if not self.scales or not all(scale > 0 and math.isfinite(scale) for scale in self.scales):
            raise RecipeError(f"The scales are factors above 0, at least one, not {self.scales}.")
        if self.stride is not None and self.stride < 1:
            raise RecipeError(f"The stride is a number of pixels, from 1 up, not {self.stride}.")

    def _sides(self) -> tuple[int, int]:
        assert self.window is not None
        return (self.window, self.window) if isinstance(self.window, int) else self.window

    def __str__(self) -> str:
        parts = ["whole image"]
        if self.mode == "sliding":
            height, width = self._sides()
            parts = [f"sliding window {height}×{width}, overlap {self.overlap:.0%}"]
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


def predict_probabilities(model: nn.Module, images: Tensor, protocol: Protocol | None = None) -> Tensor:
    """Asks a network for the class probabilities of every pixel.

    The network is put into evaluation mode for the time of the call; no gradient is kept.

    Args:
        model: images (B, 3, H, W) → `Output`, such as a `Segmenter`.
        images: RGB, uint8 in 0..255 or floats in [0, 1], (B, 3, H, W); they are moved to the model's device.
        protocol: how to ask; by default the whole image, once.

    Returns:
        float32, (B, classes, H, W), summing to 1 over the classes, on the model's device.

    Raises:
        ShapeError: the images have another shape or type.
        SampleError: float images hold values outside [0, 1].

    Note:
        A window that covers the image in both directions is the same as the whole image. One that is larger in one
        direction only sees the image padded there with the mean colour, as in the GALD authors' code.
    """
    protocol = protocol or Protocol()
    pixels = _as_floats(images).to(_device(model, images.device))
    height, width = int(images.shape[-2]), int(images.shape[-1])
    total: Tensor | None = None
    with evaluating(model), torch.no_grad():
        for scale, flip in product(protocol.scales, (False, True)[: 1 + protocol.flip]):
            view = _rescale(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
            answer = _ask(model, view.flip(-1) if flip else view, (height, width), protocol)
            answer = answer.flip(-1) if flip else answer
            # A copy, for logits may share memory with something that the network keeps.
            total = answer.clone() if total is None else total.add_(answer)
    assert total is not None, "a protocol has at least one scale"
    total /= len(protocol.scales) * (1 + protocol.flip)
    return total.softmax(1) if protocol.average == "logits" else total


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Puts a model into evaluation mode, and afterwards each of its modules back into the mode it was in.

    Args:
        model: any module; parts that were frozen in evaluation mode stay so.
    """
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _ask(model: nn.Module, view: Tensor, size: tuple[int, int], protocol: Protocol) -> Tensor:
    """Probabilities or logits of one view, brought to `size`."""
    if protocol.mode == "whole" or _covers(protocol, view):
        logits = _logits(model, view, protocol)
        # Logits are resized before the softmax, which keeps borders sharper than resizing probabilities.
        return _activate(_resize(logits, size), protocol)
    return _resize(_slide(model, view, protocol), size)


def _covers(protocol: Protocol, view: Tensor) -> bool:
    height, width = protocol._sides()
    return height >= view.shape[-2] and width >= view.shape[-1]


def _slide(model: nn.Module, view: Tensor, protocol: Protocol) -> Tensor:
    """Probabilities or logits of a view, averaged over its windows."""
    height, width = protocol._sides()
    padded = _pad(model, view, max(height, view.shape[-2]), max(width, view.shape[-1]))
    tops = _starts(padded.shape[-2], height, protocol.overlap)
    lefts = _starts(padded.shape[-1], width, protocol.overlap)
    # Equal weights; weights that fall off towards the window's edge would go here.
    weight = padded.new_ones(height, width)
    weights = padded.new_zeros(padded.shape[-2:])
    total: Tensor | None = None
    for top, left in product(tops, lefts):
        window = (..., slice(top, top + height), slice(left, left + width))
        answer = _activate(_logits(model, padded[window], protocol), protocol)
        if total is None:
            total = answer.new_zeros(*answer.shape[:2], *padded.shape[-2:])
        total[window] += answer * weight
        weights[window] += weight
    assert total is not None, "there is at least one window"
    return (total / weights)[..., : view.shape[-2], : view.shape[-1]]


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along one side; the last one is shifted inwards to end with the image."""
    # Without the small term, 768 · (1 − 1/3) would round up to 513.
    step = max(1, math.ceil(window * (1 - overlap) - 1e-6))
    count = math.ceil((length - window) / step) + 1
    return [min(index * step, length - window) for index in range(count)]


def _logits(model: nn.Module, x: Tensor, protocol: Protocol) -> Tensor:
    """What the network says of `x`, in float32 at the size of `x`."""
    height, width = x.shape[-2:]
    if protocol.padding == "stride_plus_one":
        stride = protocol.stride or _output_stride(model)
        x = _pad(model, x, height + (1 - height) % stride, width + (1 - width) % stride)
    output: Output = model(x)
    return output.upsample(output.features_logits.float())[..., :height, :width]


def _activate(logits: Tensor, protocol: Protocol) -> Tensor:
    return logits.softmax(1) if protocol.average == "probabilities" else logits


def _resize(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Brings answers back to image size by pixel edges, as `_rescale` took them away; no antialiasing."""
    if values.shape[-2:] == size:
        return values
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)


def _rescale(images: Tensor, height: int, width: int) -> Tensor:
    """Resizes images by pixel edges (align_corners=False), antialiased where they become smaller."""
    if images.shape[-2:] == (height, width):
        return images
    return F.interpolate(images, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _pad(model: nn.Module, x: Tensor, height: int, width: int) -> Tensor:
    """Extends images to the right and below with the mean colour, which is 0 to the network."""
    if x.shape[-2:] == (height, width):
        return x
    # ImageNet's mean, for networks that do not say theirs.
    mean = getattr(getattr(model, "normalize", None), "mean", (0.485, 0.456, 0.406))
    colour = torch.as_tensor(mean, dtype=x.dtype, device=x.device).view(1, 3, 1, 1)
    padded = colour.expand(x.shape[0], 3, height, width).clone()
    padded[..., : x.shape[-2], : x.shape[-1]] = x
    return padded


def _output_stride(model: nn.Module) -> int:
    stride = getattr(getattr(model, "backbone", None), "output_stride", None)
    if not isinstance(stride, int):
        raise RecipeError(
            "Padding to the stride plus one needs a stride, which this model does not say: give `stride`."
        )
    return stride


def _device(model: nn.Module, otherwise: torch.device) -> torch.device:
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return otherwise


def _as_floats(images: Tensor) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(f"Images have shape (B, 3, H, W), none of them 0; got {tuple(images.shape)}.")
    plain = images.detach().as_subclass(Tensor)
    if plain.dtype == torch.uint8:
        return plain.float() / 255
    if not plain.is_floating_point():
        raise ShapeError(f"Images are uint8 in 0..255 or floats in [0, 1], not {plain.dtype}.")
    low, high = (value.item() for value in plain.aminmax())
    if not (low >= 0 and high <= 1):
        raise SampleError(
            f"Float images hold values in [0, 1], but these reach from {low:g} to {high:g}. "
            "Divide by 255 where they are 0..255, and do not normalise: the model does."
        )
    return plain.float()


class Prediction(NamedTuple):
    """What a network says of one image, on the CPU.

    Attributes:
        labels: the likeliest class of each pixel, (H, W); uint8, or int64 with more than 256 classes.
        probabilities: float32, (classes, H, W), summing to 1 over the classes.
        confidence: float32, (H, W): the probability of the likeliest class.
        classes: class names.
        palette: one RGB colour per class.
    """

    labels: npt.NDArray[np.integer]
    probabilities: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]

    def colour(self) -> Image.Image:
        """The labels in the colours of their classes."""
        return Image.fromarray(colourise(self.labels, self.palette))

    def overlay(self, image: ImageSource, *, alpha: float = 0.5) -> Image.Image:
        """The labels' colours over the image.

        Args:
            image: the image that was predicted, in any form that `Predictor` takes.
            alpha: share of the class colour, from 0 to 1.
        """
        pixels = read_source(image)
        if pixels.is_floating_point():
            pixels = (pixels * 255).round().to(torch.uint8)
        return Image.fromarray(overlay(pixels.permute(1, 2, 0).cpu().numpy(), self.labels, self.palette, alpha))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Writes the labels as an index PNG with the classes' colours.

        Args:
            path: the file to write.
            overwrite: whether a file of that name may be replaced.

        Raises:
            OutputExists: the file is there and `overwrite` is False.
        """
        save_labels(path, self.labels, self.palette, overwrite=overwrite)


class Predictor:
    """Segments single images, from files or from memory.

    Args:
        model: a `Segmenter`, or any module with `Output` and, where it has them, `classes` and `palette`.
        protocol: how the network is asked; by default the whole image, once.
        device: where the model is moved; by default it stays where it is.

    Example:
        >>> # predictor = Predictor(segcontext.load_model("runs/camvid"))
        >>> # predictor("street.jpg").overlay("street.jpg").show()
    """

    def __init__(
        self, model: nn.Module, *, protocol: Protocol | None = None, device: str | torch.device | None = None
    ) -> None:
        self.model = model if device is None else model.to(device)
        self.protocol = protocol or Protocol()

    def __call__(self, source: ImageSource) -> Prediction:
        """Segments one image.

        Args:
            source: the path of an image file, a Pillow image, an array, (H, W, 3), (H, W, 4) or (H, W), or a tensor,
                (3, H, W), (4, H, W), (1, H, W) or (H, W). Arrays and tensors hold 0..255 (uint8), 0..65535 (uint16)
                or [0, 1] (floats). Grey becomes RGB, alpha is dropped. The EXIF orientation of files and Pillow
                images is respected, so the result may be turned against the stored pixels.

        Returns:
            The prediction, at the image's own size.

        Raises:
            SampleError: the file cannot be read, or the values are out of range.
            ShapeError: an array or tensor has no shape or type of those above.
        """
        image = read_source(source)
        probabilities = predict_probabilities(self.model, image[None], self.protocol)[0].cpu()
        confidence, labels = probabilities.max(0)
        count = probabilities.shape[0]
        classes = tuple(cast(tuple[str, ...], getattr(self.model, "classes", ())))
        palette = tuple(cast(tuple[Colour, ...], getattr(self.model, "palette", ())))
        return Prediction(
            labels=(labels.byte() if count <= 256 else labels).numpy(),
            probabilities=probabilities.numpy(),
            confidence=confidence.numpy(),
            classes=classes or tuple(f"class {index}" for index in range(count)),
            palette=palette or default_palette(count),
        )


def read_source(source: ImageSource) -> Tensor:
    """Reads an image from wherever it is.

    Args:
        source: what `Predictor` takes.

    Returns:
        RGB, (3, H, W): uint8, or float32 in [0, 1] where floats came.

    Raises:
        SampleError: the file cannot be read.
        ShapeError: an array or tensor has another shape or type.
    """
    if isinstance(source, Image.Image):
        return _from_pillow(source)
    if isinstance(source, Tensor):
        return _as_rgb(source.detach().as_subclass(Tensor), channels_first=True)
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, str | os.PathLike):
        image: Tensor = read_image(os.fspath(source)).as_subclass(Tensor)
        return image
    raise ShapeError(f"An image is a path, a Pillow image, an array or a tensor, not {type(source).__name__}.")


def _from_array(array: npt.NDArray[Any]) -> Tensor:
    if array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    if array.dtype != np.uint8 and not np.issubdtype(array.dtype, np.floating):
        raise ShapeError(f"An image array holds uint8, uint16 or floats in [0, 1], not {array.dtype}.")
    # A copy: PyTorch takes neither negative strides nor read-only memory.
    return _as_rgb(torch.from_numpy(array.copy()), channels_first=False)


def _from_pillow(image: Image.Image) -> Tensor:
    try:
        turned = ImageOps.exif_transpose(image)
        if turned.mode.startswith("I"):
            # Pillow would clip 16-bit greys at 255 instead of scaling them.
            return _from_array(np.clip(np.asarray(turned), 0, 65535).astype(np.uint16))
        # By way of RGBA, for Pillow warns of palettes with transparency.
        rgb = (turned.convert("RGBA") if turned.mode == "P" else turned).convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise SampleError(f"The Pillow image cannot be decoded: {error}. Fetch or export its file again.") from error
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def _as_rgb(pixels: Tensor, *, channels_first: bool) -> Tensor:
    if pixels.ndim == 2:
        pixels = pixels[None]
    elif pixels.ndim == 3 and not channels_first:
        pixels = pixels.permute(2, 0, 1)
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        shape = "(3, H, W), (4, H, W), (1, H, W)" if channels_first else "(H, W, 3), (H, W, 4), (H, W, 1)"
        raise ShapeError(f"An image has shape {shape} or (H, W), in RGB order; got {tuple(pixels.shape)}.")
    return pixels.expand(3, -1, -1) if pixels.shape[0] == 1 else pixels[:3]
