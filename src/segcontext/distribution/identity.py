"""No distribution: what was aggregated goes on as it is."""

from __future__ import annotations

from torch import Tensor, nn

from segcontext.types import Context

__all__ = ["Identity"]


class Identity(nn.Module):
    """Hands the aggregated features on.

    Args:
        in_channels: channels of the aggregated features.
        local_channels: channels of the local features, which are not used.
    """

    def __init__(self, in_channels: int, local_channels: int) -> None:
        super().__init__()
        self.in_channels = self.out_channels = in_channels
        self.local_channels = local_channels

    def forward(self, aggregated: Tensor, local: Tensor, *, evidence: bool = False) -> Context:
        """Returns `aggregated`; there is no evidence to give."""
        return Context(aggregated)
