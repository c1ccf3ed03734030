"""Scores of a network on a data set: the tables, the confusion matrix, and pictures of single images."""

from segcontext.data.class_names import listing, plain_names
from segcontext.evaluation.conditions import Conditions
from segcontext.evaluation.measured import Measured
from segcontext.evaluation.measures import Measures
from segcontext.evaluation.result import Evaluation
from segcontext.evaluation.samples import SamplePicture
from segcontext.evaluation.scoring import evaluate, spread
from segcontext.evaluation.speeds import SpeedComparison, compare_speed
from segcontext.evaluation.tally import ImageScore

__all__ = [
    "Conditions",
    "Evaluation",
    "ImageScore",
    "Measured",
    "Measures",
    "SamplePicture",
    "SpeedComparison",
    "compare_speed",
    "evaluate",
    "listing",
    "plain_names",
    "spread",
]
