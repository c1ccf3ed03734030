"""Loops over the bases of EM attention: so few numbers that PyTorch's operators would take longer to begin."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native.em import half
from segcontext.native.jit import jit

__all__ = ["centre_half", "renew"]

Array: TypeAlias = npt.NDArray[Any]


@jit
def renew(sums: Array, mass: Array, before: Array, eps: Any, keep: bool, means: Array) -> None:
    """The M step with bases of unit length.

    Args:
        sums: Σₙ zₙₖ xₙ, float32, (B, K, C).
        mass: Σₙ zₙₖ, float32, (B, K).
        before: the bases so far, float32, (B, K, C).
        eps: added to masses and lengths.
        keep: whether a basis of no more mass than that stays as it was.
        means: float32, (B, K, C), to be filled.
    """
    images, bases, channels = sums.shape
    for image in range(images):
        for k in range(bases):
            line, old, into = sums[image, k], before[image, k], means[image, k]
            if keep and not mass[image, k] > eps:
                for c in range(channels):
                    into[c] = old[c]
                continue
            share = np.float32(1) / (mass[image, k] + eps)
            squares = np.float32(0)
            for c in range(channels):
                value = line[c] * share
                into[c] = value
                squares += value * value
            factor = np.float32(1) / (np.sqrt(squares) + eps)
            for c in range(channels):
                into[c] *= factor


@jit
def centre_half(means: Array, lam: Any, slopes: Array) -> None:
    """Writes λ times what each basis is beside the mean of all, as bfloat16.

    Args:
        means: float32, (B, K, C).
        lam: λ, float32.
        slopes: bfloat16 as uint16, (B, K, C).
    """
    images, bases, channels = means.shape
    mean = np.empty(channels, np.float32)
    for image in range(images):
        mean[:] = 0
        for k in range(bases):
            line = means[image, k]
            for c in range(channels):
                mean[c] += line[c]
        for c in range(channels):
            mean[c] /= np.float32(bases)
        for k in range(bases):
            line, into = means[image, k], slopes[image, k]
            for c in range(channels):
                into[c] = half(lam * (line[c] - mean[c]))
