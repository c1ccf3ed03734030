"""EM attention on a GPU: each pixel is loaded once per iteration, and a projection goes into the bases."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.gpu.availability import obstacle
from segcontext.gpu.em_output import em_output
from segcontext.gpu.em_steps import MOST_BASES, em_mix, em_sums, summed
from segcontext.gpu.small_products import finish, product

__all__ = ["Found", "Run", "em_attention", "em_bases", "em_obstacle"]


Norm: TypeAlias = Literal["l2", "layer_norm", "none"]
WithoutMass: TypeAlias = Literal["keep", "published"]


class Found(NamedTuple):
    """What `em_attention` returns, as `segcontext.ops.em_attention` describes it.

    Attributes:
        reconstruction: x̃, (B, N, C), in the dtype of `x`.
        responsibilities: z of the last E step, (B, N, K), in the dtype of `x`; `None` where it was not asked for.
        bases: μ, float32, (B, K, C).
        mass: Σₙ zₙₖ of the last M step, float32, (B, K).
    """

    reconstruction: Tensor
    responsibilities: Tensor | None
    bases: Tensor
    mass: Tensor


class Run(NamedTuple):
    """What `em_bases` returns.

    Attributes:
        bases: μ, float32, (B, K, C).
        mass: float32, (B, K).
        before: the bases of the last E step, float32, (B, K, C).
        shares: z of the last E step, (B, N, K), in the dtype of `x`; `None` where it was not kept.
    """

    bases: Tensor
    mass: Tensor
    before: Tensor
    shares: Tensor | None


def em_obstacle(x: Tensor, bases: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> str | None:
    """Why `em_attention` cannot run on these, in a few words; `None` where it can.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        weight: (C, D).
        bias: (C,).
    """
    if bases.shape[-2] > MOST_BASES:
        return f"more than {MOST_BASES} bases"
    return obstacle(x, bases, weight, bias)


def em_attention(
    x: Tensor,
    bases: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    iterations: int = 3,
    lam: float = 1.0,
    norm: Norm = "l2",
    gradient: Literal["none", "last", "all"] = "none",
    eps: float = 1e-6,
    without_mass: WithoutMass = "keep",
    responsibilities: bool = False,
    residual: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Found:
    """`segcontext.ops.em_attention` with the exponential inner product, of the pixels W x + b.

    The projected pixels are never made: (W x + b)·μ = x·(Wᵀμ) + b·μ, and Σ z (W x + b) = W Σ z x + b Σ z.

    Args:
        x: (B, N, D), or (B, N, C) without a weight.
        bases: (K, C) or (B, K, C).
        weight: W, (C, D).
        bias: b, (C,).
        iterations: as there, like all that follow.
        lam: λ.
        norm: of the bases.
        gradient: what autograd follows.
        eps: added to both denominators.
        without_mass: what becomes of bases without mass.
        responsibilities: whether z is returned.
        residual: pixels (B, N, C), a weight (C, C) and a shift (C,), see `segcontext.gpu.em_output`: the reconstruction
            is what these make of it, in the dtype of `x`.

    Returns:
        As there.

    Note:
        Pixels, folded bases and z meet in the dtype of `x`, softmax and sums are float32. A constant that all logits of
        a pixel share changes no softmax, so the folded bases are about their mean, and rounding them costs less.
        Gradients are of the first order. They keep the pixels and a few bases; z is computed again.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.contiguous()
        means = bases.float().expand(x.shape[0], -1, -1).contiguous()
        if gradient == "all":
            found = _followed(x, means, weight, bias, iterations, lam, norm, eps, without_mass, responsibilities)
            return found if residual is None else found._replace(reconstruction=_added(found.reconstruction, residual))
        run = em_bases(
            x,
            means,
            weight=weight,
            bias=bias,
            iterations=iterations,
            lam=lam,
            norm=norm,
            eps=eps,
            without_mass=without_mass,
            keep=gradient == "none",
        )
        if run.shares is not None:
            shares, bases = run.shares, run.bases.to(x.dtype)
            if residual is None:
                out = shares @ bases
            elif torch.is_grad_enabled() and any(each.requires_grad for each in residual):
                out = _added(shares @ bases, residual)
            else:
                out = em_output(*_alike(x, residual[:1]), shares, bases, *_alike(x, residual[1:]))
            return Found(out, shares if responsibilities else None, run.bases, run.mass)
        folded, offset = _folded(run.before, weight, bias, lam, x.dtype)
        out = em_mix(x, folded, offset, run.bases.to(x.dtype))
        out = out if residual is None else _added(out, residual)
        return Found(out, _shares(x, folded, offset) if responsibilities else None, run.bases, run.mass)


def em_bases(
    x: Tensor,
    bases: Tensor,
    *,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    iterations: int = 3,
    lam: float = 1.0,
    norm: Norm = "l2",
    eps: float = 1e-6,
    without_mass: WithoutMass = "keep",
    keep: bool = True,
) -> Run:
    """EM without gradients and without its reconstruction, for `em_output` or a last step with gradients.

    Args:
        x: (B, N, D).
        bases: (K, C) or (B, K, C).
        weight: as for `em_attention`, like all that follow.
        bias: b.
        iterations: T.
        lam: λ.
        norm: of the bases.
        eps: added to both denominators.
        without_mass: what becomes of bases without mass.
        keep: whether z is returned.

    Returns:
        The bases, before and after the last M step.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        weight, bias = (None if each is None else each.detach() for each in (weight, bias))
        means = bases.detach().float().expand(x.shape[0], -1, -1).contiguous()
        options = (iterations, lam, norm, eps, without_mass == "keep", keep)
        found, mass, before, shares = _run(x.detach().contiguous(), means, weight, bias, *options)
        return Run(found, mass, before, shares if keep else None)


@torch.library.custom_op("segcontext::em_bases", mutates_args=())
def _run(
    x: Tensor,
    means: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    iterations: int,
    lam: float,
    norm: str,
    eps: float,
    stay: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    before = means = means.clone()
    shares = None
    for iteration in range(max(iterations, 1)):
        before = means
        folded, offset = _fold(means, weight, bias, lam, x.dtype)
        found, masses, shares = summed(x, folded, offset, keep=keep and iteration >= iterations - 1)
        means, mass = finish(found, masses, means, weight, bias, norm, eps, stay)
    return means if iterations else before.clone(), mass, before, x.new_empty(0) if shares is None else shares


@_run.register_fake
def _(
    x: Tensor,
    means: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    iterations: int,
    lam: float,
    norm: str,
    eps: float,
    stay: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shares = x.new_empty(x.shape[0], x.shape[1], means.shape[1]) if keep else x.new_empty(0)
    return torch.empty_like(means), means.new_empty(means.shape[:2]), torch.empty_like(means), shares


def _followed(
    x: Tensor,
    means: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    iterations: int,
    lam: float,
    norm: Norm,
    eps: float,
    without_mass: WithoutMass,
    responsibilities: bool,
) -> Found:
    """All of it with gradients: what the bases go through is PyTorch's."""
    for _ in range(max(iterations, 1)):
        folded, offset = _folded(means, weight, bias, lam, x.dtype)
        sums, mass = em_sums(x, folded, offset)
        if iterations == 0:
            break
        if weight is not None:
            sums = sums @ weight.float().mT
        if bias is not None:
            sums = sums + mass.unsqueeze(-1) * bias.float()
        found = sums / (mass + eps).unsqueeze(-1)
        if norm == "l2":
            found = found / (found.norm(dim=-1, keepdim=True) + eps)
        elif norm == "layer_norm":
            found = F.layer_norm(found, found.shape[-1:])
        means = found if without_mass == "published" else torch.where((mass > eps)[..., None], found, means)
    out = em_mix(x, folded, offset, means.to(x.dtype))
    return Found(out, _shares(x, folded, offset) if responsibilities else None, means, mass)


def _alike(x: Tensor, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(each.to(x.dtype).contiguous() for each in tensors)


def _added(reconstruction: Tensor, residual: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """What `em_output` makes of a reconstruction, with gradients."""
    seen, weight, shift = (each.to(reconstruction.dtype) for each in residual)
    return (seen + F.linear(reconstruction.relu(), weight, shift)).relu()


def _shares(x: Tensor, folded: Tensor, offset: Tensor) -> Tensor:
    """Z with its gradient; (B, N, K) is kept."""
    return (x @ folded.mT + offset.unsqueeze(1)).softmax(-1).to(x.dtype)


def _folded(
    means: Tensor, weight: Tensor | None, bias: Tensor | None, lam: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Bases for the pixels as they come, and what is added to the logits; with gradients."""
    folded = lam * means if weight is None else lam * (means @ weight.float())
    offset = means.new_zeros(means.shape[:2]) if bias is None else lam * (means @ bias.float())
    return (folded - folded.mean(1, keepdim=True)).to(dtype).contiguous(), offset.contiguous()


def _fold(
    means: Tensor, weight: Tensor | None, bias: Tensor | None, lam: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The same without gradients, in fewer launches."""
    if weight is None:
        return _folded(means, None, bias, lam, dtype)
    folded = product(means, weight, transposed=True, factor=lam, centre=True, dtype=dtype)
    offset = means.new_zeros(means.shape[:2]) if bias is None else lam * (means @ bias.float())
    return folded, offset
