"""Batch norm by fixed statistics, folded into the convolution before it."""

from __future__ import annotations

from torch import Tensor, nn

from segcontext.pooled_norm import PooledNorm

__all__ = ["folded_norm", "has_fixed_norm"]


def has_fixed_norm(convolution: nn.Module, norm: nn.Module) -> bool:
    """Whether a convolution and what follows it can be folded now: batch norm that does not look at its input.

    Args:
        convolution: any module.
        norm: the one behind it.

    Example:
        >>> has_fixed_norm(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), has_fixed_norm(nn.Conv2d(3, 4, 1), nn.Identity())
        (False, False)
        >>> has_fixed_norm(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval())
        True
    """
    watched = any(each._forward_hooks or each._forward_pre_hooks for each in (convolution, norm))
    return (
        isinstance(convolution, nn.Conv2d)
        and type(norm) in (nn.BatchNorm2d, PooledNorm)
        and not norm.training
        and norm.running_mean is not None
        and not watched
    )


def folded_norm(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """The weight and the bias of the convolution that does both.

    Args:
        convolution: with or without a bias.
        norm: with fixed statistics, see `has_fixed_norm`.

    Returns:
        The weight, as large as the convolution's, and the bias, (out channels,).

    Example:
        >>> import torch
        >>> convolution, norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4).eval()
        >>> weight, bias = folded_norm(convolution, norm)
        >>> x = torch.rand(1, 3, 2, 2)
        >>> torch.allclose(norm(convolution(x)), nn.functional.conv2d(x, weight, bias), atol=1e-6)
        True
    """
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    factor = (variance + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight
    bias = -mean if convolution.bias is None else convolution.bias - mean
    shift = bias * factor if norm.bias is None else bias * factor + norm.bias
    return convolution.weight * factor[:, None, None, None], shift
