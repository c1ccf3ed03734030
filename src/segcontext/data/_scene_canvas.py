"""A picture and its labels, painted together: camera, light, shapes, and the photograph of the result."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

__all__ = ["Canvas"]

Floats: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]
Point: TypeAlias = tuple[float, float, float]
Tint: TypeAlias = tuple[float, float, float]
Ink: TypeAlias = tuple[int, int, int]
Span: TypeAlias = tuple[float, float]
Spots: TypeAlias = Sequence[tuple[float, float]]
Material: TypeAlias = tuple[Tint, float, float]

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, CAR, PEDESTRIAN = range(9)
_NEAR = 0.7


class Canvas:
    """A picture and its labels, painted together as one camera sees them under one light.

    Axes in metres: x to the right of the street's middle, y up from the ground, z forward from the camera. Both
    canvases have 2·H + 1 rows and 2·W + 1 columns, so that pixel i has its centre on cell 2·i + 1.
    """

    def __init__(self, draw: random.Random, size: tuple[int, int]) -> None:
        self.draw, self.noise, self.size = draw, np.random.default_rng(draw.getrandbits(128)), size
        self.rows, self.columns = 2 * size[0] + 1, 2 * size[1] + 1
        self.focal = self.columns * draw.uniform(0.42, 0.62)
        self.centre = self.columns * draw.uniform(0.36, 0.64)
        self.horizon = self.rows * draw.uniform(0.34, 0.58)
        self.eye, self.stand = draw.uniform(1.3, 2.3), 0.0
        self.bend = draw.uniform(-0.004, 0.004) if draw.random() < 0.5 else 0.0
        self.shadows: list[list[Point]] = []
        self._set_light()

    def _set_light(self) -> None:
        draw = self.draw
        dusk, cloud = max(0.0, draw.uniform(-0.9, 1)), draw.random() ** 1.5
        azimuth, height = draw.uniform(0, 2 * math.pi), math.radians(draw.uniform(25, 60) * (1 - 0.7 * dusk))
        sun = (math.cos(height) * math.sin(azimuth), math.sin(height), math.cos(height) * math.cos(azimuth))
        beam = scale((0.85, 0.8 - 0.22 * dusk, 0.68 - 0.4 * dusk), (1 - 0.9 * cloud) * (1 - 0.3 * dusk))
        air = scale((0.93 - 0.1 * dusk, 0.98 - 0.05 * dusk, 1.06 + 0.12 * dusk), 0.52 + 0.35 * cloud - 0.12 * dusk)

        def falling_on(x: float, y: float, z: float) -> Tint:
            direct, diffuse = max(0.0, x * sun[0] + y * sun[1] + z * sun[2]), 0.74 + 0.26 * y
            red, green, blue = (diffuse * a + direct * b for a, b in zip(air, beam, strict=True))
            return red, green, blue

        self.dusk, self.cloud, self.sunward = dusk, cloud, math.copysign(1 - cloud, sun[0])
        self.up, self.near, self.round = falling_on(0, 1, 0), falling_on(0, 0, -1), falling_on(0, 0.5, -0.5)
        self.flank, self.shade = {-1: falling_on(-1, 0, 0), 1: falling_on(1, 0, 0)}, scale(air, 0.92)
        reach = min(2.5, 1 / math.tan(height))
        self.slant = (-math.sin(azimuth) * reach, -math.cos(azimuth) * reach)
        grey = (0.78 - 0.2 * dusk,) * 3
        self.zenith = mix(mix((0.28, 0.5, 0.85), (0.3, 0.33, 0.52), dusk), grey, 0.9 * cloud)
        self.rim = mix(mix((0.76, 0.85, 0.95), (0.95, 0.64, 0.42), dusk), grey, 0.85 * cloud)
        self.haze = draw.uniform(100, 500)

    def at(self, x: float, y: float, z: float) -> tuple[float, float]:
        """Where a point in the street lies on the canvas."""
        z = max(z, _NEAR)
        scale = self.focal / z
        return self.centre + scale * (x + self.bend * z * z - self.stand), self.horizon + scale * (self.eye - y)

    def tint(self, colour: Tint, light: Tint, z: float) -> Ink:
        """A colour under a light, with the haze in front of it."""
        clear = math.exp(-z / self.haze)
        red, green, blue = self.rim
        fog = 1 - clear
        return (
            min(255, int(255 * (colour[0] * light[0] * clear + red * fog))),
            min(255, int(255 * (colour[1] * light[1] * clear + green * fog))),
            min(255, int(255 * (colour[2] * light[2] * clear + blue * fog))),
        )

    def fill(self, spots: Spots, colour: Ink, label: int) -> None:
        """Paints a polygon, given in canvas cells, on both canvases."""
        self.ink.polygon(spots, fill=colour)
        self.key.polygon(spots, fill=label)

    def ball(self, u: float, v: float, radius: float, colour: Ink, label: int, squeeze: float = 1) -> None:
        """Paints a disc, given in canvas cells, on both canvases; `squeeze` narrows it."""
        box = (u - radius * squeeze, v - radius, u + radius * squeeze, v + radius)
        self.ink.ellipse(box, fill=colour)
        self.key.ellipse(box, fill=label)

    def sheet(self, corners: Iterable[Point], colour: Tint, light: Tint, label: int, z: float) -> None:
        """Paints a polygon that is given in metres."""
        self.fill([self.at(*corner) for corner in corners], self.tint(colour, light, z), label)

    def wall(self, x: float, zs: Span, ys: Span, colour: Tint, side: int, label: int, cuts: int = 1) -> None:
        """Paints a rectangle along the street, seen from its side -1 (left) or 1; cut up, it follows the bend."""
        steps = [zs[0] + (zs[1] - zs[0]) * i / cuts for i in range(cuts + 1)]
        outline = [(x, ys[0], z) for z in steps] + [(x, ys[1], z) for z in reversed(steps)]
        self.sheet(outline, colour, self.flank[side], label, zs[0])

    def front(self, z: float, xs: Span, ys: Span, colour: Tint, label: int) -> None:
        """Paints a rectangle across the street that faces the camera."""
        (left, bottom), (right, top) = self.at(xs[0], ys[0], z), self.at(xs[1], ys[1], z)
        spots = [(left, bottom), (right, bottom), (right, top), (left, top)]
        self.fill(spots, self.tint(colour, self.near, z), label)

    def sides(self, xs: Span, z: float) -> list[tuple[float, int]]:
        """Which side of a box the camera sees: its x, and -1 for the left or 1 for the right one."""
        eye = self.stand - self.bend * z * z
        return [(x, sign) for x, sign in ((xs[0], -1), (xs[1], 1)) if (eye - x) * sign > 0]

    def box(
        self, xs: Span, ys: Span, zs: Span, colour: Tint, label: int, lean: Point = (0, 0, 0), lid: Tint | None = None
    ) -> None:
        """Paints the faces of a box that the camera sees; `lean` draws its top in at the sides, front and back."""
        (x0, x1), (y0, y1), (z0, z1), (side, front, back) = xs, ys, zs, lean
        left, right, ahead, behind = x0 + side, x1 - side, z0 + front, z1 - back
        if self.eye > y1:
            top = ((left, y1, ahead), (right, y1, ahead), (right, y1, behind), (left, y1, behind))
            self.sheet(top, lid or colour, self.up, label, z0)
        for x, sign in self.sides(xs, z0):
            inner = x - sign * side
            flank = ((x, y0, z0), (inner, y1, ahead), (inner, y1, behind), (x, y0, z1))
            self.sheet(flank, colour, self.flank[sign], label, z0)
        self.sheet(((x0, y0, z0), (x1, y0, z0), (right, y1, ahead), (left, y1, ahead)), colour, self.near, label, z0)

    def shadow(self, x: float, z: float, height: float, half: float) -> None:
        """Notes the shadow of an upright slab that faces the camera."""
        sx, sz = self.slant
        corners = ((x - half, 0.0), (x + half, 0.0), (x + half, height), (x - half, height))
        self.shadows.append([(a + sx * y, 0.0, z + sz * y) for a, y in corners])

    def lay(self, half: float, crossing: Span, road: Material, walk: Material, lines: Point) -> None:
        """Paints sky and ground with the shadows on it; all else is painted over them.

        Args:
            half: half the width of the road, in metres.
            crossing: from where to where another road crosses, in metres ahead.
            road: what the road is made of.
            walk: what the pavements are made of.
            lines: length of the dashes in the middle out of 6 m, half the width of the edge lines in metres, and
                how much of the paint is left.
        """
        top = math.floor(self.horizon) + 1
        planes: Floats = np.empty((3, self.rows, self.columns), np.float32)
        puffs = sum(_smooth(self.noise, cells, (top, self.columns)) for cells in (4, 9))
        veil = np.clip(puffs * 0.3 + 1.3 * self.cloud - 0.65, 0, 0.6)
        rise = np.linspace(1, 0, top, dtype=np.float32)[:, None] ** 1.3
        for plane, high, low in zip(planes, self.zenith, self.rim, strict=True):
            blue = low + rise * (high - low)
            plane[:top] = blue + veil * (min(1.15 * low + 0.03, 1) - blue)

        z = self.focal * self.eye / np.maximum(np.arange(top, self.rows, dtype=np.float32)[:, None] - self.horizon, 0.3)
        right = np.arange(self.columns, dtype=np.float32) - self.centre
        x = right * (z / self.focal) + self.stand - self.bend * z * z
        aside, across = np.abs(x), (z > crossing[0]) & (z < crossing[1])
        is_road = (aside < half) | across
        surface = is_road.astype(np.uint8)
        surface[(aside >= half) & (aside < half + 0.2) & ~across] = 2
        marked = (aside < 0.08) & (z % 6 < lines[0]) | (np.abs(aside - half + 0.35) < lines[1])
        gap = np.maximum(crossing[0] - z, z - crossing[1])
        marked |= (gap > 0.6) & (gap < 3.6) & ((2 * x).astype(np.int32) & 1 == 0) & (aside < half - 0.3)
        surface[marked & is_road & ~across] = 3
        dark = Image.new("L", (self.columns, self.rows))
        ink = ImageDraw.Draw(dark)
        for outline in self.shadows:
            if max(corner[2] for corner in outline) > _NEAR:
                ink.polygon([self.at(*corner) for corner in outline], fill=4)
        surface |= np.asarray(dark)[top:]

        # Detail smaller than a cell would flicker, so it fades as the ground that one cell covers grows.
        cell, shift = z * z / (self.focal * self.eye), self.draw.randrange(256)
        rough = np.array((walk[1], road[1]), np.float32).take(is_road) * (0.25 + 0.75 / (1 + (cell / 0.12) ** 2))
        depth = 1 + rough * _grain(z * 13 + shift, x * 20) + 0.03 * _grain(z * 0.7 + shift, x * 1.3)
        for period, where in ((road[2], is_road), (walk[2], ~is_road)):
            if period:
                along, sideways = z / period, x / period
                seam = (np.abs(along - np.rint(along)) < 0.05) | (np.abs(sideways - np.rint(sideways)) < 0.05)
                depth -= (seam & where) * (0.3 / (1 + (cell / (0.12 * period)) ** 2))
        clear = np.exp(-z / self.haze)
        depth *= clear
        kerb, paint = mix(walk[0], (0.55, 0.55, 0.55), 0.6), mix(road[0], (0.85, 0.85, 0.82), lines[2])
        tints = np.array((walk[0], road[0], kerb, paint), np.float32)
        lit = np.concatenate((tints * np.array(self.up, np.float32), tints * np.array(self.shade, np.float32)))
        for plane, colours, low in zip(planes, lit.T, self.rim, strict=True):
            plane[top:] = colours.take(surface) * depth + (1 - clear) * low
        levels = (planes * 255).clip(0, 255).astype(np.uint8)
        self.picture = Image.merge("RGB", [Image.fromarray(plane) for plane in levels])
        labels = np.full((self.rows, self.columns), SKY, np.uint8)
        labels[top:] = np.array((PAVEMENT, ROAD), np.uint8).take(is_road)
        self.truth = Image.fromarray(labels)
        self.ink, self.key = ImageDraw.Draw(self.picture), ImageDraw.Draw(self.truth)

    def labels(self) -> Bytes:
        """What covers the centre of each pixel, (H, W)."""
        return np.ascontiguousarray(np.asarray(self.truth)[1::2, 1::2])

    def photograph(self) -> Bytes:
        """What the camera makes of the picture, RGB, (3, H, W): rough surfaces, lens, colour cast, noise."""
        draw, (height, width) = self.draw, self.size
        # Halving with Pillow's bilinear filter is a tent over three cells, its middle on the cell that gave the label.
        window = (0.5, 0.5, 2 * width + 0.5, 2 * height + 0.5)
        half = self.picture.resize((width, height), Image.Resampling.BILINEAR, window)
        if draw.random() < 0.5:
            half = half.filter(ImageFilter.GaussianBlur(draw.uniform(0.3, 0.8)))
        image = np.asarray(half).transpose(2, 0, 1).astype(np.float32, order="C")
        rough = np.zeros(PEDESTRIAN + 1, np.float32)
        rough[[BUILDING, TREE, CAR, PEDESTRIAN]] = (0.035, 0.18, 0.015, 0.03)
        down, right = draw.randrange(256), draw.randrange(256)
        grain = _grain(np.arange(height)[:, None] + down, np.arange(width)[None] + right)
        image *= (1 + rough.take(self.labels()) * grain) * (min(1.4, 128 / float(image.mean())) ** 0.6)
        exposure = draw.gauss(0, 0.12)
        image *= np.exp(np.array([draw.gauss(exposure, 0.1) for _ in "RGB"], np.float32))[:, None, None]
        image += self.noise.standard_normal(image.shape, np.float32) * np.float32(draw.uniform(1.3, 5.5))
        return image.clip(0, 255).astype(np.uint8)


@cache
def _tile() -> Floats:
    """Noise of two sizes, 256 × 256 in one row, that every surface takes its roughness from."""
    noise = np.random.default_rng(256)
    return (0.75 * noise.standard_normal((256, 256), np.float32) + 0.9 * _smooth(noise, 80, (256, 256))).ravel()


def _grain(down: npt.NDArray[Any], right: npt.NDArray[Any]) -> Floats:
    return _tile().take(((down.astype(np.int32) & 255) << 8) + (right.astype(np.int32) & 255))


def _smooth(noise: np.random.Generator, cells: int, shape: tuple[int, int]) -> Floats:
    grid = Image.fromarray(noise.standard_normal((cells, cells), np.float32))
    return np.asarray(grid.resize(shape[::-1], Image.Resampling.BICUBIC))


def mix(one: Tint, other: Tint, share: float) -> Tint:
    red, green, blue = (a + share * (b - a) for a, b in zip(one, other, strict=True))
    return red, green, blue


def scale(colour: Tint, factor: float) -> Tint:
    return colour[0] * factor, colour[1] * factor, colour[2] * factor
