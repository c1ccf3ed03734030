"""LDv1 as a whole for evaluation on the CPU: convolutions, upsampling and gate in one pass over the planes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from segcontext.native import pages, split
from segcontext.ops.compiled_loops import obstacle_to_loops
from segcontext.ops.gated_by_mask_native import axis, by_pixel, places_of

__all__ = ["halved_gate", "obstacle_to_halved_gate"]


def obstacle_to_halved_gate(features: Tensor) -> str | None:
    """Why the features cannot be gated in one pass now, in a few words; `None` where they can.

    Args:
        features: (B, C, h, w).
    """
    if torch.is_grad_enabled():
        return "it has no gradients"
    if torch.compiler.is_compiling():
        return "the compiler sees more in the single steps"
    if is_in_torch_dispatch_mode():
        return "somebody looks at the single steps"
    if torch.is_autocast_enabled("cpu"):
        return "autocast rounds between the single steps"
    if type(features) is not Tensor or by_pixel(features):
        return "it takes planes"
    return obstacle_to_loops(features)


def halved_gate(
    features: Tensor, kernels: Tensor, shifts: Tensor, *, times: float = 1.0, align_corners: bool = True
) -> Tensor:
    r"""Features gated by the sigmoid of themselves, halved some times by convolutions.

    GALD eqs. 1-2 with W_d = depthwise 3×3 convolutions of stride 2 and padding 1, each followed by a ReLU:
    :math:`\sigma(\mathrm{upsample}(W_d x)) \odot x + t\,x`. Only planes of one channel lie between; there are no
    gradients.

    Args:
        features: x, (B, C, h, w), where there is no `obstacle_to_halved_gate`.
        kernels: (layers, C, 3, 3), with batch norm folded in.
        shifts: (layers, C), likewise.
        times: t, how often x is added.
        align_corners: how the mask is upsampled.

    Returns:
        (B, C, h, w), in the dtype and the layout of the features.

    Example:
        >>> with torch.no_grad():
        ...     halved_gate(torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 3, 3), torch.zeros(1, 2)).unique()
        tensor([1.5000])
    """
    from segcontext.native.halving import distribute

    out = pages.empty_like(features)
    height, width = features.shape[2:]
    sizes = [(height, width)]
    for _ in range(len(kernels)):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    down, across = (axis(sizes[-1][side], sizes[0][side], align_corners) for side in (0, 1))
    given, made = places_of(features, False), places_of(out, False)
    constant = (
        kernels.float().flatten(2).transpose(0, 1).contiguous().numpy(),
        shifts.float().T.contiguous().numpy(),
        np.array(sizes),
        *(down, across, np.float32(times), (0,) * features.element_size()),
    )
    planes = features.shape[0] * features.shape[1]
    split(planes, lambda first, last: distribute(given, made, *constant, (first, last)))
    return out
