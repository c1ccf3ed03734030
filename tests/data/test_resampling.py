import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from segcontext.data.resampling import Window, draw_image, draw_labels, taps
from segcontext.native import is_available
from segcontext.ops.implementations import use_implementation

SIZES = [
    # (height, width) before and after: larger, smaller, one of each, alike, by a lot, to a line.
    ((37, 61), (74, 122)),
    ((37, 61), (19, 31)),
    ((37, 61), (41, 30)),
    ((37, 61), (37, 61)),
    ((90, 200), (7, 11)),
    ((5, 3), (64, 90)),
    ((1, 1), (9, 4)),
    ((40, 30), (2, 1)),
]


def noise(shape, seed=0, high=256):
    return torch.randint(0, high, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def part(size, mirrored):
    """A window inside, where the image is large enough for one."""
    corner = tuple(side // 5 for side in size)
    return Window(
        size, corner, tuple(max(1, side - 2 * start) for side, start in zip(size, corner, strict=True)), mirrored
    )


def drawn(image, window, form, canvas=None):
    canvas = torch.zeros(3, *window.extent, dtype=torch.uint8) if canvas is None else canvas
    with use_implementation(form):
        draw_image(image, window, canvas)
    return canvas


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("length", "size"), SIZES)
def test_a_window_is_cut_out_of_the_resized_image(length, size, mirrored):
    image, window = noise((3, *length)), part(size, mirrored)
    (top, left), (height, width) = window.corner, window.extent
    whole = TF.resize(image, list(size), interpolation=InterpolationMode.BILINEAR, antialias=True)
    expected = whole[:, top : top + height, left : left + width]
    expected = expected.flip(-1) if mirrored else expected
    assert (drawn(image, window, "reference").int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(("length", "size"), SIZES)
def test_values_are_those_of_exact_arithmetic_but_for_rounding(length, size):
    image, window = noise((3, *length)), part(size, mirrored=False)
    (top, left), (height, width) = window.corner, window.extent
    rows, columns = (triangles(*axis) for axis in zip(length, size, strict=True))
    exact = (rows @ image.double() @ columns.T)[:, top : top + height, left : left + width]
    assert (drawn(image, window, "reference").double() - exact).abs().max() < 1


def triangles(length, scaled):
    """Shares of the pixels of an axis in each pixel of the scaled one, by the definition."""
    step = length / scaled
    reach = max(1.0, step)
    table = [
        [max(0.0, 1 - abs((pixel + 0.5) - (index + 0.5) * step) / reach) for pixel in range(length)]
        for index in range(scaled)
    ]
    shares = torch.tensor(table, dtype=torch.float64)
    return shares / shares.sum(1, keepdim=True)


@pytest.mark.skipif(not is_available(), reason="there is no numba")
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("length", "size"), SIZES)
def test_both_forms_give_the_same_bytes(length, size, mirrored):
    window = part(size, mirrored)
    planar = noise((3, *length))
    interleaved = planar.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    strided = noise((3, 2 * length[0], 2 * length[1]))[:, ::2, ::2]
    for image in (planar, interleaved, strided):
        assert torch.equal(drawn(image, window, "native"), drawn(image, window, "reference"))


@pytest.mark.parametrize("form", ["reference", "native"])
@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_image_stays_as_it_is(form, value):
    image = torch.full((3, 23, 31), value, dtype=torch.uint8)
    for size in ((40, 50), (11, 13), (23, 62)):
        assert (drawn(image, Window(size, (0, 0), size), form) == value).all()


@pytest.mark.parametrize("form", ["reference", "native"])
def test_only_the_window_of_the_canvas_is_drawn_on(form):
    image, labels = noise((3, 8, 9)), noise((8, 9))
    for mirrored, columns in ((False, slice(0, 9)), (True, slice(3, 12))):
        canvas, mask = torch.full((3, 10, 12), 7, dtype=torch.uint8), torch.full((10, 12), 7, dtype=torch.uint8)
        window = Window((8, 9), (0, 0), (8, 9), mirrored)
        drawn(image, window, form, canvas)
        with use_implementation(form):
            draw_labels(labels, window, mask)
        assert torch.equal(canvas[:, :8, columns], image.flip(-1) if mirrored else image)
        assert torch.equal(mask[:8, columns], labels.flip(-1) if mirrored else labels)
        outside = torch.ones(10, 12, dtype=torch.bool)
        outside[:8, columns] = False
        assert (canvas[:, outside] == 7).all()
        assert (mask[outside] == 7).all()


@pytest.mark.parametrize("form", ["reference", "native"])
@pytest.mark.parametrize(("length", "size"), SIZES)
def test_labels_are_those_of_the_nearest_pixels(form, length, size):
    labels = noise(length, high=19)
    for mirrored in (False, True):
        window = part(size, mirrored)
        (top, left), (height, width) = window.corner, window.extent
        rows = [(2 * (top + row) + 1) * length[0] // (2 * size[0]) for row in range(height)]
        columns = [(2 * (left + column) + 1) * length[1] // (2 * size[1]) for column in range(width)]
        expected = labels[rows][:, columns[::-1] if mirrored else columns]
        canvas = torch.zeros(height, width, dtype=torch.uint8)
        with use_implementation(form):
            draw_labels(labels, window, canvas)
        assert torch.equal(canvas, expected)


@pytest.mark.parametrize(
    ("length", "scaled"), [(10, 25), (25, 10), (100, 3), (3, 100), (7, 7), (1, 5), (5, 1), (64, 63)]
)
def test_weights_sum_to_one_and_lie_within_the_axis(length, scaled):
    first, weights = taps(length, scaled, 0, scaled)
    assert (weights.sum(1) == 2048).all()
    assert (weights >= 0).all()
    assert first.min() >= 0
    assert (first + weights.shape[1]).max() <= length


def test_a_part_of_an_axis_has_the_weights_of_the_whole():
    for length, scaled in ((50, 90), (90, 50)):
        whole, some = taps(length, scaled, 0, scaled), taps(length, scaled, 11, 20)
        for index in range(20):
            dense = torch.zeros(2, length, dtype=torch.int64)
            for row, (axis, place) in enumerate(((whole, 11 + index), (some, index))):
                start = axis.first[place]
                dense[row, start : start + axis.weights.shape[1]] = torch.from_numpy(axis.weights[place])
            assert torch.equal(dense[0], dense[1])


def test_shrinking_is_antialiased():
    """Stripes as fine as the pixels come out grey, not black or white."""
    image = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(3, 64, 64)
    window = Window((21, 21), (2, 2), (16, 16))
    values = drawn(image, window, "auto").float()
    assert (values - 127.5).abs().max() < 30
