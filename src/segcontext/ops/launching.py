"""Kernels of a GPU called so that their failure is no error of the user's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeAlias, TypeVar, cast

import torch
from torch import Tensor

from segcontext.errors import KernelError
from segcontext.gpu.trust import Site, distrust
from segcontext.ops.followed_gradients import told_apart
from segcontext.ops.implementations import Implementation, asked_for

__all__ = ["launched"]

Results = TypeVar("Results", Tensor, tuple[Tensor, ...])
Function: TypeAlias = Callable[..., Tensor | tuple[Tensor, ...]]


def launched(
    operation: str,
    asked: Implementation | None,
    site: Site,
    run: Callable[..., Results],
    plain: Callable[..., Results],
    *tensors: Tensor | None,
) -> Results | None:
    """What an operation's kernels make of tensors, once `segcontext.ops.implementations.choose` has chosen them.

    Unasked, kernels that cannot be compiled or launched are logged and not chosen again on that device; where they
    fail in the backward pass, the gradients are those of the plain form, and so are second derivatives.

    Args:
        operation: its name.
        asked: which form the caller wants.
        site: where the kernels run.
        run: calls the kernels.
        plain: the reference, of the same tensors.
        tensors: what both are given, in their order.

    Returns:
        The results; `None` where the kernels failed, so that another form is to be chosen.

    Raises:
        KernelError: they failed, and were asked for by name.
    """
    # What fails in a compiled program is up to whoever compiled it.
    if torch.compiler.is_compiling():
        return run(*tensors)
    named = asked_for(asked) == "triton"
    # Triton launches on the current device, whatever the tensors are on.
    there = torch.cuda.device(site.device) if site.device.type == "cuda" else nullcontext()
    try:
        with there:
            if named or not site.gradients:
                return run(*tensors)
            return cast(Results, _Guarded.apply(operation, site, run, plain, *tensors))
    except torch.OutOfMemoryError:
        raise
    # A compiler's and a driver's errors have no common class; an error of the user's comes again in the other form.
    except Exception as error:
        reason = _worded(error)
        if named:
            raise KernelError(
                f"The kernels of {operation} for the GPU, which were asked for by name, failed: {reason}. Ask for "
                "'auto', which takes another form where they fail."
            ) from error
        distrust(operation, site.device, reason)
        return None


class _Guarded(torch.autograd.Function):
    """A call with a graph of its own, in whose place the plain form's can step."""

    @staticmethod
    def forward(ctx: Any, operation: str, site: Site, run: Function, plain: Function, *tensors: Tensor | None) -> Any:
        """Runs the kernels."""
        ctx.told = (operation, site, plain)
        kind = site.device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(*tensors)
        twins = _twins(*tensors)
        with torch.enable_grad():
            found = run(*twins)
        results = found if isinstance(found, tuple) else (found,)
        ctx.graph = (twins, results)
        answers = tuple(each.detach() for each in results)
        ctx.mark_non_differentiable(
            *(mine for mine, each in zip(answers, results, strict=True) if not each.requires_grad)
        )
        ctx.set_materialize_grads(False)
        return answers if isinstance(found, tuple) else answers[0]

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> Any:
        """Runs the kernels' backward pass; the plain one where that fails, was done before, or is differentiated."""
        operation, site, plain = ctx.told
        graph, ctx.graph = ctx.graph, None
        if graph is not None and not torch.is_grad_enabled():
            try:
                twins, results = graph
                return (None, None, None, None, *_slopes(twins, results, slopes))
            except torch.OutOfMemoryError:
                raise
            # As above.
            except Exception as error:
                distrust(operation, site.device, f"in the backward pass: {_worded(error)}")
        differentiated = torch.is_grad_enabled()
        inputs = (told_apart if differentiated else _twins)(*ctx.saved_tensors)
        kind, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
            found = plain(*inputs)
        results = found if isinstance(found, tuple) else (found,)
        return (None, None, None, None, *_slopes(inputs, results, slopes, create_graph=differentiated))


def _twins(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The same values at the beginning of a graph."""
    return tuple(None if each is None else each.detach().requires_grad_(each.requires_grad) for each in tensors)


def _slopes(
    inputs: tuple[Tensor | None, ...],
    results: tuple[Tensor, ...],
    slopes: tuple[Tensor | None, ...],
    *,
    create_graph: bool = False,
) -> list[Tensor | None]:
    """The gradient by each input, `None` for those that take none."""
    pairs = [
        (each, slope.to(each.dtype))
        for each, slope in zip(results, slopes, strict=True)
        if slope is not None and each.requires_grad
    ]
    wanted = [each for each in inputs if each is not None and each.requires_grad]
    found = iter(
        torch.autograd.grad(
            [each for each, _ in pairs],
            wanted,
            [slope for _, slope in pairs],
            allow_unused=True,
            create_graph=create_graph,
        )
        if pairs
        else [None] * len(wanted)
    )
    return [next(found) if each is not None and each.requires_grad else None for each in inputs]


def _worded(error: Exception) -> str:
    """An error without the pages that follow its first line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
