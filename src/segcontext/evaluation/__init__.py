"""Scores of a network on a data set: the tables, the confusion matrix, and pictures of single images."""

from segcontext.evaluation.result import Evaluation, SamplePicture
from segcontext.evaluation.scoring import evaluate, spread
from segcontext.evaluation.words import listing, plain_names

__all__ = ["Evaluation", "SamplePicture", "evaluate", "listing", "plain_names", "spread"]
