"""The colours of PASCAL VOC, for any number of classes."""

from __future__ import annotations

from segcontext.data.masks import Colour

__all__ = ["voc_colours"]


def voc_colours(count: int, *, first: int = 0) -> tuple[Colour, ...]:
    """The colours that PASCAL VOC's development kit gives to label indices (its ``VOClabelcolormap``).

    The bits of the index are dealt to red, green and blue in turn, the lowest becoming the highest of each channel.
    All of 0..255 differ.

    Args:
        count: how many.
        first: the first index; 0 is black.

    Returns:
        Red, green and blue in 0..255.

    Example:
        >>> voc_colours(3)
        ((0, 0, 0), (128, 0, 0), (0, 128, 0))
    """
    return tuple(_colour(index) for index in range(first, first + count))


def _colour(index: int) -> Colour:
    red, green, blue = (
        sum((index >> (3 * place + channel) & 1) << (7 - place) for place in range(8)) for channel in range(3)
    )
    return red, green, blue
