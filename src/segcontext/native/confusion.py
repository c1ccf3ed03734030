"""Counting pairs of labels."""

from __future__ import annotations

from typing import Any

from segcontext.native.jit import jit

__all__ = ["count_pairs", "count_words"]


@jit
def count_pairs(prediction: Any, target: Any, classes: int, void: int, counts: Any) -> bool:
    """Counts predictions of each class by true class.

    Args:
        prediction: integers, (n,).
        target: integers, (n,).
        classes: how many there are.
        void: the target value that is not counted.
        counts: int64, (classes², ), added to.

    Returns:
        Whether all values were classes; the counts are of no use otherwise.
    """
    for n in range(len(target)):
        truth, guess = int(target[n]), int(prediction[n])
        if truth == void:
            continue
        if truth < 0 or truth >= classes or guess < 0 or guess >= classes:
            return False
        counts[truth * classes + guess] += 1
    return True


@jit
def count_words(prediction: Any, target: Any, classes: int, void: int, counts: Any) -> bool:
    """The same for labels of eight bits, eight of them in a word; neighbours are mostly alike.

    Args:
        prediction: uint64, (n / 8,).
        target: uint64, (n / 8,).
        classes: how many there are.
        void: the target value that is not counted.
        counts: int64, (classes², ), added to.

    Returns:
        Whether all values were classes.
    """
    run, place = 0, -1
    guesses, truths = prediction[0], target[0]
    for n in range(len(target)):
        if place >= 0 and prediction[n] == guesses and target[n] == truths:
            run += 8
            continue
        if place >= 0:
            counts[place] += run
        guesses, truths = prediction[n], target[n]
        guess, truth = int(guesses & 255), int(truths & 255)
        run, place = 0, -1
        if guesses == guess * 0x0101010101010101 and truths == truth * 0x0101010101010101 and truth != void:
            if truth >= classes or guess >= classes:
                return False
            run, place = 8, truth * classes + guess
            continue
        for shift in range(0, 64, 8):
            guess, truth = int((guesses >> shift) & 255), int((truths >> shift) & 255)
            if truth == void:
                continue
            if truth >= classes or guess >= classes:
                return False
            counts[truth * classes + guess] += 1
    if place >= 0:
        counts[place] += run
    return True
