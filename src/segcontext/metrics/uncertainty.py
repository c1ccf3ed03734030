"""How sure a network is of each pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from segcontext.errors import ShapeError

__all__ = ["check_probabilities", "confidence", "entropy"]


def confidence(probabilities: Tensor) -> Tensor:
    """The probability of the likeliest class.

    Args:
        probabilities: floats from 0 to 1, (..., classes, H, W).

    Returns:
        (..., H, W), from 1 / classes, where all are equally likely, to 1.

    Raises:
        ShapeError: there is no axis of classes, or the values are no probabilities.

    Example:
        >>> confidence(torch.tensor([[[0.9, 0.4]], [[0.1, 0.6]]])).tolist() == torch.tensor([[0.9, 0.6]]).tolist()
        True
    """
    check_probabilities(probabilities)
    largest = probabilities.detach().amax(-3)
    # The softmax of float32 may exceed 1 in its last bit.
    return largest.clamp(max=1)


def entropy(probabilities: Tensor, *, normalised: bool = False) -> Tensor:
    """The entropy of the classes' distribution, −Σ p log p.

    Args:
        probabilities: floats from 0 to 1, (..., classes, H, W).
        normalised: divides by log(classes), the largest entropy there is, so that the result is from 0 to 1.

    Returns:
        (..., H, W), in nats, or from 0 to 1.

    Raises:
        ShapeError: there is no axis of classes, or the values are no probabilities.

    Example:
        >>> round(entropy(torch.full((4, 1, 1), 0.25)).item(), 4), entropy(torch.ones(1, 1, 1)).item()
        (1.3863, 0.0)
    """
    check_probabilities(probabilities)
    # Added up over the classes one at a time: a second tensor of all classes at image size would be large.
    total = torch.zeros_like(probabilities.select(-3, 0))
    for shares in probabilities.detach().clamp(0, 1).unbind(-3):
        total += torch.special.entr(shares)
    classes = probabilities.shape[-3]
    return total / math.log(classes) if normalised and classes > 1 else total


def check_probabilities(probabilities: Tensor) -> None:
    """Refuses what is no probabilities, (..., classes, H, W), with a `ShapeError`."""
    if probabilities.ndim < 3 or not probabilities.is_floating_point() or probabilities.shape[-3] == 0:
        raise ShapeError(
            f"Probabilities are floats of shape (..., classes, H, W); got {probabilities.dtype} of shape "
            f"{tuple(probabilities.shape)}."
        )
    if probabilities.numel() == 0:
        return
    low, high = (float(value) for value in probabilities.detach().aminmax())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ShapeError(
            f"Probabilities lie between 0 and 1, but these reach from {low:g} to {high:g}. Logits need a softmax first."
        )
