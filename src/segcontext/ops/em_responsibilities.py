"""The E step of EM attention (EMANet §4.1), as a pure function."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from segcontext.ops.precision import widen

__all__ = ["EMKernel", "em_responsibilities"]

EMKernel: TypeAlias = Literal["exponential_inner_product", "inner_product", "euclidean", "rbf"]


def em_responsibilities(
    x: Tensor,
    bases: Tensor,
    *,
    kernel: EMKernel = "exponential_inner_product",
    lam: float = 1.0,
    eps: float = 1e-6,
) -> Tensor:
    r"""The E step: how much of each pixel each basis answers for.

    EMANet eq. 11, :math:`z_{nk} = \mathcal K(x_n, \mu_k) / \sum_j \mathcal K(x_n, \mu_j)`, with the kernel
    :math:`e^{\lambda x^\top\mu}` (eq. 12), :math:`\mathrm{ReLU}(x^\top\mu) + \varepsilon`,
    :math:`e^{-\lambda\lVert x-\mu\rVert}` or :math:`e^{-\lambda\lVert x-\mu\rVert^2}` (§4.1 names them all).

    Args:
        x: pixels, (B, N, C).
        bases: (B, K, C) or (K, C).
        kernel: which 𝒦.
        lam: λ, the sharpness; no effect on the plain inner product.
        eps: ε of the plain inner product.

    Returns:
        (B, N, K), at least float32, each pixel summing to 1 over K.

    Note:
        The paper gives no formula for the kernels beside the exponential inner product; the plain inner product is
        rectified here so that responsibilities cannot be negative.
    """
    with torch.autocast(x.device.type, enabled=False):
        return _responsibilities(widen(x), widen(bases), kernel, lam, eps)


def _responsibilities(x: Tensor, bases: Tensor, kernel: EMKernel, lam: float, eps: float) -> Tensor:
    if kernel == "exponential_inner_product":
        return (lam * (x @ bases.mT)).softmax(-1)
    if kernel == "inner_product":
        similarity = (x @ bases.mT).relu() + eps
        return similarity / similarity.sum(-1, keepdim=True)
    if kernel not in ("euclidean", "rbf"):
        raise ValueError(f"kernel must be exponential_inner_product, inner_product, euclidean or rbf, not {kernel!r}")
    # ‖x‖² is the same for every basis, so the RBF softmax does without it; leaving it out also loses fewer digits.
    squared = bases.square().sum(-1).unsqueeze(-2) - 2 * (x @ bases.mT)
    if kernel == "rbf":
        return (-lam * squared).softmax(-1)
    distance = (squared + x.square().sum(-1, keepdim=True)).clamp_min(eps**2).sqrt()
    return (-lam * distance).softmax(-1)
