"""The compact generalized non-local block (CGNL)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.errors import RecipeError
from segcontext.ops.compact_attention import compact_attention
from segcontext.ops.precision import widen
from segcontext.types import Context

__all__ = ["CGNL"]


class CGNL(nn.Module):
    r"""Each pixel and channel draws on all pixels and channels of its group (Yue et al. 2018).

    :math:`\mathrm{out} = x + \mathrm{GN}(W_z\,\theta(\phi^\top g))` in each of G channel groups, where θ, φ, g are
    1×1 projections whose channels and positions form one vector, and W_z is a grouped 1×1 convolution. The layers have
    the published names ``t``, ``p``, ``g``, ``z``, ``gn``.

    Args:
        in_channels: C.
        channels: of θ, φ and g; `None` is half of C.
        groups: G, of the attention, of W_z and of the group norm.

    Shape:
        (B, C, h, w) to the same.

    Raises:
        RecipeError: where `groups` does not divide the channels.

    Note:
        :math:`\phi^\top g` is one number per image and group. It commutes with W_z, so it is applied after it, in
        float32: the published order overflows half precision.
        The group norm has the same groups and so divides that number out again: what is left of it is its sign, and
        its size only against the norm's ε. As in the published block, ``p`` and ``g`` thus learn next to nothing, but
        where that number passes through zero all gradients grow, by up to 1/√ε: `clip_gradient` keeps an optimizer that
        remembers them, such as AdamW, from slowing down for hundreds of steps.

    Example:
        >>> import torch
        >>> CGNL(32)(torch.randn(2, 32, 5, 7)).features.shape
        torch.Size([2, 32, 5, 7])
    """

    def __init__(self, in_channels: int, *, channels: int | None = None, groups: int = 8) -> None:
        super().__init__()
        channels = in_channels // 2 if channels is None else channels
        if groups < 1 or channels < 1 or in_channels % groups or channels % groups:
            raise RecipeError(
                f"groups must divide in_channels and channels, but {groups} does not divide {in_channels} and "
                f"{channels}; take another number of groups or of channels."
            )
        self.in_channels = self.out_channels = in_channels
        self.groups = groups
        self.t = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.p = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.g = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.z = nn.Conv2d(channels, in_channels, 1, groups=groups, bias=False)
        self.gn = nn.GroupNorm(groups, in_channels)

    def forward(self, x: Tensor, *, evidence: bool = False) -> Context:
        """Adds to each pixel what it draws from all pixels and channels.

        Args:
            x: (B, C, h, w).
            evidence: has no effect, the attention is one number per group.

        Returns:
            (B, C, h, w).
        """
        query, key, value = self.z(self.t(x)), self.p(x), self.g(x)
        drawn = compact_attention(query.flatten(2), key.flatten(2), value.flatten(2), groups=self.groups)
        # A module cast to half precision as a whole still normalises in float32.
        norm = self.gn
        normed = F.group_norm(
            widen(drawn.reshape(x.shape)), norm.num_groups, widen(norm.weight), widen(norm.bias), norm.eps
        )
        return Context(x + normed.to(x.dtype))
