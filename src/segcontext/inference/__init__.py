"""From images to classes: whole or in sliding windows, at several scales, mirrored; and the Predictor."""

from segcontext.inference.predict import (
    autocast,
    compact_labels,
    device_of,
    evaluating,
    predict_labels,
    predict_probabilities,
)
from segcontext.inference.predictor import LabelMap, Prediction, Predictor
from segcontext.inference.protocol import Protocol
from segcontext.inference.sources import ImageSource, read_source

__all__ = [
    "ImageSource",
    "LabelMap",
    "Prediction",
    "Predictor",
    "Protocol",
    "autocast",
    "compact_labels",
    "device_of",
    "evaluating",
    "predict_labels",
    "predict_probabilities",
    "read_source",
]
