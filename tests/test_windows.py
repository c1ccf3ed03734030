import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from segcontext.aggregation import EMA
from segcontext.assembly import segmenter
from segcontext.errors import RecipeError
from segcontext.inference import Protocol, evaluating, predict_labels, predict_probabilities
from segcontext.inference.windows import held_bases
from segcontext.types import Output


class Global(nn.Module):
    """Answers with the mean of what it sees beside each pixel, so every window answers differently."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Conv2d(6, 4, 1)
        self.sizes = []

    def forward(self, images):
        assert images.is_floating_point()
        self.sizes.append(tuple(images.shape[-2:]))
        mean = images.mean((2, 3), keepdim=True).expand_as(images)
        return Output(4 * self.mix(torch.cat([images, mean], 1)), tuple(images.shape[-2:]), True)


def photo(height, width, batch=1):
    return torch.randint(0, 256, (batch, 3, height, width), generator=torch.Generator().manual_seed(7)).byte()


def by_hand(model, images, window, overlap, average, blend):
    """Every window's answer, weighted and added up at full size in float64."""
    pixels = images.double() / 255
    height, width = images.shape[-2:]
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64).view(1, 3, 1, 1)
    tall, wide = max(height, window[0]), max(width, window[1])
    padded = mean.expand(len(images), 3, tall, wide).clone()
    padded[..., :height, :width] = pixels
    places = []
    for length, side in ((tall, window[0]), (wide, window[1])):
        step, starts = max(1, math.ceil(side * (1 - overlap) - 1e-6)), [0]
        while starts[-1] + side < length:
            starts.append(min(starts[-1] + step, length - side))
        places.append(starts)
    total, weights = torch.zeros(len(images), 4, tall, wide).double(), torch.zeros(tall, wide).double()
    for top in places[0]:
        for left in places[1]:
            part = padded[..., top : top + window[0], left : left + window[1]]
            logits = model(part.float()).logits.double()
            answer = logits.softmax(1) if average == "probabilities" else logits
            for y in range(window[0]):
                for x in range(window[1]):
                    down, across = (y - (window[0] - 1) / 2) / window[0], (x - (window[1] - 1) / 2) / window[1]
                    weight = math.exp(-32 * (down**2 + across**2)) if blend == "gaussian" else 1.0
                    total[..., top + y, left + x] += weight * answer[..., y, x]
                    weights[top + y, left + x] += weight
    mixed = (total / weights)[..., :height, :width]
    return mixed if average == "probabilities" else mixed.softmax(1)


@pytest.mark.parametrize("blend", ["uniform", "gaussian"])
@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [((13, 17), (5, 7), 1 / 3), ((9, 6), (4, 9), 0.5), ((6, 11), (8, 4), 0.75), ((12, 8), (4, 4), 0.0)],
)
def test_windows_are_blended_as_by_hand_and_strip_by_strip(size, window, overlap, average, blend):
    model, images = Global(), photo(*size, batch=2)
    protocol = Protocol("sliding", window, overlap, blend=blend, average=average)
    expected = by_hand(model, images, window, overlap, average, blend)
    found = predict_probabilities(model, images, protocol)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
    assert expected.amax(1).ne(expected.topk(2, 1).values[:, 1]).all()
    torch.testing.assert_close(predict_labels(model, images, protocol), expected.argmax(1))


def test_gaussian_blending_has_smaller_steps_where_windows_end():
    model, images = Global(), photo(32, 48)
    images[..., 24:] //= 4
    steps = {}
    for blend in ("uniform", "gaussian"):
        found = predict_probabilities(model, images, Protocol("sliding", 16, 0.5, blend=blend))
        smooth = predict_probabilities(model, torch.full_like(images, 90), Protocol("sliding", 16, 0.5, blend=blend))
        assert smooth.std(dim=(2, 3)).max() < 1e-6
        mixed = model.mix(torch.cat([images / 255.0, torch.zeros(1, 3, 32, 48)], 1)) * 4
        # What is left without the pixels' own part is the windows' context alone.
        steps[blend] = (found.log() - mixed).diff(dim=3).abs().amax()
    assert steps["gaussian"] < steps["uniform"]


def tall(batch=1):
    return segmenter(
        5, backbone="resnet10t", output_stride=16, pretrained=False, aggregation="ema", reduce_channels=16,
        aggregation_options={"num_bases": 4, "lam": 3.0},
    ).eval()  # fmt: skip


def test_held_bases_are_those_of_the_thumbnail_for_every_window():
    torch.manual_seed(1)
    model, images = tall(), photo(64, 128)
    ema = next(module for module in model.modules() if isinstance(module, EMA))
    pixels = images / 255
    thumbnail = F.interpolate(pixels, size=(32, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        bases = model(thumbnail, evidence=True).aggregation.bases
        before = ema.bases.clone()
        with held_bases(model, thumbnail):
            held = [model(part, evidence=True).aggregation for part in pixels.split(64, 3)]
        for part, found in zip(pixels.split(64, 3), held, strict=True):
            torch.testing.assert_close(found.bases, bases)
            own = model(part, evidence=True).aggregation
            assert own.bases.sub(bases).abs().max() > 1e-4
            # One E step on the given bases, no more.
            assert found.maps.shape[0] == 1
    torch.testing.assert_close(ema.bases, before, rtol=0, atol=0)
    assert ema._held is None
    assert ema._holding is None


def test_windows_of_an_even_picture_share_what_windows_of_one_image_share():
    torch.manual_seed(1)
    model, images = tall(), photo(64, 192)
    shared = Protocol("sliding", 64, 0.0, context="image", thumbnail=96)
    own = Protocol("sliding", 64, 0.0)
    # The left window is the same in both pictures, the rest is another: only shared context can tell.
    other = images.clone()
    other[..., 64:] = 255 - other[..., 64:]
    with evaluating(model):
        alone = [predict_probabilities(model, picture, own)[..., :64] for picture in (images, other)]
        together = [predict_probabilities(model, picture, shared)[..., :64] for picture in (images, other)]
    torch.testing.assert_close(*alone)
    assert together[0].sub(together[1]).abs().max() > 1e-5


def test_shared_context_needs_an_ema_unit_and_windows():
    model = segmenter(3, backbone="resnet10t", output_stride=16, pretrained=False, aggregation="none").eval()
    with pytest.raises(RecipeError, match="no EMA unit"):
        predict_labels(model, photo(48, 48), Protocol("sliding", 32, context="image"))
    with pytest.raises(RecipeError, match="go with mode 'sliding'"):
        Protocol(context="image")
    with pytest.raises(RecipeError, match="go with mode 'sliding'"):
        Protocol(blend="gaussian")
    with pytest.raises(RecipeError, match="goes with context 'image'"):
        Protocol("sliding", 32, thumbnail=64)
    with pytest.raises(RecipeError, match="blend is one of"):
        Protocol("sliding", 32, blend="linear")


def test_labels_of_windows_are_made_without_scores_of_the_whole_image():
    class Watch(torch.overrides.TorchFunctionMode):
        largest = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out.is_floating_point():
                self.largest = max(self.largest, out.numel())
            return out

    model, images = Global(), photo(400, 20)
    with Watch() as watch:
        labels = predict_labels(model, images, Protocol("sliding", 20, 0.25))
    assert labels.shape == (1, 400, 20)
    assert watch.largest <= 6 * 20 * 20
    assert model.sizes == [(20, 20)] * len(model.sizes)
