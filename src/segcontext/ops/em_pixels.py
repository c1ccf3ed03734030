"""The pixels of EM attention in the form that runs now."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.announced import is_counted
from segcontext.ops.em_folded import NOTHING, FoldedPixels, Projection, folding_obstacle
from segcontext.ops.em_native import NativePixels, native_obstacle
from segcontext.ops.em_residual import Residual
from segcontext.ops.em_responsibilities import EMKernel, em_responsibilities
from segcontext.ops.em_triton import triton_obstacle
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.precision import linear_dtype, widen

__all__ = ["PlainPixels", "em_form", "em_site", "pixels_in_form"]

#: From so many pixels on, whose channels lie apart, loops save more than they cost where there is no projection.
MANY = 2**14


def em_form(
    x: Tensor,
    bases: Tensor,
    projection: Projection | None,
    residual: Residual | None,
    *,
    kernel: EMKernel,
    site: Site,
    keep_history: bool,
    implementation: Implementation | None,
) -> Implementation:
    """The form of EM attention that runs now.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        projection: of the pixels, see `segcontext.ops.em_attention`.
        residual: likewise.
        kernel: 𝒦 of the E step.
        site: what `em_site` says.
        keep_history: whether the responsibilities of every iteration are asked for.
        implementation: which form is asked for.
    """
    weight, bias = (None, None) if projection is None else projection
    dtype = x.dtype if projection is None else linear_dtype(x)
    given = (x, bases, weight, bias, *(residual or ()))
    followed = site.gradients
    rearranged = folding_obstacle(x, dtype, projected=projection is not None, kernel=kernel, followed=followed)
    native = native_obstacle(dtype, *given, kernel=kernel, followed=followed)
    alone = dtype == torch.float32 and projection is None and residual is None
    if native is None and alone and (x.stride(-1) == 1 or x.shape[1] < MANY):
        native = NOTHING
    triton = triton_obstacle(x, bases, projection, residual, kernel=kernel, keep_history=keep_history)
    if is_counted():
        rearranged = native = triton = "the operations of the equations are counted"
    obstacles: dict[Implementation, str | None] = {"triton": triton, "native": native, "rearranged": rearranged}
    return choose("em_attention", implementation, obstacles, site)


def em_site(
    x: Tensor, bases: Tensor, projection: Projection | None, residual: Residual | None, *, follows: bool
) -> Site:
    """Where EM attention runs, on which dtype, and whether autograd follows.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        projection: of the pixels.
        residual: what the reconstruction is added to.
        follows: whether autograd is to follow the iterations.
    """
    # What the reconstruction is added to is followed in any case.
    learning = (x, bases, *(projection or ()), *(residual or ())) if follows else residual or ()
    followed = torch.is_grad_enabled() and any(each is not None and each.requires_grad for each in learning)
    return Site(x.device, x.dtype if projection is None else linear_dtype(x), followed)


def pixels_in_form(form: Implementation, x: Tensor, projection: Projection | None) -> PlainPixels | FoldedPixels:
    """The pixels for the iterations: as the equations are, rearranged, or native.

    Args:
        form: ``"reference"``, ``"rearranged"`` or ``"native"``.
        x: (B, N, D).
        projection: of the pixels, see `segcontext.ops.em_attention`.
    """
    weight, bias = (None, None) if projection is None else projection
    if form == "reference":
        pixels = x if weight is None else F.linear(x, weight, bias)
        return PlainPixels(pixels, pixels.dtype)
    dtype = x.dtype if projection is None else linear_dtype(x)
    return (NativePixels if form == "native" else FoldedPixels)(x, weight, bias, dtype)


class PlainPixels(NamedTuple):
    """Pixels as they are, (B, N, C)."""

    x: Tensor
    dtype: torch.dtype

    def widened(self) -> PlainPixels:
        """The same in float32 or wider."""
        return self._replace(x=widen(self.x))

    def constant(self) -> PlainPixels:
        """The same without gradients."""
        return self._replace(x=self.x.detach())

    def assign(self, means: Tensor, kernel: EMKernel, lam: float, eps: float, *, keep: bool) -> tuple[Tensor, Tensor]:
        """The E step: the responsibilities twice, as they are and as the products take them, which here is the same."""
        found = em_responsibilities(self.x, means, kernel=kernel, lam=lam, eps=eps)
        return found, found

    def gather(self, responsibilities: Tensor, mass: Tensor) -> Tensor:
        """Σₙ zₙₖ xₙ."""
        return responsibilities.mT @ self.x

    def rebuild(self, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R."""
        return (responsibilities @ means).to(self.dtype)

    def add_to(self, residual: Residual, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R and what follows."""
        return residual.plus(self.rebuild(responsibilities, means))
