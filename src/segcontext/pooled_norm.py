"""Batch norm that can also train on a single value per channel."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["PooledNorm"]


class PooledNorm(nn.BatchNorm2d):
    """Batch norm for maps that pooling or striding may leave with one value per channel.

    The mean of one value is the value itself, so normalising by it would erase the input, and PyTorch refuses to.
    In that one case (one image, a 1×1 map, training) the running statistics normalise, as in evaluation, and stay as
    they are. In every other case this is `torch.nn.BatchNorm2d`, under the same tensor names.

    Args:
        num_features: channels, and the other arguments of `torch.nn.BatchNorm2d`.

    Shape:
        (B, C, h, w) to the same.

    Note:
        `torch.nn.SyncBatchNorm.convert_sync_batchnorm` converts it like any batch norm; the statistics then come from
        all ranks, so that more than one rank never meets the case.

    Example:
        >>> import torch
        >>> PooledNorm(4).train()(torch.randn(1, 4, 1, 1)).shape
        torch.Size([1, 4, 1, 1])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalises each channel.

        Args:
            input: (B, C, h, w).

        Returns:
            (B, C, h, w).
        """
        if self.training and input.numel() == input.shape[1] and self.running_mean is not None:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)
