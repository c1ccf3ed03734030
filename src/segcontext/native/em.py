"""Loops of EM attention: responsibilities from logits, and the end of the unit around it.

bfloat16 numbers are handed over as the integers that they are in memory.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.native.jit import inlined, jit

__all__ = ["finish", "finish_half", "finish_mixed", "half", "share", "share_half"]

Array: TypeAlias = npt.NDArray[Any]

#: Pixels at a time: their responsibilities stay in the nearest caches.
STRIP = 256

LOG2_E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first with few digits, so that a multiple of it is exact.
LN_2_HIGH = np.float32(0.693359375)
LN_2_LOW = np.float32(-2.12194440e-4)
LEAST = np.float32(-87.0)


@inlined
def _exp(v: Any) -> Any:
    """eᵛ of -87 ≤ v ≤ 0 to 2e-7 of it, by a polynomial, which unlike the library's function runs on vectors."""
    v = LEAST if v < LEAST else v
    whole = np.int32(v * LOG2_E - np.float32(0.5))
    steps = np.float32(whole)
    r = v - steps * LN_2_HIGH - steps * LN_2_LOW
    p = np.float32(1 / 5040)
    p = p * r + np.float32(1 / 720)
    p = p * r + np.float32(1 / 120)
    p = p * r + np.float32(1 / 24)
    p = p * r + np.float32(1 / 6)
    p = p * r + np.float32(1 / 2)
    p = p * r + np.float32(1)
    p = p * r + np.float32(1)
    return p * np.int32((whole + np.int32(127)) << np.int32(23)).view(np.float32)


@inlined
def _wide(narrow: Any) -> Any:
    """A bfloat16 number as float32."""
    return np.uint32(np.uint32(narrow) << np.uint32(16)).view(np.float32)


@inlined
def half(value: Any) -> Any:
    """The nearest bfloat16 number, the even one of two; what is no number stays none."""
    bits = np.float32(value).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(np.uint32(0x7FC0) if value != value else rounded)


@inlined
def _normalise(strip: Array, pixels: int, exponential: bool, eps: Any, most: Array, total: Array) -> None:
    """Logits of some pixels, (K, pixels), to responsibilities in their place."""
    bases = strip.shape[0]
    for n in range(pixels):
        most[n] = strip[0, n]
        total[n] = 0
    if exponential:
        for k in range(1, bases):
            for n in range(pixels):
                most[n] = strip[k, n] if strip[k, n] > most[n] else most[n]
        for k in range(bases):
            for n in range(pixels):
                value = _exp(strip[k, n] - most[n])
                strip[k, n] = value
                total[n] += value
    else:
        for k in range(bases):
            for n in range(pixels):
                value = eps + (np.float32(0) if strip[k, n] < 0 else strip[k, n])
                strip[k, n] = value
                total[n] += value
    for n in range(pixels):
        total[n] = np.float32(1) / total[n]
    for k in range(bases):
        for n in range(pixels):
            strip[k, n] *= total[n]


@jit
def share(logits: Array, offset: Array, exponential: bool, eps: Any, first: int, last: int) -> None:
    """Responsibilities from float32 logits (K, N) in their place, of the pixels from `first` to `last`."""
    bases = logits.shape[0]
    strip = np.empty((bases, STRIP), np.float32)
    most, total = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for start in range(first, last, STRIP):
        pixels = min(STRIP, last - start)
        for k in range(bases):
            # A part of a row, because a sum of two numbers as an index is asked each time whether it is negative.
            row, shift = logits[k, start : start + pixels], offset[k]
            for n in range(pixels):
                strip[k, n] = row[n] + shift
        _normalise(strip, pixels, exponential, eps, most, total)
        for k in range(bases):
            row = logits[k, start : start + pixels]
            for n in range(pixels):
                row[n] = strip[k, n]


@jit
def share_half(logits: Array, offset: Array, exponential: bool, eps: Any, wide: Array, first: int, last: int) -> None:
    """The same from bfloat16 logits, and in float32 besides where there is room for it: `wide` is (K, N) or (0, 0)."""
    bases = logits.shape[0]
    keep = len(wide) > 0
    strip = np.empty((bases, STRIP), np.float32)
    most, total = np.empty(STRIP, np.float32), np.empty(STRIP, np.float32)
    for start in range(first, last, STRIP):
        pixels = min(STRIP, last - start)
        for k in range(bases):
            row, shift = logits[k, start : start + pixels], offset[k]
            for n in range(pixels):
                strip[k, n] = _wide(row[n]) + shift
        _normalise(strip, pixels, exponential, eps, most, total)
        for k in range(bases):
            row = logits[k, start : start + pixels]
            for n in range(pixels):
                row[n] = half(strip[k, n])
        if keep:
            for k in range(bases):
                more = wide[k, start : start + pixels]
                for n in range(pixels):
                    more[n] = strip[k, n]


@inlined
def _relu(value: Any) -> Any:
    """The larger of 0 and a number; what is no number stays none."""
    return np.float32(0) if value < 0 else value


@jit
def finish(x: Array, y: Array, bias: Array, by_row: bool, out: Array, start: int, first: int, last: int) -> None:
    """Writes ReLU(x + y + bias) of some rows from the column `start` on; a bias each row or column; all float32."""
    pixels = y.shape[1]
    for row in range(first, last):
        base, added, into = x[row, start : start + pixels], y[row], out[row, start : start + pixels]
        if by_row:
            shift = bias[row]
            for n in range(pixels):
                into[n] = _relu(base[n] + added[n] + shift)
        else:
            for n in range(pixels):
                into[n] = _relu(base[n] + added[n] + bias[n])


@jit
def finish_mixed(x: Array, y: Array, bias: Array, by_row: bool, out: Array, start: int, first: int, last: int) -> None:
    """The same with y in bfloat16."""
    pixels = y.shape[1]
    for row in range(first, last):
        base, added, into = x[row, start : start + pixels], y[row], out[row, start : start + pixels]
        if by_row:
            shift = bias[row]
            for n in range(pixels):
                into[n] = _relu(base[n] + _wide(added[n]) + shift)
        else:
            for n in range(pixels):
                into[n] = _relu(base[n] + _wide(added[n]) + bias[n])


@jit
def finish_half(x: Array, y: Array, bias: Array, by_row: bool, out: Array, start: int, first: int, last: int) -> None:
    """The same with x, y and out in bfloat16."""
    pixels = y.shape[1]
    for row in range(first, last):
        base, added, into = x[row, start : start + pixels], y[row], out[row, start : start + pixels]
        if by_row:
            shift = bias[row]
            for n in range(pixels):
                into[n] = half(_relu(_wide(base[n]) + _wide(added[n]) + shift))
        else:
            for n in range(pixels):
                into[n] = half(_relu(_wide(base[n]) + _wide(added[n]) + bias[n]))
