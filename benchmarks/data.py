"""Reading and augmenting on one core, beside Pillow and torchvision: crops of 768 from images of 1024 × 2048.

    python benchmarks/data.py [--quick]

The images are drawn scenes, enlarged and grained until their files are as large as Cityscapes' (PNG about 2.4 MB, JPEG
about 0.3 MB). Ours and the plain pipeline make the same draws, so that their crops can be held against each other.
The table says samples per second on one core; below it stands what decoding alone takes.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as TF

from measuring import Case, measure
from segcontext.data import Crop, Folder, PixelCache, Scenes, TrainTransform
from segcontext.data.decoding import quick_pixels

TOPIC = "Reading and augmenting"
SIZE, CROP, FILES, SAMPLES = (1024, 2048), 768, 6, 18


def cases(quick: bool) -> Iterable[Case]:
    """From the cache, from JPEG and from PNG; the plain pipeline reads JPEG or PNG, masks are PNG everywhere."""
    rounds = 3 if quick else 7
    made = {kind: dataset(kind, cached=cached) for kind, cached in (("png", False), ("jpg", False), ("cache", True))}
    shown = {"png": "PNG", "jpg": "JPEG", "cache": "the cache"}
    pairs = (
        ("cache", "png", None),
        ("cache", "jpg", None),
        ("jpg", "png", 8),
        ("jpg", "jpg", None),
        ("png", "png", None),
    )
    for own, other, goal in pairs:
        yield Case(
            topic=TOPIC,
            what=f"{SAMPLES} crops of {CROP}² from {SIZE[0]}×{SIZE[1]}, scale 0.5–2, one core: from {shown[own]}",
            ours=functools.partial(on_one_core, ours, made[own]),
            baseline=functools.partial(on_one_core, plain, made[other]),
            baseline_name=f"Pillow and torchvision, from {shown[other]}",
            agreement=functools.partial(compare, made[own], made["png" if own == "png" else "jpg"]),
            goal=goal,
            rounds=rounds,
            # 250 samples a second.
            most_seconds=SAMPLES / 250 if own == "cache" else None,
            items=SAMPLES,
        )


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """The images, written once in each process and removed at its end."""
    made = tempfile.TemporaryDirectory(prefix="segcontext-bench-")
    scenes = Scenes(split="train", size=(SIZE[0] // 2, SIZE[1] // 2), length=FILES)
    grain = np.random.default_rng(0)
    for index in range(FILES):
        image, mask, _ = scenes[index]
        picture = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(SIZE[::-1], Image.Resampling.BICUBIC)
        noisy = np.asarray(picture) + grain.normal(0, 1, (*SIZE, 1))
        picture = Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8))
        labels = Image.fromarray(mask.numpy()).resize(SIZE[::-1], Image.Resampling.NEAREST)
        for kind, options in (("png", {}), ("jpg", {"quality": 90})):
            for name in ("images", "masks"):
                Path(made.name, kind, name).mkdir(parents=True, exist_ok=True)
            picture.save(Path(made.name, kind, "images", f"{index}.{kind}"), **options)
            labels.save(Path(made.name, kind, "masks", f"{index}.png"))
            Path(made.name, kind, "classes.txt").write_text("\n".join(scenes.classes))
    return made


def dataset(kind: str, *, cached: bool) -> Folder:
    """The images of a kind; through a filled cache where asked for."""
    found = Folder(Path(folder().name, "jpg" if cached else kind), "all")
    if cached:
        found.cache = PixelCache(Path(folder().name, "cache"), 10**9)
    return found


def on_one_core(pipeline: Callable[[Folder, int], Crop], data: Folder) -> list[Crop]:
    """A pipeline's crops, by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [pipeline(data, number) for number in range(SAMPLES)]
    finally:
        torch.set_num_threads(threads)


def ours(data: Folder, number: int) -> Crop:
    """The library's way."""
    return TrainTransform(CROP)(data[number % len(data)], torch.Generator().manual_seed(number))


def plain(data: Folder, number: int) -> Crop:
    """Whole images through Pillow, resized, padded, cut and mirrored in this order by torchvision."""
    item = data.items[number % len(data)]
    with Image.open(data.root / item.image) as file:
        image = file.convert("RGB")
    with Image.open(data.root / str(item.mask)) as file:
        mask = file.copy()
    generator = torch.Generator().manual_seed(number)
    scale, flip, _, _, _, _, across, down, *_ = torch.rand(26, generator=generator, dtype=torch.float64).tolist()
    size = [round(side * (0.5 + scale * 1.5)) for side in SIZE]
    image = TF.resize(image, size, interpolation=InterpolationMode.BILINEAR)
    mask = TF.resize(mask, size, interpolation=InterpolationMode.NEAREST)
    missing = [max(0, CROP - side) for side in size]
    if any(missing):
        image = TF.pad(image, [0, 0, missing[1], missing[0]], fill=[124, 116, 104])
        mask = TF.pad(mask, [0, 0, missing[1], missing[0]], fill=255)
    width, height = image.size
    corner = int(down * (height - CROP + 1)), int(across * (width - CROP + 1))
    image, mask = (TF.crop(each, *corner, CROP, CROP) for each in (image, mask))
    if flip < 0.5:
        image, mask = TF.hflip(image), TF.hflip(mask)
    return Crop(TF.pil_to_tensor(image), TF.pil_to_tensor(mask)[0])


def compare(own: Folder, other: Folder) -> str:
    """How far the crops are apart; both read the same pixels here."""
    worst, total, wrong, pixels = 0, 0.0, 0, 0
    for mine, theirs in zip(on_one_core(ours, own), on_one_core(plain, other), strict=True):
        apart = (mine.image.int() - theirs.image.int()).abs()
        worst, total = max(worst, int(apart.max())), total + float(apart.sum())
        wrong, pixels = wrong + int((mine.mask != theirs.mask).sum()), pixels + mine.mask.numel()
    if worst > 1 or wrong > pixels / 1000:
        raise AssertionError(f"values differ by up to {worst}, {wrong} of {pixels} labels")
    return f"values within {worst} (mean {total / (3 * pixels):.3f}), {wrong / pixels:.4%} of the labels differ"


def decoding() -> Iterable[tuple[str, float]]:
    """Milliseconds that decoding alone takes: what a pipeline without the cache cannot be faster than."""
    for what, kind, name, grey in (
        ("JPEG image", "jpg", "images", False),
        ("PNG image", "png", "images", False),
        ("PNG mask", "png", "masks", True),
    ):
        taken = []
        for path in sorted(Path(folder().name, kind, name).iterdir()) * 3:
            started = time.perf_counter()
            assert quick_pixels(path, grey=grey) is not None
            taken.append(time.perf_counter() - started)
        yield what, 1000 * statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    quick = parser.parse_args().quick
    print("| from | baseline | ms a sample (quartiles) | samples/s | baseline, ms | ratio (quartiles) | agreement |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(quick):
        found = measure(case)
        own, low, high = (1000 * seconds / SAMPLES for seconds in found.ours)
        ratio = "{:.1f}× ({:.1f}–{:.1f})".format(*found.ratio)
        name = case.what.rpartition("from ")[2]
        print(
            f"| {name} | {case.baseline_name} | {own:.2f} ({low:.2f}–{high:.2f}) | {1000 / own:.0f} | "
            f"{1000 * found.baseline[0] / SAMPLES:.1f} | {ratio} | {found.agreement} |",
            flush=True,
        )
    print("\nDecoding alone: " + ", ".join(f"{what} {taken:.1f} ms" for what, taken in decoding()))


if __name__ == "__main__":
    main()
