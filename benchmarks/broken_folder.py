"""Breaks a folder in ten ways, lets the doctor find them, and mends it by what the doctor says.

``python benchmarks/broken_folder.py FOLDER`` writes drawn street scenes with the ten mistakes to ``FOLDER/broken``,
mends a copy of them in ``FOLDER/mended``, and prints the table of docs/doctor.md; ``segcontext doctor FOLDER/broken``
shows the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcontext.data import Scenes
from segcontext.doctor import Diagnosis, examine

Mask: TypeAlias = npt.NDArray[np.uint8]

TRAIN, VAL, CAR = 40, 10, 7
CLASSES = Scenes.classes


class Break(NamedTuple):
    """A mistake.

    Attributes:
        code: the finding that must name it.
        what: what was done, in words.
        number: the training image whose files are broken.
        file: the file that the finding must show.
        write: breaks it, given the folder.
        by_lines: whether the doctor's lines mend it; otherwise the files have to be made anew.
    """

    code: str
    what: str
    number: int
    file: str
    write: Callable[[Path], None]
    by_lines: bool = False


def scene(split: str, number: int) -> tuple[Image.Image, Mask]:
    """Picture and labels of a drawn scene."""
    image, mask, _ = Scenes(split=split)[number]
    assert mask is not None
    return Image.fromarray(image.permute(1, 2, 0).numpy()), mask.numpy()


def paths(root: Path, split: str, number: int) -> tuple[Path, Path]:
    """Where a pair lies."""
    return root / f"images/{split}/{number:02d}.png", root / f"masks/{split}/{number:02d}.png"


def write_pair(root: Path, split: str, number: int) -> None:
    """Writes a pair that is in order."""
    picture, labels = scene(split, number)
    image, mask = paths(root, split, number)
    for path, content in ((image, picture), (mask, Image.fromarray(labels))):
        path.parent.mkdir(parents=True, exist_ok=True)
        content.save(path)


def _mask(number: int, change: Callable[[Mask], npt.NDArray[np.generic]]) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        Image.fromarray(change(scene("train", number)[1])).save(paths(root, "train", number)[1])

    return write


def _truncated(root: Path) -> None:
    path = paths(root, "train", 0)[0]
    path.write_bytes(path.read_bytes()[:5000])


def _lossy(root: Path) -> None:
    path = paths(root, "train", 3)[1]
    path.unlink()
    Image.fromarray(scene("train", 3)[1]).save(path.with_suffix(".jpg"))


def _copied(root: Path) -> None:
    """A training image, made smaller and compressed anew, among those for validation."""
    picture, labels = scene("train", 9)
    image, mask = paths(root, "val", 99)
    picture.resize((200, 100), Image.Resampling.BICUBIC).save(image.with_suffix(".jpg"))
    Image.fromarray(labels).resize((200, 100), Image.Resampling.NEAREST).save(mask)


def _corner(labels: Mask) -> Mask:
    changed = labels.copy()
    changed[:10, :10] = 99
    return changed


BREAKS = (
    Break("unreadable-image", "an image cut short", 0, "images/train/00.png", _truncated),
    Break(
        *("missing-mask", "a mask deleted", 1, "images/train/01.png"),
        lambda root: paths(root, "train", 1)[1].unlink(),
    ),
    Break("size-mismatch", "a mask of half the size", 2, "masks/train/02.png", _mask(2, lambda mask: mask[::2, ::2])),
    Break("lossy-mask", "a mask saved as JPEG", 3, "masks/train/03.jpg", _lossy),
    Break(
        *("colour-mask", "a mask saved in its colours", 4, "masks/train/04.png"),
        _mask(4, lambda mask: np.asarray(Scenes.palette, np.uint8)[mask]),
    ),
    Break(
        *("binary-0-255", "a mask of 0 and 255, cars alone", 5, "masks/train/05.png"),
        _mask(5, lambda mask: np.where(mask == CAR, 255, 0).astype(np.uint8)),
    ),
    Break(
        *("off-by-one", "a mask that counts the classes from 1", 6, "masks/train/06.png"),
        _mask(6, lambda mask: (mask + 1).astype(np.uint8)),
    ),
    Break(
        *("scaled-labels", "a mask stretched to 16 bits", 7, "masks/train/07.png"),
        _mask(7, lambda mask: mask.astype(np.uint16) * 257),
    ),
    Break(
        *("outside-classes", "a value that the classes file lacks", 8, "masks/train/08.png"),
        *(_mask(8, _corner), True),
    ),
    Break(
        *("near-leak", "a training image, shrunk and compressed, in val", 9, "images/val/99.jpg"),
        *(_copied, True),
    ),
)


def write_folder(root: Path) -> None:
    """Writes the folder with all mistakes in it."""
    for split, count in (("train", TRAIN), ("val", VAL)):
        for number in range(count):
            write_pair(root, split, number)
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
    for mistake in BREAKS:
        mistake.write(root)


def make_anew(root: Path) -> None:
    """Does by hand what no line can do: writes the broken files as they should be."""
    for mistake in BREAKS:
        if not mistake.by_lines:
            (root / mistake.file).unlink(missing_ok=True)
            write_pair(root, "train", mistake.number)


def table(first: Diagnosis, second: Diagnosis) -> list[str]:
    """The page's table: what was done, what was found, and what mends it.

    Args:
        first: of the broken folder.
        second: of the folder with the broken files made anew, which the doctor's lines mend.

    Returns:
        Lines of Markdown.
    """
    lines = ["| done to the folder | finding | what the doctor says | what mends it |", "|---|---|---|---|"]
    for mistake in BREAKS:
        (finding,) = (each for each in first.findings if each.code == mistake.code)
        assert any(mistake.file in str(example) for example in finding.examples), mistake.code
        cure = "the file made anew"
        if mistake.code == "outside-classes":
            cure = f"`{second.mend()['classes.txt'].splitlines()[-1]}` in `classes.txt`"
        elif mistake.by_lines:
            moved = [line for line in second.mend()["train.txt"].splitlines() if "val/" in line]
            cure = f"`{', '.join(moved)}` listed in `train.txt`"
        lines.append(f"| {mistake.what} | {finding.severity}: `{finding.code}` | {finding.title} | {cure} |")
    return lines


def mend(root: Path, diagnosis: Diagnosis) -> None:
    """Takes the doctor's lines over: the classes file and the lists."""
    for name, text in diagnosis.mend().items():
        if name != "recipe.yaml":
            (root / name).write_text(text, encoding="utf-8")


def run(folder: Path) -> tuple[Diagnosis, Diagnosis, Diagnosis]:
    """Breaks, examines, mends, and examines again.

    Args:
        folder: for the folders ``broken`` and ``mended``, which must not be there.

    Returns:
        Diagnoses of the broken folder, of that with the broken files made anew, and of that with the doctor's lines.
    """
    for name in ("broken", "mended"):
        write_folder(folder / name)
    first = examine(folder / "broken", workers=0, progress=False)
    make_anew(folder / "mended")
    second = examine(folder / "mended", workers=0, progress=False)
    mend(folder / "mended", second)
    return first, second, examine(folder / "mended", workers=0, progress=False)


def main() -> None:
    """Prints the table, and what is left after mending."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    if folder.exists():
        parser.error(f"{folder} exists")
    first, second, third = run(folder)
    print("\n".join(table(first, second)))
    print(f"\nMended: {third.count('error')} errors, {third.count('warning')} warnings.")


if __name__ == "__main__":
    main()
