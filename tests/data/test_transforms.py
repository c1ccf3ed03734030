import math
from fractions import Fraction

import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from segcontext.data.transforms import TrainTransform
from segcontext.errors import RecipeError, SampleError
from segcontext.types import Sample


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def make(height, width, seed=0):
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=rng(seed))
    mask = torch.randint(0, 19, (height, width), dtype=torch.uint8, generator=rng(seed + 1))
    return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), "sample")


def plain(sample, transform, generator):
    """The plain order: resize the whole, pad the whole, cut, mirror."""
    draws = torch.rand(26, generator=generator, dtype=torch.float64).tolist()
    low, high = transform.scale
    factor = low + draws[0] * (high - low)
    size = [max(1, round(side * factor)) for side in sample.mask.shape]
    image = TF.resize(torch.as_tensor(sample.image), size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # Not torchvision's: where a centre falls between two pixels, its choice depends on rounding.
    rows, columns = (
        [math.floor((index + Fraction(1, 2)) * old / new) for index in range(new)]
        for old, new in zip(sample.mask.shape, size, strict=True)
    )
    mask = torch.as_tensor(sample.mask)[rows][:, columns]
    height, width = max(size[0], transform.crop[0]), max(size[1], transform.crop[1])
    canvas = torch.tensor(transform.pad_value, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    labels = torch.full((height, width), 255, dtype=torch.uint8)
    canvas[:, : size[0], : size[1]], labels[: size[0], : size[1]] = image, mask
    left = int(draws[6] * (width - transform.crop[1] + 1))
    top = int(draws[7] * (height - transform.crop[0] + 1))
    window = slice(top, top + transform.crop[0]), slice(left, left + transform.crop[1])
    canvas, labels = canvas[:, *window], labels[window]
    return (canvas.flip(-1), labels.flip(-1)) if draws[1] < transform.flip else (canvas, labels)


@pytest.mark.parametrize(("height", "width"), [(37, 61), (64, 32), (1, 1), (9, 200)])
@pytest.mark.parametrize("crop", [(33, 33), (24, 48), (1, 1)])
def test_window_equals_the_plain_order(height, width, crop):
    transform = TrainTransform(crop)
    sample = make(height, width)
    for seed in range(12):
        image, mask = transform(sample, rng(seed))
        expected_image, expected_mask = plain(sample, transform, rng(seed))
        assert image.dtype == mask.dtype == torch.uint8
        assert torch.equal(mask, expected_mask)
        # Both round to uint8, at different places.
        assert (image.int() - expected_image.int()).abs().max() <= 1


def test_mask_is_resized_as_nearest_exact_does():
    sample = make(37, 61)
    transform = TrainTransform((53, 97), scale=(53 / 37, 53 / 37), flip=0)
    size = [53, round(61 * 53 / 37)]
    expected = TF.resize(torch.as_tensor(sample.mask)[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
    mask = transform(sample, rng()).mask
    assert torch.equal(mask[:, : size[1]], expected)


def test_same_generator_same_crop_and_no_global_draw():
    transform = TrainTransform(33, color_jitter=0.4, max_class_share=0.05)
    before = torch.get_rng_state()
    first, second, other = (transform(make(50, 70), rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.image, second.image)
    assert torch.equal(first.mask, second.mask)
    assert not torch.equal(first.image, other.image)
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_are_as_many_whatever_the_settings():
    states = []
    for settings in ({}, {"scale_step": 0.25}, {"color_jitter": 0.5}, {"max_class_share": 0.01}, {"flip": 0.0}):
        generator = rng(3)
        TrainTransform(16, **settings)(make(20, 20), generator)
        states.append(generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


def test_identity_settings_give_the_sample_back():
    sample = make(20, 30)
    image, mask = TrainTransform((20, 30), scale=(1, 1), flip=0)(sample, rng())
    assert torch.equal(image, sample.image)
    assert torch.equal(mask, sample.mask)
    image, mask = TrainTransform((20, 30), scale=(1, 1), flip=1)(sample, rng())
    assert torch.equal(image, sample.image.flip(-1))
    assert torch.equal(mask, sample.mask.flip(-1))


def test_padding_is_at_the_bottom_and_the_right():
    image, mask = TrainTransform((6, 8), scale=(1, 1), flip=0, pad_value=(1, 2, 3))(make(4, 5), rng())
    assert (mask[4:] == 255).all()
    assert (mask[:, 5:] == 255).all()
    assert (mask[:4, :5] < 19).all()
    assert image[:, 5, 7].tolist() == image[:, 0, 5].tolist() == image[:, 4, 0].tolist() == [1, 2, 3]


def test_image_and_mask_stay_aligned_under_every_scale():
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[20:44, 12:30] = 1
    sample = Sample(tv_tensors.Image((mask * 255).expand(3, -1, -1)), tv_tensors.Mask(mask), "box")
    for seed in range(20):
        image, labels = TrainTransform(48, pad_value=(0, 0, 0))(sample, rng(seed))
        assert ((image[0] > 127) == (labels == 1)).float().mean() > 0.98


def test_corners_and_flips_spread_over_all_places():
    image = torch.arange(12, dtype=torch.uint8).view(3, 4)
    sample = Sample(tv_tensors.Image(image.expand(3, -1, -1)), tv_tensors.Mask(image), "grid")
    transform = TrainTransform(2, scale=(1, 1))
    seen = {transform(sample, rng(seed)).mask[0, 0].item() for seed in range(200)}
    # Corners 0..1 × 0..2; mirrored, the upper right pixel of the window comes first.
    assert seen == set(range(8))


@pytest.mark.parametrize(
    ("scale", "step", "count"), [((0.5, 2.0), 0.25, 7), ((0.7, 2.1), 0.1, 15), ((1.0, 1.0), 0.1, 1)]
)
def test_stepped_scales_are_all_drawn(scale, step, count):
    transform = TrainTransform(8, scale=scale, scale_step=step)
    factors = sorted({round(transform._factor(draw / 1000), 6) for draw in range(1000)})
    assert len(factors) == count
    assert factors[0] == scale[0]
    assert factors[-1] == pytest.approx(scale[1])


def test_one_sided_windows_are_drawn_again():
    mask = torch.zeros(8, 80, dtype=torch.uint8)
    mask[:, 36:44] = 1
    mask[:, :10] = 255
    sample = Sample(tv_tensors.Image(mask.expand(3, -1, -1)), tv_tensors.Mask(mask), "stripe")
    settings = {"scale": (1, 1), "flip": 0}

    def mixed(share):
        transform = TrainTransform(8, max_class_share=share, **settings)
        return sum((transform(sample, rng(seed)).mask == 1).any().item() for seed in range(60))

    assert mixed(0.9) > 1.5 * mixed(1.0)


def test_jitter_changes_colours_within_its_strength_and_leaves_padding():
    sample = Sample(
        tv_tensors.Image(torch.full((3, 4, 4), 100, dtype=torch.uint8)),
        tv_tensors.Mask(torch.zeros(4, 4, dtype=torch.uint8)),
        "grey",
    )
    transform = TrainTransform(6, scale=(1, 1), flip=0, color_jitter=0.5)
    # On an even grey, contrast, saturation and hue do nothing, so that brightness alone is seen.
    greys = [transform(sample, rng(seed)).image for seed in range(40)]
    values = [int(grey[0, 0, 0]) for grey in greys]
    assert 50 <= min(values) < 70
    assert 130 < max(values) <= 150
    assert all(grey[:, 5, 5].tolist() == [124, 116, 104] for grey in greys)


def test_void_only_and_tiny_samples_pass():
    mask = torch.full((1, 1), 255, dtype=torch.uint8)
    sample = Sample(tv_tensors.Image(torch.zeros(3, 1, 1, dtype=torch.uint8)), tv_tensors.Mask(mask), "dot")
    image, labels = TrainTransform((5, 3), max_class_share=0.5, color_jitter=0.2)(sample, rng())
    assert image.shape == (3, 5, 3)
    assert (labels == 255).all()


def test_sample_without_labels_is_refused():
    with pytest.raises(SampleError, match="'x' has no labels"):
        TrainTransform(8)(Sample(make(4, 4).image, None, "x"), rng())


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": 0},
        {"crop": (8, -1)},
        {"scale": (2.0, 0.5)},
        {"scale": (0.0, 1.0)},
        {"scale_step": 0.0},
        {"flip": 1.5},
        {"pad_value": (0, 0, 256)},
        {"color_jitter": -0.1},
        {"max_class_share": 0.0},
    ],
)
def test_arguments_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        TrainTransform(**{"crop": 8, **wrong})
