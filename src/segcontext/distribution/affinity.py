"""Local distribution by affinities (GALD LDv2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from segcontext.errors import RecipeError
from segcontext.layers import pixels_at_stride
from segcontext.ops.local_attention import local_attention
from segcontext.types import Affinity, Context

__all__ = ["AffinityDistribution", "AffinityInput"]

AffinityInput: TypeAlias = Literal["both", "aggregated", "local"]


class AffinityDistribution(nn.Module):
    r"""LDv2: each pixel draws on a dilated window by affinities of its own (GALD §III-B, eqs. 6-8).

    With :math:`x = \mathrm{concat}(X_g, X_l)` and 1×1 projections q, k, v,
    :math:`X_\mathrm{gald}(p) = \sum_{n\in W(p)} \mathrm{softmax}_n(s\,q_p^\top k_n)\,v_n` over the k×k positions
    around p, r apart. A position outside the map is a zero key (logit 0) with a zero value.

    Args:
        in_channels: channels of the aggregated features X_g.
        local_channels: channels of the local features X_l.
        kernel_size: k, odd (Table II(b): 3, 5, 7).
        dilation: r, in pixels of the map (Table II(b): 3, 6).
        key_channels: D, of queries and keys.
        value_channels: C, of the values and of the output.
        query_input: what the query is projected from: x, X_g or X_l (Table II(c)).
        key_input: what the key is projected from.
        scale: s; `None` is 1/√D.

    Shape:
        aggregated (B, C_g, h, w), local (B, C_l, h, w), to (B, value_channels, h, w).

    Raises:
        RecipeError: for an even window or an unknown input.

    Note:
        No code of LDv2 was published. Ours, where the paper is silent: D = 256 and C = 512 (with a 2048-channel X_l
        and a 256-channel X_g the projections have 2304·1024 = 2.36M weights, near the printed +2.3M); logits scaled
        by 1/√D, without which a softmax over 25 dot products of 256 channels starts saturated; projections with
        biases; no output projection and no residual, as eq. 8 has none and the fusion follows (eq. 3).
        The paper runs LDv2 at the output stride of its training. Loaded at another one, `segcontext.load_model` scales
        r, which no weight hangs on, so that the window keeps its extent in the image, as ASPP's rates do. That is
        ours, too, and from stride 8 to 16 only near for an odd r: 3 becomes 2.
    """

    def __init__(
        self,
        in_channels: int,
        local_channels: int,
        *,
        kernel_size: int = 5,
        dilation: int = 3,
        key_channels: int = 256,
        value_channels: int = 512,
        query_input: AffinityInput = "both",
        key_input: AffinityInput = "both",
        scale: float | None = None,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0 or dilation < 1:
            raise RecipeError(
                f"kernel_size must be odd and dilation at least 1, not {kernel_size} and {dilation}; the paper uses "
                "3, 5 or 7 and 3 or 6."
            )
        sources = {"both": in_channels + local_channels, "aggregated": in_channels, "local": local_channels}
        for option, source in (("query_input", query_input), ("key_input", key_input)):
            if source not in sources:
                raise RecipeError(f"{option} must be both, aggregated or local, not {source!r}.")
        self.in_channels = in_channels
        self.local_channels = local_channels
        self.out_channels = value_channels
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.query_input: AffinityInput = query_input
        self.key_input: AffinityInput = key_input
        self.scale = key_channels**-0.5 if scale is None else scale
        self.query = nn.Conv2d(sources[query_input], key_channels, 1)
        self.key = nn.Conv2d(sources[key_input], key_channels, 1)
        self.value = nn.Conv2d(sources["both"], value_channels, 1)

    def options_at_stride(self, options: Mapping[str, Any], *, trained: int, now: int) -> dict[str, Any]:
        """The options with the dilation that keeps the window's extent in the image, see `segcontext.model`."""
        return {**options, "dilation": pixels_at_stride(self.dilation, trained=trained, now=now)}

    def forward(self, aggregated: Tensor, local: Tensor, *, evidence: bool = False) -> Context:
        """Hands the aggregated context out to each pixel.

        Args:
            aggregated: X_g, (B, C_g, h, w).
            local: X_l, (B, C_l, h, w).
            evidence: whether `Affinity` is returned, from which the row of any pixel can be made.

        Returns:
            (B, value_channels, h, w), and the evidence where asked for.
        """
        both = torch.cat([aggregated, local], 1)
        sources = {"both": both, "aggregated": aggregated, "local": local}
        query, key = self.query(sources[self.query_input]), self.key(sources[self.key_input])
        out = local_attention(
            query, key, self.value(both), kernel_size=self.kernel_size, dilation=self.dilation, scale=self.scale
        )
        if not evidence:
            return Context(out)
        return Context(out, Affinity(self.scale * query.detach(), key.detach(), self.kernel_size, self.dilation))
