"""ActionMap: columns find their joints by name, whatever their order, and anything else is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest

from golden import CASE1
from wallx_edge._core import ModelConfig
from wallx_edge.action_map import ActionMap
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.types import ActionChunk, DofLayout

SO101 = load_embodiment("so101")
JOINTS = [joint.name for joint in SO101.joints]


def layout(names: list[str], width: int = 1) -> DofLayout:
    return DofLayout.from_config(dict.fromkeys(names, width))


def test_rows_and_states_are_permuted_by_name() -> None:
    action_order = [JOINTS[i] for i in (3, 0, 5, 1, 4, 2)]
    state_order = [JOINTS[i] for i in (5, 4, 0, 2, 1, 3)]
    mapped = ActionMap(layout(action_order), layout(state_order), SO101)
    value = {name: 0.1 * (i + 1) for i, name in enumerate(JOINTS)}
    rows = np.array([[value[name] for name in action_order], [2 * value[name] for name in action_order]])
    joint_rows = mapped.joint_rows(ActionChunk(rows, 0.1, 0.0, layout(action_order)))
    in_joint_order = np.array([value[name] for name in JOINTS])
    assert np.array_equal(joint_rows, np.stack([in_joint_order, 2 * in_joint_order]))
    assert joint_rows.flags.c_contiguous
    state = mapped.model_state(in_joint_order)
    assert state.tolist() == [value[name] for name in state_order]


def test_the_robots_own_order_is_the_identity() -> None:
    mapped = ActionMap(layout(JOINTS), layout(JOINTS), SO101)
    positions = np.linspace(-0.5, 0.5, len(JOINTS))
    assert np.array_equal(mapped.model_state(positions), positions)


def test_an_end_effector_checkpoint_is_refused() -> None:
    config = ModelConfig.load(str(CASE1))
    golden = DofLayout.from_config(dict(config.dof))
    with pytest.raises(ConfigError, match=r"follow_left_ee_cartesian_pos \(3 columns\).*end-effector") as caught:
        ActionMap(golden, golden, SO101)
    assert all(name in str(caught.value) for name in JOINTS)
    with pytest.raises(ConfigError, match="state slot follow_left_ee_cartesian_pos"):
        ActionMap(layout(JOINTS), golden, SO101)


@pytest.mark.parametrize("what", ["action", "state"])
@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([*JOINTS, "tail"], "slot tail is not a joint of so101"),
        (JOINTS[:-1], "slot for the joint gripper of so101"),
        ([*JOINTS[:-1], "claw"], "slot claw is not a joint of so101"),
        ([*JOINTS[:-1], "height"], "slot height"),
    ],
)
def test_a_slot_or_joint_without_partner_is_refused(what: str, names: list[str], text: str) -> None:
    bad, good = layout(names), layout(JOINTS)
    with pytest.raises(ConfigError, match=text) as caught:
        ActionMap(*((bad, good) if what == "action" else (good, bad)), SO101)
    assert what in str(caught.value)


def test_a_joint_of_two_columns_is_refused() -> None:
    wide = DofLayout.from_config({**dict.fromkeys(JOINTS[:-1], 1), "gripper": 2})
    with pytest.raises(ConfigError, match=r"gripper \(2 columns\)"):
        ActionMap(wide, layout(JOINTS), SO101)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (7,), (1, 6)])
def test_another_number_of_positions_is_refused(shape: tuple[int, ...]) -> None:
    mapped = ActionMap(layout(JOINTS), layout(JOINTS), SO101)
    with pytest.raises(ConfigError, match=r"expected \(6,\)"):
        mapped.model_state(np.zeros(shape))
