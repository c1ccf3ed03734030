"""EM attention in the form of `segcontext.gpu`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from segcontext.gpu.em_attention import em_attention, em_obstacle
from segcontext.ops.em_folded import Projection
from segcontext.ops.em_residual import Residual
from segcontext.ops.precision import linear_dtype, widen

__all__ = ["em_by_triton", "triton_obstacle"]


def triton_obstacle(
    x: Tensor,
    bases: Tensor,
    projection: Projection | None,
    residual: Residual | None,
    *,
    kernel: str,
    keep_history: bool,
) -> str | None:
    """Why Triton's kernels cannot run EM on some tensors, in a few words; `None` where they can.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        projection: of the pixels, see `segcontext.ops.em_attention`.
        residual: likewise.
        kernel: 𝒦 of the E step.
        keep_history: whether the responsibilities of every iteration are asked for.
    """
    if kernel != "exponential_inner_product":
        return "only the exponential inner product"
    if residual is not None and residual.x.dtype != (x.dtype if projection is None else linear_dtype(x)):
        return "what is added to has another dtype"
    if keep_history:
        return "no history of the responsibilities"
    return em_obstacle(x, bases, *(projection or ()))


def em_by_triton(
    x: Tensor, bases: Tensor, projection: Projection | None, residual: Residual | None, **options: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reconstruction, responsibilities, bases and mass, as `segcontext.ops.em_attention` returns them.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        projection: of the pixels.
        residual: what the reconstruction is added to.
        options: iterations, lam, norm, gradient, eps and without_mass, as there.
    """
    weight, bias = projection or (None, None)
    pixels = x if projection is None else x.to(linear_dtype(x))
    found = em_attention(pixels, bases, weight=weight, bias=bias, responsibilities=True, residual=residual, **options)
    assert found.responsibilities is not None
    return found.reconstruction, widen(found.responsibilities), found.bases, found.mass
