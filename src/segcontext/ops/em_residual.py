"""What follows EM attention in the EMA unit."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from segcontext.ops.precision import widen

__all__ = ["Residual"]


class Residual(NamedTuple):
    r"""Pixels that a reconstruction x̃ is added to, :math:`\mathrm{ReLU}(x + W\,\mathrm{ReLU}(\tilde x) + b)`.

    Attributes:
        x: pixels, (B, N, C).
        weight: W, (C, C).
        bias: b, (C,).
    """

    x: Tensor
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, x: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d | nn.SyncBatchNorm) -> Residual:
        """From a 1×1 convolution without bias and a batch norm by its fixed statistics, which is linear too.

        Args:
            x: pixels, (B, N, C).
            convolution: whose weight is scaled.
            norm: whose statistics exist.
        """
        mean, variance = norm.running_mean, norm.running_var
        assert mean is not None
        assert variance is not None
        scale = (widen(variance) + norm.eps).rsqrt()
        shift = -widen(mean) * scale
        if norm.affine:
            scale = scale * widen(norm.weight)
            shift = shift * widen(norm.weight) + widen(norm.bias)
        return cls(x, scale.unsqueeze(1) * widen(convolution.weight.flatten(1)), shift)

    def plus(self, reconstruction: Tensor) -> Tensor:
        """The sum, in the wider of both dtypes.

        Args:
            reconstruction: x̃, (B, N, C).
        """
        weight, bias = self.weight.to(reconstruction.dtype), self.bias.to(reconstruction.dtype)
        return (self.x + F.linear(reconstruction.relu(), weight, bias)).relu()
