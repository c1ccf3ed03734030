"""Which part of a network is running."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from torch import nn
from torch.utils.hooks import RemovableHandle

from segcontext.model import Segmenter

__all__ = ["BETWEEN", "Scopes", "parts_of"]

#: The name of what runs in no part, such as concatenations between two.
BETWEEN = "between"

# The dropout before the classifier is no part that anyone would ask for.
_PARTS = ("normalize", "backbone", "reduce", "aggregation", "distribution", "project", "fuse", "decoder", "classifier")
_NO_PARTS = ("dropout",)


def parts_of(model: nn.Module) -> dict[str, nn.Module]:
    """The parts that a network's cost is split into, in the order in which they run.

    Args:
        model: a `Segmenter`, or any module, whose children are its parts.

    Returns:
        The modules by name.

    Example:
        >>> list(parts_of(nn.Sequential(nn.ReLU(), nn.ReLU())))
        ['0', '1']
    """
    children = dict(model.named_children())
    if not isinstance(model, Segmenter):
        return children
    names = (*_PARTS, *(name for name in children if name not in (*_PARTS, *_NO_PARTS)))
    return {name: children[name] for name in names if name in children}


class Scopes:
    """Follows which of the given modules is running, by hooks that it removes at the end.

    Args:
        parts: the modules by name.
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self._parts = parts
        self._running: list[str] = []
        self._handles: list[RemovableHandle] = []

    @property
    def current(self) -> str:
        """The name of the innermost part that is running."""
        return self._running[-1] if self._running else BETWEEN

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Names what runs within the ``with`` block."""
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()

    def __enter__(self) -> Self:
        """Sets the hooks."""
        for name, part in self._parts.items():

            def begin(module: nn.Module, inputs: Any, name: str = name) -> None:
                self._running.append(name)

            def end(module: nn.Module, inputs: Any, outputs: Any) -> None:
                self._running.pop()

            self._handles.append(part.register_forward_pre_hook(begin))
            self._handles.append(part.register_forward_hook(end, always_call=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._running.clear()
