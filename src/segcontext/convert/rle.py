"""COCO's run-length encoding of masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segcontext.errors import DataError

__all__ = ["decode_rle", "encode_rle"]

# Six bits per letter, of which one says whether more follow; the letters begin at "0".
_FIRST, _BITS, _MORE, _SIGN = 48, 5, 0x20, 0x10


def encode_rle(mask: npt.ArrayLike) -> dict[str, Any]:
    """Encodes a mask as COCO does (cocodataset/cocoapi, ``maskApi``), compressed.

    The pixels are taken column by column, and the lengths of the runs are written down, the first one of zeros. From
    the fourth on, the difference to the length two before is written instead. Each number is a string of letters with
    five bits each, the lowest first.

    Args:
        mask: (H, W); what is not zero belongs to the object.

    Returns:
        ``size``, [H, W], and ``counts``, a string.

    Example:
        >>> encode_rle([[0, 1, 1], [0, 1, 0]])
        {'size': [2, 3], 'counts': '231'}
    """
    pixels = np.asarray(mask).astype(bool)
    column = pixels.ravel(order="F")
    changes = np.flatnonzero(np.diff(column, prepend=False)) if column.size else np.zeros(0, int)
    runs = np.diff(changes, prepend=0, append=column.size).tolist()
    numbers = [run - (runs[place - 2] if place > 2 else 0) for place, run in enumerate(runs)]
    return {"size": list(pixels.shape), "counts": "".join(map(_letters, numbers))}


def decode_rle(rle: Mapping[str, Any]) -> npt.NDArray[np.bool_]:
    """Decodes a mask that COCO has encoded, compressed or not.

    Args:
        rle: ``size``, [H, W], and ``counts``, a string, bytes, or a list of run lengths.

    Returns:
        (H, W).

    Raises:
        DataError: if the runs do not make up the mask.

    Example:
        >>> decode_rle({"size": [2, 3], "counts": [2, 3, 1]}).astype(int).tolist()
        [[0, 1, 1], [0, 1, 0]]
    """
    try:
        height, width = (int(side) for side in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, bytes):
            counts = counts.decode("ascii")
        runs = _runs(counts) if isinstance(counts, str) else [int(run) for run in counts]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"A mask is no run-length encoding: expected size and counts, got {str(rle)[:80]}.") from error
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise DataError(
            f"A run-length encoding has {sum(runs)} pixels, its size is {height}×{width}; it is damaged, or of another "
            "image."
        )
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _letters(number: int) -> str:
    letters = []
    while True:
        bits, number = number & 0x1F, number >> _BITS
        # The last group's highest bit is the sign.
        done = number == (-1 if bits & _SIGN else 0)
        letters.append(chr(_FIRST + (bits if done else bits | _MORE)))
        if done:
            return "".join(letters)


def _runs(letters: str) -> Sequence[int]:
    runs: list[int] = []
    number = shift = 0
    for letter in letters:
        bits = ord(letter) - _FIRST
        if not 0 <= bits < 64:
            raise ValueError(f"the letter {letter!r} stands for no number")
        number |= (bits & 0x1F) << shift
        shift += _BITS
        if bits & _MORE:
            continue
        if bits & _SIGN:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the last number is cut off")
    return runs
