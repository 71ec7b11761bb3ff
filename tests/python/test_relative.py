"""Relative slots become absolute at the observed state, and nothing else changes."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from golden import CASES, read_safetensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.geometry import euler_from_matrix, matrix_from_euler, matrix_from_rot6d, rot6d_from_matrix
from wallx_edge.relative import RelativeActions
from wallx_edge.types import DofLayout

# wall-oss-0.5's own slots
ARM = ("ee_cartesian_pos", 3), ("ee_rotation_6D", 6), ("gripper", 1)
ACTION = {f"master_{side}_{n}{'_relative' if w > 1 else ''}": w for side in ("left", "right") for n, w in ARM}
STATE = {f"follow_{side}_{n}": w for side in ("left", "right") for n, w in ARM}
BASE = {"velocity_decomposed": 3, "height": 1, "head_actions": 2}
RANDOM = np.random.default_rng(11)


def layout(slots: dict[str, int]) -> DofLayout:
    return DofLayout.from_config(slots)


def turns(number: int) -> NDArray[np.float64]:
    return matrix_from_euler(RANDOM.uniform(-1.4, 1.4, (number, 3)))


def test_both_arms_of_the_published_layout() -> None:
    relative = RelativeActions(layout(ACTION | BASE), layout(STATE | BASE))
    assert relative.slots == tuple(name for name in ACTION if name.endswith("_relative"))
    assert relative.layout.names == tuple(name.removesuffix("_relative") for name in ACTION | BASE)
    assert relative.layout.units[:10] == ("m",) * 3 + ("1",) * 6 + (None,)
    rows, state = RANDOM.standard_normal((4, 26)), RANDOM.standard_normal(26)
    kept, told = rows.copy(), state.copy()
    left, right, at_left, at_right = turns(4), turns(4), turns(1)[0], turns(1)[0]
    for start, many, one in ((3, left, at_left), (13, right, at_right)):
        rows[:, start : start + 6] = rot6d_from_matrix(many)
        state[start : start + 6] = rot6d_from_matrix(one)
    got = relative.absolute(rows, state)
    for start, many, one in ((0, left, at_left), (10, right, at_right)):
        np.testing.assert_allclose(got[:, start : start + 3], kept[:, start : start + 3] + told[start : start + 3])
        np.testing.assert_allclose(matrix_from_rot6d(got[:, start + 3 : start + 9]), many @ one, atol=1e-12)
    same = [9, *range(19, 26)]
    np.testing.assert_array_equal(got[:, same], kept[:, same])


@pytest.mark.parametrize("case", [c for c in CASES if (c / "norm_stats.json").exists()], ids=lambda c: c.name)
def test_equals_the_reference(case: object) -> None:
    inputs, expected = (read_safetensors(case / f"{name}.safetensors") for name in ("inputs", "expected"))  # type: ignore[operator]
    slots = {"follow_left_ee_rotation_6D": 6}
    relative = RelativeActions(layout({"follow_left_ee_rotation_6D_relative": 6}), layout(slots))
    got = relative.absolute(expected["geom.rot6d_f64"], inputs["geom.state_rot6d_f64"])
    np.testing.assert_allclose(got, expected["geom.compose_abs6d_f64"], atol=1e-11)
    relative = RelativeActions(layout({"follow_left_ee_rotation_relative": 3}), layout({"follow_left_ee_rotation": 3}))
    got = relative.absolute(inputs["geom.euler_f64"], inputs["geom.state_rpy_f64"])
    np.testing.assert_allclose(got, expected["geom.compose_abs_rpy_f64"], atol=1e-11)


def test_six_numbers_may_be_relative_to_angles_and_the_other_way_round() -> None:
    many, one = turns(5), turns(1)[0]
    angles, numbers = euler_from_matrix(one), rot6d_from_matrix(one)
    six = RelativeActions(layout({"follow_left_ee_rotation_6D_relative": 6}), layout({"follow_left_ee_rotation": 3}))
    got = six.absolute(rot6d_from_matrix(many), angles)
    np.testing.assert_allclose(matrix_from_rot6d(got), many @ one, atol=1e-12)
    three = RelativeActions(layout({"follow_left_ee_rotation_relative": 3}), layout({"follow_left_ee_rotation_6D": 6}))
    got = three.absolute(euler_from_matrix(many), numbers)
    np.testing.assert_allclose(matrix_from_euler(got), many @ one, atol=1e-12)
    # of two, the state's slot of the same kind
    both = layout({"follow_left_ee_rotation": 3, "follow_left_ee_rotation_6D": 6})
    got = RelativeActions(layout({"follow_left_ee_rotation_6D_relative": 6}), both).absolute(
        rot6d_from_matrix(many), np.concatenate([[9, 9, 9], numbers])
    )
    np.testing.assert_allclose(matrix_from_rot6d(got), many @ one, atol=1e-12)


def test_rows_without_relative_slots_are_the_rows() -> None:
    relative = RelativeActions(layout({"shoulder": 1, "elbow": 1}), layout({"shoulder": 1, "elbow": 1}))
    rows = RANDOM.standard_normal((3, 2))
    got = relative.absolute(rows, np.array([5.0, 6.0]))
    np.testing.assert_array_equal(got, rows)
    assert got is not rows
    assert relative.slots == ()


def test_rows_and_states_from_which_no_rotation_follows_are_refused() -> None:
    relative = RelativeActions(
        layout({"follow_left_ee_rotation_6D_relative": 6}), layout({"follow_left_ee_rotation_6D": 6})
    )
    good = np.array([1.0, 0, 0, 0, 1, 0])
    for rows, state in ((np.zeros((2, 6)), good), (good[np.newaxis], np.zeros(6))):
        with pytest.raises(ConfigError, match=r"slot follow_left_ee_rotation_6D_relative, with the state's .*rot6D at"):
            relative.absolute(rows, state)


@pytest.mark.parametrize(
    ("action", "state", "text"),
    [
        ({"follow_left_gripper_relative": 1}, STATE, "only _ee_cartesian_pos, _ee_rotation, _ee_rotation_6D can be"),
        ({"elbow_relative": 1}, {"elbow": 1}, "dof_config.elbow_relative: only"),
        ({"follow_left_ee_cartesian_pos_relative": 2}, STATE, "has 2 columns, expected 3"),
        ({"follow_left_ee_rotation_6D_relative": 3}, STATE, "has 3 columns, expected 6"),
        (
            {"follow_left_ee_cartesian_pos_relative": 3},
            {"follow_left_ee_cartesian_pos": 4},
            "agent_pos_config.follow_left",
        ),
        ({"follow_left_ee_cartesian_pos_relative": 3}, {"elbow": 1}, "agent_pos_config does not have"),
        ({"follow_left_ee_rotation_relative": 3}, {"follow_right_ee_rotation": 3}, "(follow_left_ee_rotation)"),
        (
            {"follow_left_ee_rotation_relative": 3, "follow_left_ee_rotation": 3},
            {"follow_left_ee_rotation": 3},
            "has both follow_left_ee_rotation and follow_left_ee_rotation_relative",
        ),
    ],
)
def test_slots_that_cannot_be_matched_are_refused(action: dict[str, int], state: dict[str, int], text: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        RelativeActions(layout(action), layout(state))
    assert text in str(caught.value)


def test_relative_undoes_absolute() -> None:
    relative = RelativeActions(layout(ACTION | BASE), layout(STATE | BASE))
    rows, state = RANDOM.standard_normal((5, 26)), RANDOM.standard_normal(26)
    for start in (3, 13):
        rows[:, start : start + 6] = rot6d_from_matrix(turns(5))
        state[start : start + 6] = rot6d_from_matrix(turns(1)[0])
    used = np.ones(26, bool)
    used[10:20] = False
    for mask in (None, used):
        again = relative.relative(relative.absolute(rows, state, mask), state, mask)
        np.testing.assert_allclose(again, rows, atol=1e-12)
    # what is absolute now is another thing relative to another state
    other = state.copy()
    other[:3] += 0.1
    moved = relative.relative(relative.absolute(rows, state), other)
    np.testing.assert_allclose(moved[:, :3], rows[:, :3] - 0.1, atol=1e-12)
    state[3:9] = 0
    with pytest.raises(ConfigError, match="master_left_ee_rotation_6D_relative, with the state's"):
        relative.relative(rows, state)
