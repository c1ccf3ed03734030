"""Context modules for semantic segmentation: global aggregation, then local distribution.

Names are imported when they are first used, so that neither ``import segcontext`` nor the command line's help waits for
PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segcontext.checkpoint import load_model, save_model
    from segcontext.costs import Cost, cost
    from segcontext.data import (
        ADE20K,
        COCOVOC,
        VOC,
        CamVid,
        Cityscapes,
        COCOStuff,
        Dataset,
        Folder,
        PascalContext,
        PascalContext60,
        Scenes,
        open_dataset,
    )
    from segcontext.evaluation import Evaluation, Measures, evaluate
    from segcontext.importing import export_weights, import_weights
    from segcontext.inference import Prediction, Predictor, Protocol, predict_labels, predict_probabilities
    from segcontext.model import Segmenter, update_bases
    from segcontext.prediction import predict_files
    from segcontext.recipe import Recipe
    from segcontext.training import train
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

__all__ = [
    "ADE20K",
    "COCOVOC",
    "VOC",
    "COCOStuff",
    "CamVid",
    "Cityscapes",
    "Context",
    "Cost",
    "Dataset",
    "Evaluation",
    "Features",
    "Folder",
    "Measures",
    "Output",
    "PascalContext",
    "PascalContext60",
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
    "cost",
    "deeplabv3",
    "deeplabv3_plus",
    "emanet",
    "evaluate",
    "export_weights",
    "fcn",
    "galdnet_v1",
    "galdnet_v2",
    "import_weights",
    "load_model",
    "nonlocal_net",
    "open_dataset",
    "predict_files",
    "predict_labels",
    "predict_probabilities",
    "psanet",
    "pspnet",
    "save_model",
    "segmenter",
    "train",
    "update_bases",
]

__version__ = "0.1.0"

_HOMES = {
    "checkpoint": ("load_model", "save_model"),
    "costs": ("Cost", "cost"),
    "data": (
        *("ADE20K", "COCOStuff", "COCOVOC", "CamVid", "Cityscapes", "Dataset", "Folder", "PascalContext"),
        *("PascalContext60", "Scenes", "VOC", "open_dataset"),
    ),
    "evaluation": ("Evaluation", "Measures", "evaluate"),
    "importing": ("export_weights", "import_weights"),
    "inference": ("Prediction", "Predictor", "Protocol", "predict_labels", "predict_probabilities"),
    "model": ("Segmenter", "update_bases"),
    "prediction": ("predict_files",),
    "recipe": ("Recipe",),
    "training": ("train",),
    "types": ("Context", "Features", "Output", "Sample"),
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = next((module for module, names in _HOMES.items() if name in names), "zoo")
        value = getattr(import_module(f"segcontext.{home}"), name)
        globals()[name] = value
        return value
    try:
        return import_module(f"segcontext.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"segcontext.{name}":
            raise
        raise AttributeError(f"module 'segcontext' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
