"""Pixels of EM attention before their projection, which goes into the bases instead."""

from __future__ import annotations

from typing import NamedTuple, Self, TypeAlias

import torch
from torch import Tensor

from segcontext.ops.em_residual import Residual
from segcontext.ops.precision import widen
from segcontext.ops.products import product

__all__ = ["LENGTHS", "NOTHING", "FoldedPixels", "Projection", "folding_obstacle"]

#: Why the Euclidean kernel does not fold.
LENGTHS = "distances need the length of each projected pixel"

Projection: TypeAlias = tuple[Tensor, Tensor | None]


#: Why wide pixels alone run as the equations are.
NOTHING = "wide pixels without a projection leave nothing to rearrange"


def folding_obstacle(x: Tensor, dtype: torch.dtype, *, projected: bool, kernel: str, followed: bool) -> str | None:
    """Why EM of some pixels cannot run rearranged, in a few words; `None` where it can.

    Args:
        x: the pixels before their projection.
        dtype: of the pixels after their projection.
        projected: whether there is a projection.
        kernel: 𝒦 of the E step.
        followed: whether a gradient will be asked for.
    """
    if kernel == "euclidean":
        return LENGTHS
    if dtype == torch.bfloat16:
        elsewhere = followed and (x.device.type != "cpu" or torch.compiler.is_compiling())
        return "gradients of bfloat16 pixels are taken in float32" if elsewhere else None
    return None if projected else NOTHING


class FoldedPixels(NamedTuple):
    """Pixels W x + b that are never computed, with products in the dtype of x.

    Attributes:
        x: (B, N, D); whichever of N and D lies densely in memory does so in the reconstruction too.
        weight: W, (C, D), or `None` where x is what EM runs on.
        bias: b, (C,).
        dtype: of the projected pixels and of the reconstruction.
    """

    x: Tensor
    weight: Tensor | None
    bias: Tensor | None
    dtype: torch.dtype

    def widened(self) -> Self:
        """The same, bfloat16 where that is the dtype, and everything else in float32 or wider."""
        x = self.x.to(self.dtype)
        weight, bias = (None if each is None else widen(each) for each in (self.weight, self.bias))
        return self._replace(x=x if self.dtype == torch.bfloat16 else widen(x), weight=weight, bias=bias)

    def constant(self) -> Self:
        """The same without gradients."""
        weight, bias = (None if each is None else each.detach() for each in (self.weight, self.bias))
        return self._replace(x=self.x.detach(), weight=weight, bias=bias)

    def assign(self, means: Tensor, kernel: str, lam: float, eps: float, *, keep: bool) -> tuple[Tensor | None, Tensor]:
        """The E step, (B, N, K): in float32 or wider, which may be `None` unless kept, and as the products take it."""
        slope, offset = self.logit_terms(means, kernel, lam)
        logits = widen(product(slope, self.x.mT))
        if offset is not None:
            logits = logits + offset.unsqueeze(-1)
        if kernel != "inner_product":
            found = logits.softmax(1).mT
        else:
            similarity = logits.relu() + eps
            found = (similarity / similarity.sum(1, keepdim=True)).mT
        return found, found.to(self.x.dtype)

    def gather(self, responsibilities: Tensor, mass: Tensor) -> Tensor:
        """Σₙ zₙₖ (W xₙ + b), (B, K, C)."""
        if self.pixel_major():
            return self.projected_sums(product(responsibilities.mT, self.x), mass)
        # So its gradient, too, has pixels side by side.
        return self.projected_sums(product(self.x.mT, responsibilities).mT, mass)

    def rebuild(self, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R, (B, N, C)."""
        means = means.to(self.x.dtype)
        if self.pixel_major():
            return product(responsibilities, means).to(self.dtype)
        return product(means.mT, responsibilities.mT).mT.to(self.dtype)

    def add_to(self, residual: Residual, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R and what follows, (B, N, C)."""
        return residual.plus(self.rebuild(responsibilities, means))

    def logit_terms(self, means: Tensor, kernel: str, lam: float) -> tuple[Tensor, Tensor | None]:
        """Logits are affine in x: their slopes (B, K, D), in the dtype of x, and offsets (B, K), `None` for zeros."""
        slope, offset = means, None
        if kernel == "rbf":
            # ‖x‖² is the same for every basis.
            slope, offset = 2 * lam * means, -lam * means.square().sum(-1)
        elif kernel == "exponential_inner_product" and lam != 1:
            slope = lam * means
        if kernel != "inner_product":
            # What all bases have in common changes no softmax, but it would be rounded along with each logit.
            slope = slope - slope.mean(1, keepdim=True)
            offset = None if offset is None else offset - offset.mean(1, keepdim=True)
        if self.bias is not None:
            offset = slope @ self.bias if offset is None else offset + slope @ self.bias
        if self.weight is not None:
            slope = slope @ self.weight
        return slope.to(self.x.dtype), offset

    def projected_sums(self, sums: Tensor, mass: Tensor) -> Tensor:
        """Σₙ zₙₖ (W xₙ + b) from Σₙ zₙₖ xₙ."""
        sums = widen(sums)
        if self.weight is not None:
            sums = sums @ self.weight.mT
        return sums if self.bias is None else sums + mass.unsqueeze(-1) * self.bias

    def pixel_major(self) -> bool:
        """Whether a pixel's channels lie beside each other."""
        # The compiler lays out as it likes, and asking it would tie a program to a size.
        return not torch.compiler.is_compiling() and self.x.stride(-1) == 1
