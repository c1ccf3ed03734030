"""Street scenes drawn by the program, with exact labels: the data set that needs no files."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import torch
from torchvision import tv_tensors

from segcontext.data._scene_street import Street
from segcontext.data.dataset import Dataset, Item
from segcontext.errors import RecipeError
from segcontext.types import Sample

__all__ = ["Scenes"]

_LENGTHS = {"train": 400, "val": 100, "test": 100}
_SMALLEST = 32


class Scenes(Dataset):
    """Drawn street scenes: large surfaces, small things in front of them, and light that differs from scene to scene.

    A scene is laid out in metres (a street with a vanishing point, sometimes curved or with a crossing; houses or a
    park at each side; trees, lamps, signs, cars and people), seen through a pinhole camera and painted from far to
    near. It is drawn at twice the size. Every shape is painted on the picture and on the labels with the same
    outline, and a pixel's label is what covers the pixel's centre; no pixel is void. A tree's trunk is tree, traffic
    lights are signs, lane markings are road, and what is seen between the wheels of a car is road.

    Two things are on purpose. Thin and small classes (poles, signs, people) stand in front of large ones. And colours
    by themselves say little: roads, pavements and walls draw their material from one list, cars, clothes, awnings
    and signs their paint from another, and each scene has a colour cast of its own, so that often only the scene as
    a whole tells which surface is which.

    Note:
        A sample depends on (seed, split, index, size) and on nothing else; another size is another scene. A longer
        set begins with the samples of the shorter one. Another version of NumPy or Pillow, or another kind of
        processor, may draw some pixels otherwise.

    Args:
        root: not read; it is here so that every data set opens alike.
        split: ``"train"``, ``"val"`` or ``"test"``; no scene is in two of them.
        size: (height, width) in pixels, each at least 32.
        length: number of scenes; by default 400 for training and 100 for the other splits.
        seed: chooses another set of scenes; not negative.
        cache: whether to keep each scene once it is drawn, at 4·H·W bytes; drawing takes some 15 ms of one CPU core
            at 128×256. Worker processes keep their own.

    Raises:
        RecipeError: if there is no such split, or a size, length or seed is out of range.

    Example:
        >>> scene = Scenes(size=(64, 128), length=3)[0]
        >>> scene.image.shape, scene.mask.shape, scene.name
        (torch.Size([3, 64, 128]), torch.Size([64, 128]), 'train/00000')
    """

    name = "scenes"
    # Names, order and colours are CamVid's, less its fences and bicyclists.
    classes = ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Car", "Pedestrian")
    palette = (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 0, 128), (64, 64, 0),
    )  # fmt: skip

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        *,
        size: tuple[int, int] = (128, 256),
        length: int | None = None,
        seed: int = 0,
        cache: bool = False,
    ) -> None:
        if len(size) != 2 or min(size) < _SMALLEST:
            raise RecipeError(f"size is {tuple(size)}, expected (height, width), each at least {_SMALLEST} pixels.")
        if length is not None and length < 1:
            raise RecipeError(f"length is {length}, expected at least 1; leave it out for the default.")
        if seed < 0:
            raise RecipeError(f"seed is {seed}, expected 0 or more.")
        self.size = (int(size[0]), int(size[1]))
        self.length = length
        self.seed = seed
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor]] | None = {} if cache else None
        super().__init__("" if root is None else root, split)

    def list_items(self) -> Iterable[Item]:
        """Names the scenes; they are no files."""
        length = _LENGTHS[self.split] if self.length is None else self.length
        return [Item("", None, f"{self.split}/{index:05d}") for index in range(length)]

    def __getitem__(self, index: int) -> Sample:
        """Draws one scene.

        Args:
            index: 0..len - 1, or negative to count from the end.

        Returns:
            The image, uint8 (3, H, W), and its labels, uint8 (H, W).
        """
        name = self.items[index].name
        kept = None if self._kept is None else self._kept.get(name)
        if kept is None:
            street = self._street(name)
            kept = torch.from_numpy(street.photograph()), torch.from_numpy(street.labels())
            if self._kept is not None:
                self._kept[name] = kept
        image, mask = kept if self._kept is None else (kept[0].clone(), kept[1].clone())
        return Sample(tv_tensors.Image(image), tv_tensors.Mask(mask), name)

    def read_mask(self, index: int) -> tv_tensors.Mask:
        """Draws the labels of one scene, without the camera's part of the work.

        Args:
            index: as for indexing.

        Returns:
            uint8 class indices, (H, W); no pixel is void.
        """
        name = self.items[index].name
        if self._kept is not None and name in self._kept:
            return tv_tensors.Mask(self._kept[name][1].clone())
        return tv_tensors.Mask(torch.from_numpy(self._street(name).labels()))

    def _street(self, name: str) -> Street:
        # Text is seeded through SHA-512, so that neighbouring names give unrelated streams; the 1 counts versions.
        return Street(random.Random(f"segcontext scenes 1/{self.seed}/{name}"), self.size)

    def __repr__(self) -> str:
        return f"Scenes({self.split!r}, size={self.size}, seed={self.seed}): {len(self)} images"
