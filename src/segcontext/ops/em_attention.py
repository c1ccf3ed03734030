"""Expectation-maximization attention (EMANet §4, eqs. 10-14), as a pure function."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from segcontext.ops.precision import widen

__all__ = [
    "BasesNorm",
    "EMAttention",
    "EMGradient",
    "EMKernel",
    "WithoutMass",
    "em_attention",
    "em_responsibilities",
]

EMKernel: TypeAlias = Literal["exponential_inner_product", "inner_product", "euclidean", "rbf"]
BasesNorm: TypeAlias = Literal["l2", "layer_norm", "none"]
EMGradient: TypeAlias = Literal["none", "last", "all"]
WithoutMass: TypeAlias = Literal["keep", "published"]


class EMAttention(NamedTuple):
    """What `em_attention` returns.

    Attributes:
        reconstruction: x̃ of eq. 14, (B, N, C), in the dtype of `x`.
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
) -> EMAttention:
    r"""Re-estimates pixels from a few bases found by expectation-maximization.

    `iterations` times, E :math:`z = \mathrm{norm}_k\,\mathcal K(x, \mu)` (eqs. 11-12) and M
    :math:`\mu_k = \sum_n z_{nk} x_n / \sum_n z_{nk}` (eq. 13) with the bases normalised (§5.3); then R
    :math:`\tilde x_n = \sum_k z_{nk}\mu_k` (eq. 14). With 7·C·K·N multiply-adds at three iterations.

    Args:
        x: pixels, (B, N, C), any float dtype; sums are taken in float32 or wider.
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

    Example:
        >>> import torch
        >>> found = em_attention(torch.randn(2, 30, 8), torch.randn(4, 8))
        >>> found.reconstruction.shape, found.responsibilities.shape, found.bases.shape
        (torch.Size([2, 30, 8]), torch.Size([2, 30, 4]), torch.Size([2, 4, 8]))
    """
    if iterations < 0:
        raise ValueError(f"iterations must be 0 or more, not {iterations}")
    if gradient not in ("none", "last", "all"):
        raise ValueError(f"gradient must be none, last or all, not {gradient!r}")
    if norm not in ("l2", "layer_norm", "none"):
        raise ValueError(f"norm must be l2, layer_norm or none, not {norm!r}")
    if without_mass not in ("keep", "published"):
        raise ValueError(f"without_mass must be keep or published, not {without_mass!r}")
    fits = x.ndim == 3 and (bases.ndim == 2 or (bases.ndim == 3 and bases.shape[0] == x.shape[0]))
    if not fits or x.shape[-1] != bases.shape[-1]:
        raise ValueError(
            "expected x (B, N, C) and bases (K, C) or (B, K, C), "
            f"but they are {tuple(x.shape)} and {tuple(bases.shape)}"
        )
    with torch.autocast(x.device.type, enabled=False):
        features = widen(x)
        # A constant is a detached tensor, not a no-grad region: torch.export and double backward both keep working.
        constant = features.detach()
        means = widen(bases).expand(x.shape[0], -1, -1)
        if gradient != "all":
            means = means.detach()
        responsibilities = mass = None
        history = []
        for iteration in range(max(iterations, 1)):
            last = iteration >= iterations - 1
            seen = features if gradient == "all" or (gradient == "last" and last) else constant
            responsibilities = em_responsibilities(seen, means, kernel=kernel, lam=lam, eps=eps)
            if keep_history:
                history.append(responsibilities)
            held = responsibilities if gradient == "all" else responsibilities.detach()
            mass = held.sum(1)
            if iterations > 0:
                found = _maximize(features if gradient == "all" else constant, held, mass, norm, eps)
                means = found if without_mass == "published" else torch.where((mass > eps)[..., None], found, means)
        assert responsibilities is not None
        assert mass is not None
        reconstruction = (responsibilities @ means).to(x.dtype)
    return EMAttention(reconstruction, responsibilities, means, mass, torch.stack(history) if keep_history else None)


def _maximize(x: Tensor, responsibilities: Tensor, mass: Tensor, norm: BasesNorm, eps: float) -> Tensor:
    """The M step and the normalisation."""
    means = (responsibilities.mT @ x) / (mass + eps).unsqueeze(-1)
    if norm == "l2":
        means = means / (means.norm(dim=-1, keepdim=True) + eps)
    elif norm == "layer_norm":
        means = F.layer_norm(means, means.shape[-1:])
    return means
