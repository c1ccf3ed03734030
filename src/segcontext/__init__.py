"""Context modules for semantic segmentation: global aggregation, then local distribution.

The heavy halves (training with Lightning) are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from segcontext.checkpoint import load_model, save_model
from segcontext.data import CamVid, Dataset, Folder, Scenes, open_dataset
from segcontext.evaluation import Evaluation, evaluate
from segcontext.inference import Prediction, Predictor, Protocol, predict_probabilities
from segcontext.model import Segmenter, update_bases
from segcontext.prediction import predict_files
from segcontext.recipe import Recipe
from segcontext.types import Context, Features, Output, Sample
from segcontext.zoo import (
    a2net,
    build,
    cgnl_net,
    deeplabv3,
    deeplabv3_plus,
    emanet,
    fcn,
    galdnet_v1,
    galdnet_v2,
    nonlocal_net,
    psanet,
    pspnet,
    segmenter,
)

if TYPE_CHECKING:
    from segcontext.training import train

__all__ = [
    "CamVid",
    "Context",
    "Dataset",
    "Evaluation",
    "Features",
    "Folder",
    "Output",
    "Prediction",
    "Predictor",
    "Protocol",
    "Recipe",
    "Sample",
    "Scenes",
    "Segmenter",
    "a2net",
    "build",
    "cgnl_net",
    "deeplabv3",
    "deeplabv3_plus",
    "emanet",
    "evaluate",
    "fcn",
    "galdnet_v1",
    "galdnet_v2",
    "load_model",
    "nonlocal_net",
    "open_dataset",
    "predict_files",
    "predict_probabilities",
    "psanet",
    "pspnet",
    "save_model",
    "segmenter",
    "train",
    "update_bases",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("segcontext.training").train
    raise AttributeError(f"module 'segcontext' has no attribute {name!r}")
