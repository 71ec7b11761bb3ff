"""Kinematics and ActionMap on poses: there and back, along paths, out of reach, off limits, and bad models."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden import CASES
from wallx_edge._core import Embodiment, JointLimits, JointMode, JointSpec, ModelConfig
from wallx_edge.action_map import ActionMap, RowsRefused
from wallx_edge.embodiment import load_embodiment, share_path
from wallx_edge.errors import ConfigError
from wallx_edge.geometry import euler_from_matrix, rot6d_from_matrix
from wallx_edge.kinematics import POSITION, ROTATION, Kinematics, load_model
from wallx_edge.relative import RelativeActions
from wallx_edge.robot_model import RobotModel, _distance
from wallx_edge.session import Session, SessionConfig
from wallx_edge.session.lockstep import StepPace, SteppedRobot
from wallx_edge.sim.so101 import SO101
from wallx_edge.tables import Table
from wallx_edge.types import ActionChunk, DofLayout

MODEL = share_path() / "drivers" / "embodiments" / "so101" / "so101.xml"
ARM = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
# a shoulder of three, an elbow, a wrist of three, with offsets
LINKS = {
    6: (("0 0 1", 0.1), ("0 1 0", 0.05), ("0 1 0", 0.3), ("1 0 0", 0.25), ("0 1 0", 0.06), ("1 0 0", 0.08)),
    7: (
        ("0 0 1", 0.1),
        ("0 1 0", 0.05),
        ("1 0 0", 0.2),
        ("0 1 0", 0.15),
        ("1 0 0", 0.2),
        ("0 1 0", 0.06),
        ("1 0 0", 0.08),
    ),
}


def links(prefix: str, number: int, base: str) -> str:
    """A serial arm as URDF links and joints."""
    text, parent = "", base
    for i, (axis, length) in enumerate(LINKS[number]):
        name = f"{prefix}{i}"
        along = f"{length} 0 {0.02 * i}" if i > 1 else f"0 0 {length}"
        text += f"""<link name="{name}_link"><inertial><mass value="0.2"/><origin xyz="0 0 0"/>
        <inertia ixx="1e-3" iyy="1e-3" izz="1e-3" ixy="0" ixz="0" iyz="0"/></inertial></link>
        <joint name="{name}" type="revolute"><parent link="{parent}"/><child link="{name}_link"/>
        <origin xyz="{along}" rpy="0 0 0"/><axis xyz="{axis}"/>
        <limit lower="-2.6" upper="2.6" effort="9" velocity="3"/></joint>"""
        parent = f"{name}_link"
    return text + (
        f'<link name="{prefix}tool"/><joint name="{prefix}end" type="fixed"><parent link="{parent}"/>'
        f'<child link="{prefix}tool"/><origin xyz="0.1 0.01 0.02" rpy="0.1 0.2 0.3"/></joint>'
    )


def urdf(path: Path, *arms: tuple[str, int]) -> Path:
    body = "".join(links(prefix, number, "base") for prefix, number in arms)
    path.write_text(f'<robot name="test"><link name="base"/>{body}</robot>', encoding="utf-8")
    return path


def so101() -> Kinematics:
    limits = [joint.limits for joint in load_embodiment("so101").joints[:5]]
    low, high = [j.min_position for j in limits], [j.max_position for j in limits]
    return Kinematics(load_model(MODEL), ARM, "tool", low, high, "so101.xml")


@pytest.fixture(params=["so101", 6, 7])
def arm(request: pytest.FixtureRequest, tmp_path: Path) -> Kinematics:
    if request.param == "so101":
        return so101()
    number = int(request.param)
    model = load_model(urdf(tmp_path / "arm.urdf", ("j", number)))
    return Kinematics(model, [f"j{i}" for i in range(number)], "jtool", [-2.5] * number, [2.5] * number, "arm.urdf")


def path_between(random: np.random.Generator, arm: Kinematics, share: float = 0.4, rows: int = 32) -> np.ndarray:
    """A smooth path on which the arm is nowhere near a singular pose, where two branches meet."""
    while True:
        a, b = random.uniform(0.9 * arm.low, 0.9 * arm.high, (2, len(arm.joints)))
        part = np.linspace(0, 1, rows)[:, np.newaxis]
        found: np.ndarray = a + share * (b - a) * part**2 * (3 - 2 * part)
        if min(smallest(arm, row) for row in found) > 0.03:
            return found


def smallest(arm: Kinematics, row: np.ndarray) -> float:
    """Singular value of the pose's derivative, by differences."""
    each = row + 1e-6 * np.eye(len(row))
    (at,), (turned,) = arm.forward(row)
    positions, rotations = arm.forward(each)
    turns = (rotations - turned) @ turned.T / 1e-6
    columns = np.concatenate([(positions - at) / 1e-6, turns[:, (2, 0, 1), (1, 2, 0)]], axis=1)
    return float(np.linalg.svd(columns, compute_uv=False)[-1])


def test_poses_are_found_again_from_anywhere(arm: Kinematics) -> None:
    random = np.random.default_rng(0)
    rows = random.uniform(arm.low, arm.high, (250, len(arm.joints)))
    positions, rotations = arm.forward(rows)
    for position, rotation in zip(positions, rotations, strict=True):
        found = arm.inverse(position, rotation, np.zeros(len(arm.joints)))
        assert found.position_error[0] <= POSITION and found.rotation_error[0] <= ROTATION
        again, turned = arm.forward(found.rows)
        assert np.linalg.norm(again[0] - position) <= POSITION
        assert math.acos(min(1.0, (np.trace(turned[0].T @ rotation) - 1) / 2)) <= ROTATION * 1.01
        assert (found.rows[0] >= arm.low).all() and (found.rows[0] <= arm.high).all()


def test_a_path_of_poses_is_a_path_of_joints(arm: Kinematics) -> None:
    random = np.random.default_rng(1)
    for _ in range(40):
        wanted = path_between(random, arm)
        found = arm.track(*arm.forward(wanted), wanted[0])
        assert found.position_error.max() <= POSITION and found.rotation_error.max() <= ROTATION
        # no row jumps: at most half as far again as the path itself goes, and what the accuracy leaves open
        assert np.abs(np.diff(found.rows, axis=0)).max() <= 1.5 * np.abs(np.diff(wanted, axis=0)).max() + 0.03


def test_an_arm_with_five_joints_meets_the_position_and_nearly_the_rotation() -> None:
    arm, random = so101(), np.random.default_rng(2)
    for _ in range(30):
        q = random.uniform(0.6 * arm.low, 0.6 * arm.high)
        position, rotation = (part[0] for part in arm.forward(q))
        turn = 0.2  # about the axis that the arm lacks: sideways out of its plane
        out_of_plane = np.array([-math.sin(-q[0]), math.cos(-q[0]), 0.0])
        up = np.cross([math.cos(-q[0]), math.sin(-q[0]), 0.0], out_of_plane)
        k = np.array([[0, -up[2], up[1]], [up[2], 0, -up[0]], [-up[1], up[0], 0]])
        turned = (np.eye(3) + math.sin(turn) * k + (1 - math.cos(turn)) * k @ k) @ rotation
        found = arm.track(position[np.newaxis], turned[np.newaxis], q)
        assert found.position_error[0] <= POSITION
        assert found.rotation_error[0] <= turn + 1e-6


def test_forward_is_what_mujoco_says_of_the_whole_scene() -> None:
    world = SO101.make_world(make_spec())
    kinematics, random = so101(), np.random.default_rng(3)
    for q in random.uniform(-1, 1, (20, 5)):
        state = world.state
        state[:5] = q
        world.show(state)
        assert np.abs(kinematics.forward(q)[0][0] - world.tool).max() < 1e-12


def make_spec() -> Any:
    from wallx_edge.sim import WorldSpec

    return WorldSpec()


def table(values: dict[str, Any], folder: Path = Path("/")) -> Table:
    return Table(folder / "robot.toml", "kinematics", values)


def so101_model(**changes: Any) -> RobotModel:
    arm = {
        "side": "right",
        "joints": list(ARM),
        "gripper": "gripper",
        "gripper_values": [0.0, 0.08],
        "gripper_positions": [-0.95, 0.95],
    }
    values = {"arm": [arm | changes.pop("arm", {})], "keep_out": "margin" in changes} | changes
    return RobotModel.read(table(values), load_embodiment("so101"))


def layout(rotation: str, width: int) -> DofLayout:
    return DofLayout.from_config(
        {"follow_right_ee_cartesian_pos": 3, f"follow_right_{rotation}": width, "follow_right_gripper": 1}
    )


@pytest.mark.parametrize(("rotation", "width"), [("ee_rotation", 3), ("ee_rotation_6D", 6)])
def test_an_end_effector_checkpoint_drives_the_joints(rotation: str, width: int) -> None:
    embodiment, random = load_embodiment("so101"), np.random.default_rng(4)
    base = [0.1, -0.2, 0.05, 0.1, -0.2, 0.7]
    action_map = ActionMap(
        layout(rotation, width), layout(rotation, width), embodiment, so101_model(arm={"base": base})
    )
    arm = so101()
    for _ in range(10):
        wanted = np.concatenate([path_between(random, arm, 0.2), np.linspace(-0.5, 0.3, 32)[:, np.newaxis]], axis=1)
        states = np.stack([action_map.model_state(row) for row in wanted])
        assert np.allclose(states[:, -1], 0.08 * (wanted[:, 5] + 0.95) / 1.9)
        chunk = ActionChunk(states, 0.1, 0.0, layout(rotation, width))
        rows = action_map.joint_rows(chunk, wanted[0])
        again = np.stack([action_map.model_state(row) for row in rows])
        assert np.abs(again[:, :3] - states[:, :3]).max() <= 2 * POSITION
        assert np.abs(rows[:, 5] - wanted[:, 5]).max() < 1e-12
    with pytest.raises(ConfigError, match="from a seed"):
        action_map.joint_rows(chunk)


def test_the_published_layouts_drive_a_robot_with_two_arms(tmp_path: Path) -> None:
    path = urdf(tmp_path / "two.urdf", ("l", 6), ("r", 7))
    names = [
        *(f"l{i}" for i in range(6)),
        *(f"r{i}" for i in range(7)),
        "lg",
        "rg",
        "yaw",
        "nod",
        "lift",
        "x",
        "y",
        "turn",
    ]
    modes = dict.fromkeys(("x", "y", "turn"), JointMode.velocity)
    joints = [
        JointSpec(
            name=name,
            id=i + 1,
            mode=modes.get(name, JointMode.position),
            limits=JointLimits(
                min_position=-2.5, max_position=2.5, max_velocity=3.0, max_acceleration=20.0, max_jerk=400.0
            ),
            model_numbers=[],
            rest_position=0.0,
            gravity_loaded=False,
        )
        for i, name in enumerate(names)
    ]
    embodiment = Embodiment(name="two", motor_family="damiao", joints=joints)
    arms = [
        {
            "side": side,
            "joints": [n for n in names if n[0] == side[0] and n[1:].isdigit()],
            "tool": f"{side[0]}tool",
            "gripper": f"{side[0]}g",
        }
        for side in ("left", "right")
    ]
    seen = set()
    for case in CASES:
        config = ModelConfig.load(str(case))
        action, state = DofLayout.from_config(dict(config.dof)), DofLayout.from_config(dict(config.agent_pos))
        action = RelativeActions(action, state).layout
        action, state = (
            DofLayout.from_config(
                {s.name: min(s.width, 1) if "gripper" in s.name else s.width for s in one if s.name != "action_padding"}
            )
            for one in (action, state)
        )
        others = {
            "head_actions": ["yaw", "nod"],
            "head_rotation": ["yaw", "nod"],
            "height": ["lift"],
            "car_pose": ["x", "y", "turn"],
            "velocity_decomposed": ["x", "y", "turn"],
        }
        slots = {n: others[n] for one in (action, state) for n in one.names if n in others}
        moved = {joint for names_ in slots.values() for joint in names_}
        for arm in arms:
            if any(f"_{arm['side']}_" in name for name in action.names):
                moved |= {*arm["joints"], arm["gripper"]}
        values = {"model": str(path), "arm": arms, "slots": slots, "keep_out": False}
        if set(names) - moved:
            with pytest.raises(ConfigError, match=r"no action slot for the joint .* name it in kinematics\.hold"):
                ActionMap(action, state, embodiment, RobotModel.read(table(values, tmp_path), embodiment))
            values["hold"] = sorted(set(names) - moved)
        model = RobotModel.read(table(values, tmp_path), embodiment)
        action_map = ActionMap(action, state, embodiment, model)
        seen |= set(action.names) | set(state.names)
        random = np.random.default_rng(5)
        q = random.uniform(-0.7, 0.7, len(names))
        told = action_map.model_state(q)
        if [n.removeprefix("master_") for n in action.names] == [n.removeprefix("follow_") for n in state.names] or (
            action.names == state.names
        ):
            chunk = ActionChunk(np.repeat(told[np.newaxis], 5, axis=0), 0.05, 0.0, action)
            rows = action_map.joint_rows(chunk, q)
            assert np.abs(rows - q).max() < 2e-3
        with pytest.raises(ConfigError, match=r"not in kinematics\.slots"):
            ActionMap(
                DofLayout.from_config({s.name: s.width for s in action} | {"tail_pose": 2}), state, embodiment, model
            )
    assert {"follow_left_ee_cartesian_pos", "follow_right_gripper"} <= seen


def test_a_gripper_may_open_from_one_row_to_the_next() -> None:
    euler, home = layout("ee_rotation", 3), np.array([0.0, -0.6, 0.9, 0.7, 0.0, -0.9])
    action_map = ActionMap(euler, euler, load_embodiment("so101"), so101_model())
    rows = np.repeat(action_map.model_state(home)[np.newaxis], 8, axis=0)
    rows[4:, -1] = 0.08
    found = action_map.joint_rows(ActionChunk(rows, 0.04, 0.0, euler), home)
    assert np.allclose(found[:4, 5], -0.9) and np.allclose(found[4:, 5], 0.95)
    assert np.abs(found[:, :5] - home[:5]).max() < 1e-3


def test_what_is_out_of_reach_is_refused_and_says_by_how_much() -> None:
    embodiment = load_embodiment("so101")
    action_map = ActionMap(layout("ee_rotation", 3), layout("ee_rotation", 3), embodiment, so101_model())
    home = np.array([0.0, -0.6, 0.9, 0.7, 0.0, 0.0])
    rows = np.repeat(action_map.model_state(home)[np.newaxis], 8, axis=0)
    far = rows.copy()
    far[3:, 0] += 0.5
    with pytest.raises(RowsRefused, match=r"row 3 of follow_right_ee_cartesian_pos.* mm out of the right arm's reach"):
        action_map.joint_rows(ActionChunk(far, 0.1, 0.0, layout("ee_rotation", 3)), home)
    tilted = rows.copy()
    tilted[5:, 5] += 1.0
    with pytest.raises(RowsRefused, match=r"row 5 .* can only come within .* degrees"):
        action_map.joint_rows(ActionChunk(tilted, 0.1, 0.0, layout("ee_rotation", 3)), home)
    # the other side of the robot, one row later: nobody turns so fast
    jump = rows.copy()
    other = action_map.model_state(home * [1, 1, 1, 1, 1, 1] + [1.5, 0, 0, 0, 0, 0])
    jump[4:] = other
    with pytest.raises(RowsRefused, match=r"rows 3 and 4: shoulder_pan would have to turn at"):
        action_map.joint_rows(ActionChunk(jump, 0.1, 0.0, layout("ee_rotation", 3)), home)
    flat = layout("ee_rotation_6D", 6)
    six = np.concatenate([rows[:, :3], np.zeros((8, 6)), rows[:, 6:]], axis=1)
    with pytest.raises(RowsRefused, match="its first row has length"):
        ActionMap(flat, flat, embodiment, so101_model()).joint_rows(ActionChunk(six, 0.1, 0.0, flat), home)


def test_links_keep_out_of_the_table_and_of_each_other() -> None:
    embodiment = load_embodiment("so101")
    names = [joint.name for joint in embodiment.joints]
    joints = DofLayout.from_config(dict.fromkeys(names, 1))
    careful = ActionMap(joints, joints, embodiment, so101_model(table=0.0, margin=0.005))

    def rows(*pose: float) -> ActionChunk:
        begin, end = np.array([0.0, -0.6, 0.9, 0.7, 0.0, 0.0]), np.array(pose)
        return ActionChunk(np.linspace(begin, end, 20), 0.1, 0.0, joints)

    assert careful.joint_rows(rows(0.5, 0.1, 0.5, 0.8, 0.0, 0.0)).shape == (20, 6)
    with pytest.raises(RowsRefused, match=r"row \d+: (wrist|gripper|forearm) would come to -?\d.* mm above the table"):
        careful.joint_rows(rows(0.0, 1.6, 0.4, 0.0, 0.0, 0.0))
    with pytest.raises(RowsRefused, match=r"row \d+: .* and .* would come within"):
        careful.joint_rows(rows(0.0, -1.65, 1.6, 1.55, 0.0, 0.0))
    free = ActionMap(joints, joints, embodiment)
    assert free.joint_rows(rows(0.0, 1.6, 0.4, 0.0, 0.0, 0.0)).shape == (20, 6)


def test_the_distance_of_segments_is_that_of_their_nearest_points() -> None:
    random, part = np.random.default_rng(6), np.linspace(-1, 1, 201)
    for kind in range(200):
        p, q, u, v = random.uniform(-1, 1, (4, 3))
        if kind % 5 == 0:
            v = u * random.uniform(-2, 2)  # parallel
        if kind % 7 == 0:
            u = np.zeros(3)
        if kind % 11 == 0:
            v = np.zeros(3)
        a, b = p + part[:, np.newaxis] * u, q + part[:, np.newaxis] * v
        sampled = np.linalg.norm(a[:, np.newaxis] - b[np.newaxis], axis=2).min()
        assert sampled - 0.03 <= _distance(p, u, q, v) <= sampled + 1e-9


class _FarThenNear:
    """Asks for what is out of reach twice, then for where the arm stands."""

    def __init__(self) -> None:
        self.config = type("S", (), {"cameras": (), "horizon": 16, "step": 0.05})()
        self.action_layout = self.state_layout = layout("ee_rotation", 3)
        self.statistics = self.statistics_source = "none"
        self.queue = self.context = None
        self.asked = 0

    def act(self, observation: Any, noise: Any = None, *, follow: Any = None, deadline: Any = None) -> ActionChunk:
        self.asked += 1
        rows = np.repeat(observation.state[np.newaxis], 16, axis=0)
        if self.asked in (2, 3):
            rows[:, 0] += 2.0
        return ActionChunk(rows, 0.05, observation.captured_at, self.action_layout)

    def cancel(self) -> None:
        pass


def test_a_session_refuses_such_chunks_and_goes_on() -> None:
    arm = {"side": "right", "joints": list(ARM), "gripper": "gripper"}
    world = SO101.make_world(make_spec())
    with SteppedRobot(world=world, kinematics=table({"arm": [arm], "keep_out": False})) as robot:
        policy = _FarThenNear()
        session = Session(
            policy, robot, robot.cameras(), "stay", config=SessionConfig(frozen_after=0), pace=StepPace(robot, [0.1])
        )
        assert any(row.part == "arm" for row in session.binding.rows)
        said: list[str] = []
        session.subscribe(lambda moment: said.append(f"{moment.decision.kind}: {moment.decision.why}"))
        before = world.arm_pose
        assert session.run(2.0)
        assert session.status().refused == 2 and session.status().chunks >= 2
        assert sum("out of the right arm's reach" in text for text in said) == 2
        assert np.abs(world.arm_pose - before).max() < 0.3


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": "none.urdf"}, "cannot be read"),
        ({"model": "bad.urdf"}, "is refused"),
        ({"model": "loop.xml"}, "loops are not followed"),
        ({"model": "negative.urdf"}, r"a mass is '-0\.2', expected 0 kg or more"),
        ({"model": "nan.xml"}, "a mass is 'nan'"),
        ({"model": "torn.xml"}, "is refused: "),
        ({"wings": 1}, "wings"),
        ({"table": "oak"}, "table is 'oak'"),
        ({"margin": -1.0}, "margin is -1"),
        ({"slots": {"height": "lift"}}, "expected a list of joint names"),
        ({"arm": 3}, r"expected \[\[kinematics.arm\]\] tables"),
        ({"arm": {"joints": []}}, "expected a list of joint names"),
        ({"arm": {"joints": [*ARM[:-1], "tail"]}}, "name tail; so101 has"),
        ({"arm": {"joints": [ARM[1], ARM[0], *ARM[2:]]}}, "from the base on: shoulder_pan, shoulder_lift"),
        ({"arm": {"joints": [*ARM, "gripper"]}}, "joint gripper does not move tool"),
        ({"arm": {"joints": [*ARM[:2], *ARM[3:]]}}, "joint elbow_flex moves tool too"),
        ({"arm": {"tool": "hand"}}, "no site or body hand"),
        ({"arm": {"gripper_values": [1.0, 1.0]}}, "closed and open must differ"),
        ({"arm": {"base": [0.0]}}, "expected 6 numbers"),
        ({"arm": {"max_tilt": 9.0}}, "max_tilt 9"),
    ],
)
def test_bad_kinematics_are_one_message(changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.urdf").write_text(urdf(tmp_path / "a.urdf", ("j", 6)).read_text().replace("0.2", "x", 1))
    chain = MODEL.read_text(encoding="utf-8")
    (tmp_path / "negative.urdf").write_text((tmp_path / "a.urdf").read_text().replace('"0.2"', '"-0.2"', 1))
    (tmp_path / "nan.xml").write_text(chain.replace('mass="0.045"', 'mass="nan"', 1))
    (tmp_path / "torn.xml").write_text(chain[:2000])
    loop = '<equality><connect body1="jaw" body2="base" anchor="0 0 0"/></equality></mujoco>'
    (tmp_path / "loop.xml").write_text(chain.replace("</mujoco>", loop))
    arm: Any = {"side": "right", "joints": list(ARM)}
    if isinstance(changes.get("arm"), dict):
        arm |= changes["arm"]
        changes = {}
    elif "arm" in changes:
        arm = None
    values = {"arm": [arm]} | changes
    with pytest.raises(ConfigError, match=text) as caught:
        RobotModel.read(table(values, tmp_path), load_embodiment("so101"))
    assert str(tmp_path) in str(caught.value) or "so101" in str(caught.value)


def test_slots_without_their_counterpart_are_refused() -> None:
    embodiment, good = load_embodiment("so101"), layout("ee_rotation", 3)
    lone = DofLayout.from_config({"follow_right_ee_cartesian_pos": 3, "follow_right_gripper": 1})
    with pytest.raises(ConfigError, match="not the right arm's rotation"):
        ActionMap(lone, good, embodiment, so101_model())
    with pytest.raises(ConfigError, match=r"needs a joint: kinematics\.arm\.gripper"):
        values = {"arm": [{"side": "right", "joints": list(ARM)}]}
        ActionMap(good, good, embodiment, RobotModel.read(table(values), embodiment))
    with pytest.raises(ConfigError, match=r"slots\.height names 2 joints"):
        both = DofLayout.from_config({s.name: s.width for s in good} | {"height": 1})
        ActionMap(both, both, embodiment, so101_model(slots={"height": ["gripper", "elbow_flex"]}))
    with pytest.raises(ConfigError, match="two of the checkpoint's action slots are for the joint gripper"):
        twice = DofLayout.from_config({s.name: s.width for s in good} | {"height": 1})
        ActionMap(twice, good, embodiment, so101_model(slots={"height": ["gripper"]}))


def test_joint_checkpoints_need_no_kinematics_library(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mujoco", None)
    joints = DofLayout.from_config({joint.name: 1 for joint in load_embodiment("so101").joints})
    chunk = ActionChunk(np.random.default_rng(7).uniform(-1, 1, (32, 6)), 0.05, 0.0, joints)
    assert np.array_equal(ActionMap(joints, joints, load_embodiment("so101")).joint_rows(chunk), chunk.rows)
    with pytest.raises(ConfigError, match=r"wallx-edge\[kinematics\]"):
        load_model(MODEL)


def test_every_pair_of_rows_keeps_the_joints_speed_on_a_continuous_path() -> None:
    """Whatever smooth path of the tool is asked for, each row is within a joint's speed, or the chunk is refused."""
    embodiment, random = load_embodiment("so101"), np.random.default_rng(8)
    action_map = ActionMap(
        layout("ee_rotation", 3), layout("ee_rotation", 3), embodiment, so101_model(arm={"max_tilt": 3.2})
    )
    limits = np.array([joint.limits.max_velocity for joint in embodiment.joints])
    played = refused = 0
    for _ in range(60):
        home = np.append(random.uniform(0.7 * so101_low(), 0.7 * so101_high()), 0.0)
        rows = np.repeat(action_map.model_state(home)[np.newaxis], 32, axis=0)
        rows[:, :3] += np.linspace(0, 1, 32)[:, np.newaxis] * random.uniform(-0.25, 0.25, 3)
        try:
            found = action_map.joint_rows(ActionChunk(rows, 0.04, 0.0, layout("ee_rotation", 3)), home)
        except RowsRefused:
            refused += 1
            continue
        played += 1
        for before, after in pairwise(found):
            assert (np.abs(after - before) <= 1.03 * limits * 0.04).all()
        assert np.abs(found[0] - home).max() < 0.01
    assert played > 10 and refused > 10


def so101_low() -> np.ndarray:
    return np.array([joint.limits.min_position for joint in load_embodiment("so101").joints[:5]])


def so101_high() -> np.ndarray:
    return np.array([joint.limits.max_position for joint in load_embodiment("so101").joints[:5]])


def test_rotations_are_the_geometrys() -> None:
    # golden geometry is pinned in test_geometry; here only that the slots go through it
    embodiment = load_embodiment("so101")
    pose = np.array([0.3, -0.5, 0.8, 0.4, -0.6, 0.0])
    positions, rotations = so101().forward(pose[:5])
    for ending, width, of in (("ee_rotation", 3, euler_from_matrix), ("ee_rotation_6D", 6, rot6d_from_matrix)):
        state = ActionMap(layout(ending, width), layout(ending, width), embodiment, so101_model()).model_state(pose)
        assert np.array_equal(state[:3], positions[0])
        assert np.array_equal(state[3 : 3 + width], of(rotations)[0])
