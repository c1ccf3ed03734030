"""Small folders that tests may break."""

import io

import numpy as np
from PIL import Image

NAMES = ("sky", "ground", "thing")


def picture(seed, *, width=64, height=48):
    """A smooth picture that looks like no other."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def labels(seed, *, width=64, height=48, values=(0, 1, 2)):
    """Two or three surfaces, of which the last covers a place that differs from seed to seed."""
    found = np.full((height, width), values[0], np.uint8)
    if len(values) > 2:
        found[height // 2 :] = values[1]
    top, left = np.random.default_rng(seed).integers(0, (height - 16, width - 16))
    found[top : top + 16, left : left + 16] = values[-1]
    return Image.fromarray(found)


class Tree:
    """A folder of one's own that is written file by file."""

    def __init__(self, root):
        self.root = root
        self.classes("\n".join(NAMES))

    def classes(self, text):
        (self.root / "classes.txt").write_text(text + "\n")

    def save(self, picture, path, **options):
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.root / path, **options)

    def add(self, name, seed, *, image=None, mask=None, suffix=".png", **options):
        """Writes a pair; `name` holds its split where there are any."""
        self.save(image or picture(seed), f"images/{name}{suffix}", **options)
        self.save(mask or labels(seed), f"masks/{name}.png")

    def fill(self, *, train=4, val=2, **options):
        """Writes pairs that are in order, except for what the options say."""
        for number in range(train + val):
            split = "train" if number < train else "val"
            seed = 100 + number
            self.add(f"{split}/good_{number}", seed, mask=labels(seed, **options) if options else None)
        return self


def cut(path, length=300):
    """Truncates a file."""
    path.write_bytes(path.read_bytes()[:length])


def recompressed(image, quality=60):
    """The same picture, made smaller, through a lossy file, and enlarged again."""
    buffer = io.BytesIO()
    image.resize((image.width * 3 // 4, image.height * 3 // 4)).save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).resize(image.size)
