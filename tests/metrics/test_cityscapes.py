"""The IoUs of an evaluation on a tree in Cityscapes' layout are those of the data set's own evaluation script."""

import copy
import importlib
import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from segcontext.data import Cityscapes
from segcontext.evaluation import evaluate
from segcontext.types import Output


@pytest.fixture
def official():
    """The script's module, imported without its warnings."""
    pytest.importorskip("cityscapesscripts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")


def official_scores(script, predictions, truths):
    """What the script finds, without its prints, its files and the instances, which these trees lack."""
    options = copy.copy(script.args)
    options.quiet, options.JSONOutput, options.evalInstLevelScore = True, False, False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return script.evaluateImgLists([str(path) for path in predictions], [str(path) for path in truths], options)


class Told(nn.Module):
    """Predicts what the red channel of the image says."""

    classes, num_classes = Cityscapes.classes, 19

    def forward(self, images):
        told = (images[:, 0] * 255).round().long()
        return Output(F.one_hot(told, 19).movedim(-1, 1).float(), tuple(images.shape[-2:]), True)


def write_tree(root, script, *, left_out=()):
    """Images that carry a prediction, true labelIds of every kind, and the prediction as the script wants it."""
    draw = np.random.default_rng(0)
    ids = np.array([script.trainId2label[index].id for index in range(19)])
    truths, predictions = [], []
    for number, (city, height, width) in enumerate([("ulm", 24, 40), ("ulm", 24, 40), ("jena", 17, 33)]):
        name = f"{city}/{city}_{number:06d}_000019"
        told = draw.integers(0, 19, (height // 4 + 1, width // 4 + 1)).repeat(4, 0).repeat(4, 1)[:height, :width]
        told[np.isin(told, left_out)] = 0
        truth = np.where(draw.random(told.shape) < 0.6, ids[told], draw.integers(0, 34, told.shape))
        truth[np.isin(truth, ids[list(left_out)])] = ids[1]
        for folder, suffix, pixels in (
            ("leftImg8bit/val", "leftImg8bit", np.stack([told, told * 0, told * 0], -1)),
            ("gtFine/val", "gtFine_labelIds", truth),
            ("results", "pred", ids[told]),
        ):
            path = root / folder / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
            if suffix != "leftImg8bit":
                (predictions if suffix == "pred" else truths).append(path)
    return predictions, truths


@pytest.mark.parametrize("left_out", [(), (3, 16)])
def test_the_scores_are_those_of_the_official_script(tmp_path, official, left_out):
    predictions, truths = write_tree(tmp_path, official, left_out=left_out)
    expected = official_scores(official, predictions, truths)
    data = Cityscapes(tmp_path, "val")
    found = evaluate(Told(), data, batch=2, pictures=0, progress=False)
    assert len(data) == 3
    for index, name in enumerate(data.classes):
        label = official.trainId2label[index]
        assert label.name == name
        wanted = expected["classScores"][name]
        assert math.isnan(wanted) == (index in left_out)
        assert found.scores.iou[index].item() == pytest.approx(wanted, rel=1e-15, nan_ok=True)
    assert found.scores.miou == pytest.approx(expected["averageScoreClasses"], rel=1e-14)
    assert 0.3 < found.scores.miou < 0.7
    # The counts themselves, without the rows and columns of labels that are not evaluated.
    ids = [official.trainId2label[index].id for index in range(19)]
    counts = np.array(expected["confMatrix"])[np.ix_(ids, ids)]
    assert torch.equal(found.matrix, torch.from_numpy(counts.astype(np.int64)))
