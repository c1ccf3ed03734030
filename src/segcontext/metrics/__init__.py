"""Scores of label maps and probabilities: pure functions, and under them metrics that sum over batches and ranks.

Everything is counted in integers, so no result depends on the order of the images, on the batches or on the ranks.
"""

from segcontext.metrics.band import (
    BandConfusionMatrix,
    BandScores,
    band_confusion_matrix,
    band_scores,
    boundary_band,
)
from segcontext.metrics.boundary import (
    PAPER_SLACKS,
    BoundaryFScore,
    BoundaryProtocol,
    boundary_f_score,
    boundary_tally,
)
from segcontext.metrics.boundary_iou import BoundaryIoU, boundary_iou, boundary_iou_counts
from segcontext.metrics.boundary_matches import BoundaryMatches, boundary_matches, boundary_points
from segcontext.metrics.calibration import (
    BINS,
    CalibrationCounts,
    Reliability,
    calibration_counts,
    reliability,
)
from segcontext.metrics.confusion import ConfusionMatrix, Scores, confusion_matrix, scores
from segcontext.metrics.confusion_from_logits import confusion_from_logits
from segcontext.metrics.exact import mean
from segcontext.metrics.ranks import RankSlice
from segcontext.metrics.sizes import AREAS, SizeCounts, SizeScores, size_counts, size_scores
from segcontext.metrics.uncertainty import confidence, entropy

__all__ = [
    "AREAS",
    "BINS",
    "PAPER_SLACKS",
    "BandConfusionMatrix",
    "BandScores",
    "BoundaryFScore",
    "BoundaryIoU",
    "BoundaryMatches",
    "BoundaryProtocol",
    "CalibrationCounts",
    "ConfusionMatrix",
    "RankSlice",
    "Reliability",
    "Scores",
    "SizeCounts",
    "SizeScores",
    "band_confusion_matrix",
    "band_scores",
    "boundary_band",
    "boundary_f_score",
    "boundary_iou",
    "boundary_iou_counts",
    "boundary_matches",
    "boundary_points",
    "boundary_tally",
    "calibration_counts",
    "confidence",
    "confusion_from_logits",
    "confusion_matrix",
    "entropy",
    "mean",
    "reliability",
    "scores",
    "size_counts",
    "size_scores",
]
