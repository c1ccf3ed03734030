"""Gradients that are differentiated again, where only the reference's know how they came about."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["followed_gradients", "told_apart"]


def told_apart(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The same tensors, each as a view of its own: what is differentiated by one takes no way through another.

    An operation that saved its inputs has them back with all that they were made of. Where one was made of another, or
    is the same, a gradient by them as they are holds more than the operation's own share.

    Args:
        tensors: as they were saved.

    Example:
        >>> x = torch.ones(1, requires_grad=True)
        >>> left, right = told_apart(x, 3 * x)
        >>> torch.autograd.grad(left * right, (left, right))
        (tensor([3.]), tensor([1.]))
    """
    return tuple(None if each is None else each.view_as(each) for each in tensors)


def followed_gradients(
    reference: Callable[..., Tensor], tensors: Sequence[Tensor], wanted: Sequence[bool], slope: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients by an operation's inputs, with a graph that leads on to them and to the slope.

    Args:
        reference: the operation in PyTorch's operators, of the tensors.
        tensors: its inputs, as they were saved.
        wanted: by which of them.
        slope: the gradient by its result.

    Returns:
        One for each tensor, `None` for those that are not wanted.
    """
    apart = told_apart(*tensors)
    asked = [each for each, want in zip(apart, wanted, strict=True) if want and each is not None]
    found = iter(torch.autograd.grad(reference(*apart), asked, slope, create_graph=True))
    return tuple(next(found) if want else None for want in wanted)
