"""How often each class occurs, and loss weights that balance the classes."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor

from segcontext.data.dataset import VOID, Dataset
from segcontext.errors import DataError, RecipeError, SampleError, nearest

__all__ = ["Frequencies", "Weighting", "class_frequencies", "class_weights"]

Weighting: TypeAlias = Literal["median_frequency", "inverse_log", "inverse_sqrt"]


class Frequencies(NamedTuple):
    """How many pixels the classes have in a data set.

    Attributes:
        pixels: int64, (classes,); the pixels of each class.
        surroundings: int64, (classes,); the labelled pixels of the images in which the class occurs.
    """

    pixels: Tensor
    surroundings: Tensor


def class_frequencies(
    dataset: Dataset, *, workers: int | None = None, progress: Callable[[int, int], None] | None = None
) -> Frequencies:
    """Counts the pixels of each class; it reads the masks alone, in threads.

    Args:
        dataset: any data set with labels.
        workers: number of threads; by default one per processor, up to eight.
        progress: called after each mask with the number of masks read and the number of all.

    Returns:
        The counts. Void pixels count nowhere.

    Raises:
        SampleError: if a mask cannot be read, or there is none.
        LabelError: if a mask holds a value that is neither a class nor void.
    """
    classes = len(dataset.classes)
    pixels = torch.zeros(classes, dtype=torch.int64)
    surroundings = torch.zeros(classes, dtype=torch.int64)

    def count(index: int) -> Tensor:
        mask = dataset.read_mask(index)
        if mask is None:
            raise SampleError(
                f"'{dataset.items[index].name}' has no labels, so its classes cannot be counted: choose a split "
                "with labels, or give the class weights as numbers."
            )
        return torch.bincount(mask.as_subclass(Tensor).flatten(), minlength=VOID + 1)[:classes]

    pool = ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        for done, counts in enumerate(pool.map(count, range(len(dataset))), start=1):
            pixels += counts
            surroundings += (counts > 0) * counts.sum()
            if progress is not None:
                progress(done, len(dataset))
    finally:
        # After an error or an interruption the masks that are still waiting need not be read.
        pool.shutdown(cancel_futures=True)
    return Frequencies(pixels, surroundings)


def class_weights(frequencies: Frequencies, *, method: Weighting = "median_frequency") -> Tensor:
    r"""Loss weights that are larger for rarer classes.

    With p_c the share of class c among the labelled pixels:

    * ``"median_frequency"``: median(f) / f_c, where f_c is the share of class c in the images that show it (Eigen and
      Fergus, arXiv:1411.4734; used by SegNet, arXiv:1511.00561).
    * ``"inverse_log"``: 1 / ln(1.02 + p_c), which stays below 51 however rare a class is (ENet, arXiv:1606.02147).
    * ``"inverse_sqrt"``: 1 / sqrt(p_c), between the other two and none.

    A class without pixels has no frequency; its weight is 1, the mean.

    Note:
        The papers use the formulas as they are. Here the weights are then divided by Σ_c p_c · weight_c, so that the
        mean over the labelled pixels is 1 and the learning rate keeps its meaning.

    Args:
        frequencies: from `class_frequencies`.
        method: one of the three.

    Returns:
        float32, (classes,).

    Raises:
        RecipeError: if there is no such method.
        DataError: if no pixel is labelled.

    Example:
        >>> counts = Frequencies(torch.tensor([90, 10]), torch.tensor([100, 100]))
        >>> class_weights(counts, method="inverse_sqrt")
        tensor([0.8333, 2.5000])
    """
    methods = get_args(Weighting)
    if method not in methods:
        raise RecipeError(f"No class weighting '{method}'; expected {', '.join(methods)}.{nearest(method, methods)}")
    pixels = frequencies.pixels.double()
    present = pixels > 0
    if not present.any():
        raise DataError("No pixel is labelled, so there is nothing to weigh the classes by; check the masks.")
    shares = pixels / pixels.sum()
    if method == "median_frequency":
        within = pixels[present] / frequencies.surroundings.double()[present]
        # The median is one number for all classes, and the scaling below cancels it.
        raw = 1 / within
    elif method == "inverse_log":
        raw = 1 / (1.02 + shares[present]).log()
    else:
        raw = shares[present].rsqrt()
    weights = torch.ones_like(shares)
    weights[present] = raw / (raw * shares[present]).sum()
    return weights.float()
