"""Observations, chunks and layouts say what is wrong with what they are given."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from golden import CASE1
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.types import ActionChunk, DofLayout, Observation

JOINTS = DofLayout.from_config({"shoulder_pan": 1, "gripper": 1})


def observation(**change: Any) -> Observation:
    fields: dict[str, Any] = {
        "images": {"face_view": np.zeros((4, 6, 3), np.uint8)},
        "state": np.zeros(2),
        "instruction": "go",
        "captured_at": 1.5,
    }
    return Observation(**{**fields, **change})


def chunk(**change: Any) -> ActionChunk:
    fields: dict[str, Any] = {"rows": np.zeros((3, 2)), "step": 0.1, "observed_at": 1.5, "layout": JOINTS}
    return ActionChunk(**{**fields, **change})


def test_a_good_observation_is_kept() -> None:
    seen = observation(captured_at=2)
    assert seen.images["face_view"].shape == (4, 6, 3)
    assert (seen.captured_at, type(seen.captured_at)) == (2.0, float)


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 6, 3), np.float32), r"float32 of shape \(4, 6, 3\)"),
        (np.zeros((4, 6, 4), np.uint8), r"uint8 of shape \(4, 6, 4\)"),
        (np.zeros((4, 6), np.uint8), r"uint8 of shape \(4, 6\)"),
        (np.zeros((0, 6, 3), np.uint8), r"uint8 of shape \(0, 6, 3\)"),
        ([[0]], r"list \[\[0\]\]"),
        (None, "NoneType None"),
    ],
)
def test_a_wrong_picture_names_role_got_and_expected(image: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=rf"image 'left_wrist_view': got {got}, expected uint8 of shape"):
        observation(images={"face_view": np.zeros((4, 6, 3), np.uint8), "left_wrist_view": image})


@pytest.mark.parametrize("images", [{}, None, [np.zeros((4, 6, 3), np.uint8)]])
def test_pictures_without_roles_are_refused(images: Any) -> None:
    with pytest.raises(ConfigError, match="expected one picture per camera role"):
        observation(images=images)


def test_a_role_must_be_a_word() -> None:
    with pytest.raises(ConfigError, match="got the role 0"):
        observation(images={0: np.zeros((4, 6, 3), np.uint8)})


@pytest.mark.parametrize(
    ("state", "got"),
    [
        (np.zeros(2, np.float32), r"float32 of shape \(2,\)"),
        (np.zeros((1, 2)), r"float64 of shape \(1, 2\)"),
        (np.zeros(0), r"float64 of shape \(0,\)"),
        ([0.0, 0.0], r"list \[0\.0, 0\.0\]"),
        (np.array([0, np.nan]), r"nan at \[1\]"),
        (np.array([np.inf, 0]), r"inf at \[0\]"),
    ],
)
def test_a_wrong_state_is_refused(state: Any, got: str) -> None:
    with pytest.raises(ConfigError, match=rf"observation state: got {got}, expected"):
        observation(state=state)


@pytest.mark.parametrize("time", [float("nan"), float("inf"), None, True, "now"])
def test_a_wrong_time_is_refused(time: Any) -> None:
    with pytest.raises(ConfigError, match=r"captured_at: got .* expected seconds"):
        observation(captured_at=time)
    with pytest.raises(ConfigError, match=r"observed_at: got .* expected seconds"):
        chunk(observed_at=time)


def test_an_instruction_must_be_text() -> None:
    with pytest.raises(ConfigError, match="instruction: got NoneType"):
        observation(instruction=None)


def test_an_observation_cannot_be_changed() -> None:
    image, state = np.zeros((4, 6, 3), np.uint8), np.zeros(2)
    images = {"face_view": image}
    seen = observation(images=images, state=state)
    state[0] = 9
    images["other"] = image
    assert seen.state.tolist() == [0, 0]
    assert set(seen.images) == {"face_view"}
    with pytest.raises(ValueError, match="read-only"):
        seen.state[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        seen.images["face_view"][0, 0, 0] = 1
    with pytest.raises(TypeError):
        seen.images["new"] = image  # type: ignore[index]
    with pytest.raises(AttributeError):
        seen.captured_at = 0.0  # type: ignore[misc]
    image[0, 0, 0] = 1  # the caller's own array stays writable


def test_a_good_chunk_is_kept() -> None:
    rows = np.arange(6.0).reshape(3, 2)
    made = chunk(rows=rows)
    rows[:] = 0
    assert made.rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert made.horizon == 3
    with pytest.raises(ValueError, match="read-only"):
        made.rows[0, 0] = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": np.zeros((3, 2), np.float32)}, r"got float32 of shape \(3, 2\)"),
        ({"rows": np.zeros(2)}, r"got float64 of shape \(2,\)"),
        ({"rows": np.zeros((0, 2))}, r"got float64 of shape \(0, 2\)"),
        ({"rows": np.zeros((3, 3))}, r"got 3 columns, expected 2 as in its layout \(shoulder_pan, gripper\)"),
        ({"rows": np.array([[0, 0], [0, np.nan]])}, r"got nan at \[1, 1\].*must not reach a robot"),
        ({"rows": np.array([[0, -np.inf]])}, r"got -inf at \[0, 1\]"),
        ({"step": 0.0}, r"step: got 0\.0 s, expected more than 0 s"),
        ({"step": -0.1}, r"step: got -0\.1 s"),
        ({"step": float("nan")}, "step: got nan"),
    ],
)
def test_a_wrong_chunk_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        chunk(**change)


def test_the_published_layout_has_names_slices_and_units() -> None:
    layout = DofLayout.from_config(json.loads((CASE1 / "config.json").read_text())["dof_config"])
    assert layout.width == 20
    assert layout.names[:3] == (
        "follow_left_ee_cartesian_pos",
        "follow_left_ee_rotation",
        "follow_left_gripper",
    )
    assert layout.slices["follow_right_ee_rotation"] == slice(10, 13)
    assert layout.slices["car_pose"] == slice(17, 20)
    arm = ("m", "m", "m", "rad", "rad", "rad", None)
    assert layout.units == (*arm, *arm, "rad", "rad", "m", "m", "m", "rad")
    assert not layout.is_joint_space
    assert [slot.name for slot in layout if slot.is_joint] == []
    assert [slot.columns.stop - slot.columns.start for slot in layout] == [3, 3, 1, 3, 3, 1, 2, 1, 3]


def test_other_slots_of_width_one_are_joints_in_rad() -> None:
    assert JOINTS.is_joint_space
    assert JOINTS.units == ("rad", "rad")
    mixed = DofLayout.from_config({"elbow_flex": 1, "master_left_gripper": 1, "action_padding": 1, "things": 2})
    assert [slot.is_joint for slot in mixed] == [True, False, False, False]
    assert mixed.units == ("rad", None, None, None, None)
    assert not mixed.is_joint_space


def test_a_published_name_of_another_width_has_no_known_unit() -> None:
    assert DofLayout.from_config({"follow_left_ee_rotation": 4}).units == (None,) * 4
    assert DofLayout.from_config({"follow_left_ee_rotation_6D_relative": 6}).units == ("1",) * 6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "expected slot names with their widths"),
        (None, "expected slot names with their widths"),
        ({"elbow": 0}, r"dof_config\.elbow is 0"),
        ({"elbow": -1}, r"dof_config\.elbow is -1"),
        ({"elbow": 1.0}, r"dof_config\.elbow is 1\.0"),
        ({"elbow": True}, r"dof_config\.elbow is True"),
        ({"": 1}, "slot name ''"),
        ({1: 1}, "slot name 1"),
    ],
)
def test_an_impossible_layout_is_refused(config: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        DofLayout.from_config(config)
