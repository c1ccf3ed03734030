"""From images to class probabilities or labels, averaged over the views that a protocol asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import product

import torch
from torch import Tensor, nn

from segcontext.errors import SampleError, ShapeError
from segcontext.inference.fusing import fused_labels
from segcontext.inference.protocol import Protocol
from segcontext.inference.views import activate, ask, device_of, is_whole, rescale, resize
from segcontext.inference.windows import slide, slide_labels
from segcontext.ops import label_dtype
from segcontext.speed import FastNetwork, Precision

__all__ = [
    "Precision",
    "autocast",
    "compact_labels",
    "device_of",
    "evaluating",
    "predict_labels",
    "predict_probabilities",
]


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
    protocol = protocol or Protocol.of(model)
    pixels = _as_floats(images).to(device_of(model, images.device))
    height, width = int(images.shape[-2]), int(images.shape[-1])
    views = len(protocol.scales) * (1 + protocol.flip)
    total: Tensor | None = None
    with evaluating(model), torch.no_grad():
        for scale, flip in product(protocol.scales, (False, True)[: 1 + protocol.flip]):
            view = rescale(pixels, *_scaled(pixels, scale))
            answer = _answer(model, view.flip(-1) if flip else view, (height, width), protocol)
            answer = answer.flip(-1) if flip else answer
            if total is not None:
                total += answer
            else:
                # A copy where it is added to, for logits may share memory with something that the network keeps.
                total = answer.clone() if views > 1 else answer
    assert total is not None, "a protocol has at least one scale"
    if views > 1:
        total /= views
    return total.softmax(1) if protocol.average == "logits" else total


def predict_labels(model: nn.Module, images: Tensor, protocol: Protocol | None = None) -> Tensor:
    """Asks a network for the likeliest class of every pixel.

    Logits of all classes at image size are by far the largest tensor of a prediction. They are never made where the
    network sees each view at once (`segcontext.ops.resized_argmax`; of several views the logits are held at feature
    resolution and fused tile by tile on the CPU), and windows of a single view are added up strip by strip.

    Args:
        model: images (B, 3, H, W) → `Output`, such as a `Segmenter`.
        images: RGB, uint8 in 0..255 or floats in [0, 1], (B, 3, H, W); they are moved to the model's device.
        protocol: how to ask; by default the whole image, once.

    Returns:
        int64, (B, H, W), on the model's device: the argmax of `Output.logits`, or of the averaged probabilities.
        `compact_labels` is the same in less memory.

    Raises:
        ShapeError: the images have another shape or type.
        SampleError: float images hold values outside [0, 1].

    Note:
        PyTorch rounds the interpolation of channels-last tensors otherwise. Where a network's logits are channels-last
        and two classes are equally likely but for that rounding, another of the two may be named than by
        `Output.logits.argmax`. The same goes for several views, or one of another scale, which compiled loops resize
        in one step instead of two: classes may change places whose averages differ by less than about 10⁻⁶.
    """
    return compact_labels(model, images, protocol).long()


def compact_labels(model: nn.Module, images: Tensor, protocol: Protocol | None = None) -> Tensor:
    """The same labels as `predict_labels`, in an eighth of the memory where classes are few.

    Args:
        model: as there.
        images: as there.
        protocol: as there.

    Returns:
        Integers as `segcontext.ops.label_dtype` has them, (B, H, W), on the model's device.

    Raises:
        ShapeError: the images have another shape or type.
        SampleError: float images hold values outside [0, 1].
    """
    protocol = protocol or Protocol.of(model)
    _check(images)
    height, width = (int(side) for side in images.shape[-2:])
    views = [(scale, flip) for scale in protocol.scales for flip in (False, True)[: 1 + protocol.flip]]
    whole = all(is_whole(_scaled(images, scale), protocol) for scale in protocol.scales)
    if not whole and len(views) == 1 and protocol.scales == (1.0,):
        # Windows of bytes become floats one at a time: the floats of a very large image would not fit into memory.
        with evaluating(model), torch.no_grad():
            return slide_labels(model, images.detach().as_subclass(Tensor), protocol)
    pixels = _as_floats(images)
    if not whole:
        probabilities = predict_probabilities(model, pixels, protocol)
        return probabilities.argmax(1).to(label_dtype(probabilities.shape[1]))
    with evaluating(model), torch.no_grad():
        pixels = pixels.to(device_of(model, images.device))
        answers = []
        for scale, flip in views:
            view = rescale(pixels, *_scaled(pixels, scale))
            answers.append(ask(model, view.flip(-1) if flip else view, protocol)._replace(flipped=flip))
        return fused_labels(answers, (height, width), protocol)


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


def autocast(model: nn.Module, precision: Precision | None) -> AbstractContextManager[None]:
    """The precision that a network runs in.

    Args:
        model: the network, for its device; a `FastNetwork` sees to its precision itself.
        precision: ``"bf16"`` for bfloat16 autocast; ``"32"`` or `None` leaves it as it is.
    """
    if precision != "bf16" or isinstance(model, FastNetwork):
        return nullcontext()
    context: AbstractContextManager[None] = torch.autocast(
        device_of(model, torch.device("cpu")).type, dtype=torch.bfloat16
    )
    return context


def _scaled(pixels: Tensor, scale: float) -> tuple[int, int]:
    height, width = pixels.shape[-2:]
    return max(1, round(height * scale)), max(1, round(width * scale))


def _answer(model: nn.Module, view: Tensor, size: tuple[int, int], protocol: Protocol) -> Tensor:
    """Probabilities or logits of one view, brought to `size`."""
    if is_whole((view.shape[-2], view.shape[-1]), protocol):
        # Logits are resized before the softmax, which keeps borders sharper than resizing probabilities.
        return activate(resize(ask(model, view, protocol).logits(), size), protocol)
    return resize(slide(model, view, protocol), size)


def _as_floats(images: Tensor) -> Tensor:
    _check(images)
    plain = images.detach().as_subclass(Tensor)
    return plain.float() / 255 if plain.dtype == torch.uint8 else plain.float()


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ShapeError(f"Images have shape (B, 3, H, W), none of them 0; got {tuple(images.shape)}.")
    if images.dtype == torch.uint8:
        return
    if not images.is_floating_point():
        raise ShapeError(f"Images are uint8 in 0..255 or floats in [0, 1], not {images.dtype}.")
    low, high = (value.item() for value in images.detach().as_subclass(Tensor).aminmax())
    if not (low >= 0 and high <= 1):
        raise SampleError(
            f"Float images hold values in [0, 1], but these reach from {low:g} to {high:g}. "
            "Divide by 255 where they are 0..255, and do not normalise: the model does."
        )
