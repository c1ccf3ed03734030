"""The confusion matrix as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from segcontext.files import atomic_path

__all__ = ["draw_confusion"]


def draw_confusion(path: str | os.PathLike[str], matrix: Tensor, names: Sequence[str], *, title: str) -> None:
    """Draws where each true class went, in shares of its pixels.

    Args:
        path: the picture to write.
        matrix: pixel counts, (classes, classes), rows truth, columns prediction.
        names: class names.
        title: what stands above it.
    """
    # Slow to import, and of no use before this point. Never pyplot, which keeps global state and may open a window.
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    count = len(names)
    true = matrix.sum(1, keepdim=True)
    shares = np.ma.masked_invalid((matrix.double() / true.double()).numpy())
    cell, letters = (0.52, 9.0) if count <= 25 else (0.26, 7.0) if count <= 70 else (0.14, 5.0)
    side = cell * count
    margin = letters / 72 * 0.62 * max(len(name) for name in names) + 0.4
    figure = Figure(figsize=(max(side, 2.5) + margin + 1.1, max(side, 2.5) + margin + 0.7), layout="constrained")
    axes = figure.add_subplot()
    # The root brings out the small confusions, which are most of them.
    colours = colormaps["Blues"].with_extremes(bad="0.93")
    picture = axes.imshow(shares, cmap=colours, norm=PowerNorm(0.5, 0, 1))
    axes.set_xticks(range(count), names, rotation=90, fontsize=letters)
    axes.set_yticks(range(count), names, fontsize=letters)
    large = min(22.0, max(10.0, side))
    axes.set_xlabel("prediction", fontsize=large)
    axes.set_ylabel("truth", fontsize=large)
    axes.set_title(title, fontsize=large)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.2 if count <= 25 else 0.4)
    axes.tick_params(which="minor", length=0)
    if count <= 25:
        for (row, column), share in np.ndenumerate(shares.filled(0)):
            if share >= 0.005:
                ink = "white" if share > 0.45 else "0.2"
                axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8, color=ink)
    bar = figure.colorbar(
        picture, ax=axes, shrink=0.85, aspect=max(25, side * 4), pad=0.02, ticks=[0, 0.05, 0.2, 0.5, 1]
    )
    bar.ax.set_yticklabels(["0", "5", "20", "50", "100"], fontsize=0.9 * large)
    bar.outline.set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150)
