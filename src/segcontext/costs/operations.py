"""What one ATen operation costs: multiply-adds of convolutions and matrix products, and the small operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

__all__ = ["PRODUCTS", "SOFTMAX", "Operation", "has_rule", "operation_cost"]

#: The kinds that are multiply-adds in the papers' sense; all others are small operations.
PRODUCTS = ("convolution", "matrix product")

#: Small operations of a softmax, per value.
SOFTMAX = 5


class Operation(NamedTuple):
    """The cost of one operation.

    Attributes:
        kind: what it is: one of `PRODUCTS`, or normalisation, softmax, pooling, interpolation, reduction, elementwise
            or other.
        products: multiply-adds of a convolution or matrix product.
        small: everything else, such as an addition of a bias.
        softmax: small operations of a softmax within a product.
    """

    kind: str
    products: int = 0
    small: int = 0
    softmax: int = 0


Formula: TypeAlias = Callable[[tuple[Any, ...], Tensor], Operation]


def operation_cost(operation: torch._ops.OpOverload, arguments: tuple[Any, ...], result: Any) -> Operation | None:
    """The cost of an operation that has just run.

    Args:
        operation: the ATen operation, such as ``torch.ops.aten.mm.default``.
        arguments: its positional arguments.
        result: what it returned.

    Returns:
        The cost; `None` where nothing is computed, as in views and copies.

    Note:
        A convolution or matrix product of an m×k by a k×n matrix is m·k·n multiply-adds, whichever kernel runs it;
        fused attention of N queries of D channels over M keys with values of C channels is N·M·(D + C) and a softmax;
        Euclidean distances of N points of D coordinates to M others are N·M·D; a bilinear form sums over one side after
        the other; a recurrent layer multiplies each of its matrices once per step.
        Small operations, per element: 1 for anything elementwise or summed up, 2 for batch norm by fixed statistics
        and 7 for norms that take their own, 5 for softmax, 4 for bilinear interpolation, the window for pooling.
        What is neither listed here nor a view nor elementwise counts 1 per element that it returns, as ``other``.

    Example:
        >>> a, b = torch.ones(2, 3), torch.ones(3, 4)
        >>> operation_cost(torch.ops.aten.mm.default, (a, b), a @ b)
        Operation(kind='matrix product', products=24, small=0, softmax=0)
    """
    name = operation._schema.name.removeprefix("aten::")
    out = _first_tensor(result)
    formula = _FORMULAS.get(name)
    if formula is not None:
        return None if out is None else formula(arguments, out)
    if out is None or operation.is_view or name in _FREE or name.startswith(_FREE_BEGINNINGS):
        return None
    if name.startswith("_scaled_dot_product_"):
        return _attention(arguments, out)
    if torch.Tag.pointwise in operation.tags:
        return Operation("elementwise", small=out.numel())
    return Operation("other", small=out.numel())


def has_rule(operation: torch._ops.OpOverload) -> bool:
    """Whether an operation is counted by a rule of its own, so that it need not be taken apart.

    Args:
        operation: the ATen operation.

    Example:
        >>> has_rule(torch.ops.aten.upsample_bilinear2d.vec), has_rule(torch.ops.aten.matmul.default)
        (True, False)
    """
    name = operation._schema.name.removeprefix("aten::")
    return name in _FORMULAS or name in _FREE


def _first_tensor(result: Any) -> Tensor | None:
    if isinstance(result, Tensor):
        return result
    if isinstance(result, tuple | list):
        return next((each for each in result if isinstance(each, Tensor)), None)
    return None


def _convolution(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    x, weight = arguments[0], arguments[1]
    # A transposed convolution applies its kernel once per pixel of the input.
    applied = x if len(arguments) > 6 and arguments[6] is True else out
    bias = arguments[2] if len(arguments) > 2 and isinstance(arguments[2], Tensor) else None
    return Operation("convolution", applied.numel() * weight.shape[1:].numel(), 0 if bias is None else out.numel())


def _matrices(first: int, *, added: bool) -> Formula:
    """Products whose left matrix is the argument `first`, with or without a matrix that is added."""

    def formula(arguments: tuple[Any, ...], out: Tensor) -> Operation:
        left, right = arguments[first], arguments[first + 1]
        columns = right.shape[-1] if right.ndim > 1 else 1
        return Operation("matrix product", left.numel() * columns, out.numel() if added else 0)

    return formula


def _attention(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    query, key, value = arguments[:3]
    logits = query.shape[:-1].numel() * key.shape[-2]
    products = logits * (query.shape[-1] + value.shape[-1])
    return Operation("matrix product", products, softmax=SOFTMAX * logits)


def _distances(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    x, power = arguments[0], arguments[2] if len(arguments) > 2 else 2.0
    pairs = out.numel() * x.shape[-1]
    if power != 2:
        # A difference, its power, and the sum.
        return Operation("reduction", small=3 * pairs)
    # With |x - y|² = |x|² - 2xy + |y|²: the squares and their sums, two additions, a bound at 0 and the root.
    return Operation("matrix product", pairs, 2 * (x.numel() + arguments[1].numel()) + 4 * out.numel())


def _trilinear(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    """The product of three tensors, summed over some axes; each lacks the axes at which it is expanded."""
    tensors, expanded, summed = arguments[:3], arguments[3:6], set(arguments[6])
    axes = range(tensors[0].ndim + len(expanded[0]))
    sizes: dict[int, int] = {}
    for tensor, lacking in zip(tensors, expanded, strict=True):
        sizes.update(zip((axis for axis in axes if axis not in lacking), tensor.shape, strict=True))
    first = [axis for axis in axes if axis not in expanded[0] or axis not in expanded[1]]
    # What the third tensor lacks is summed in the first product.
    left = [axis for axis in axes if axis in first and not (axis in summed and axis in expanded[2])]
    second = [axis for axis in axes if axis in left or axis not in expanded[2]]
    products = sum(math.prod(sizes[axis] for axis in product) for product in (first, second))
    return Operation("matrix product", products)


def _deformable(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    x, weight = arguments[:2]
    # Every kernel cell of every output reads all channels between pixels; the kernel always adds a bias.
    read = out[:, 0].numel() * x.shape[1] * weight.shape[2:].numel()
    masked = read if arguments[-1] is True else 0
    return Operation("convolution", out.numel() * weight.shape[1:].numel(), 4 * read + masked + out.numel())


def _recurrent(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    steps = arguments[0].shape[:-1].numel()
    matrices = [weight for weight in arguments[1] if weight.ndim == 2]
    # The gates, about 5 per value.
    return Operation(
        "matrix product",
        steps * sum(matrix.numel() for matrix in matrices),
        5 * steps * sum(matrix.shape[0] for matrix in matrices) // 2,
    )


def _batch_norm(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    # All forms take weight, bias, and then, where there are any, running statistics and whether it trains.
    trains = any(each is True for each in arguments[3:])
    return Operation("normalisation", small=(7 if trains else 2) * out.numel())


def _pooling(arguments: tuple[Any, ...], out: Tensor) -> Operation:
    window = arguments[1]
    cells = window[0] * window[-1] if len(window) > 1 or out.ndim < 4 else window[0] ** 2
    return Operation("pooling", small=cells * out.numel())


def _per_result(kind: str, count: int) -> Formula:
    return lambda arguments, out: Operation(kind, small=count * out.numel())


def _per_input(kind: str, count: int = 1) -> Formula:
    return lambda arguments, out: Operation(kind, small=count * arguments[0].numel())


_FORMULAS: Mapping[str, Formula] = {
    **dict.fromkeys(
        ("convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution"),
        _convolution,
    ),
    # Its seventh argument is no transposition, and it adds no bias.
    "cudnn_convolution": lambda arguments, out: _convolution(arguments[:2], out),
    **dict.fromkeys(("mm", "bmm", "mv", "dot", "vdot", "_int_mm"), _matrices(0, added=False)),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "addmm_", "baddbmm_"), _matrices(1, added=True)),
    **dict.fromkeys(("_euclidean_dist", "_cdist_forward"), _distances),
    "_trilinear": _trilinear,
    "torchvision::deform_conv2d": _deformable,
    "_cudnn_rnn": _recurrent,
    **dict.fromkeys(
        (
            *("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training"),
            *("cudnn_batch_norm", "_batch_norm_no_update"),
        ),
        _batch_norm,
    ),
    **dict.fromkeys(
        ("native_group_norm", "native_layer_norm", "_fused_rms_norm", "_batch_norm_with_update"),
        _per_result("normalisation", 7),
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _per_result("softmax", SOFTMAX)),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "max_pool2d"), _pooling),
    **dict.fromkeys(("_adaptive_avg_pool2d", "adaptive_max_pool2d"), _per_input("pooling")),
    **dict.fromkeys(
        ("upsample_bilinear2d", "_upsample_bilinear2d_aa", "grid_sampler_2d"), _per_result("interpolation", 4)
    ),
    "upsample_linear1d": _per_result("interpolation", 2),
    "upsample_trilinear3d": _per_result("interpolation", 8),
    "upsample_bicubic2d": _per_result("interpolation", 16),
    **dict.fromkeys(
        (
            *("sum", "mean", "prod", "amax", "amin", "max", "min", "argmax", "argmin", "any", "all", "nansum"),
            *("norm", "linalg_vector_norm", "logsumexp", "cumsum", "cumprod", "aminmax"),
        ),
        _per_input("reduction"),
    ),
    **dict.fromkeys(("var", "var_mean", "std", "std_mean"), _per_input("reduction", 3)),
}

# Nothing is computed by these: numbers are made, moved or looked up.
_FREE = frozenset(
    (
        *("cat", "stack", "clone", "copy_", "_to_copy", "fill_", "fill", "zero_", "lift_fresh", "lift_fresh_copy"),
        *("arange", "linspace", "scalar_tensor", "gather", "index", "index_select", "take_along_dim", "repeat"),
        *("scatter", "scatter_", "index_put", "index_put_", "select_scatter", "slice_scatter", "constant_pad_nd"),
        *("repeat_interleave", "flip", "roll", "_reshape_alias", "_unsafe_view", "detach_", "embedding", "copy"),
        *("unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"),
        *("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "im2col", "pixel_shuffle", "set_"),
        *("bernoulli", "bernoulli_", "rand", "randn", "rand_like", "randn_like", "randint", "uniform_", "normal_"),
        *("_local_scalar_dense", "resize_", "_pin_memory", "reflection_pad2d", "replication_pad2d", "masked_fill"),
        *("tril", "triu", "nonzero", "unbind_copy", "rot90", "is_same_size", "_index_put_impl_", "masked_fill_"),
    )
)
_FREE_BEGINNINGS = ("empty", "new_", "zeros", "ones", "full", "sym_", "_assert", "is_")
