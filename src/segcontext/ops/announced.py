"""Functions that say what they compute, so that a count of it does not hang on how they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

import torch

__all__ = ["Computed", "Listener", "announces", "is_counted", "is_listening", "listening"]

P = ParamSpec("P")
R = TypeVar("R")


class Computed(NamedTuple):
    """What a function computes, for all images.

    Attributes:
        products: multiply-adds.
        softmaxed: values that go through a softmax.
        small: other operations on single values.
    """

    products: int
    softmaxed: int = 0
    small: int = 0


class Listener(Protocol):
    """Whoever wants to hear of it."""

    def hear(self, computed: Computed) -> None:
        """Takes in what a function has just computed."""


_LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())


def announces(computed: Callable[P, Computed]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Has a function tell all listeners what it has computed.

    While it runs nobody listens, so that what it is made of is not heard of as well. Without a listener, and wherever
    PyTorch compiles or exports, it is the plain function.

    Args:
        computed: of the same arguments, once the function has accepted them.

    Returns:
        The decorator.

    Example:
        >>> @announces(lambda x, y: Computed(x.numel()))
        ... def dot(x, y):
        ...     return (x * y).sum()
        >>> dot(torch.ones(3), torch.ones(3))
        tensor(3.)
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def announcing(*args: P.args, **kwargs: P.kwargs) -> R:
            # First, because the compiler cannot read a context variable.
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            listeners = _LISTENERS.get()
            if not listeners:
                return function(*args, **kwargs)
            _LISTENERS.set(())
            try:
                result = function(*args, **kwargs)
            finally:
                _LISTENERS.set(listeners)
            for listener in listeners:
                listener.hear(computed(*args, **kwargs))
            return result

        return announcing

    return decorate


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Lets a listener hear of everything that is announced within the ``with`` block, in this thread.

    Args:
        listener: is told beside those that listen already.
    """
    before = _LISTENERS.get()
    _LISTENERS.set((*before, listener))
    try:
        yield
    finally:
        _LISTENERS.set(before)


def is_counted() -> bool:
    """Whether anyone would be told now, so that what runs should be what the equations say."""
    # The compiler cannot read a context variable.
    return not torch.compiler.is_compiling() and bool(_LISTENERS.get())


def is_listening(listener: Listener) -> bool:
    """Whether a listener would be told now: not outside `listening`, and not inside a function that announces.

    Args:
        listener: what was handed to `listening`.
    """
    return any(each is listener for each in _LISTENERS.get())
