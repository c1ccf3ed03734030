"""Colours, materials and outlines of what stands in a drawn street."""

from __future__ import annotations

import math

from segcontext.data._scene_canvas import Point, Spots, Tint

__all__ = ["BODY", "DARK", "DISC", "GLASS", "GREEN", "MATERIALS", "PAINTS", "RED", "SIGNS", "WHITE", "YELLOW"]

WHITE: Tint = (0.93, 0.93, 0.91)
DARK: Tint = (0.09, 0.09, 0.1)
GLASS: Tint = (0.24, 0.29, 0.34)
RED, YELLOW, GREEN = (0.78, 0.1, 0.1), (0.88, 0.68, 0.12), (0.15, 0.85, 0.45)
# Roads, pavements and walls draw from one list, so that what a colour or a texture means is a matter of the scene:
# colour, roughness, and the distance between seams in metres.
MATERIALS: tuple[tuple[Tint, float, float], ...] = (
    ((0.33, 0.33, 0.35), 0.15, 0.0),
    ((0.56, 0.55, 0.52), 0.08, 1.8),
    ((0.5, 0.47, 0.43), 0.1, 0.7),
    ((0.5, 0.31, 0.25), 0.15, 0.35),
    ((0.62, 0.53, 0.4), 0.1, 0.9),
    ((0.41, 0.39, 0.38), 0.22, 0.24),
    ((0.72, 0.69, 0.62), 0.05, 0.0),
)
# Cars, clothes, awnings and signs share these for the same reason.
PAINTS: tuple[Tint, ...] = (
    RED, (0.1, 0.2, 0.6), (0.85, 0.65, 0.1), (0.1, 0.4, 0.25), (0.5, 0.12, 0.15), (0.2, 0.5, 0.7), (0.85, 0.4, 0.1),
    (0.1, 0.1, 0.1), (0.3, 0.3, 0.31), (0.6, 0.6, 0.63), (0.85, 0.85, 0.85),
)  # fmt: skip
DISC = tuple((math.cos(i * math.pi / 8), math.sin(i * math.pi / 8)) for i in range(16))
SQUARE = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
DIAMOND = ((-1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, -1.0))
TRIANGLE = ((-1.0, -0.6), (1.0, -0.6), (0.0, 1.1))
# Each sign is painted in layers: outline, half width and half height in metres, colour (None: one of the paints).
SIGNS: dict[str, tuple[tuple[Spots, float, float, Tint | None], ...]] = {
    "ban": ((DISC, 0.36, 0.36, RED), (DISC, 0.24, 0.24, WHITE)),
    "warning": ((TRIANGLE, 0.45, 0.45, RED), (TRIANGLE, 0.25, 0.25, WHITE)),
    "priority": ((DIAMOND, 0.46, 0.46, WHITE), (DIAMOND, 0.36, 0.36, YELLOW)),
    "notice": ((SQUARE, 0.34, 0.34, None), (SQUARE, 0.2, 0.08, WHITE)),
    "board": ((SQUARE, 0.62, 0.36, None), (SQUARE, 0.45, 0.07, WHITE)),
    "lights": ((SQUARE, 0.18, 0.46, DARK),),
}
# One half of a person of height 1: the part (0 trousers, 1 coat), and across, up, how far it moves with the stride.
BODY: tuple[tuple[int, tuple[Point, ...]], ...] = (
    (0, ((-0.02, 0.5, 0), (0.075, 0.5, 0), (0.07, 0, 1), (0.0, 0, 1))),
    (1, ((0.08, 0.83, 0), (0.13, 0.8, 0), (0.18, 0.46, 0.7), (0.13, 0.45, 0.7))),
    (1, ((-0.005, 0.84, 0), (0.1, 0.82, 0), (0.1, 0.45, 0), (-0.005, 0.45, 0))),
)
