"""Scene: a drawn table with plates and a coloured block that moves, for cameras without hardware."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wallx_edge.errors import ConfigError

__all__ = ["PATTERN_SIDE", "pattern"]

_Colour = tuple[int, int, int]
_COLOURS: tuple[_Colour, ...] = (
    (204, 62, 54),  # red
    (232, 183, 58),  # yellow
    (58, 104, 190),  # blue
    (86, 160, 92),  # green
    (150, 88, 170),  # violet
)
_HORIZON = 0.34  # where the table begins, as a part of the height
PATTERN_SIDE = (32, 4096)  # sides that can be drawn [pixels]
_FINE = 2  # drawn at twice the size and averaged, for smooth edges


def pattern(t: float, width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Draws the scene at one time; a pure function of its arguments.

    Args:
        t: the block moves with it [s]
        width: [pixels], 32 to 4096
        height: [pixels], 32 to 4096
        seed: of the colours and of the block's path, 0 or more.

    Returns:
        uint8 RGB   (height, width, 3)

    Raises:
        ConfigError: a size that cannot be drawn, a seed below 0, a time that is not finite.
    """
    for what, side in (("width", width), ("height", height)):
        if not PATTERN_SIDE[0] <= side <= PATTERN_SIDE[1]:
            raise ConfigError(f"pattern: {what} is {side}, expected {PATTERN_SIDE[0]} to {PATTERN_SIDE[1]} pixels")
    if seed < 0:
        raise ConfigError(f"pattern: seed is {seed}, expected 0 or more")
    if not math.isfinite(t):
        raise ConfigError(f"pattern: time is {t}, expected seconds")
    canvas = Image.fromarray(_background(width, height, seed))
    draw = ImageDraw.Draw(canvas)
    rng = np.random.default_rng(seed)
    colours = rng.permutation(len(_COLOURS))
    phases = rng.uniform(0, 2 * math.pi, 2)
    across = 0.5 + 0.34 * math.sin(0.7 * t + phases[0])
    along = 0.5 + 0.36 * math.sin(0.43 * t + phases[1])
    turn = 0.25 * math.sin(0.31 * t)
    _block(draw, canvas.size, across, along, turn, _COLOURS[colours[3]])
    return np.asarray(canvas.reduce(_FINE))


@lru_cache(maxsize=8)
def _background(width: int, height: int, seed: int) -> NDArray[np.uint8]:
    """Wall, table and three plates   (height * 2, width * 2, 3)"""
    wide, high = width * _FINE, height * _FINE
    rng = np.random.default_rng(seed)
    colours = rng.permutation(len(_COLOURS))
    rows = np.linspace(0, 1, high)[:, np.newaxis, np.newaxis]
    columns = np.linspace(0, 1, wide)[np.newaxis, :, np.newaxis]
    light = 1 - 0.16 * np.abs(columns - 0.4)
    wall = np.array([206, 212, 218]) * (0.82 + 0.4 * rows) * light
    # boards run towards the viewer, narrow at the far edge
    depth = np.clip((rows - _HORIZON) / (1 - _HORIZON), 0, 1)
    board = (columns - 0.5) / (0.62 + 0.6 * depth)
    grain = 4 * np.sin(board * 95 + 2.2 * np.sin(depth * 9 + board * 14)) + 2.5 * np.sin(board * 311)
    seam = np.where(np.abs((board * 7) % 1 - 0.5) > 0.488, -22, 0)
    table = (np.array([178, 138, 98]) + grain + seam) * (0.74 + 0.32 * depth) * light
    picture = np.where(rows < _HORIZON, wall, table)
    edge = (rows >= _HORIZON) & (rows < _HORIZON + 0.012)
    canvas = Image.fromarray(np.clip(np.where(edge, picture * 0.72, picture), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for i, across in enumerate((0.2, 0.5, 0.8)):
        _plate(draw, canvas.size, across, 0.34, _COLOURS[colours[i]])
    return np.asarray(canvas)


def _place(size: tuple[int, int], across: float, along: float) -> tuple[float, float, float]:
    """A spot of the table (0 to 1 both ways, along towards the viewer): x, y and scale [pixels]."""
    wide, high = size
    depth = 0.12 + 0.76 * along
    spread = 0.72 + 0.36 * depth
    x = wide * (0.5 + (across - 0.5) * spread)
    y = high * (_HORIZON + (1 - _HORIZON) * depth)
    return x, y, min(wide, high) * (0.55 + 0.75 * depth)


def _shade(colour: _Colour, factor: float) -> _Colour:
    red, green, blue = (max(0, min(255, round(channel * factor))) for channel in colour)
    return red, green, blue


def _ellipse(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: _Colour) -> None:
    draw.ellipse((x - radius, y - 0.46 * radius, x + radius, y + 0.46 * radius), fill=colour)


def _plate(draw: ImageDraw.ImageDraw, size: tuple[int, int], across: float, along: float, colour: _Colour) -> None:
    x, y, scale = _place(size, across, along)
    _ellipse(draw, x + 0.012 * scale, y + 0.018 * scale, 0.150 * scale, (96, 74, 54))  # shadow
    _ellipse(draw, x, y, 0.148 * scale, _shade(colour, 0.72))
    _ellipse(draw, x, y - 0.007 * scale, 0.146 * scale, colour)
    _ellipse(draw, x, y - 0.004 * scale, 0.108 * scale, _shade(colour, 0.84))
    _ellipse(draw, x, y - 0.001 * scale, 0.102 * scale, _shade(colour, 1.1))


def _block(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    across: float,
    along: float,
    turn: float,
    colour: _Colour,
) -> None:
    """A cube seen from above, turned by ``turn`` [rad]."""
    x, y, scale = _place(size, across, along)
    half, tall = 0.062 * scale, 0.098 * scale
    base = []
    for corner in range(4):
        angle = turn + math.pi / 4 + corner * math.pi / 2
        base.append((x + 1.41 * half * math.cos(angle), y + 0.46 * 1.41 * half * math.sin(angle)))
    draw.polygon([(px + 0.5 * tall, py + 0.12 * tall) for px, py in base], fill=(92, 70, 50))  # shadow
    top = [(px, py - tall) for px, py in base]
    # the far sides first, so that the near ones cover them
    sides = sorted(range(4), key=lambda i: base[i][1] + base[(i + 1) % 4][1])
    for i in sides:
        j = (i + 1) % 4
        facing = abs(base[j][0] - base[i][0]) / (2.0 * half)
        draw.polygon([base[i], base[j], top[j], top[i]], fill=_shade(colour, 0.52 + 0.24 * facing))
    draw.polygon(top, fill=_shade(colour, 1.12))
