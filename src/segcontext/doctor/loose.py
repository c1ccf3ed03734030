"""A folder that no reader opens: what may be its images, masks and splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from segcontext.data import Folder, Item
from segcontext.data.files import IMAGE_SUFFIXES, MASK_SUFFIXES, what_lies_at
from segcontext.doctor.finding import Finding, Mend
from segcontext.doctor.listing import Scanned, lossy_twin, read_list, scan
from segcontext.doctor.survey import Reading, Split, Survey, join_pairs
from segcontext.errors import DataError, DatasetNotFound, RecipeError

__all__ = ["survey_loose"]

# What the two folders are called by others, likeliest first.
_IMAGES = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "rgb", "inputs")
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentationclass", "gt", "groundtruth"),
    *("ground_truth", "targets"),
)
_SPLITS = ("train", "val", "test", "trainval", "training", "validation")


def survey_loose(root: Path) -> Survey:
    """Surveys a folder that `Folder` cannot open, or that is laid out in another way but has images and masks.

    Args:
        root: the folder.

    Returns:
        The survey, with findings on the layout. The classes are not known.

    Raises:
        DatasetNotFound: if nothing in it looks like a folder of images.
    """
    images, masks = _folder(root, _IMAGES), _folder(root, _MASKS)
    if images is None:
        raise DatasetNotFound(
            f"No images in {root}: expected a folder images/, with masks/ and classes.txt beside it. "
            f"{what_lies_at(root)} Point to the folder that holds them, or name the data set (--dataset)."
        )
    # Where the folder is missing every mask would be called missing, too.
    found = scan(root, images, IMAGE_SUFFIXES)
    labels = scan(root, masks, MASK_SUFFIXES) if masks else Scanned({}, ())
    splits = list(_splits(root, found, labels, masks))
    return Survey(
        root=root,
        name=Folder.name,
        splits=splits,
        pairs=join_pairs(splits, readings=[0] * len(splits)),
        readings=[Reading(root, 0, {})],
        findings=[*_layout(root, images, masks)],
        listed=bool(_lists(root)),
    )


def _folder(root: Path, names: Iterable[str]) -> str | None:
    folders = {path.name.lower(): path.name for path in sorted(root.iterdir()) if path.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _layout(root: Path, images: str, masks: str | None) -> Iterable[Finding]:
    moves = {there: name for there, name in ((images, "images"), (masks, "masks")) if there and there != name}
    if moves:
        yield Finding(
            "folder-names",
            "error",
            f"The folders are called {' and '.join(f'{there}/' for there in moves)} instead of images/ and masks/.",
            "Rename them, or write a Dataset subclass for this layout. The classes are checked once that is done.",
            mend=[Mend("command", "".join(f"mv {root / there} {root / name}\n" for there, name in moves.items()))],
        )
    if masks is None:
        yield Finding(
            "no-masks-folder",
            "error",
            f"There is no folder of masks: expected {root / 'masks'}.",
            "Put one PNG of class indices there for each image, of the image's name.",
            why=what_lies_at(root),
        )
    if images != "images":
        return
    try:
        Folder(root, "all", labels=False)
    except RecipeError:
        # It has other splits; the classes, which are read before, are in order.
        return
    except DatasetNotFound:
        yield Finding(
            "no-classes-file",
            "error",
            f"There is no classes file: expected {root / 'classes.txt'} with one class name per line.",
            "Write it. Below are the values that the masks hold; put the classes' names beside them.",
        )
    except DataError as error:
        yield Finding("classes-file", "error", "The classes file cannot be read.", "Mend it.", why=str(error))


def _lists(root: Path) -> dict[str, Path]:
    named = {path.stem: path for path in sorted((root / "splits").glob("*.txt"))}
    return named or {name: root / f"{name}.txt" for name in _SPLITS if (root / f"{name}.txt").is_file()}


def _splits(root: Path, images: Scanned, labels: Scanned, masks: str | None) -> Iterable[Split]:
    lists = _lists(root)
    for name, path in lists.items():
        listed = read_list(path, images.files)
        split = _split(root, name, listed.chosen, labels, masks)
        split.wrong_lines, split.double_lines = listed.missing, listed.twice
        split.known = frozenset(images.files)
        split.clashes = images.clashes + labels.clashes
        yield split
    if lists:
        return
    nested = sorted({path.partition("/")[0] for path in images.files if "/" in path} & {*_SPLITS})
    parts = {
        name: {path: file for path, file in images.files.items() if path.startswith(f"{name}/")} for name in nested
    }
    for name, part in (parts or {"all": images.files}).items():
        split = _split(root, name, part, labels, masks)
        split.clashes = images.clashes + labels.clashes
        yield split


def _split(root: Path, name: str, images: Mapping[str, str], labels: Scanned, masks: str | None) -> Split:
    return Split(
        name=name,
        items=[Item(path, labels.files.get(image), image) for image, path in images.items()],
        unmasked={
            path: lossy_twin(root, f"{masks}/{image}.png")
            for image, path in images.items()
            if masks and image not in labels.files
        },
        offered=labels.files,
        known=frozenset(images),
    )
