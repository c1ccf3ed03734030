"""Attention over a dilated window around each pixel (GALD eqs. 6-8), as a pure function."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from segcontext.gpu.local_attention import local_attention as by_triton
from segcontext.gpu.local_attention import local_obstacle
from segcontext.ops import local_attention_native
from segcontext.ops.announced import Computed, announces
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched
from segcontext.ops.local_attention_reference import local_attention_reference

__all__ = ["local_attention"]


def _computed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel_size: int = 5,
    dilation: int = 3,
    scale: float = 1.0,
    implementation: Implementation | None = None,
) -> Computed:
    batch, depth, height, width = key.shape
    logits = batch * kernel_size**2 * height * width
    return Computed(logits * (depth + value.shape[1]), logits)


@announces(_computed)
def local_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    kernel_size: int = 5,
    dilation: int = 3,
    scale: float = 1.0,
    implementation: Implementation | None = None,
) -> Tensor:
    r"""Each pixel gathers values from a k×k window around it, weighted by its affinity to their keys.

    GALD eqs. 6-8: :math:`y_p = \sum_{n \in W(p)} \mathrm{softmax}_n(s\, q_p^\top k_n)\, v_n`, with W(p) the k×k
    positions around p, `dilation` pixels apart. A position outside the map has the zero vector as key and value: its
    logit is 0, it takes its share of the softmax, and gives nothing. k²·(D + C)·h·w multiply-adds for each image.

    Args:
        query: (B, D, h, w).
        key: (B, D, h, w).
        value: (B, C, h, w).
        kernel_size: k, odd, in positions.
        dilation: r ≥ 1, pixels between neighbouring positions.
        scale: s, multiplies the logits.
        implementation: the form that runs: ``"reference"`` is plain PyTorch; ``"native"`` is compiled loops on the CPU,
            for float32 and bfloat16, which hold one number per pixel for the gradients and k² while they are taken,
            whatever D and C; ``"triton"`` is kernels on a GPU; `None` is what
            `segcontext.ops.implementations.use_implementation` says, and without it the fastest that can.

    Returns:
        (B, C, h, w), in the dtype of `value`.

    Raises:
        ValueError: where `kernel_size` is even, `dilation` is below 1, or the maps do not fit together.
        RecipeError: there is no such form.

    Note:
        The paper's equations have no scale; s = 1 is that. Products, softmax and sums are taken in float32 or wider.
        Gradients of gradients, which Triton's form does not have, are always the reference's, whose memory grows with
        k²·(D + C). Exported programs hold the reference, too, so that they run without segcontext.

    Example:
        >>> import torch
        >>> q = k = torch.randn(1, 8, 9, 9)
        >>> local_attention(q, k, torch.randn(1, 16, 9, 9)).shape
        torch.Size([1, 16, 9, 9])
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, not {kernel_size}")
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more, not {dilation}")
    if (
        query.shape != key.shape
        or query.ndim != 4
        or value.shape[0] != key.shape[0]
        or value.shape[2:] != key.shape[2:]
    ):
        raise ValueError(
            "expected query and key (B, D, h, w) and value (B, C, h, w), "
            f"but they are {tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    obstacles: dict[Implementation, str | None] = {
        "triton": local_obstacle(query, key, value),
        "native": local_attention_native.obstacle(query, key, value),
    }
    site = Site.of(query, key, value)
    form = choose("local_attention", implementation, obstacles, site)
    if form == "triton":
        run, plain = (
            partial(each, kernel_size=kernel_size, dilation=dilation, scale=scale)
            for each in (by_triton, local_attention_reference)
        )
        found = launched("local_attention", implementation, site, run, plain, query, key, value)
        if found is not None:
            return found
        form = choose("local_attention", implementation, obstacles, site)
    if form == "native":
        return local_attention_native.attend(query, key, value, kernel_size, dilation, scale)
    return local_attention_reference(query, key, value, kernel_size=kernel_size, dilation=dilation, scale=scale)
