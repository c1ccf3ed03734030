"""Losses as a sum and the weight to divide it by, so that any split of a batch gives the same mean."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.precision import widen

__all__ = ["OHEM", "LossSum", "cross_entropy", "valid_weight"]


class LossSum(NamedTuple):
    """A loss before its division.

    Attributes:
        total: the sum over pixels, a scalar that autograd follows.
        weight: what to divide by for the mean, a scalar; add both over a batch's parts, then divide.
    """

    total: Tensor
    weight: Tensor


def valid_weight(target: Tensor, *, class_weights: Tensor | None = None, ignore_index: int = 255) -> Tensor:
    """The weight of a target's pixels: how many are valid, or the sum of their class weights.

    Args:
        target: class indices, (B, H, W).
        class_weights: (classes,), or `None` for 1 each.
        ignore_index: void.

    Returns:
        A float64 scalar, so that sums over large batches stay exact.
    """
    valid = target[target != ignore_index]
    if class_weights is None:
        return torch.as_tensor(valid.numel(), dtype=torch.float64, device=target.device)
    return class_weights.double()[valid.long()].sum()


def cross_entropy(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, ignore_index: int = 255
) -> LossSum:
    """Cross-entropy summed over the valid pixels.

    Args:
        logits: (B, classes, H, W).
        target: class indices, (B, H, W), any integer dtype.
        class_weights: (classes,), or `None`.
        ignore_index: void; such pixels add nothing to either sum.

    Returns:
        The sum and the weight; their quotient is `torch.nn.functional.cross_entropy`. A crop of nothing but void
        gives zero for both, with a gradient of zero.
    """
    logits = widen(logits)
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    total = F.cross_entropy(logits, target.long(), weight=weights, ignore_index=ignore_index, reduction="sum")
    return LossSum(total, valid_weight(target, class_weights=class_weights, ignore_index=ignore_index))


class OHEM:
    """Online hard example mining: cross-entropy over the pixels whose true class is still improbable.

    Keeps the pixels whose probability of the true class is at most `threshold`, and at least the `min_kept` hardest.

    Args:
        threshold: 0.7 in GALD's code.
        min_kept: 100,000 in GALD's code.
        scope: whose pixels `min_kept` counts over. ``"process"``, the published form: the images that one process
            holds at a time, so that results depend on the number of processes. ``"global"``: those of all ranks
            together, so that they do not.
        class_weights: (classes,), or `None`.
        ignore_index: void.

    Note:
        GALD's code holds one image in a process. With gradient accumulation both scopes look at one micro-batch.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.7,
        min_kept: int = 100_000,
        scope: str = "process",
        class_weights: Tensor | None = None,
        ignore_index: int = 255,
    ) -> None:
        if not 0 < threshold <= 1 or min_kept < 0 or scope not in ("process", "global"):
            raise ValueError(
                "OHEM wants a threshold in (0, 1], min_kept at least 0 and scope process or global, not "
                f"{threshold}, {min_kept}, {scope!r}"
            )
        self.threshold = threshold
        self.min_kept = min_kept
        self.scope = scope
        self.class_weights = class_weights
        self.ignore_index = ignore_index

    def __call__(self, logits: Tensor, target: Tensor) -> LossSum:
        """Sums cross-entropy over the hard pixels.

        Args:
            logits: (B, classes, H, W).
            target: class indices, (B, H, W).

        Returns:
            The sum and the weight of the kept pixels, of this process.
        """
        with torch.no_grad():
            valid = target != self.ignore_index
            index = torch.where(valid, target, 0).long()[:, None]
            probability = widen(logits).softmax(1).gather(1, index).squeeze(1)
            limit = self._limit(probability[valid])
            kept = torch.where(valid & (probability <= limit), target, self.ignore_index)
        return cross_entropy(logits, kept, class_weights=self.class_weights, ignore_index=self.ignore_index)

    def _limit(self, probability: Tensor) -> Tensor:
        """The probability up to which a pixel is hard enough."""
        threshold = probability.new_tensor(self.threshold)
        count = min(self.min_kept, probability.numel())
        hardest = probability.topk(count, largest=False).values if count else probability[:0]
        if self.scope == "global" and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            # Every rank's min_kept hardest hold the min_kept hardest of all; shorter lists are filled up with 1.
            mine = probability.new_ones(self.min_kept)
            mine[:count] = hardest
            gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
            dist.all_gather(gathered, mine)
            everyone = torch.cat(gathered)
            hardest = everyone.topk(self.min_kept, largest=False).values if self.min_kept else everyone[:0]
        return torch.maximum(threshold, hardest[-1]) if hardest.numel() else threshold
