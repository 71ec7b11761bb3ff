"""Grounding: boxes and points in an answer's text, back on the picture they were asked about."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wallx_edge.errors import ConfigError
from wallx_edge.types import check_image

__all__ = ["Grounding", "Mark", "draw", "parse_grounding"]

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
# what WALL-OSS writes; its special tokens, as Qwen2-VL used them
_TAG = re.compile(
    r"<(?P<tag>box|bbox|point)>(?P<a>.*?)(?P<end></(?P=tag)>|$)|<\|box_start\|>(?P<b>.*?)(?P<stop><\|box_end\|>|$)",
    re.S,
)
_LABEL = re.compile(r"(?:<ref>([^<]*)</ref>|<\|object_ref_start\|>([^<]*)<\|object_ref_end\|>)\s*$")
_JSON_KEY = re.compile(r'"(bbox_2d|point_2d)"')
_COLORS = ((230, 60, 40), (40, 110, 230), (20, 150, 70), (200, 120, 0), (150, 60, 190), (0, 150, 170))


@dataclass(frozen=True)
class Mark:
    """A place in a picture.

    Attributes:
        kind: of the place.
        coordinates: x, y of a point; left, top, right, bottom of a box [px of the original picture]   (2,) or (4,)
        label: what the answer says it is; may be empty.
    """

    kind: Literal["box", "point"]
    coordinates: tuple[float, ...]
    label: str = ""


class Grounding(NamedTuple):
    """What an answer points at."""

    marks: tuple[Mark, ...]  # in the text's order
    problems: tuple[str, ...]  # what looks like a place and is none, or was moved: one sentence each


def parse_grounding(text: str, seen: tuple[int, int], original: tuple[int, int]) -> Grounding:
    """Finds boxes and points in an answer. Nothing is raised: what cannot be read is a problem in the result.

    Understood are WALL-OSS's ``<point>[x, y]</point>``, ``<box>[x1, y1, x2, y2]</box>`` and ``<bbox>``, Qwen's
    ``<|box_start|>(x1,y1),(x2,y2)<|box_end|>`` and JSON objects with ``bbox_2d`` or ``point_2d`` and ``label``. All of
    them count pixels of the picture as the model saw it, after its resize. A place outside the picture is moved to its
    edge, and said to be.

    Args:
        text: of the answer, special tokens included.
        seen: height and width of the picture as the model saw it [px]
        original: height and width of the picture before any resize [px]

    Returns:
        places on the original picture.

    Raises:
        ConfigError: a picture without pixels.
    """
    if min(*seen, *original) < 1:
        raise ConfigError(f"grounding: pictures of {seen} and {original} pixels, expected 1 or more")
    marks: list[tuple[int, Mark]] = []
    problems: list[tuple[int, str]] = []
    for at, kind, label, numbers, problem in (*_tags(text), *_objects(text)):
        if problem:
            problems.append((at, problem))
            continue
        mark = Mark(kind, numbers, label)
        if kind == "box" and (numbers[0] > numbers[2] or numbers[1] > numbers[3]):
            problems.append((at, f"box {_shown(mark)}: expected left, top, right, bottom"))
            continue
        inside = _clamped(mark, seen)
        if inside != mark:
            problems.append(
                (at, f"{kind} {_shown(mark)} is outside the picture of {seen[1]} x {seen[0]} pixels; moved to its edge")
            )
        marks.append((at, _scaled(inside, seen, original)))
    return Grounding(
        tuple(mark for _, mark in sorted(marks, key=lambda item: item[0])),
        tuple(problem for _, problem in sorted(problems, key=lambda item: item[0])),
    )


_Found = tuple[int, Literal["box", "point"], str, tuple[float, ...], str]


def _tags(text: str) -> Iterator[_Found]:
    for match in _TAG.finditer(text):
        kind: Literal["box", "point"] = "point" if match["tag"] == "point" else "box"
        content = match["a"] if match["tag"] else match["b"]
        found = _LABEL.search(text[: match.start()])
        label = (found[1] or found[2] or "").strip() if found else ""
        if not (match["end"] or match["stop"]):
            yield match.start(), kind, label, (), f"{match.group()!r:.60} is not closed"
            continue
        numbers = [float(n) for n in _NUMBER.findall(content)]
        each = 2 if kind == "point" else 4
        if not numbers or len(numbers) % each or _NUMBER.sub("", content).strip("[](), \t\r\n") or not _finite(numbers):
            yield match.start(), kind, label, (), f"{match.group()!r:.60}: expected {each} numbers"
            continue
        for i in range(0, len(numbers), each):
            yield match.start(), kind, label, tuple(numbers[i : i + each]), ""


def _objects(text: str) -> Iterator[_Found]:
    decoder = json.JSONDecoder()
    for match in _JSON_KEY.finditer(text):
        kind: Literal["box", "point"] = "box" if match[1] == "bbox_2d" else "point"
        each = 4 if kind == "box" else 2
        begin = text.rfind("{", 0, match.start())
        try:
            entry = decoder.raw_decode(text, begin)[0] if begin >= 0 else None
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict) or match[1] not in entry:
            yield match.start(), kind, "", (), f"{text[max(begin, 0) :]!r:.60} is no complete JSON object"
            continue
        values, label = entry[match[1]], entry.get("label", "")
        if not isinstance(values, list) or len(values) != each or not _finite(values):
            yield match.start(), kind, "", (), f"{match[1]} {values!r:.60}: expected {each} numbers"
            continue
        yield match.start(), kind, label if isinstance(label, str) else "", tuple(float(v) for v in values), ""


def _finite(values: Sequence[object]) -> bool:
    return all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e9 and math.isfinite(v) for v in values
    )


def _shown(mark: Mark) -> str:
    return f"[{', '.join(f'{value:g}' for value in mark.coordinates)}]"


def _clamped(mark: Mark, size: tuple[int, int]) -> Mark:
    # a box may end at the picture's far edge, one beyond its last pixel
    most = (size[1], size[0]) if mark.kind == "box" else (size[1] - 1, size[0] - 1)
    return replace(mark, coordinates=tuple(min(max(v, 0.0), most[i % 2]) for i, v in enumerate(mark.coordinates)))


def _scaled(mark: Mark, seen: tuple[int, int], original: tuple[int, int]) -> Mark:
    scale = (original[1] / seen[1], original[0] / seen[0])
    return replace(mark, coordinates=tuple(v * scale[i % 2] for i, v in enumerate(mark.coordinates)))


def draw(image: NDArray[np.uint8], marks: Sequence[Mark]) -> Image.Image:
    """Draws numbered boxes and points with their labels onto a copy of a picture.

    Args:
        image: uint8 RGB   (height, width, 3)
        marks: in pixels of this picture.

    Raises:
        ConfigError: not a picture.
    """
    check_image(image, "picture to draw on")
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    line = max(1, round(side / 250))
    font = ImageFont.load_default(size=max(10, side / 40))
    for number, mark in enumerate(marks, 1):
        color = _COLORS[(number - 1) % len(_COLORS)]
        # the built-in font has no other letters; the number tells which label it is
        label = mark.label if mark.label.isascii() else ""
        caption = f"{number} {label}".strip()
        if mark.kind == "box":
            left, top, right, bottom = mark.coordinates
            pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=color, width=line)
            corner = (left, top)
        else:
            x, y = mark.coordinates
            radius = 2.5 * line
            # a ring of the other brightness keeps the dot visible on its own colour
            pen.ellipse((x - radius - line, y - radius - line, x + radius + line, y + radius + line), fill=(255,) * 3)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)
            corner = (x + 2 * radius, y)
        _caption(pen, picture.size, corner, caption, color, font)
    return picture


def _caption(
    pen: ImageDraw.ImageDraw,
    size: tuple[int, int],
    corner: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
) -> None:
    """White on the mark's colour, above the corner, kept inside the picture."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height, pad = right - left, bottom - top, 2
    x = min(max(corner[0], 0), max(size[0] - width - 2 * pad, 0))
    y = min(max(corner[1] - height - 2 * pad, 0), max(size[1] - height - 2 * pad, 0))
    pen.rectangle((x, y, x + width + 2 * pad, y + height + 2 * pad), fill=color)
    pen.text((x + pad - left, y + pad - top), text, fill=(255, 255, 255), font=font)
