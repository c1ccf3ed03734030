"""Features gated by the sigmoid of a smaller map (GALD eqs. 1-2), as a pure function."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from segcontext.gpu.gating import gate, gate_obstacle
from segcontext.ops import gated_by_mask_native
from segcontext.ops.announced import Computed, announces
from segcontext.ops.gated_by_mask_reference import gated_by_mask_reference
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched

__all__ = ["gated_by_mask"]


def _computed(
    features: Tensor,
    logits: Tensor,
    *,
    times: float = 1.0,
    align_corners: bool = True,
    implementation: Implementation | None = None,
) -> Computed:
    # Four for the interpolation; sigmoid, product and sum.
    return Computed(0, small=(7 if times == 1 else 8) * features.numel())


@announces(_computed)
def gated_by_mask(
    features: Tensor,
    logits: Tensor,
    *,
    times: float = 1.0,
    align_corners: bool = True,
    implementation: Implementation | None = None,
) -> Tensor:
    r"""Each feature times a mask, and the feature itself.

    GALD eqs. 1-2: :math:`\sigma(\mathrm{upsample}(l)) \odot x + t\,x`, upsampled bilinearly.

    Args:
        features: x, (B, C, h, w).
        logits: l, (B, C, h', w').
        times: t, how often x is added; 1 is the paper's.
        align_corners: how the logits are upsampled: whether corner pixels' centres or their outer edges are aligned.
        implementation: the form that runs: ``"reference"`` is plain PyTorch, with two maps of the features' size in
            between; ``"native"`` is compiled loops on the CPU, for float32 and bfloat16, with none; ``"triton"`` is
            kernels on a GPU; `None` is what `segcontext.ops.implementations.use_implementation` says, and without it
            the fastest that can.

    Returns:
        (B, C, h, w), in the dtype of the features.

    Raises:
        ValueError: where the maps do not fit together.
        RecipeError: there is no such form.

    Note:
        Gradients of gradients, which Triton's form does not have, are always the reference's, and exported programs
        hold the reference.

    Example:
        >>> import torch
        >>> gated_by_mask(torch.ones(1, 8, 4, 6), torch.zeros(1, 8, 1, 1)).unique()
        tensor([1.5000])
    """
    if features.ndim != 4 or logits.ndim != 4 or features.shape[:2] != logits.shape[:2]:
        raise ValueError(
            "expected features (B, C, h, w) and logits (B, C, h', w'), "
            f"but they are {tuple(features.shape)} and {tuple(logits.shape)}"
        )
    obstacles: dict[Implementation, str | None] = {
        "triton": gate_obstacle(features, logits),
        "native": gated_by_mask_native.obstacle(features, logits),
    }
    site = Site.of(features, logits)
    form = choose("gated_by_mask", implementation, obstacles, site)
    if form == "triton":
        run = partial(gate, plain=times, align_corners=align_corners)
        plain = partial(gated_by_mask_reference, times=times, align_corners=align_corners)
        found = launched("gated_by_mask", implementation, site, run, plain, features, logits)
        if found is not None:
            return found
        form = choose("gated_by_mask", implementation, obstacles, site)
    if form == "native":
        return gated_by_mask_native.gate(features, logits, times, align_corners)
    return gated_by_mask_reference(features, logits, times, align_corners)
