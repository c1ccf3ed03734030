"""Expectation-maximization attention (EMANet §4, eqs. 10-14), as a pure function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.em_folded import Projection
from segcontext.ops.em_native import renewed
from segcontext.ops.em_pixels import em_form, em_site, pixels_in_form
from segcontext.ops.em_residual import Residual
from segcontext.ops.em_responsibilities import EMKernel, em_responsibilities
from segcontext.ops.em_triton import em_by_triton
from segcontext.ops.implementations import Implementation
from segcontext.ops.launching import launched
from segcontext.ops.precision import widen

__all__ = [
    "BasesNorm",
    "EMAttention",
    "EMGradient",
    "EMKernel",
    "Residual",
    "WithoutMass",
    "em_attention",
    "em_responsibilities",
]

BasesNorm: TypeAlias = Literal["l2", "layer_norm", "none"]
EMGradient: TypeAlias = Literal["none", "last", "all"]
WithoutMass: TypeAlias = Literal["keep", "published"]


class EMAttention(NamedTuple):
    """What `em_attention` returns.

    Attributes:
        reconstruction: x̃ of eq. 14, (B, N, C), in the dtype of `x`; or what a `Residual` makes of it.
        responsibilities: z of the last E step, (B, N, K), float32 or wider.
        bases: μ after the last M step, (B, K, C), float32 or wider.
        mass: Σₙ zₙₖ of the last M step, (B, K); a basis whose mass is nil kept its value.
        history: (T, B, N, K), z of every E step, where `keep_history` asked for it.
    """

    reconstruction: Tensor
    responsibilities: Tensor
    bases: Tensor
    mass: Tensor
    history: Tensor | None = None


def em_attention(
    x: Tensor,
    bases: Tensor,
    *,
    iterations: int = 3,
    kernel: EMKernel = "exponential_inner_product",
    lam: float = 1.0,
    norm: BasesNorm = "l2",
    gradient: EMGradient = "none",
    eps: float = 1e-6,
    without_mass: WithoutMass = "keep",
    keep_history: bool = False,
    projection: Projection | None = None,
    residual: Residual | None = None,
    implementation: Implementation | None = None,
) -> EMAttention:
    r"""Re-estimates pixels from a few bases found by expectation-maximization.

    `iterations` times, E :math:`z = \mathrm{norm}_k\,\mathcal K(x, \mu)` (eqs. 11-12) and M
    :math:`\mu_k = \sum_n z_{nk} x_n / \sum_n z_{nk}` (eq. 13) with the bases normalised (§5.3); then R
    :math:`\tilde x_n = \sum_k z_{nk}\mu_k` (eq. 14). With 7·C·K·N multiply-adds at three iterations.

    Args:
        x: pixels, (B, N, C), any float dtype; sums are taken in float32 or wider. With a projection (B, N, D).
        bases: the initial bases, (B, K, C), or (K, C) for the same ones in every image.
        iterations: T ≥ 0. With 0, one E step assigns the pixels to the given bases, which stay as they are.
        kernel: 𝒦 of the E step, see `em_responsibilities`.
        lam: λ of the E step; λ → ∞ gives each pixel to one basis: K-means with the RBF kernel and no norm, spherical
            K-means with the L2 norm.
        norm: how bases are normalised after each M step.
        gradient: what autograd follows. ``"none"``: nothing, the reconstruction is a constant. ``"last"``: the last
            E step and R, with bases and their last M step held constant. ``"all"``: everything.
        eps: added to both denominators (the masses and the lengths).
        without_mass: what becomes of a basis whose mass Σₙ zₙₖ is at most `eps`: ``"keep"`` leaves it as it was,
            ``"published"`` follows the formula, as the authors' code does.
        keep_history: whether the responsibilities of every iteration are returned.
        projection: a weight (C, D) and a bias (C,) or `None`: the pixels are :math:`W x_n + b`, in autocast's dtype
            under autocast, like any linear layer.
        residual: where the reconstruction is not wanted itself: pixels, a weight and a bias of what is, see `Residual`.
        implementation: ``"reference"``, as the equations are, ``"rearranged"`` or ``"native"``; `None` is what
            `segcontext.ops.implementations.use_implementation` says, or the fastest one that can run.

    Returns:
        The reconstruction, the last responsibilities, the final bases, the masses and the history.

    Raises:
        ValueError: for a negative number of iterations, an unknown option, or shapes that do not fit.

    Note:
        The default ``gradient="none"`` is the authors' published code, whose weights and results it gave: there z
        and μ leave a no-gradient block, so that the reconstruction is a constant to autograd.
        A basis with no mass (Σₙ zₙₖ ≤ eps) keeps its value. The published code follows the formula: such a basis
        jumps to the direction of the few pixels that it has, or to zero where it has none at all. That is
        ``without_mass="published"``, which imported weights need; OpenMMLab's code is the same with ``eps=1e-12``.
        Rearranged and native, a projection is never applied to the pixels: it goes into the bases, which are few,
        :math:`(W x_n + b)^\top\mu = x_n^\top(W^\top\mu) + b^\top\mu` and
        :math:`\sum_n z_{nk}(W x_n + b) = W\sum_n z_{nk}x_n + b\sum_n z_{nk}`. That is exact for every kernel but the
        Euclidean one, which needs the length of each projected pixel, and saves C·D·N multiply-adds.
        There, bfloat16 pixels meet bases and responsibilities that are rounded to bfloat16, in products that are summed
        in float32 and rounded once; softmax, masses and norms are in float32, and logits are of bases about their
        mean, so that their rounding is small. So are their gradients, where they run rearranged on the CPU. In the
        reference form bfloat16 pixels are computed in float32.

    Example:
        >>> import torch
        >>> found = em_attention(torch.randn(2, 30, 8), torch.randn(4, 8))
        >>> found.reconstruction.shape, found.responsibilities.shape, found.bases.shape
        (torch.Size([2, 30, 8]), torch.Size([2, 30, 4]), torch.Size([2, 4, 8]))
    """
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, not {iterations}")
    if kernel not in get_args(EMKernel):
        raise ValueError(f"kernel must be exponential_inner_product, inner_product, euclidean or rbf, not {kernel!r}")
    if gradient not in ("none", "last", "all"):
        raise ValueError(f"gradient must be none, last or all, not {gradient!r}")
    if norm not in ("l2", "layer_norm", "none"):
        raise ValueError(f"norm must be l2, layer_norm or none, not {norm!r}")
    if without_mass not in ("keep", "published"):
        raise ValueError(f"without_mass must be keep or published, not {without_mass!r}")
    weight, bias = (None, None) if projection is None else projection
    comes, taken = x.shape[-1:], bases.shape[-1:]
    fits = x.ndim == 3 and (bases.ndim == 2 or (bases.ndim == 3 and bases.shape[0] == x.shape[0]))
    if not fits or (comes != taken if weight is None else weight.shape != taken + comes):
        raise ValueError(
            "expected x (B, N, C) and bases (K, C) or (B, K, C), or x (B, N, D) and a projection (C, D), but they are "
            f"{tuple(x.shape)}, {tuple(bases.shape)} and {None if weight is None else tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != taken:
        raise ValueError(f"expected a bias of {bases.shape[-1]} values, but it is {tuple(bias.shape)}")
    if residual is not None and (residual.x.shape != (*x.shape[:2], *taken) or residual.weight.shape != taken + taken):
        raise ValueError(
            f"expected a residual of (B, N, C) pixels and a (C, C) weight with C = {bases.shape[-1]}, "
            f"but they are {tuple(residual.x.shape)} and {tuple(residual.weight.shape)}"
        )
    follows = gradient != "none"
    site = em_site(x, bases, projection, residual, follows=follows)
    choice = partial(
        em_form,
        *(x, bases, projection, residual),
        kernel=kernel,
        site=site,
        keep_history=keep_history,
        implementation=implementation,
    )
    form = choice()
    if form == "triton":
        steps: dict[str, Any] = {"iterations": iterations, "lam": lam, "norm": norm, "gradient": gradient}
        steps |= {"eps": eps, "without_mass": without_mass}
        run, plain = (partial(_on, each, **steps) for each in (em_by_triton, _by_equations))
        given = (x, bases, weight, bias, *(residual or ()))
        results = launched("em_attention", implementation, site, run, plain, *given)
        if results is not None:
            return EMAttention(*results)
        form = choice()
    pixels = pixels_in_form(form, x, projection)
    if not follows:
        pixels = pixels.constant()
    with torch.autocast(x.device.type, enabled=False):
        pixels = pixels.widened()
        # A constant is a detached tensor, not a no-grad region: torch.export and double backward both keep working.
        constant = pixels.constant()
        means = widen(bases).expand(x.shape[0], -1, -1)
        if gradient != "all":
            means = means.detach()
        responsibilities = drawn = mass = None
        history = []
        for iteration in range(max(iterations, 1)):
            last = iteration >= iterations - 1
            seen = pixels if gradient == "all" or (gradient == "last" and last) else constant
            responsibilities, drawn = seen.assign(means, kernel, lam, eps, keep=keep_history or last)
            if keep_history:
                assert responsibilities is not None
                history.append(responsibilities)
            held = drawn if gradient == "all" else drawn.detach()
            mass = held.sum(1, dtype=torch.promote_types(held.dtype, torch.float32))
            if iterations > 0:
                sums = (pixels if gradient == "all" else constant).gather(held, mass)
                if form == "native" and norm == "l2":
                    means = renewed(sums, mass, means, eps, keep=without_mass == "keep")
                    continue
                found = _maximize(sums, mass, norm, eps)
                means = found if without_mass == "published" else torch.where((mass > eps)[..., None], found, means)
        assert responsibilities is not None
        assert drawn is not None
        assert mass is not None
        reconstruction = pixels.rebuild(drawn, means) if residual is None else pixels.add_to(residual, drawn, means)
    return EMAttention(reconstruction, responsibilities, means, mass, torch.stack(history) if keep_history else None)


def _on(
    function: Callable[..., tuple[Tensor, ...]],
    x: Tensor,
    bases: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    *residual: Tensor,
    **options: Any,
) -> tuple[Tensor, ...]:
    """A function of EM attention, of tensors alone."""
    projection = None if weight is None else (weight, bias)
    return function(x, bases, projection, Residual(*residual) if residual else None, **options)


def _by_equations(
    x: Tensor, bases: Tensor, projection: Projection | None, residual: Residual | None, **options: Any
) -> tuple[Tensor, ...]:
    """The reference's reconstruction, responsibilities, bases and mass."""
    found = em_attention(x, bases, projection=projection, residual=residual, implementation="reference", **options)
    return found[:4]


def _maximize(sums: Tensor, mass: Tensor, norm: BasesNorm, eps: float) -> Tensor:
    """The M step, from Σₙ zₙₖ xₙ, and the normalisation."""
    means = sums / (mass + eps).unsqueeze(-1)
    if norm == "l2":
        means = means / (means.norm(dim=-1, keepdim=True) + eps)
    elif norm == "layer_norm":
        means = F.layer_norm(means, means.shape[-1:])
    return means
