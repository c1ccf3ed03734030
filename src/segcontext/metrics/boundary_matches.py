"""Boundary pixels of label maps, and how many of them have a counterpart nearby."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import KDTree
from torch import Tensor

from segcontext import native
from segcontext.gpu.boundary import boundary_matches as on_gpu
from segcontext.gpu.boundary import boundary_obstacle
from segcontext.metrics.boundary_native import count_matches
from segcontext.metrics.labels import NOTHING, LabelMap, Labels
from segcontext.ops.implementations import Implementation, Site, choose
from segcontext.ops.launching import launched

__all__ = ["BoundaryMatches", "boundary_matches", "boundary_points", "takes_gpu"]

Counts: TypeAlias = npt.NDArray[np.int64]
Points: TypeAlias = npt.NDArray[np.int64]


class BoundaryMatches(NamedTuple):
    """Numbers of boundary pixels in one image, all integers: whoever counts them otherwise must find the same.

    Attributes:
        predicted: boundary pixels of the predicted masks, (classes,).
        true: those of the true masks, (classes,).
        predicted_matched: predicted ones with a true one of the class within the slack, (slacks, classes).
        true_matched: true ones with a predicted one of the class within the slack, (slacks, classes).
    """

    predicted: Counts
    true: Counts
    predicted_matched: Counts
    true_matched: Counts


def boundary_matches(
    prediction: LabelMap | Tensor,
    truth: LabelMap | Tensor,
    num_classes: int,
    slacks: Sequence[float],
    *,
    implementation: Implementation | None = None,
) -> BoundaryMatches:
    """Counts boundary pixels and their counterparts for all classes and slacks.

    Each boundary pixel's distance to the nearest one of its class in the other mask is found once for all slacks: by
    compiled loops over planes of bits, or where there are none in a k-d tree. On the pixel grid squared distances are
    integers, so a pixel counts if and only if it lies in the other boundary dilated by a disk, {offset: y² + x² ≤
    slack²}.

    Args:
        prediction: predicted classes, int32, (H, W), `NOTHING` where the truth is void: an array, or a tensor,
            which may be on a GPU.
        truth: true classes, int32, (H, W), `NOTHING` for void.
        num_classes: how many classes there are.
        slacks: radii of the disk, in pixels.
        implementation: ``"reference"``, ``"native"`` (the CPU), ``"triton"`` (a GPU) or ``"auto"``; `None` is what
            `segcontext.ops.use_implementation` says.

    Returns:
        The counts.
    """
    form = _form(prediction, num_classes, slacks, implementation)
    if form == "triton":
        assert isinstance(prediction, Tensor)
        assert isinstance(truth, Tensor)
        run = partial(on_gpu, num_classes=num_classes, slacks=slacks)
        counts = launched("boundary_matches", implementation, _site(prediction), run, run, prediction, truth)
        if counts is not None:
            return BoundaryMatches(*(each.cpu().numpy() for each in counts))
        form = _form(prediction, num_classes, slacks, implementation)
    ours, theirs = (each.cpu().numpy() if isinstance(each, Tensor) else each for each in (prediction, truth))
    if form == "native":
        return BoundaryMatches(*count_matches(ours, theirs, num_classes, slacks))
    found, sought = (_by_class(labels, num_classes) for labels in (ours, theirs))
    radii = np.asarray(slacks, dtype=np.float64)
    matched = np.zeros((2, len(radii), num_classes), dtype=np.int64)
    for index, (ours, theirs) in enumerate(zip(found, sought, strict=True)):
        if len(ours) and len(theirs):
            matched[0, :, index] = _within(ours, theirs, radii)
            matched[1, :, index] = _within(theirs, ours, radii)
    predicted, true = (np.array([len(points) for points in side], dtype=np.int64) for side in (found, sought))
    return BoundaryMatches(predicted, true, *matched)


def takes_gpu(labels: Labels, num_classes: int, slacks: Sequence[float]) -> bool:
    """Whether boundaries of some labels, once they are maps, are counted on the GPU that they are on.

    Args:
        labels: predicted or true classes, (H, W) or (B, H, W).
        num_classes: how many classes there are.
        slacks: radii of the disk, in pixels.
    """
    return _form(labels, num_classes, slacks) == "triton"


def _form(
    labels: Labels, num_classes: int, slacks: Sequence[float], implementation: Implementation | None = None
) -> Implementation:
    triton: str | None = "labels that are no maps on a GPU"
    if isinstance(labels, Tensor) and labels.ndim > 1:
        like_a_map = labels.new_empty((1, 1), dtype=torch.int32).expand(labels.shape[-2:])
        triton = boundary_obstacle(like_a_map, num_classes, slacks)
    obstacles: dict[Implementation, str | None] = {"triton": triton, "native": native.unavailable()}
    return choose("boundary_matches", implementation, obstacles, _site(labels))


def _site(labels: Labels) -> Site:
    return Site(labels.device if isinstance(labels, Tensor) else torch.device("cpu"), torch.int32, False)


def boundary_points(labels: LabelMap) -> tuple[npt.NDArray[np.int32], Points]:
    """The boundary pixels of the masks of all classes at once.

    A pixel is on a class's boundary if the class's mask differs between it and its right, lower or lower-right
    neighbour. In the last row only the right neighbour counts, in the last column only the lower one, and the last
    corner is never a boundary. So a pixel is on the boundary of its own class if any of these neighbours has another
    label, and on the boundaries of its neighbours' classes where these differ from its own: at most four.

    Args:
        labels: classes, int32, (H, W); `NOTHING` belongs to no mask.

    Returns:
        The class of each boundary pixel, int32, (n,), and its row and column, int64, (n, 2); a pixel is there once
        per class.
    """
    # Beyond the last row and column a pixel is its own neighbour, which never differs.
    right, below, across = labels.copy(), labels.copy(), labels.copy()
    right[:, :-1], below[:-1], across[:-1, :-1] = labels[:, 1:], labels[1:], labels[1:, 1:]
    places = np.flatnonzero((right != labels) | (below != labels) | (across != labels))
    own, right, below, across = (map_.ravel()[places] for map_ in (labels, right, below, across))
    chosen = (
        np.ones_like(own, dtype=np.bool_),
        right != own,
        (below != own) & (below != right),
        (across != own) & (across != right) & (across != below),
    )
    classes = np.concatenate([side[keep] for side, keep in zip((own, right, below, across), chosen, strict=True)])
    where = np.concatenate([places[keep] for keep in chosen])
    inside = classes != NOTHING
    return classes[inside], np.stack(np.divmod(where[inside], labels.shape[1]), axis=-1)


def _by_class(labels: LabelMap, num_classes: int) -> list[Points]:
    classes, points = boundary_points(labels)
    order = np.argsort(classes, kind="stable")
    ends = np.searchsorted(classes[order], np.arange(1, num_classes))
    return np.split(points[order], ends)


def _within(points: Points, others: Points, radii: npt.NDArray[np.float64]) -> Counts:
    """How many points have one of the others at most so far away, (radii,)."""
    # A plain tree: balancing it takes longer than it saves in a single pass over the points.
    tree = KDTree(others, balanced_tree=False, compact_nodes=False)
    # The bound is exclusive, and what lies beyond it comes back as infinity.
    distances = tree.query(points, distance_upper_bound=radii.max() + 1)[0]
    counts: Counts = (distances <= radii[:, None]).sum(1)
    return counts
