"""Single images, segmented from files or from memory."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from segcontext.inference.predict import Precision, autocast, compact_labels, predict_probabilities
from segcontext.inference.protocol import Protocol
from segcontext.inference.sources import ImageSource, read_source
from segcontext.pictures import Colour, colourise, default_palette, overlay, save_labels
from segcontext.speed import Speed, check_speed, fast_network

__all__ = ["LabelMap", "Prediction", "Predictor"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """The classes of one image's pixels, on the CPU.

    Attributes:
        labels: the likeliest class of each pixel, (H, W); uint8, or int64 with more than 256 classes.
        classes: class names.
        palette: one RGB colour per class.
    """

    labels: npt.NDArray[np.integer]
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


@dataclass(frozen=True, eq=False)
class Prediction(LabelMap):
    """What a network says of one image, on the CPU.

    Attributes:
        labels: the likeliest class of each pixel, (H, W); uint8, or int64 with more than 256 classes.
        classes: class names.
        palette: one RGB colour per class.
        probabilities: float32, (classes, H, W), summing to 1 over the classes.
        confidence: float32, (H, W): the probability of the likeliest class.
    """

    probabilities: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]


class Predictor:
    """Segments single images, from files or from memory.

    Args:
        model: a `Segmenter`, or any module with `Output` and, where it has them, `classes` and `palette`.
        protocol: how the network is asked; by default the whole image, once.
        device: where the model is moved; by default it stays where it is.
        precision: ``"bf16"`` runs the network under bfloat16 autocast. `None` is ``"32"`` for the network as it is; a
            faster one takes bfloat16 where the processor multiplies it.
        speed: ``"plain"`` asks the network itself; ``"folded"`` and ``"compiled"`` a faster copy of it, made once, see
            `segcontext.speed.fast_network`.
        tell: is told when a compilation begins and how long it took.

    Raises:
        RecipeError: there is no such precision or speed.

    Example:
        >>> # predictor = Predictor(segcontext.load_model("runs/camvid"))
        >>> # predictor("street.jpg").overlay("street.jpg").show()
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        protocol: Protocol | None = None,
        device: str | torch.device | None = None,
        precision: Precision | None = None,
        speed: Speed = "plain",
        tell: Callable[[str], None] = _logger.info,
    ) -> None:
        check_speed(speed, precision)
        self.model = model if device is None else model.to(device)
        self.protocol = protocol or Protocol.of(model)
        self.precision: Precision | None = precision
        self._asked = self.model
        if speed != "plain":
            self._asked = fast = fast_network(self.model, speed=speed, precision=precision, tell=tell)
            self.precision = fast.precision

    def __call__(self, source: ImageSource) -> Prediction:
        """Segments one image, with the probabilities of all classes.

        Args:
            source: a path, a Pillow image, an array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W), or a tensor (3, H, W),
                (4, H, W), (1, H, W) or (H, W). Arrays and tensors hold 0..255 (uint8), 0..65535 (uint16)
                or [0, 1] (floats). Grey becomes RGB, alpha is dropped. The EXIF orientation of files and Pillow
                images is respected, so the result may be turned against the stored pixels.

        Returns:
            The prediction, at the image's own size.

        Raises:
            SampleError: the file cannot be read, or the values are out of range.
            ShapeError: an array or tensor has no shape or type of those above.
        """
        image = read_source(source)
        with autocast(self._asked, self.precision):
            probabilities = predict_probabilities(self._asked, image[None], self.protocol)[0].cpu()
        confidence, labels = probabilities.max(0)
        classes, palette = self._names(probabilities.shape[0])
        return Prediction(
            labels=_compact(labels, len(classes)),
            classes=classes,
            palette=palette,
            probabilities=probabilities.numpy(),
            confidence=confidence.numpy(),
        )

    def label_map(self, source: ImageSource) -> LabelMap:
        """Segments one image without keeping probabilities, which takes far less memory for large images.

        Args:
            source: as for calling the predictor.

        Returns:
            The labels, at the image's own size.

        Raises:
            SampleError: the file cannot be read, or the values are out of range.
            ShapeError: an array or tensor has another shape or type.
        """
        image = read_source(source)
        with autocast(self._asked, self.precision):
            labels = compact_labels(self._asked, image[None], self.protocol)[0].cpu()
        count = int(cast(int, getattr(self.model, "num_classes", 0))) or int(labels.max()) + 1
        classes, palette = self._names(count)
        return LabelMap(_compact(labels, len(classes)), classes, palette)

    def _names(self, count: int) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
        classes = tuple(cast(tuple[str, ...], getattr(self.model, "classes", ())))
        palette = tuple(cast(tuple[Colour, ...], getattr(self.model, "palette", ())))
        count = max(count, len(classes))
        return classes or tuple(f"class {index}" for index in range(count)), palette or default_palette(count)


def _compact(labels: Tensor, classes: int) -> npt.NDArray[np.integer]:
    array: npt.NDArray[np.integer] = (labels.byte() if classes <= 256 else labels.long()).numpy()
    return array
