"""Grounding: what an answer points at lands on the picture that was asked about; what does not is reported."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from wallx_edge.errors import ConfigError
from wallx_edge.grounding import Mark, draw, parse_grounding

SEEN = ORIGINAL = (476, 644)


def marks(text: str) -> list[tuple[str, tuple[float, ...], str]]:
    found = parse_grounding(text, SEEN, ORIGINAL)
    assert found.problems == ()
    return [(mark.kind, mark.coordinates, mark.label) for mark in found.marks]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<point>[120, 80]</point>", [("point", (120, 80), "")]),
        ("<box>[1, 2, 30, 40]</box>", [("box", (1, 2, 30, 40), "")]),
        ("<bbox>[1,2,30,40]</bbox>", [("box", (1, 2, 30, 40), "")]),
        ("<box>(1,2),(30,40)</box>", [("box", (1, 2, 30, 40), "")]),
        ("<point>\n[1.5, .25]\n</point>", [("point", (1.5, 0.25), "")]),
        ("<box>[[1,2,3,4], [5,6,7,8]]</box>", [("box", (1, 2, 3, 4), ""), ("box", (5, 6, 7, 8), "")]),
        ("the <ref>red block</ref><box>[1,2,3,4]</box>", [("box", (1, 2, 3, 4), "red block")]),
        (
            "<|object_ref_start|>plate<|object_ref_end|><|box_start|>(1,2),(3,4)<|box_end|>",
            [("box", (1, 2, 3, 4), "plate")],
        ),
        ('```json\n[{"bbox_2d": [1, 2, 3, 4], "label": "碗"}]\n```', [("box", (1, 2, 3, 4), "碗")]),
        ('{"point_2d": [9, 8]}', [("point", (9, 8), "")]),
        (
            '{"label": "a", "bbox_2d": [1, 2, 3, 4]} <point>[5, 6]</point>',
            [("box", (1, 2, 3, 4), "a"), ("point", (5, 6), "")],
        ),
        ("no place at all, not even [1, 2, 3, 4]", []),
        ("", []),
    ],
)
def test_reads_every_form(text: str, expected: list[tuple[str, tuple[float, ...], str]]) -> None:
    assert marks(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<point>[120]</point>", "expected 2 numbers"),
        ("<box>[1, 2]</box>", "expected 4 numbers"),
        ("<box>left of the cup</box>", "expected 4 numbers"),
        ("<box>[1, 2, x, 4, 5]</box>", "expected 4 numbers"),
        ("<box></box>", "expected 4 numbers"),
        ("<point>[1e9, 3]</point>", "expected 2 numbers"),
        ("<point>[99999999999999999999, 3]</point>", "expected 2 numbers"),
        ("and then <box>[1, 2, 3", "'<box>[1, 2, 3' is not closed"),
        ("<box>[30, 2, 10, 4]</box>", "box [30, 2, 10, 4]: expected left, top, right, bottom"),
        ('[{"bbox_2d": [1, 2', "is no complete JSON object"),
        ('"bbox_2d": [1, 2, 3, 4]', "is no complete JSON object"),
        ('{"bbox_2d": [1, 2, 3]}', "bbox_2d [1, 2, 3]: expected 4 numbers"),
        ('{"bbox_2d": [1, 2, 3, "4"]}', "expected 4 numbers"),
        ('{"bbox_2d": [1, 2, 3, NaN]}', "expected 4 numbers"),
        ('{"point_2d": "here"}', "expected 2 numbers"),
        ('{"point_2d": ' + "[" * 100_000, "is no complete JSON object"),
    ],
)
def test_what_is_no_place_is_reported_and_the_rest_kept(text: str, problem: str) -> None:
    found = parse_grounding(f"<point>[7, 7]</point> {text}", SEEN, ORIGINAL)
    assert [mark.coordinates for mark in found.marks] == [(7, 7)]
    assert len(found.problems) == 1
    assert problem in found.problems[0]
    assert len(found.problems[0]) < 200


def test_a_list_cut_short_keeps_its_whole_entries() -> None:
    found = parse_grounding('[{"bbox_2d": [1,2,3,4], "label": "a"}, {"bbox_2d": [5,', SEEN, ORIGINAL)
    assert found.marks == (Mark("box", (1, 2, 3, 4), "a"),)
    assert len(found.problems) == 1


def test_places_return_to_the_original_picture() -> None:
    found = parse_grounding("<point>[126, 98]</point><box>[0, 0, 252, 196]</box>", (196, 252), (480, 640))
    assert found.marks[0].coordinates == pytest.approx((320, 240))
    assert found.marks[1].coordinates == pytest.approx((0, 0, 640, 480))
    assert found.problems == ()


def test_a_place_outside_is_moved_to_the_edge_and_said_to_be() -> None:
    found = parse_grounding("<point>[700, -3]</point><box>[600, 400, 700, 500]</box>", SEEN, ORIGINAL)
    assert [mark.coordinates for mark in found.marks] == [(643, 0), (600, 400, 644, 476)]
    assert len(found.problems) == 2
    assert all("outside the picture of 644 x 476 pixels; moved to its edge" in p for p in found.problems)


@pytest.mark.parametrize("seed", range(20))
def test_no_text_raises(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pieces = '<box>|</box>|<point>|</point>|[|]|{|}|"bbox_2d"|:|1|-2.5|,| |x|(|)|"|é|<ref>|</ref>|"point_2d": [3, 4]}'
    for _ in range(200):
        text = "".join(generator.choice(pieces.split("|"), generator.integers(1, 40)))
        found = parse_grounding(text, (196, 252), (480, 640))
        for mark in found.marks:
            xs, ys = mark.coordinates[::2], mark.coordinates[1::2]
            assert all(0 <= x <= 640 for x in xs) and all(0 <= y <= 480 for y in ys)


def test_a_picture_without_pixels_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 1 or more"):
        parse_grounding("", (0, 252), (480, 640))


def test_marks_are_drawn_where_they_are() -> None:
    image = np.full((200, 300, 3), 90, np.uint8)
    before = image.copy()
    drawn = np.asarray(draw(image, [Mark("box", (100, 50, 200, 150), "cup"), Mark("point", (20, 180), "碗")]))
    np.testing.assert_array_equal(image, before)
    changed = (drawn != 90).any(axis=2)
    assert changed[50, 100:200].all() and changed[149, 100:200].all()
    assert changed[50:150, 100].all() and changed[50:150, 199].all()
    assert not changed[60:140, 110:190].any()
    assert changed[180, 20]
    assert not changed[150:, 60:].any()
    assert tuple(drawn[50, 150]) != tuple(drawn[180, 20])


@pytest.mark.parametrize(
    "mark", [Mark("box", (0, 0, 5, 5), "x" * 200), Mark("point", (0, 0)), Mark("box", (3, 3, 3, 3))]
)
def test_marks_of_a_tiny_picture_do_not_break(mark: Mark) -> None:
    assert draw(np.zeros((5, 5, 3), np.uint8), [mark]).size == (5, 5)


def test_only_pictures_are_drawn_on() -> None:
    with pytest.raises(ConfigError, match="picture to draw on"):
        draw(np.zeros((5, 5), np.uint8), [])
