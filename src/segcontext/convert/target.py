"""The folder that a conversion writes: masks, images and the classes file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from segcontext.convert.class_table import ClassTable, is_void
from segcontext.data.class_entries import read_classes
from segcontext.data.files import IMAGE_SUFFIXES
from segcontext.errors import DataError, OutputExists
from segcontext.files import atomic_path
from segcontext.pictures import save_labels

__all__ = ["FolderTarget", "ImageFiles"]

ImageFiles: TypeAlias = Literal["link", "copy", "none"]


@dataclass(frozen=True, kw_only=True)
class FolderTarget:
    """A folder of one's own, as `segcontext.data.Folder` reads it.

    Attributes:
        folder: where it lies.
        split: the sub-folder of ``images`` and ``masks``; empty for none.
        image_files: whether images are linked, copied, or left where they are.
        overwrite: whether files that are there may be replaced.
    """

    folder: Path
    split: str = ""
    image_files: ImageFiles = "link"
    overwrite: bool = False

    def check(self, classes: ClassTable, names: Iterable[str]) -> None:
        """Refuses to write where something would be lost, before anything is written.

        Args:
            classes: what is going to be written.
            names: the names of the images.

        Raises:
            OutputExists: a mask is there already, or the folder has other classes.
            DataError: a name leads out of the folder, two images share a name, or a class has a name that cannot be
                written.
        """
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputExists(f"{self.folder} is a file, but a folder is needed. Choose another name.")
        # Refuses names that cannot be written.
        classes.text()
        known = self.folder / "classes.txt"
        if known.is_file() and not self.overwrite and not self._same(classes):
            raise OutputExists(
                f"{known} names other classes than this conversion. Take the same for all splits (--classes {known}), "
                "choose another folder, or allow overwriting (--overwrite)."
            )
        seen: set[str] = set()
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name:
                raise DataError(f"The name '{name}' leads out of {self.folder}; expected one below the images' folder.")
            if name.casefold() in seen:
                raise DataError(f"Two images are called '{name}'; rename one of them.")
            seen.add(name.casefold())
            if not self.overwrite and self.mask(name).exists():
                raise OutputExists(
                    f"{self.mask(name)} is already there. Choose another folder or split, or allow overwriting "
                    "(--overwrite)."
                )

    def mask(self, name: str) -> Path:
        """Where the mask of an image goes.

        Args:
            name: the image's name, without suffix.

        Returns:
            The path.
        """
        # Names may hold dots, so the suffix is added.
        return self.folder / "masks" / self.split / f"{name}.png"

    def image(self, name: str, suffix: str) -> Path:
        """Where an image goes.

        Args:
            name: its name, without suffix.
            suffix: with its dot.

        Returns:
            The path.
        """
        return self.folder / "images" / self.split / f"{name}{suffix}"

    def write(self, name: str, labels: npt.NDArray[np.uint8], classes: ClassTable, source: Path | bytes | None) -> None:
        """Writes one image with its mask, the mask last.

        Args:
            name: the image's name, without suffix.
            labels: class indices, (H, W), 255 for void.
            classes: the classes.
            source: the image, as a file or as the content of a PNG or JPEG file.
        """
        if self.image_files != "none" and source is not None:
            self._image(name, source)
        save_labels(self.mask(name), labels, classes.palette)

    def finish(self, classes: ClassTable) -> None:
        """Writes the classes file, which makes the folder a data set; one that says the same is left as it is.

        Args:
            classes: the classes.
        """
        if self._same(classes) and not self.overwrite:
            return
        with atomic_path(self.folder / "classes.txt") as temporary:
            temporary.write_text(classes.text(), encoding="utf-8")

    def _same(self, classes: ClassTable) -> bool:
        """Whether the folder's classes file says the same, in its own words."""
        try:
            found = read_classes(self.folder)
        except DataError:
            return False
        known = [entry for entry in found if not is_void(entry.name)]
        return [(entry.name, entry.value) for entry in known] == [
            (name, value) for value, name in enumerate(classes.names)
        ] and all(entry.colour in (None, colour) for entry, colour in zip(known, classes.palette, strict=True))

    def _image(self, name: str, source: Path | bytes) -> None:
        suffix = source.suffix if isinstance(source, Path) else ".png" if source[:4] == b"\x89PNG" else ".jpg"
        if suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{source!s} is no image that is read; expected {', '.join(IMAGE_SUFFIXES)}.")
        place = self.image(name, suffix)
        if isinstance(source, Path) and place.exists() and place.samefile(source):
            # The masks are added to images that lie there already.
            return
        with atomic_path(place) as temporary:
            if isinstance(source, bytes):
                temporary.write_bytes(source)
            elif self.image_files == "link":
                temporary.symlink_to(os.path.realpath(source))
            else:
                shutil.copyfile(source, temporary)
