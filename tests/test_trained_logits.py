"""The fast forms on logits of a trained network, which are peaked and jagged as no drawn ones are.

It learns for some seconds: on CamVid where SEGCONTEXT_CAMVID names its folder, on drawn street scenes elsewhere.
"""

import os
from typing import NamedTuple

import pytest
import torch
from torch.nn import functional as F

import segcontext
from segcontext.data import Scenes, open_dataset
from segcontext.inference import Protocol
from segcontext.inference.fusing import fused_labels
from segcontext.inference.views import ask, rescale
from segcontext.metrics import PAPER_SLACKS, boundary_tally, confusion_matrix
from segcontext.ops import resized_argmax
from segcontext.ops.implementations import use_implementation
from segcontext.types import Output

IMAGES, STEPS, BATCH = 12, 80, 4
SIZE, CROP = (360, 480), (192, 256)
SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class Trained(NamedTuple):
    network: segcontext.Segmenter
    images: torch.Tensor
    masks: torch.Tensor
    outputs: list[Output]

    @property
    def classes(self):
        return self.outputs[0].features_logits.shape[1]


def training_images():
    """A few images and labels from all over the data, and the number of classes."""
    camvid = os.environ.get("SEGCONTEXT_CAMVID")
    dataset = open_dataset(camvid, "train") if camvid else Scenes(size=SIZE, length=IMAGES)
    samples = [dataset[index * len(dataset) // IMAGES] for index in range(IMAGES)]
    images = torch.stack([torch.Tensor(sample.image) for sample in samples])
    return images, torch.stack([torch.Tensor(sample.mask).long() for sample in samples]), len(dataset.classes)


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    images, masks, classes = training_images()
    network = segcontext.segmenter(
        classes,
        backbone="test_resnet",
        pretrained=False,
        output_stride=8,
        aggregation="ema",
        aggregation_options={"num_bases": 16},
        reduce_channels=64,
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 4e-3 * (1 - step / STEPS)
        chosen = torch.randperm(IMAGES)[:BATCH]
        top, left = (int(torch.randint(whole - part + 1, ())) for whole, part in zip(SIZE, CROP, strict=True))
        window = (..., slice(top, top + CROP[0]), slice(left, left + CROP[1]))
        loss = F.cross_entropy(network(images[chosen][window]).logits, masks[chosen][window], ignore_index=255)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        segcontext.update_bases(network)
    with torch.no_grad():
        outputs = [network.eval()(image[None]) for image in images[:3]]
    return Trained(network, images, masks, outputs)


def plain_labels(output):
    return output.logits.argmax(1)


def test_the_network_has_learnt_something(trained):
    right = seen = 0
    for output, mask in zip(trained.outputs, trained.masks, strict=False):
        valid = mask != 255
        right += int((plain_labels(output)[0] == mask)[valid].sum())
        seen += int(valid.sum())
    masks = trained.masks[: len(trained.outputs)]
    commonest = int(masks[masks != 255].bincount().max())
    # Naming the most frequent class everywhere is the best guess without looking.
    assert right / seen > commonest / seen + 0.2
    # A uniform answer would have a share of one class in all.
    peaks = torch.cat([output.features_logits.softmax(1).amax(1).flatten() for output in trained.outputs])
    assert peaks.mean() > 4 / trained.classes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [SIZE, (1024, 2048)])
def test_labels_are_those_of_the_upsampled_logits(trained, size, dtype):
    for output in trained.outputs:
        logits = output.features_logits.to(dtype)
        options = {"size": size, "align_corners": output.align_corners}
        wanted = F.interpolate(logits.float().contiguous(), mode="bilinear", **options).argmax(1)
        found = resized_argmax(logits, **options, implementation="native")
        assert torch.equal(found.long(), wanted)


def test_confusions_are_those_of_a_masked_bincount(trained):
    for output, mask in zip(trained.outputs, trained.masks, strict=False):
        labels, valid = plain_labels(output)[0], mask != 255
        pairs = mask[valid] * trained.classes + labels[valid]
        wanted = pairs.bincount(minlength=trained.classes**2).view(trained.classes, trained.classes)
        for kind in (torch.uint8, torch.int64):
            with use_implementation("native"):
                found = confusion_matrix(labels.to(kind), mask.to(kind), trained.classes)
            assert torch.equal(found, wanted)


def test_boundaries_are_counted_as_the_plain_way_counts_them(trained):
    # Twice their size, to reach the paper's slacks.
    for output, mask in zip(trained.outputs, trained.masks, strict=False):
        pair = [each.byte().numpy().repeat(2, 0).repeat(2, 1) for each in (plain_labels(output)[0], mask)]
        found = []
        for form in ("native", "reference"):
            with use_implementation(form):
                found.append(boundary_tally(*pair, trained.classes, PAPER_SLACKS))
        assert torch.equal(*found)
        assert found[0].sum() > 0


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_scales_and_flips_name_the_classes_of_the_plain_sum(trained, average):
    protocol = Protocol(scales=SCALES, flip=True, average=average)
    views = []
    with torch.no_grad():
        for scale in SCALES:
            view = rescale(trained.images[:1], *(round(side * scale) for side in SIZE))
            views.append(ask(trained.network, view, protocol))
            views.append(ask(trained.network, view.flip(-1), protocol)._replace(flipped=True))
    total = 0
    for view in views:
        answer = F.interpolate(view.logits(), size=SIZE, mode="bilinear", align_corners=False)
        answer = answer.softmax(1) if average == "probabilities" else answer
        total = total + (answer.flip(-1) if view.flipped else answer)
    with use_implementation("native"):
        found = fused_labels(views, SIZE, protocol).long()
    largest = max(view.output.features_logits.abs().max().item() for view in views)
    # Both ways round: where two classes are as good as equal, another of the two may be named.
    shortfall = (total.amax(1) - total.gather(1, found[:, None])[:, 0]).max().item()
    assert shortfall < 2e-6 * len(views) * (1 if average == "probabilities" else largest)
    assert (found != total.argmax(1)).sum() <= 2
