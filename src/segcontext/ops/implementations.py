"""Which form of an operation runs: the readable reference, or a faster twin of the same meaning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, TypeAlias, get_args

import torch

from segcontext.errors import KernelError, RecipeError, nearest
from segcontext.gpu.trust import Site, is_trusted
from segcontext.ops.compiled_loops import is_transformed

__all__ = ["Implementation", "Site", "asked_for", "choose", "use_implementation"]

#: ``"reference"`` is plain PyTorch, written as the equations are; ``"rearranged"`` is PyTorch's operators too, in an
#: order that costs less; ``"native"`` runs loops compiled by numba on the CPU; ``"triton"`` runs Triton's on a GPU;
#: ``"auto"`` takes the fastest that can; Triton's where they were checked on the GPU, see `segcontext.gpu.trust`.
Implementation: TypeAlias = Literal["auto", "reference", "rearranged", "native", "triton"]

_logger = logging.getLogger(__name__)
_ASKED: ContextVar[Implementation] = ContextVar("implementation", default="auto")
_STRICTLY: ContextVar[bool] = ContextVar("strictly", default=False)
_TOLD: set[tuple[str, str, str]] = set()


@contextmanager
def use_implementation(implementation: Implementation, *, strict: bool = False) -> Iterator[None]:
    """Has every operation within the ``with`` block, in this thread, run in one form where it has that form.

    Args:
        implementation: ``"auto"``, ``"reference"``, ``"rearranged"``, ``"native"`` or ``"triton"``; an operation that
            is handed one itself does not look here, nor do programs while PyTorch compiles or exports them.
        strict: whether an operation that cannot run so is an error; else the reference runs, which is logged once.

    Raises:
        RecipeError: there is no such form.
        KernelError: strictly, from an operation that cannot run so.

    Example:
        >>> from segcontext import ops
        >>> q = torch.randn(1, 8, 9, 9)
        >>> with use_implementation("reference"):
        ...     exact = ops.local_attention(q, q, q)
        >>> torch.allclose(exact, ops.local_attention(q, q, q), atol=1e-5)
        True
    """
    _check(implementation)
    before, strictly = _ASKED.set(implementation), _STRICTLY.set(strict)
    try:
        yield
    finally:
        _ASKED.reset(before)
        _STRICTLY.reset(strictly)


def choose(
    operation: str,
    asked: Implementation | None,
    obstacles: Mapping[Implementation, str | None],
    site: Site | None = None,
) -> Implementation:
    """The form of an operation that runs now.

    Args:
        operation: its name, for the log.
        asked: what the caller wants; `None` is what `use_implementation` says.
        obstacles: the fast forms, the fastest first, each with the reason why it cannot run on these tensors now, in a
            few words, or `None` where it can.
        site: where kernels would run, for operations that have some.

    Returns:
        The form asked for, or the first that can; the reference where none can. Where the form asked for cannot, that
        is logged once for each reason.

    Raises:
        RecipeError: there is no such form.
    """
    asked = asked_for(asked)
    _check(asked)
    if asked == "auto":
        for form, obstacle in obstacles.items():
            if obstacle is None and (form != "triton" or _is_taken(operation, site)):
                return form
        return "reference"
    if asked == "reference" or obstacles.get(asked, "") is None:
        return asked
    reason = obstacles.get(asked) or "there is no such form of it"
    if not torch.compiler.is_compiling() and _STRICTLY.get():
        raise KernelError(f"{operation} cannot run as {asked}: {reason}.")
    _tell(operation, asked, reason)
    return "reference"


def asked_for(asked: Implementation | None) -> Implementation:
    """What is asked for: by the caller, or by `use_implementation`.

    Args:
        asked: what the caller wants; `None` where it leaves that to others.
    """
    # The compiler cannot read a context variable; within it the choice is automatic.
    if asked is None:
        return "auto" if torch.compiler.is_compiling() else _ASKED.get()
    return asked


def _is_taken(operation: str, site: Site | None) -> bool:
    return site is not None and is_trusted(operation, site) and not is_transformed()


def _check(implementation: str) -> None:
    known = get_args(Implementation)
    if implementation not in known:
        hint = nearest(str(implementation), known)
        raise RecipeError(f"implementation must be one of {', '.join(known)}, not {implementation!r}.{hint}")


def _tell(operation: str, asked: str, reason: str) -> None:
    if torch.compiler.is_compiling() or (operation, asked, reason) in _TOLD:
        return
    _TOLD.add((operation, asked, reason))
    _logger.warning("%s runs in its reference form and not as %s: %s.", operation, asked, reason)
