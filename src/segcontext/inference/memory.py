"""What to do where an image does not fit into memory."""

from __future__ import annotations

from contextlib import AbstractContextManager

from segcontext.errors import memory_advice
from segcontext.inference.predict import Precision
from segcontext.inference.protocol import Protocol

__all__ = ["prediction_memory"]


def prediction_memory(
    doing: str, protocol: Protocol, *, precision: Precision | None = None, batch: int = 1
) -> AbstractContextManager[None]:
    """Where memory does not suffice inside, an error says what of the protocol to change.

    Args:
        doing: what is done inside, as the beginning of a sentence.
        protocol: how the network is asked.
        precision: what it runs in.
        batch: images in one step.

    Returns:
        A context that raises `OutOfMemory`.
    """
    ways = []
    if batch > 1:
        ways.append(f"one image at a time (--batch 1, now {batch})")
    if protocol.mode == "whole":
        ways.append("sliding windows (--window 769)")
    else:
        height, width = protocol.sides()
        ways.append(f"smaller windows (--window, now {height}×{width})")
    if max(protocol.scales) > 1:
        ways.append(f"smaller scales (--scales, now up to {max(protocol.scales):g})")
    if precision != "bf16":
        ways.append("half precision (--precision bf16)")
    ways.append("another device (--device)")
    return memory_advice(doing, f"Ask for {', '.join(ways[:-1])}, or take {ways[-1]}.")
