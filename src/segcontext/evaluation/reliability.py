"""The reliability diagram as a picture."""

from __future__ import annotations

import os

import numpy as np

from segcontext.files import atomic_path
from segcontext.metrics import Reliability

__all__ = ["draw_reliability"]


def draw_reliability(path: str | os.PathLike[str], found: Reliability) -> None:
    """Draws how often predictions are right against how sure they are, and how many pixels each bin holds.

    Args:
        path: the picture to write.
        found: the bins.
    """
    # Slow to import, and of no use before this point. Never pyplot, which keeps global state and may open a window.
    from matplotlib.figure import Figure

    edges, accuracy = found.edges.numpy(), np.nan_to_num(found.bin_accuracy.numpy())
    sure = np.nan_to_num(found.bin_confidence.numpy())
    pixels = found.pixels.numpy()
    left, width = edges[:-1], np.diff(edges)
    figure = Figure(figsize=(5, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.bar(left, accuracy, width, align="edge", color="tab:blue", edgecolor="white", label="accuracy")
    # From the accuracy to the confidence: upwards where the network is too sure.
    above.bar(
        left,
        sure - accuracy,
        width,
        bottom=accuracy,
        align="edge",
        color="tab:red",
        alpha=0.35,
        edgecolor="tab:red",
        label="gap to the mean confidence",
    )
    above.plot([0, 1], [0, 1], color="0.3", linestyle="--", linewidth=1, label="as right as sure")
    above.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of the pixels that are right")
    above.set_title(f"Expected calibration error {100 * found.ece:.2f} %" if pixels.sum() else "No pixels")
    above.legend(loc="upper left")
    below.bar(left, 100 * pixels / max(1, pixels.sum()), width, align="edge", color="0.6", edgecolor="white")
    below.set(xlabel="probability of the likeliest class", ylabel="% of the pixels")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130)
