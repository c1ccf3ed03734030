"""mIoU over batches of unequal size is torchmetrics' Jaccard index, class by class."""

import numpy as np
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from segcontext.metrics import ConfusionMatrix, scores


def test_uneven_batches_give_torchmetrics_jaccard_index():
    draw = np.random.default_rng(0)
    ours, theirs = ConfusionMatrix(6), MulticlassJaccardIndex(6, average=None, ignore_index=255)
    for size in (4, 4, 1):
        target = torch.from_numpy(draw.integers(0, 5, (size, 12, 15)))
        prediction = torch.where(torch.from_numpy(draw.random(target.shape) < 0.6), target, 3)
        target[torch.from_numpy(draw.random(target.shape) < 0.2)] = 255
        ours.update(prediction, target)
        theirs.update(prediction, target)
    found = scores(ours.compute())
    torch.testing.assert_close(found.iou[:5].float(), theirs.compute()[:5])
    # Class 5 is nowhere: no score here, 0 there.
    assert found.iou[5].isnan()
    assert found.miou == found.iou[:5].mean().item()
