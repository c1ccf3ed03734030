"""Counting operations below every module and fused call, by the part of the network that they run in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from segcontext.costs.operations import PRODUCTS, has_rule, operation_cost

__all__ = ["OperationCounter"]


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs within it, at the level of ATen, where einsum, attention and ``@`` are products like any other.

    A counter that hooks modules sees the layers only; this one sees what runs between them as well, on any device, the
    meta device included, where counting costs no computation.

    Args:
        scope: says which part of the network is running; `None` puts everything under one name.

    Attributes:
        products: multiply-adds of convolutions and matrix products, by part.
        operations: all operations by part and kind; the sum of a part is its products and its small operations.
        unlisted: names of operations that no rule knows, which count 1 per element of their result.

    Note:
        Only what runs forward within it is counted; run it without gradients for the cost of inference.

    Example:
        >>> import torch
        >>> with torch.no_grad(), OperationCounter() as counter:
        ...     _ = torch.einsum("bnc,bkc->bnk", torch.ones(2, 5, 3), torch.ones(2, 4, 3))
        >>> counter.products[""]
        120
    """

    def __init__(self, scope: Callable[[], str] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._scope = scope or (lambda: "")
        self.products: Counter[str] = Counter()
        self.operations: dict[str, Counter[str]] = {}
        self.unlisted: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it."""
        given = dict(kwargs or {})
        if func.namespace != "prim" and not has_rule(func) and func._can_decompose():
            # In inference mode operations arrive whole that are made of others.
            with self:
                result = func.decompose(*args, **given)
            if result is not NotImplemented:
                return result
        result = func(*args, **given)
        cost = operation_cost(func, args, result)
        if cost is not None:
            part = self._scope()
            self.products[part] += cost.products
            kinds = self.operations.setdefault(part, Counter())
            kinds[cost.kind] += cost.products if cost.kind in PRODUCTS else cost.small
            if cost.kind in PRODUCTS and cost.small:
                kinds["elementwise"] += cost.small
            if cost.kind == "other":
                self.unlisted[func.name()] += 1
        return result
