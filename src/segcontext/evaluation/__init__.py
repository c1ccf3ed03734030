"""Scores of a network on a data set: the tables, the confusion matrix, and pictures of single images."""

from segcontext.evaluation.measured import Measured
from segcontext.evaluation.measures import Measures
from segcontext.evaluation.result import Evaluation
from segcontext.evaluation.samples import SamplePicture
from segcontext.evaluation.scoring import evaluate, spread
from segcontext.evaluation.tally import ImageScore
from segcontext.evaluation.words import listing, plain_names

__all__ = [
    "Evaluation",
    "ImageScore",
    "Measured",
    "Measures",
    "SamplePicture",
    "evaluate",
    "listing",
    "plain_names",
    "spread",
]
