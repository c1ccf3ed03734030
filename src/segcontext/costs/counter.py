"""Counting operations below every module and fused call, by the part of the network that they run in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segcontext.costs.operations import PRODUCTS, SOFTMAX, Operation, has_rule, operation_cost
from segcontext.ops.announced import Computed, is_listening, listening

__all__ = ["OperationCounter"]


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what runs within it, at the level of ATen, where einsum, attention and ``@`` are products like any other.

    A counter that hooks modules sees the layers only; this one sees what runs between them as well, on any device, the
    meta device included, where counting costs no computation. Transformer and recurrent layers run without their fused
    kernels meanwhile. Functions that announce what they compute (`segcontext.ops.announced`) count as they say, not as
    they are written.

    Args:
        scope: says which part of the network is running; `None` puts everything under one name.

    Attributes:
        products: multiply-adds of convolutions and matrix products, by part.
        operations: all operations by part and kind; the sum of a part is its products and its small operations.
        unlisted: names of operations that no rule knows, by part; they count 1 per element of their result.

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
        self.unlisted: dict[str, Counter[str]] = {}
        self._entered = 0
        self._around = ExitStack()

    def __enter__(self) -> Self:
        """Begins to count."""
        # Entered again within, where an operation is taken apart.
        self._entered += 1
        if self._entered == 1:
            self._around.enter_context(_in_products())
            self._around.enter_context(listening(self))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it."""
        super().__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._entered -= 1
        if not self._entered:
            self._around.close()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and counts it."""
        given = dict(kwargs or {})
        if not is_listening(self):
            return func(*args, **given)
        if func.namespace != "prim" and not has_rule(func) and func._can_decompose():
            # In inference mode operations arrive whole that are made of others.
            with self:
                result = func.decompose(*args, **given)
            if result is not NotImplemented:
                return result
        result = func(*args, **given)
        cost = operation_cost(func, args, result)
        if cost is not None:
            self._add(cost)
            if cost.kind == "other":
                self.unlisted.setdefault(self._scope(), Counter())[func.name()] += 1
        return result

    def hear(self, computed: Computed) -> None:
        """Counts what a function announces: a matrix product, the softmax within, and other small operations.

        Args:
            computed: what it has computed.
        """
        softmax = SOFTMAX * computed.softmaxed
        self._add(Operation("matrix product", computed.products, computed.small, softmax))

    def _add(self, cost: Operation) -> None:
        part = self._scope()
        self.products[part] += cost.products
        kinds = self.operations.setdefault(part, Counter())
        for kind, count in (
            (cost.kind, cost.products),
            ("elementwise" if cost.kind in PRODUCTS else cost.kind, cost.small),
            ("softmax", cost.softmax),
        ):
            if count:
                kinds[kind] += count


@contextmanager
def _in_products() -> Iterator[None]:
    """Has PyTorch run transformer layers and recurrent ones as the products they are, and not as one unknown kernel."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # `flags`, the context manager, warns of TF32 on machines that have none.
    enabled, *_ = torch.backends.mkldnn.set_flags(_enabled=False, _fp32_precision=None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.mkldnn.set_flags(_enabled=enabled, _fp32_precision=None)  # type: ignore[no-untyped-call]
