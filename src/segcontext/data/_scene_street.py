"""What stands in a drawn street, and how each thing is painted."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from segcontext.data._scene_canvas import (
    BUILDING,
    CAR,
    PEDESTRIAN,
    POLE,
    SIGN,
    TREE,
    Canvas,
    Material,
    Span,
    Tint,
    mix,
)
from segcontext.data._scene_canvas import (
    scale as scaled,
)
from segcontext.data._scene_paints import (
    BODY,
    DARK,
    DISC,
    GLASS,
    GREEN,
    MATERIALS,
    PAINTS,
    RED,
    SIGNS,
    WHITE,
    YELLOW,
)

__all__ = ["Street"]

Grid: TypeAlias = tuple[float, float, float, float]

_FAR = 105.0


class Street(Canvas):
    """One scene: what stands where. Things are noted with their distance and painted from far to near."""

    def __init__(self, draw: random.Random, size: tuple[int, int]) -> None:
        super().__init__(draw, size)
        self.things: list[tuple[float, Callable[[], None]]] = []
        self.half, self.walk = draw.uniform(2.9, 5.5), draw.uniform(1.8, 4.5)
        self.edge = self.half + self.walk
        on_foot = draw.choice((-1, 1)) * (self.half + 0.5 * self.walk)
        self.stand = on_foot if draw.random() < 0.2 else self.half * draw.uniform(-0.6, 0.6)
        start = draw.uniform(14, 45) if draw.random() < 0.4 else 1e6
        self.crossing = (start, start + draw.uniform(6, 11))
        self.paints = draw.sample(PAINTS, 5)
        self.stones = [self._material() for _ in range(4)]
        self.metal = draw.choice(((0.35, 0.36, 0.38), (0.16, 0.19, 0.18), (0.5, 0.5, 0.48)))
        asphalt, busy = self._material(0), draw.uniform(0.3, 1)
        self._skyline()
        for side in (-1, 1):
            self._houses(side, park=draw.random() < 0.18, tall=draw.uniform(5, 15))
            if draw.random() < 0.6:
                for z in self._along(draw.uniform(5, 12), 65, draw.uniform(7, 13), 2):
                    self._plant(side * (self.half + 0.8), z)
            self._furniture(side, lamps=draw.random() < 0.75)
            parked = busy * draw.uniform(0.1, 1)
            for z in self._along(draw.uniform(4.5, 9), 65 if self.half > 3.3 else 0, 6.3, 6):
                if draw.random() < parked:
                    self._vehicle(side * (self.half - 1.15), z)
            for z in self._along(draw.uniform(7, 25), 80, 16, 0):
                if draw.random() < 0.15 + 0.6 * busy:
                    self._vehicle(side * self.half * (0.28 if self.half > 3.3 else 0.5), z)
        for _ in range(draw.randrange(4) if start < 60 else 0):
            self._vehicle(draw.uniform(-25, 25), start + draw.uniform(1.5, 4), along=False)
        self._crowd(3 + round(12 * busy * draw.random()))
        road = asphalt if draw.random() < 0.5 else self._material()
        dashes, borders = draw.choice((0, 2, 3, 6)), draw.choice((0, 0.06))
        self.lay(self.half, self.crossing, road, self._material(), (dashes, borders, draw.uniform(0.35, 0.9)))
        for _, paint in sorted(self.things, key=lambda thing: -thing[0]):
            paint()

    def _add(self, z: float, paint: Callable[..., None], *details: object) -> None:
        self.things.append((z, partial(paint, *details)))

    def _material(self, which: int | None = None) -> Material:
        draw = self.draw
        colour, rough, period = MATERIALS[draw.randrange(len(MATERIALS)) if which is None else which]
        tone = draw.uniform(0.75, 1.25)
        red, green, blue = (part * tone * draw.uniform(0.94, 1.06) for part in colour)
        return (red, green, blue), rough, period

    def _along(self, z: float, end: float, step: float, margin: float) -> Iterator[float]:
        """Distances at about equal steps, none of them on the crossing."""
        while z < end:
            if not self.crossing[0] - margin < z < self.crossing[1] + margin:
                yield z
            z += step * self.draw.uniform(0.85, 1.2)

    def _skyline(self) -> None:
        draw, x = self.draw, -150.0
        while x < 150:
            wide, tall = draw.uniform(8, 22), draw.uniform(4, 15)
            if draw.random() < 0.6:
                zs, colour = (_FAR, _FAR + 5), draw.choice(self.stones)[0]
                self._add(_FAR, self.box, (x, x + wide), (-0.5, tall), zs, colour, BUILDING)
            else:
                self._add(_FAR, self._tree, x + wide / 2, _FAR, tall * 0.8, tall * 0.5, 1.0)
            x += wide * 0.9

    def _houses(self, side: int, park: bool, tall: float) -> None:
        draw, z = self.draw, self.draw.uniform(1.5, 5)
        while z < _FAR - 8:
            if self.crossing[0] - 5 < z < self.crossing[1] + 1:
                z = self.crossing[1] + 1.2
            end = min(z + draw.uniform(7, 18), _FAR, self.crossing[0] - 1 if z < self.crossing[0] else _FAR)
            if not park:
                self._house(side, (z, end), tall * draw.uniform(0.7, 1.35))
            else:
                for _ in range(3):
                    self._plant(side * (self.edge + draw.uniform(1, 9)), max(5, draw.uniform(z, end)))
                if draw.random() < 0.7:
                    xs = (self.edge, self.edge + 0.9) if side > 0 else (-self.edge - 0.9, -self.edge)
                    self._add(end, self.box, xs, (0, draw.uniform(0.8, 1.5)), (z, end), (0.15, 0.26, 0.11), TREE)
            z = end + (draw.uniform(1.5, 6) if draw.random() < 0.3 else 0.0)

    def _house(self, side: int, zs: Span, tall: float) -> None:
        draw = self.draw
        x, (sx, sz) = side * self.edge, self.slant
        foot, top = [(x, 0.0, z) for z in zs], [(x + sx * tall, 0.0, z + sz * tall) for z in zs]
        self.shadows.append(foot + top[::-1])
        grid = (draw.uniform(2.0, 3.4), draw.uniform(2.7, 3.4), draw.uniform(0.3, 0.75), draw.uniform(0.4, 0.7))
        roof = draw.choice((None, (0.45, 0.2, 0.14), (0.25, 0.25, 0.28)))
        shop = draw.choice(self.paints) if draw.random() < 0.45 else None
        self._add(zs[1], self._paint_house, side, zs, tall, draw.choice(self.stones)[0], grid, roof, shop)

    def _paint_house(
        self, side: int, zs: Span, tall: float, colour: Tint, grid: Grid, roof: Tint | None, shop: Tint | None
    ) -> None:
        (z, end), x, seen = zs, side * self.edge, -side
        if roof:
            slope = ((x, tall, z), (x, tall, end), (x + 4 * side, tall + 3.2, end), (x + 4 * side, tall + 3.2, z))
            self.sheet(slope, roof, self.flank[seen], BUILDING, z)
            self.sheet((slope[0], slope[3], (x + 8 * side, tall, z)), colour, self.near, BUILDING, z)
        deep = 8 if roof else 14
        self.front(z, (x, x + deep * side), (0, tall), colour, BUILDING)
        for across, ys, glass in self._windows(deep, tall, grid, self.focal / z):
            self.front(z, (x + side * across[0], x + side * across[1]), ys, glass, BUILDING)
        self.wall(x, zs, (0, tall), colour, seen, BUILDING, 4)
        ledge = mix(colour, WHITE, 0.35)
        self.wall(x, zs, (tall - 0.3, tall), ledge, seen, BUILDING, 4)
        foreshortening = self.focal * abs(x - self.stand) / (z * end)
        for across, ys, glass in self._windows(end - z, tall, grid, foreshortening):
            self.wall(x, (z + across[0], z + across[1]), ys, glass, seen, BUILDING)
        self.wall(x, zs, (2.4, 3.1), shop or ledge, seen, BUILDING, 4)

    def _windows(self, wide: float, tall: float, grid: Grid, scale: float) -> Iterator[tuple[Span, Span, Tint]]:
        """Where the panes of a wall are and their colour; none where they would be too narrow to see."""
        pitch, storey, across, up = grid
        draw, columns = self.draw, int(wide / pitch)
        for column in range(columns if pitch * across * scale > 1.5 else 0):
            left = (column + 0.5 - across / 2) * pitch
            for floor in range(int((tall - 0.4) / storey)):
                bottom = (floor + 0.5 - up / 2) * storey
                ys = (bottom, bottom + up * storey) if floor else (0.3, 2.3)
                lamp = draw.random() < 0.4 * self.dusk
                glass = (1.6, 1.2, 0.6) if lamp else scaled(mix(GLASS, self.rim, 0.3), draw.uniform(0.6, 1.3))
                yield (left, left + across * pitch), ys, glass

    def _plant(self, x: float, z: float) -> None:
        draw = self.draw
        tall, slim = draw.uniform(3.5, 9), draw.choice((0.9, 1.1, 1.7))
        radius = tall * draw.uniform(0.25, 0.38) / slim**0.5
        (sx, sz), middle = self.slant, tall - radius * slim
        self.shadows.append([(x + sx * middle + radius * a, 0.0, z + sz * middle + radius * b) for a, b in DISC])
        self.shadow(x, z, middle, 0.15)
        self._add(z, self._tree, x, z, tall, radius, slim)

    def _tree(self, x: float, z: float, tall: float, radius: float, slim: float) -> None:
        draw, scale = self.draw, self.focal / z
        (u, v), (_, foot), reach = self.at(x, tall - radius * slim, z), self.at(x, 0, z), radius * scale
        if not -reach < u < self.columns + reach:
            return
        girth = max(0.05 * reach + 0.05 * scale, 1)
        bark = self.tint((0.28, 0.22, 0.17), self.round, z)
        self.fill([(u - girth, foot), (u + girth, foot), (u + girth / 2, v), (u - girth / 2, v)], bark, TREE)
        hue = mix((0.16, 0.3, 0.1), (0.36, 0.34, 0.12), draw.random())
        tones = [self.tint(scaled(hue, 0.5 + 0.1 * i), self.round, z) for i in range(10)]
        leaves = []
        for _ in range(44 if reach > 25 else 24 if reach > 8 else 10):
            turn, far = draw.uniform(0, 2 * math.pi), draw.random() ** 0.5
            a, b = math.cos(turn) * far, math.sin(turn) * far
            tone = 4.5 + 3 * b + 1.8 * self.sunward * a + draw.uniform(-1.6, 1.6)
            leaves.append((min(9, max(0, int(tone))), a, b, draw.uniform(0.16, 0.26) + 0.2 * (1 - far)))
        for shade, a, b, part in sorted(leaves):
            self.ball(u + 0.85 * reach * a, v - 0.85 * reach * slim * b, part * reach, tones[shade], TREE)

    def _furniture(self, side: int, lamps: bool) -> None:
        draw, x = self.draw, side * (self.half + 0.45)
        for z in self._along(draw.uniform(4, 12), 60, draw.uniform(9, 20), 1):
            if lamps:
                tall = draw.uniform(5, 7.5)
                self.shadow(x, z, tall, 0.08)
                self._add(z, self._lamp, x, z, tall, -side)
            if draw.random() < 0.8:
                self._put_sign(x, z + draw.uniform(1.5, 6), draw.choice(list(SIGNS)))
        if self.crossing[0] < 60:
            self._put_sign(x, self.crossing[0] - 0.6, "lights")

    def _put_sign(self, x: float, z: float, kind: str) -> None:
        self.shadow(x, z, 2.6, 0.06)
        self._add(z, self._sign, x, z, kind, self.draw.uniform(2.2, 3.0), self.draw.choice(self.paints))

    def _pole(self, x: float, z: float, tall: float, wide: float) -> tuple[float, float]:
        """Paints a pole, at least one pixel wide, and returns where its top is."""
        (u, foot), (_, top) = self.at(x, 0, z), self.at(x, tall, z)
        half = max(wide * self.focal / z / 2, 1)
        spots = [(u - half, foot), (u + half - 0.5, foot), (u + half - 0.5, top), (u - half, top)]
        self.fill(spots, self.tint(self.metal, self.near, z), POLE)
        return u, top

    def _lamp(self, x: float, z: float, tall: float, toward: int) -> None:
        u, v = self._pole(x, z, tall, 0.16)
        scale, colour = self.focal / z, self.tint(self.metal, self.near, z)
        end, thick = u + toward * 1.3 * scale, max(0.05 * scale, 1)
        self.fill([(u, v - thick), (end, v - 2 * thick), (end, v - thick + 0.5), (u, v + thick)], colour, POLE)
        glow = self.tint((1.0, 0.9, 0.65), (1, 1, 1) if self.dusk > 0.3 else self.near, z)
        self.ball(end, v - 1.5 * thick, max(0.1 * scale, 1), glow, POLE, 3)

    def _sign(self, x: float, z: float, kind: str, tall: float, paint: Tint) -> None:
        (u, v), scale = self._pole(x, z, tall, 0.09), self.focal / z
        for outline, a, b, colour in SIGNS[kind]:
            spots = [(u + a * scale * right, v - b * scale * up) for right, up in outline]
            self.fill(spots, self.tint(colour or paint, self.near, z), SIGN)
        if kind == "lights":
            which = self.draw.randrange(3)
            for i, colour in enumerate((RED, YELLOW, GREEN)):
                glow = self.tint(scaled(colour, 1.1 if i == which else 0.25), (1, 1, 1), z)
                self.ball(u, v + 0.28 * scale * (i - 1), 0.11 * scale, glow, SIGN)

    def _vehicle(self, x: float, z: float, along: bool = True) -> None:
        draw = self.draw
        kind = draw.choices(("car", "van", "bus"), (8, 1.6, 0.6))[0]
        long, wide, tall = {"car": (4.2, 1.75, 1.45), "van": (5.2, 1.95, 2.3), "bus": (10.5, 2.4, 3.0)}[kind]
        tall *= draw.uniform(0.94, 1.1)
        colour = draw.choice(self.paints) if draw.random() < 0.8 else draw.choice(self.stones)[0]
        if not along:
            long, wide = wide, long
        xs, zs, (sx, sz) = (x - wide / 2, x + wide / 2), (z, z + long), self.slant
        foot = [(xs[0], 0.0, zs[0]), (xs[1], 0.0, zs[0]), (xs[1], 0.0, zs[1]), (xs[0], 0.0, zs[1])]
        roof = [(a + 0.85 * tall * sx, 0.0, b + 0.85 * tall * sz) for a, _, b in foot]
        self.shadows += [foot, roof] + [[foot[i - 1], foot[i], roof[i], roof[i - 1]] for i in range(4)]
        self._add(z, self._car, xs, zs, tall, colour, kind, along, draw.random() < 0.5)

    def _car(self, xs: Span, zs: Span, tall: float, colour: Tint, kind: str, along: bool, away: bool) -> None:
        (x0, x1), (z0, z1) = xs, zs
        self.box((x0 + 0.1, x1 - 0.1), (0.12, 0.4), (z0 + 0.15, z1 - 0.15), DARK, CAR)
        self.box(xs, (0.28, 0.9 if kind == "car" else tall), zs, colour, CAR)
        if kind == "car":
            lean = (1.1, 0.18, 0.18) if not along else (0.18, 0.75, 1.5) if away else (0.18, 1.5, 0.75)
            self.box(xs, (0.9, tall), zs, GLASS, CAR, lean, colour)
        else:
            panes = (1.25, tall - 0.3)
            self.front(z0, (x0 + 0.15, x1 - 0.15), panes, GLASS, CAR)
            for x, sign in self.sides(xs, z0):
                self.wall(x, (z0 + 0.3, z1 - 0.3 if kind == "bus" else z0 + 0.35 * (z1 - z0)), panes, GLASS, sign, CAR)
        tyre = self.tint(DARK, (0.8, 0.8, 0.8), z0)
        if not along:
            for x in (x0 + 0.8, x1 - 0.8):
                self.ball(*self.at(x, 0.32, z0), 0.33 * self.focal / z0, tyre, CAR)
            return
        for x, _ in self.sides(xs, z0):
            for z in (z0 + 0.8, z1 - 0.8):
                (u, v), (w, _) = self.at(x, 0.32, z), self.at(x, 0.32, z + 0.33)
                radius = 0.33 * self.focal / z
                self.ball(u, v, radius, tyre, CAR, abs(w - u) / radius)
        lamp: Tint = (0.85, 0.1, 0.08) if away else (1.2, 1.15, 1.0)
        for x in (x0 + 0.02, x1 - 0.27):
            self.front(z0, (x, x + 0.25), (0, 0.35), DARK, CAR)
            self.front(z0, (x + 0.03, x + 0.3 if x < x1 - 1 else x + 0.24), (0.6, 0.78), lamp, CAR)
        self.front(z0, ((x0 + x1) / 2 - 0.25, (x0 + x1) / 2 + 0.25), (0.44, 0.55), WHITE, CAR)

    def _crowd(self, groups: int) -> None:
        draw = self.draw
        for _ in range(groups):
            z, way = 4.5 + 34 * draw.random() ** 1.2, draw.choice((-1, 1))
            x = way * (self.half + draw.uniform(0.3, self.walk - 0.3))
            if draw.random() < 0.15:
                x, z = draw.uniform(-self.half, self.half), z + 4
            for friend in range(draw.choice((1, 1, 1, 2, 3))):
                tall, place = draw.choice((1.15, 1.6, 1.65, 1.72, 1.8, 1.88)), x + 0.6 * friend * way
                skin = draw.choice(((0.85, 0.65, 0.52), (0.6, 0.42, 0.3), (0.35, 0.23, 0.16)))
                legs = draw.choice((DARK, (0.2, 0.23, 0.38), (0.45, 0.4, 0.32)))
                self.shadow(place, z, tall, 0.16)
                colours = (legs, draw.choice(self.paints), skin)
                self._add(z, self._person, place, z, tall, colours, draw.uniform(0.02, 0.12))

    def _person(self, x: float, z: float, tall: float, colours: tuple[Tint, Tint, Tint], stride: float) -> None:
        (u, v), scale = self.at(x, 0, z), tall * self.focal / z
        inks = [self.tint(colour, self.round, z) for colour in colours]
        for part, outline in BODY:
            for way in (-scale, scale):
                spots = [(u + way * (a + grow * stride), v - scale * b) for a, b, grow in outline]
                self.fill(spots, inks[part], PEDESTRIAN)
        self.ball(u, v - 0.91 * scale, 0.085 * scale, inks[2], PEDESTRIAN, 0.72)
