"""Anyone's folder of images and masks."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image
from torchvision import tv_tensors

from segcontext.data.class_entries import CLASS_FILES, ClassEntry, as_colour, read_classes
from segcontext.data.dataset import IMAGE_SUFFIXES, VOID, Colour, Dataset, Item, list_files, what_lies_at
from segcontext.errors import DataError, DatasetNotFound, SampleError
from segcontext.pictures import default_palette

__all__ = ["Folder"]

logger = logging.getLogger(__name__)

_SPLIT_NAMES = ("train", "val", "test", "trainval", "training", "validation")


class Folder(Dataset):
    """Images and masks of one's own, paired by their names.

    ```text
    root/
    ├── classes.txt             one class per line, or classes.json or classes.yaml
    ├── images/                 any format, sub-folders allowed
    └── masks/                  the same names, .png: grey or palette, one class index per pixel, 255 for void
    ```

    **Splits**, the first that applies:

    1. List files: ``splits/<split>.txt``, or ``train.txt``, ``val.txt``, ``test.txt``, ``trainval.txt`` beside
       ``images``. One name per line, relative to ``images``, with or without suffix; ``#`` begins a comment.
    2. Sub-folders: ``images/train`` with ``masks/train``, and so on.
    3. Neither: the split ``"all"`` is everything. ``"train"`` and ``"val"`` part it by a hash of each name, so that
       about one image in five is for validation and adding images moves none from one to the other. Frames of one
       video look alike and should not be parted by chance: write list files for them.

    **Classes.** A line of ``classes.txt`` is ``name``, ``name r g b``, ``value name`` or ``value name r g b``. Class
    indices are the order of the lines. The value is what the masks hold for that class; it is given for every class
    or for none, and then counts the lines from 0. The name ``void`` (or ``ignore``, ``unlabelled``) is no class: its
    value, which may be given on that line alone, means void. 255 is void too unless a class has it.
    So binary masks of 0 and 255 are read with the two lines ``0 background`` and ``255 thing``. JSON and YAML hold
    a list of names, a list of ``{name, value?, colour?}``, or a mapping of value to name.

    **Palette**: the colours of the classes file, else of the first mask if that is a palette PNG, else distinct
    colours. If each class has a colour in the file, masks that store colours are decoded by them. Palette PNGs are read
    by their indices; where the palette then has the colour of another class than the index means, the mask is refused.

    Note:
        Images of a labelled split that have no mask are an error; masks that have no image are only logged.

    Args:
        root: the folder.
        split: see above.
        labels: whether masks are expected; if not, `masks` is not looked at and every sample's mask is `None`.

    Raises:
        DatasetNotFound: if `images`, `masks` or the classes file is missing, or the split is empty.
        RecipeError: if there is no such split.
        DataError: if the classes file or a list file is wrong.
        SampleError: if an image has no mask.
    """

    name = "folder"
    layout = "images/ with masks/ and classes.txt, one class name per line: your own"

    def __init__(self, root: str | Path, split: str = "train", *, labels: bool = True) -> None:
        self.root = root = Path(root)
        self.labels = labels
        if not (root / "images").is_dir():
            raise DatasetNotFound(
                f"No folder {root / 'images'}: expected images/, masks/ and classes.txt in {root}. {what_lies_at(root)}"
            )
        entries = read_classes(root)
        known = [entry for entry in entries if not entry.is_void]
        self.classes = tuple(entry.name for entry in known)
        self._label_map = {
            VOID: VOID,
            **{entry.value: VOID for entry in entries if entry not in known},
            **{entry.value: index for index, entry in enumerate(known)},
        }
        colours = {entry.colour: entry.value for entry in entries if entry.colour}
        if all(entry.colour for entry in known) and len(colours) == sum(entry.colour is not None for entry in entries):
            self.colours = colours
        self._lists = _list_files(root)
        with os.scandir(root / "images") as files:
            nested = sorted(file.name for file in files if file.is_dir() and not file.name.startswith("."))
        self._nested = not self._lists and any(name in _SPLIT_NAMES for name in nested)
        self.splits = tuple(self._lists or (nested if self._nested else ("all", "train", "val")))
        # The base class wants one colour per class; those of a palette PNG are known once the masks are listed.
        self.palette = default_palette(len(known))
        super().__init__(root, split)
        self.palette = self._palette(known)
        self._warned = False

    def list_items(self) -> Iterable[Item]:
        """Lists the split by its list file, its sub-folder, or the hash of each name."""
        below = f"/{self.split}" if self._nested else ""
        images = list_files(self.root, f"images{below}", IMAGE_SUFFIXES)
        if self._lists:
            images = _chosen(self._lists[self.split], images)
        elif not self._nested and self.split != "all":
            images = {name: path for name, path in images.items() if _held_out(name) == (self.split == "val")}
        return self.with_masks(images, f"masks{below}" if self.labels else None)

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether `root` holds ``images``, and ``masks`` or a classes file; what is missing is said on opening."""
        return (root / "images").is_dir() and any((root / name).exists() for name in ("masks", *CLASS_FILES))

    def label_map(self) -> Mapping[int, int]:
        """The values of the classes file."""
        return self._label_map

    def read_mask(self, index: int) -> tv_tensors.Mask | None:
        """Reads the labels of one sample; as for every data set, and warns of binary masks that are read as void."""
        mask = super().read_mask(index)
        if mask is not None and len(self.classes) == 2 and not self._warned and self._label_map[VOID] == VOID:
            present = set(mask.unique().tolist())
            if present == {0, VOID}:
                self._warned = True
                logger.warning(
                    "%s: every pixel that is not '%s' is 255, which means void and is ignored; if 255 stands for '%s', "
                    "write '0 %s' and '255 %s' in the classes file",
                    *(self.root / str(self.items[index].mask), self.classes[0], self.classes[1], *self.classes),
                )
        return mask

    def _palette(self, known: list[ClassEntry]) -> tuple[Colour, ...]:
        given = tuple(entry.colour for entry in known if entry.colour)
        if len(given) == len(known):
            return given
        mask = self.items[0].mask
        if mask is None:
            return self.palette
        try:
            with Image.open(self.root / mask) as image:
                table = (image.getpalette("RGB") or []) if image.mode == "P" else []
        except (OSError, ValueError, SyntaxError):
            # A damaged file is reported with its name when it is read.
            return self.palette
        if len(table) < 3 * max(entry.value for entry in known) + 3:
            return self.palette
        return tuple(as_colour(table[3 * entry.value : 3 * entry.value + 3]) for entry in known)


def _list_files(root: Path) -> dict[str, Path]:
    """Split to list file."""
    named = {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
    return named or {name: root / f"{name}.txt" for name in _SPLIT_NAMES if (root / f"{name}.txt").is_file()}


def _chosen(path: Path, images: Mapping[str, str]) -> dict[str, str]:
    """The images that a list file names, in its order."""
    chosen: dict[str, str] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        line = text.partition("#")[0].strip().removeprefix("images/")
        if not line:
            continue
        stem, dot, suffix = line.rpartition(".")
        name = stem if line not in images and f".{suffix.lower()}" in IMAGE_SUFFIXES and dot else line
        if name not in images:
            raise SampleError(
                f"{path}, line {number}: no image '{line}' in images/. "
                "Expected one name per line, relative to images/, with or without suffix."
            )
        if name in chosen:
            raise DataError(f"{path}, line {number}: '{line}' is listed twice; remove one of the two lines.")
        chosen[name] = images[name]
    return chosen


def _held_out(name: str) -> bool:
    """Whether the name belongs to the fifth that is for validation."""
    return hashlib.sha256(name.encode()).digest()[0] % 5 == 0
