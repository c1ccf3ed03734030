"""The confusion matrix of what a network says, without its labels where a GPU can do without them."""

from __future__ import annotations

from torch import Tensor

from segcontext.errors import ShapeError
from segcontext.gpu.largest import confusion, confusion_obstacle
from segcontext.metrics.confusion import confusion_matrix
from segcontext.ops import resized_argmax
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched

__all__ = ["confusion_from_logits"]


def confusion_from_logits(
    logits: Tensor,
    target: Tensor,
    *,
    size: tuple[int, int] | None = None,
    align_corners: bool = True,
    ignore_index: int = 255,
    implementation: Implementation | None = None,
) -> Tensor:
    """Counts how many pixels of each true class have which largest logit, resized to the image.

    The same as `segcontext.ops.resized_argmax` and then `confusion_matrix`. Kernels for a GPU do both at once: there
    the labels are never in memory.

    Args:
        logits: the network's own, (B, classes, h, w), as `Output.features_logits` holds them.
        target: true classes, integers (B, H, W); `ignore_index` for void.
        size: what the logits are brought to, where the target is only its upper left part: `Output.size`.
        align_corners: of the interpolation: `Output.align_corners`.
        ignore_index: the target value that is not counted.
        implementation: ``"reference"``, ``"native"`` (the CPU), ``"triton"`` (a GPU) or ``"auto"``; `None` is what
            `segcontext.ops.use_implementation` says.

    Returns:
        int64 counts, (classes, classes): the row is the truth, the column the prediction. On the device of `target`.

    Raises:
        ShapeError: the shapes do not fit, or the target holds no integers.
        LabelError: a value of the target is neither a class nor void.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[0.0, 3.0]], [[1.0, 1.0]]]])
        >>> confusion_from_logits(logits, torch.tensor([[[1, 1, 0, 255]]]), align_corners=False).tolist()
        [[1, 0], [0, 2]]
    """
    if logits.ndim != 4 or target.ndim != 3 or len(logits) != len(target):
        raise ShapeError(
            f"Expected logits (B, classes, h, w) and a target (B, H, W), but they are {tuple(logits.shape)} and "
            f"{tuple(target.shape)}."
        )
    crop = (int(target.shape[1]), int(target.shape[2]))
    whole, logits = size or crop, logits.detach()
    fits = 0 < crop[0] <= whole[0] and 0 < crop[1] <= whole[1] and 0 not in logits.shape
    obstacles: dict[Implementation, str | None] = {
        "triton": confusion_obstacle(logits, target) if fits else "a target that does not lie within the logits",
        # What makes labels and counts them has native forms of its own.
        "native": None,
    }
    site = Site.of(logits)
    form = choose("confusion_from_logits", implementation, obstacles, site)
    if form == "triton":

        def run(logits: Tensor, target: Tensor) -> tuple[Tensor, ...]:
            return confusion(logits, target, size=whole, ignore_index=ignore_index, align_corners=align_corners)

        found = launched("confusion_from_logits", implementation, site, run, run, logits, target)
        # Which value is wrong the other form says.
        if found is not None and found[1] == 0:
            return found[0]
    labels = resized_argmax(logits, whole, align_corners=align_corners, crop=crop, implementation=implementation)
    # Counting labels has no form for a GPU, which is no reason to refuse it where kernels were asked for by name.
    counting = "auto" if form == "triton" else implementation
    return confusion_matrix(
        labels.to(target.device), target, logits.shape[1], ignore_index=ignore_index, implementation=counting
    )
