"""EM attention on the CPU without gradients: PyTorch's products, and compiled loops between them."""

from __future__ import annotations

from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from segcontext.native import split
from segcontext.native.memory import roomy
from segcontext.ops.compiled_loops import obstacle_to_loops
from segcontext.ops.em_finish import finish_channels, finish_pixels
from segcontext.ops.em_folded import LENGTHS, FoldedPixels
from segcontext.ops.em_residual import Residual

__all__ = ["NativePixels", "native_obstacle", "renewed"]

#: What the loops do not add: float32 to bfloat16, which no module comes to.
NARROWED = (torch.bfloat16, torch.float32)

#: Responsibilities of each thread, at least: PyTorch's threads are still awake after the product before.
SHARED = 2**20


def native_obstacle(dtype: torch.dtype, *given: Tensor | None, kernel: str, followed: bool) -> str | None:
    """Why compiled loops cannot run EM on some tensors, in a few words; `None` where they can.

    Args:
        dtype: of the pixels after their projection.
        given: pixels, bases, weights.
        kernel: 𝒦 of the E step.
        followed: whether a gradient will be asked for.
    """
    if kernel == "euclidean":
        return LENGTHS
    if torch.compiler.is_compiling():
        return "PyTorch compiles"
    if any(type(each) not in (Tensor, torch.nn.Parameter, type(None)) for each in given):
        return "it takes plain tensors"
    if dtype == torch.float64:
        return "it does not take float64"
    return "it has no gradients" if followed else obstacle_to_loops(*(each for each in given if each is not None))


class NativePixels(FoldedPixels):
    """Few large tensors, in large pages, each written once; one image at a time.

    PyTorch's batched product takes bfloat16 matrices that are transposed six times as long as one product after the
    other, and its additions of bfloat16 to float32 are no faster than the memory four times over.
    """

    __slots__ = ()

    def widened(self) -> Self:
        """The same, bfloat16 where that is the dtype, and everything else in float32."""
        x = self.x
        if x.dtype == torch.float32 and self.dtype == torch.bfloat16:
            dense = x if x.stride(-1) == 1 else x.mT
            narrow = roomy(dense.shape, self.dtype).copy_(dense)
            return super().widened()._replace(x=narrow if dense is x else narrow.mT)
        return super().widened()

    def assign(self, means: Tensor, kernel: str, lam: float, eps: float, *, keep: bool) -> tuple[Tensor | None, Tensor]:
        """The E step, (B, N, K): in float32, which may be `None` unless kept, and as the products take it."""
        from segcontext.native.em import share, share_half

        slopes, offsets = self.logit_terms(means, kernel, lam)
        shape = (len(self.x), means.shape[1], self.x.shape[1])
        drawn = roomy(shape, self.x.dtype)
        narrow = self.x.dtype == torch.bfloat16
        wide = roomy(shape if keep else (len(self.x), 0, 0), torch.float32) if narrow else drawn
        shifts = np.zeros(shape[:2], np.float32) if offsets is None else offsets.detach().numpy()
        for x, slope, shift, out, more in zip(self.x, slopes, shifts, drawn, wide, strict=True):
            torch.mm(slope, x.mT, out=out)
            terms = shift, kernel != "inner_product", np.float32(eps)
            if narrow:
                run = partial(share_half, out.view(torch.uint16).numpy(), *terms, more.numpy())
            else:
                run = partial(share, out.numpy(), *terms)
            split(shape[2], run, grain=max(1024, SHARED // shape[1]))
        return wide.mT if keep or not narrow else None, drawn.mT

    def logit_terms(self, means: Tensor, kernel: str, lam: float) -> tuple[Tensor, Tensor | None]:
        """Logits are affine in x: their slopes (B, K, D), in the dtype of x, and offsets (B, K), `None` for zeros."""
        from segcontext.native.em_bases import centre_half

        alone = self.weight is None and self.bias is None and self.x.dtype == torch.bfloat16
        if kernel != "exponential_inner_product" or not alone:
            return super().logit_terms(means, kernel, lam)
        slopes = torch.empty(means.shape, dtype=torch.bfloat16)
        centre_half(means.detach().numpy(), np.float32(lam), slopes.view(torch.uint16).numpy())
        return slopes, None

    def gather(self, responsibilities: Tensor, mass: Tensor) -> Tensor:
        """Σₙ zₙₖ (W xₙ + b), (B, K, C)."""
        narrow = responsibilities.mT
        if self.pixel_major():
            sums = [z @ x for z, x in zip(narrow, self.x, strict=True)]
        else:
            # The large matrix is the left one, as it lies in memory: the right one is copied first.
            sums = [(x.mT @ z.mT).mT for z, x in zip(narrow, self.x, strict=True)]
        return self.projected_sums(sums[0].unsqueeze(0) if len(sums) == 1 else torch.stack(sums), mass)

    def rebuild(self, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R, (B, N, C)."""
        means = means.to(self.x.dtype)
        batch, pixels, channels = *responsibilities.shape[:2], means.shape[2]
        shape = (batch, pixels, channels) if self.pixel_major() else (batch, channels, pixels)
        out = roomy(shape, self.x.dtype)
        for z, mean, each in zip(responsibilities, means, out, strict=True):
            if self.pixel_major():
                torch.mm(z, mean, out=each)
            else:
                torch.mm(mean.mT.contiguous(), z.mT, out=each)
        return (out if self.pixel_major() else out.mT).to(self.dtype)

    def add_to(self, residual: Residual, responsibilities: Tensor, means: Tensor) -> Tensor:
        """R and what follows, (B, N, C), some pixels at a time, so that what lies between stays in the caches."""
        base = residual.x
        if {base.dtype, self.x.dtype} - {torch.float32, torch.bfloat16} or (base.dtype, self.x.dtype) == NARROWED:
            return super().add_to(residual, responsibilities, means)
        means = means.to(self.x.dtype)
        weight = residual.weight.to(self.x.dtype)
        base = (base if self.pixel_major() else base.mT).contiguous()
        out = roomy(base.shape, base.dtype)
        for image in range(len(base)):
            one = (base[image], responsibilities[image], means[image], weight, residual.bias.float(), out[image])
            (finish_pixels if self.pixel_major() else finish_channels)(*one)
        return out if self.pixel_major() else out.mT


def renewed(sums: Tensor, mass: Tensor, means: Tensor, eps: float, *, keep: bool) -> Tensor:
    """The M step with bases of unit length, as `segcontext.ops.em_attention` has it, (B, K, C).

    Args:
        sums: Σₙ zₙₖ xₙ, (B, K, C).
        mass: Σₙ zₙₖ, (B, K).
        means: the bases so far, (B, K, C).
        eps: added to masses and lengths.
        keep: whether a basis of no more mass than that stays as it was.
    """
    from segcontext.native.em_bases import renew

    found = torch.empty(means.shape)
    totals, masses, before = (each.detach().contiguous().numpy() for each in (sums, mass, means))
    renew(totals, masses, before, np.float32(eps), keep, found.numpy())
    return found
