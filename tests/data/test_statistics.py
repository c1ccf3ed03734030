"""What the augmentation draws, beside the plain pipeline: Pillow on whole images, with random numbers of its own.

The pictures tell where a window comes from: red and green are slopes, so that scale, mirroring and corner can be read
off a crop. Blue is noise as fine as the pixels, whose spread shows whether shrinking averages.
"""

import random

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy import stats

from segcontext.data import Folder, PixelCache, TrainTransform
from segcontext.data.stream import TrainingStream

SIZE, CROP, SCALE, DRAWS = (64, 96), (40, 64), (0.5, 2.0), 1600
#: Grey levels from one row or column to the next.
SLOPE = 2
PADDING = (124, 116, 104)
#: Rarer things are not taken for chance; each run draws the same.
CHANCE = 1e-4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five pictures, each with four classes of stripes and boxes of its own."""
    root = tmp_path_factory.mktemp("slopes")
    for name in ("images", "masks"):
        (root / name).mkdir()
    (root / "classes.txt").write_text("\n".join("abcd"))
    rows, columns = np.indices(SIZE)
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, SIZE)
        image = np.stack([SLOPE * columns, SLOPE * rows, noise], -1).astype(np.uint8)
        mask = (columns // (9 + 5 * number) % 2 + 2 * (rows > 20 + 6 * number)).astype(np.uint8)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root


def ours(root, cache):
    """The library's way: decoded once, and of each image only the window."""
    data = Folder(root, "all")
    data.cache = PixelCache(cache, 10**8)
    stream = TrainingStream(data, TrainTransform(CROP, scale=SCALE), seed=1)
    for position in range(DRAWS):
        image, mask, *_ = stream[position]
        yield image.permute(1, 2, 0).numpy(), mask.numpy()


def plain(root):
    """Resize the whole, pad it, cut, mirror."""
    draw = random.Random(2)
    pairs = [[Image.open(root / kind / f"{number}.png").copy() for kind in ("images", "masks")] for number in range(5)]
    for number in range(DRAWS):
        image, mask = pairs[number % 5]
        scale = draw.uniform(*SCALE)
        height, width = (round(side * scale) for side in SIZE)
        image, mask = image.resize((width, height), Image.Resampling.BILINEAR), mask.resize((width, height), 0)
        missing = (0, 0, max(0, CROP[1] - width), max(0, CROP[0] - height))
        image, mask = ImageOps.expand(image, missing, PADDING), ImageOps.expand(mask, missing, 255)
        left, top = draw.randint(0, image.width - CROP[1]), draw.randint(0, image.height - CROP[0])
        box = (left, top, left + CROP[1], top + CROP[0])
        image, mask = image.crop(box), mask.crop(box)
        if draw.random() < 0.5:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        yield np.asarray(image), np.asarray(mask)


def read(image, mask):
    """What a crop says of itself."""
    values, shown = image.astype(np.float64), mask != 255
    inside = values[shown.any(1)][:, shown.any(0)]
    # Next to the border of a picture its slopes level off.
    core = inside[3:-3, 3:-3]
    across = np.polyfit(np.arange(core.shape[1]), core[:, :, 0].mean(0), 1)[0]
    scale = SLOPE / abs(across)
    found = {"scale": scale, "mirrored": across < 0, "padding": 1 - shown.mean()}
    middle = core[:, :, :2].mean((0, 1)) / SLOPE + 0.5
    for axis, where in ((1, middle[0]), (0, middle[1])):
        length, extent = SIZE[axis] * scale, inside.shape[axis]
        if length > CROP[axis] + 8:
            found[f"corner {axis}"] = (where * scale - extent / 2) / (length - extent)
    found |= {f"class {number}": (mask == number).mean() for number in range(4)}
    found |= {f"mean {channel}": values[..., channel].mean() for channel in range(3)}
    found |= {f"spread {channel}": values[..., channel].std() for channel in range(3)}
    found["grain shrunk" if scale < 1 else "grain magnified"] = core[:, :, 2].std()
    return found


def table(crops):
    columns = {}
    for crop in crops:
        for name, value in read(*crop).items():
            columns.setdefault(name, []).append(value)
    return {name: np.array(column) for name, column in columns.items()}


def test_crops_are_distributed_as_those_of_the_plain_pipeline(folder, tmp_path):
    found, wanted = table(ours(folder, tmp_path)), table(plain(folder))
    assert found.keys() == wanted.keys()
    unlike = {name: stats.ks_2samp(found[name], wanted[name]).pvalue for name in wanted}
    assert not {name: chance for name, chance in unlike.items() if chance < CHANCE}
    # And as the protocol says: the whole range of scales, every corner, half of the crops mirrored.
    low, high = SCALE
    assert stats.kstest(found["scale"], stats.uniform(low, high - low).cdf).pvalue > CHANCE
    assert found["scale"].min() == pytest.approx(low, rel=0.02)
    assert found["scale"].max() == pytest.approx(high, rel=0.02)
    assert stats.binomtest(int(found["mirrored"].sum()), DRAWS).pvalue > CHANCE
    for axis in (0, 1):
        assert stats.kstest(found[f"corner {axis}"], stats.uniform.cdf).pvalue > CHANCE
