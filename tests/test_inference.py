import importlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segcontext.errors import OutputExists, RecipeError, SampleError, SegContextError, ShapeError
from segcontext.inference import (
    Predictor,
    Protocol,
    evaluating,
    predict_labels,
    predict_probabilities,
    read_source,
)
from segcontext.ops.implementations import use_implementation
from segcontext.types import Output

# The package names the function in it, which has the same name.
RESIZED = importlib.import_module("segcontext.ops.resized_argmax")

RED, GREEN, BLUE = (200, 30, 30), (30, 200, 30), (30, 30, 200)


class Pointwise(nn.Module):
    """Its classes are red, green and blue, each pixel judged alone; it remembers the sizes that it was given."""

    classes = ("red", "green", "blue")
    palette = (RED, GREEN, BLUE)
    num_classes = 3

    def __init__(self):
        super().__init__()
        self.sizes = []
        self.dropout = nn.Dropout()

    def forward(self, images):
        assert images.is_floating_point()
        self.sizes.append(tuple(images.shape[-2:]))
        return Output(8 * self.dropout(images), tuple(images.shape[-2:]), True)


class Contextual(nn.Module):
    """Sees its whole input, at stride 4."""

    classes = palette = ()
    num_classes = 5

    def __init__(self, symmetric=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 5, padding=2)
        self.norm = nn.BatchNorm2d(5)
        if symmetric:
            with torch.no_grad():
                self.conv.weight += self.conv.weight.clone().flip(-1)

    def forward(self, images):
        x = F.adaptive_avg_pool2d(self.conv(images), tuple(-(-side // 4) for side in images.shape[-2:]))
        x = self.norm(x + x.mean((2, 3), keepdim=True))
        return Output(x, tuple(images.shape[-2:]), True)


def photo(height=20, width=26, batch=2, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    window=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    overlap=st.floats(0, 0.8),
    average=st.sampled_from(["probabilities", "logits"]),
)
def test_windows_do_not_change_what_a_pointwise_model_says(height, width, window, overlap, average):
    images = photo(height, width, batch=1)
    protocol = Protocol("sliding", window, overlap, average=average)
    expected = predict_probabilities(Pointwise(), images)
    torch.testing.assert_close(predict_probabilities(Pointwise(), images, protocol), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [(20, 26), (25, 40), 26])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
def test_a_window_over_the_whole_image_is_the_whole_image(window, scales):
    model, images = Contextual(), photo()
    whole = predict_probabilities(model, images, Protocol(scales=scales, flip=True))
    sliding = predict_probabilities(model, images, Protocol("sliding", window, scales=scales, flip=True))
    assert torch.equal(whole, sliding)


def test_windows_all_have_one_size_cover_the_image_and_overlap():
    model = Pointwise()
    predict_probabilities(model, photo(20, 26), Protocol("sliding", (12, 9), 1 / 3))
    assert model.sizes == [(12, 9)] * 2 * 4


@pytest.mark.parametrize(("window", "length", "count"), [(768, 768 + 512, 2), (768, 768 + 513, 3), (9, 9, 1)])
def test_the_step_is_the_windows_share_that_does_not_overlap(window, length, count):
    model = Pointwise()
    predict_probabilities(model, photo(1, length, batch=1), Protocol("sliding", (1, window), 1 / 3))
    assert len(model.sizes) == count


def test_an_image_below_the_window_in_one_direction_is_padded_with_the_mean():
    class Corner(Pointwise):
        normalize = nn.Module()
        normalize.register_buffer("mean", torch.tensor([0.25, 0.5, 0.75]).view(1, 3, 1, 1))

        def forward(self, images):
            self.corner = images[..., -1, -1]
            return super().forward(images)

    model = Corner()
    result = predict_probabilities(model, photo(5, 20), Protocol("sliding", 8))
    assert set(model.sizes) == {(8, 8)}
    assert model.corner.tolist() == [[0.25, 0.5, 0.75]] * 2
    assert result.shape == (2, 3, 5, 20)


@pytest.mark.parametrize("padding", ["none", "stride_plus_one"])
def test_the_mirror_image_of_a_symmetric_model_adds_nothing(padding):
    model, images = Contextual(symmetric=True), photo(21, 24)
    options = {"padding": padding, "stride": 4}
    once = predict_probabilities(model, images, Protocol(**options))
    twice = predict_probabilities(model, images, Protocol(flip=True, **options))
    if padding == "none":
        torch.testing.assert_close(once, twice)
    else:
        # Padding on one side alone breaks the symmetry.
        assert not torch.allclose(once, twice, atol=1e-4)


def test_flips_and_scales_are_averaged():
    model, images = Contextual(), photo()
    plain, mirrored = (predict_probabilities(model, view) for view in (images, images.flip(-1)))
    both = predict_probabilities(model, images, Protocol(flip=True))
    torch.testing.assert_close(both, (plain + mirrored.flip(-1)) / 2)
    small = predict_probabilities(model, images, Protocol(scales=(0.5,)))
    torch.testing.assert_close(predict_probabilities(model, images, Protocol(scales=(1.0, 0.5))), (plain + small) / 2)


def test_averaging_logits_is_a_geometric_mean():
    model, images = Contextual(), photo()
    plain, mirrored = (predict_probabilities(model, view) for view in (images, images.flip(-1)))
    mean = (plain * mirrored.flip(-1)).sqrt()
    both = predict_probabilities(model, images, Protocol(flip=True, average="logits"))
    torch.testing.assert_close(both, mean / mean.sum(1, keepdim=True))


@pytest.mark.parametrize("average", ["probabilities", "logits"])
@pytest.mark.parametrize("options", [{}, {"mode": "sliding", "window": 9}, {"padding": "stride_plus_one", "stride": 8}])
def test_probabilities_sum_to_one_at_the_images_size(options, average):
    protocol = Protocol(scales=(0.03, 0.75, 1.3), flip=True, average=average, **options)
    result = predict_probabilities(Contextual(), photo(), protocol)
    assert result.shape == (2, 5, 20, 26)
    assert result.dtype == torch.float32
    assert result.min() >= 0
    torch.testing.assert_close(result.sum(1), torch.ones(2, 20, 26))


def test_scales_round_to_whole_pixels_and_smaller_images_are_smoothed():
    model = Pointwise()
    predict_probabilities(model, photo(10, 13), Protocol(scales=(0.01, 0.5, 1.25)))
    assert model.sizes == [(1, 1), (5, 6), (12, 16)]
    stripes = torch.zeros(1, 3, 12, 12)
    stripes[..., ::2] = 1
    # Without antialiasing a quarter of the size would show alternating black and white only, or one of them.
    quarter = predict_probabilities(model, stripes, Protocol(scales=(0.25,)))
    torch.testing.assert_close(quarter, torch.full_like(quarter, 1 / 3))
    seen = []
    model.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    predict_probabilities(model, stripes, Protocol(scales=(0.25,)))
    assert ((seen[0] > 0.3) & (seen[0] < 0.7)).all()


@pytest.mark.parametrize(("size", "expected"), [((16, 17), (17, 17)), ((18, 24), (25, 25)), ((1, 2), (1, 9))])
def test_padding_makes_sides_one_modulo_the_stride(size, expected):
    model = Pointwise()
    images = photo(*size)
    result = predict_probabilities(model, images, Protocol(padding="stride_plus_one", stride=8))
    assert model.sizes == [expected]
    torch.testing.assert_close(result, (8 * images).softmax(1))


class ManyClasses(nn.Module):
    """Says 19 classes at stride 8."""

    def __init__(self, *, align_corners=True, memory_format=torch.contiguous_format):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 19, 3, stride=8, padding=1)
        self.align_corners, self.memory_format = align_corners, memory_format
        self.output = None

    def forward(self, images):
        logits = self.conv(images).contiguous(memory_format=self.memory_format)
        self.output = Output(logits, tuple(images.shape[-2:]), self.align_corners)
        return self.output


class Largest(TorchFunctionMode):
    """Remembers how many values the largest tensor had."""

    def __init__(self):
        super().__init__()
        self.values = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.values = max(self.values, tensor.numel())
        return result


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("size", [(97, 131), (129, 64), (31, 203)])
@pytest.mark.parametrize("at_once", [0, 1, 2**13, 2**23])
def test_labels_are_the_argmax_of_the_logits(monkeypatch, align_corners, size, at_once):
    monkeypatch.setattr(RESIZED, "VALUES_AT_ONCE", at_once)
    model, images = ManyClasses(align_corners=align_corners), photo(*size)
    with use_implementation("reference" if at_once else "native"):
        labels = predict_labels(model, images)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, model.output.logits.argmax(1))
    assert torch.equal(labels, predict_probabilities(model, images, Protocol(average="logits")).argmax(1))


def test_labels_of_channels_last_logits_differ_by_rounding_alone(monkeypatch):
    monkeypatch.setattr(RESIZED, "VALUES_AT_ONCE", 1)
    model, images = ManyClasses(memory_format=torch.channels_last), photo(97, 131)
    labels, logits = predict_labels(model, images), model.output.logits
    best = logits.amax(1)
    assert (best - logits.gather(1, labels[:, None])[:, 0]).max() <= 1e-5 * best.abs().max()


def test_the_first_of_equal_classes_is_named(monkeypatch):
    monkeypatch.setattr(RESIZED, "VALUES_AT_ONCE", 1)
    model = ManyClasses()
    nn.init.zeros_(model.conv.weight)
    with torch.no_grad():
        model.conv.bias[:] = torch.tensor([0.0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1])
    assert predict_labels(model, photo(97, 131)).unique().tolist() == [3]


@pytest.mark.parametrize(
    ("protocol", "cheap"),
    [
        (Protocol(), True),
        (Protocol(scales=(0.75,)), True),
        (Protocol("sliding", 2000), True),
        (Protocol(padding="stride_plus_one", stride=8), True),
        (Protocol(average="logits"), True),
        (Protocol("sliding", (100, 900), scales=(0.25,)), True),
        (Protocol(flip=True), "native"),
        (Protocol(scales=(0.5, 1.0)), "native"),
        (Protocol(scales=(0.5, 1.0), flip=True, average="logits", padding="stride_plus_one", stride=8), "native"),
        (Protocol("sliding", 300), False),
        (Protocol("sliding", 500, scales=(0.5, 1.0)), False),
    ],
)
@pytest.mark.parametrize("form", ["reference", "native"])
def test_labels_are_those_of_the_probabilities_without_all_logits_at_image_size(monkeypatch, protocol, cheap, form):
    height, width = 371, 803
    monkeypatch.setattr(RESIZED, "VALUES_AT_ONCE", 1)
    model, images = ManyClasses(), photo(height, width, batch=1)
    with torch.no_grad(), Largest() as largest, use_implementation(form):
        labels = predict_labels(model, images, protocol)
    assert (largest.values < 8 * height * width) == (cheap is True or cheap == form)
    probabilities = predict_probabilities(model, images, protocol)
    # Softmax rounds, so that nearly equal classes may change places.
    assert (labels != probabilities.argmax(1)).sum() <= 3
    assert (probabilities.amax(1) - probabilities.gather(1, labels[:, None])[:, 0]).max() < 1e-6


def test_labels_are_refused_for_what_is_no_batch_of_images():
    for images in (torch.rand(3, 8, 8), torch.rand(5)):
        with pytest.raises(ShapeError, match="B, 3, H, W"):
            predict_labels(Pointwise(), images)


def test_the_predictor_s_label_map_is_its_prediction_without_probabilities():
    for model in (Pointwise(), Contextual()):
        predictor, picture = Predictor(model), coloured()[0]
        labelled, prediction = predictor.label_map(picture), predictor(picture)
        assert np.array_equal(labelled.labels, prediction.labels)
        assert labelled.labels.dtype == np.uint8
        assert (labelled.classes, labelled.palette) == (prediction.classes, prediction.palette)
        assert labelled.overlay(picture).size == (3, 2)


def test_the_predictor_s_precision_is_used():
    class Watched(Pointwise):
        def forward(self, images):
            self.half = torch.is_autocast_enabled("cpu")
            return super().forward(images)

    for precision in ("bf16", None):
        predictor = Predictor(Watched(), precision=precision)
        for ask in (predictor, predictor.label_map):
            ask(coloured()[0])
            assert predictor.model.half == (precision == "bf16")
    with pytest.raises(RecipeError, match="'f8'"):
        Predictor(Pointwise(), precision="f8")


def test_the_stride_comes_from_the_backbone_or_must_be_given():
    model = Pointwise()
    with pytest.raises(RecipeError, match="give `stride`"):
        predict_probabilities(model, photo(), Protocol(padding="stride_plus_one"))
    model.backbone = nn.Identity()
    model.backbone.output_stride = 16
    predict_probabilities(model, photo(20, 26), Protocol(padding="stride_plus_one"))
    assert model.sizes == [(33, 33)]


def test_bytes_and_floats_are_the_same_picture():
    pixels = (photo() * 255).byte()
    assert torch.equal(
        predict_probabilities(Contextual(), pixels), predict_probabilities(Contextual(), pixels.float() / 255)
    )


def test_the_images_and_the_models_logits_are_left_alone():
    class Echo(nn.Module):
        def forward(self, images):
            return Output(images, tuple(images.shape[-2:]), True)

    images = photo()
    before = images.clone()
    predict_probabilities(Echo(), images, Protocol(flip=True, scales=(1.0, 1.0), average="logits"))
    assert torch.equal(images, before)


def test_the_model_is_asked_in_evaluation_mode_and_left_as_it_was():
    model = Contextual()
    model.conv.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = predict_probabilities(model, photo())
    assert not result.requires_grad
    assert model.training
    assert model.norm.training
    assert not model.conv.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def fail():
        with evaluating(model):
            assert not any(module.training for module in model.modules())
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        fail()
    assert model.training


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (torch.rand(3, 8, 8), ShapeError, "B, 3, H, W"),
        (torch.rand(1, 4, 8, 8), ShapeError, "B, 3, H, W"),
        (torch.rand(1, 3, 0, 8), ShapeError, "B, 3, H, W"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), ShapeError, "uint8"),
        (torch.rand(1, 3, 8, 8) * 255, SampleError, "Divide by 255"),
        (torch.rand(1, 3, 8, 8) - 2, SampleError, "do not normalise"),
        (torch.full((1, 3, 8, 8), math.nan), SampleError, "nan"),
    ],
)
def test_other_images_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        predict_probabilities(Pointwise(), images)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mode": "tiles"}, "'tiles'"),
        ({"mode": "sliding"}, "needs one"),
        ({"window": 5}, "mode 'sliding'"),
        ({"mode": "sliding", "window": 0}, "from 1 up"),
        ({"mode": "sliding", "window": (1, 2, 3)}, "height, width"),
        ({"mode": "sliding", "window": 5, "overlap": 1.0}, "below 1"),
        ({"scales": ()}, "at least one"),
        ({"scales": (1, 0)}, "above 0"),
        ({"scales": (math.inf,)}, "above 0"),
        ({"average": "votes"}, "'votes'"),
        ({"padding": "mirror"}, "'mirror'"),
        ({"stride": 0}, "stride"),
    ],
)
def test_impossible_protocols_are_refused(options, words):
    with pytest.raises(RecipeError, match=words):
        Protocol(**options)


def test_protocols_read_from_files_equal_those_written_in_python():
    assert Protocol("sliding", [3, 4], scales=[1, 2]) == Protocol("sliding", (3, 4), scales=(1.0, 2.0))
    assert hash(Protocol("sliding", [3, 4])) == hash(Protocol("sliding", (3, 4)))
    assert str(Protocol()) == "whole image"
    assert str(Protocol("sliding", 9, scales=(0.5,), average="logits", padding="stride_plus_one")) == (
        "sliding window 9×9, overlap 33%, scale 0.5, mean of logits, padded to the stride plus one"
    )


def coloured():
    """A picture with a red, a green and a blue column, and its labels."""
    array = np.array([[RED, GREEN, BLUE]] * 2, dtype=np.uint8)
    return array, np.array([[0, 1, 2]] * 2)


def test_the_predictor_takes_files_pictures_arrays_and_tensors(tmp_path):
    array, labels = coloured()
    Image.fromarray(array).save(tmp_path / "a.png")
    predictor = Predictor(Pointwise(), device="cpu")
    sources = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(array),
        Image.fromarray(array).convert("RGBA"),
        array,
        array.astype(np.uint16) * 256,
        array.astype(np.float32) / 255,
        (array / 255).astype(">f4"),
        array.astype(">u2") * 256,
        np.asfortranarray(array)[::1],
        np.dstack([array, np.zeros((2, 3), dtype=np.uint8)]),
        torch.from_numpy(array).permute(2, 0, 1),
        torch.from_numpy(array.astype(np.uint16) * 256).permute(2, 0, 1),
        torch.from_numpy(array).permute(2, 0, 1).float() / 255,
    ]
    for source in sources:
        prediction = predictor(source)
        assert prediction.labels.dtype == np.uint8
        assert np.array_equal(prediction.labels, labels)
        assert prediction.probabilities.shape == (3, 2, 3)
        assert np.array_equal(prediction.confidence, prediction.probabilities.max(0))
        assert prediction.classes == Pointwise.classes
        assert prediction.palette == Pointwise.palette


def test_grey_pictures_become_rgb():
    grey = np.array([[0, 100, 200]], dtype=np.uint8)
    expected = torch.from_numpy(grey).expand(3, 1, 3)
    for source in (
        grey,
        grey[..., None],
        grey.astype(np.uint16) * 256,
        Image.fromarray(grey),
        Image.fromarray(grey.astype(np.uint16) * 256),
        Image.fromarray(grey).convert("P"),
        Image.fromarray(grey.astype(np.int32)),
        Image.fromarray(grey.astype(np.int32) * 256),
        Image.fromarray(grey.astype(np.float32) / 255),
        torch.from_numpy(grey),
        torch.from_numpy(grey)[None],
    ):
        assert torch.equal(read_source(source), expected)


@pytest.mark.parametrize("values", [[[0.0, 254.0]], [[-0.5, 1.0]], [[0.0, float("nan")]], [[0, 70000]], [[-1, 3]]])
def test_numbers_of_no_known_range_are_refused_rather_than_clipped(tmp_path, values):
    kind = np.float32 if isinstance(values[0][0], float) else np.int32
    Image.fromarray(np.array(values, kind)).save(tmp_path / "a.tif")
    with pytest.raises(SampleError, match=r"a\.tif.* must lie in"):
        read_source(tmp_path / "a.tif")
    with pytest.raises(SampleError, match="must lie in"), Image.open(tmp_path / "a.tif") as opened:
        read_source(opened)


def test_the_orientation_of_a_photograph_is_respected(tmp_path):
    array, labels = coloured()
    image = Image.fromarray(array)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    turned = np.rot90(labels, -1)
    predictor = Predictor(Pointwise())
    assert np.array_equal(predictor(tmp_path / "turned.png").labels, turned)
    with Image.open(tmp_path / "turned.png") as opened:
        assert np.array_equal(predictor(opened).labels, turned)
        assert predictor(opened).overlay(opened).size == (2, 3)


def test_a_prediction_shows_and_saves_itself(tmp_path):
    array, labels = coloured()
    prediction = Predictor(Pointwise())(array)
    assert np.array_equal(np.asarray(prediction.colour()), array)
    assert np.array_equal(np.asarray(prediction.overlay(array)), array)
    assert np.array_equal(np.asarray(prediction.overlay(array / 255)), array)
    prediction.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert np.array_equal(np.asarray(image), labels)
    with pytest.raises(OutputExists):
        prediction.save(tmp_path / "mask.png")
    prediction.save(tmp_path / "mask.png", overwrite=True)


def test_a_model_without_names_and_colours_gets_some():
    prediction = Predictor(Contextual())(coloured()[0])
    assert prediction.classes == ("class 0", "class 1", "class 2", "class 3", "class 4")
    assert len(set(prediction.palette)) == 5


def test_the_predictor_follows_its_protocol():
    model = Pointwise()
    Predictor(model, protocol=Protocol("sliding", (2, 2), 0.0))(coloured()[0])
    assert model.sizes == [(2, 2), (2, 2)]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("nowhere.png", SampleError),
        (np.zeros((2, 3, 3), dtype=np.int64), ShapeError),
        (np.zeros((2, 3, 5), dtype=np.uint8), ShapeError),
        (np.zeros((2, 3, 3)) + 7, SampleError),
        (torch.zeros(2, 3, 3, dtype=torch.uint8), ShapeError),
        (12, ShapeError),
    ],
)
def test_other_sources_are_refused(source, error):
    with pytest.raises(error):
        Predictor(Pointwise())(source)


def test_damaged_files_are_refused_by_name(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.jpg")
    half = (tmp_path / "a.jpg").read_bytes()[:2000]
    (tmp_path / "half.jpg").write_bytes(half)
    (tmp_path / "text.png").write_text("no picture")
    for name in ("half.jpg", "text.png"):
        with pytest.raises(SampleError, match=name):
            Predictor(Pointwise())(tmp_path / name)
    with Image.open(tmp_path / "half.jpg") as image, pytest.raises(SegContextError, match="cannot be decoded"):
        Predictor(Pointwise())(image)
