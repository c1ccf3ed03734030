"""The non-local block: attention over all positions."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.errors import RecipeError
from segcontext.ops.non_local_attention import non_local_attention
from segcontext.pooled_norm import PooledNorm
from segcontext.types import Affinity, Context

__all__ = ["NonLocal"]


class NonLocal(nn.Module):
    r"""Each pixel draws on all pixels, weighted by affinity (Wang et al. 2018, embedded Gaussian).

    :math:`z_p = x_p + \mathrm{BN}(W_z y_p)` (eq. 6) with
    :math:`y_p = \sum_m \mathrm{softmax}_m\big((W_\theta x_p)^\top W_\phi x_m\big)\, W_g x_m` (eqs. 1-4); θ, φ and g
    are called query, key and value here.

    Args:
        in_channels: C.
        key_channels: D, of queries and keys; `None` is half of C, the paper's bottleneck.
        value_channels: channels of the values; `None` is half of C.
        pool: keys and values are max-pooled over windows of this side, in pixels; 1 keeps all, 2 is the paper's
            subsampling trick. Windows at the border may be cut short.
        scaled: whether logits are divided by √D.
        zero_init: whether the last batch norm starts at zero, so that the block starts as the identity (§4.1).
        biases: which of the three projections have a bias, ``"query"`` or ``"all"``.

    Shape:
        (B, C, h, w) to the same.

    Raises:
        RecipeError: for no channels or a window below 1.

    Note:
        The paper's equation has no scaling, and neither has the default; its published code divides by √D.
        Only the query has a bias: softmax cancels what a key's bias adds, and batch norm what a value's adds.
        OpenMMLab's block has all three, and divides by √D: ``biases="all", scaled=True``.

    Example:
        >>> import torch
        >>> NonLocal(16)(torch.randn(2, 16, 5, 7)).features.shape
        torch.Size([2, 16, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        *,
        key_channels: int | None = None,
        value_channels: int | None = None,
        pool: int = 1,
        scaled: bool = False,
        zero_init: bool = True,
        biases: Literal["query", "all"] = "query",
    ) -> None:
        super().__init__()
        key_channels = in_channels // 2 if key_channels is None else key_channels
        value_channels = in_channels // 2 if value_channels is None else value_channels
        if min(key_channels, value_channels, pool) < 1:
            raise RecipeError(
                "key_channels, value_channels and pool must be at least 1, "
                f"not {key_channels}, {value_channels} and {pool}."
            )
        if biases not in ("query", "all"):
            raise RecipeError(f"biases must be query or all, not {biases!r}.")
        self.in_channels = self.out_channels = in_channels
        self.pool = pool
        self.scale = key_channels**-0.5 if scaled else 1.0
        self.query = nn.Conv2d(in_channels, key_channels, 1)
        self.key = nn.Conv2d(in_channels, key_channels, 1, bias=biases == "all")
        self.value = nn.Conv2d(in_channels, value_channels, 1, bias=biases == "all")
        norm = PooledNorm(in_channels)
        if zero_init:
            nn.init.zeros_(norm.weight)
        self.project = nn.Sequential(nn.Conv2d(value_channels, in_channels, 1, bias=False), norm)

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Adds to each pixel what it draws from all pixels.

        Args:
            x: (B, C, h, w).
            evidence: whether `Affinity` is returned, from which the row of any pixel can be made.

        Returns:
            (B, C, h, w), and the evidence where asked for.
        """
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pool > 1:
            key, value = (F.max_pool2d(each, self.pool, ceil_mode=True) for each in (key, value))
        drawn = non_local_attention(query.flatten(2), key.flatten(2), value.flatten(2), scale=self.scale)
        out = x + self.project(drawn.reshape(x.shape[0], -1, x.shape[-2], x.shape[-1]))
        if not evidence:
            return Context(out)
        return Context(out, Affinity(self.scale * query.detach(), key.detach(), kernel_size=0, dilation=1))
