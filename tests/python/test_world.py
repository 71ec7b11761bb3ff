"""Worlds: what is drawn is where it is, things obey, bad models are refused, and the same seed gives the same bits."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wallx_edge._emulator import ArmEmulator, draw_picture
from wallx_edge.embodiment import share_path
from wallx_edge.errors import ConfigError
from wallx_edge.session.lockstep import SteppedRobot
from wallx_edge.sim import CameraSpec, Thing, World, WorldSpec
from wallx_edge.sim.koch import KOCH
from wallx_edge.sim.so101 import SO101

RED, BLUE = (0.9, 0.1, 0.1), (0.1, 0.1, 0.9)
ABOVE = CameraSpec("above", (0.22, 0.0, 0.6), (0.22, 0.0, 0.0), math.radians(40), 120, 120)
ARM = share_path() / "drivers" / "embodiments" / "so101" / "so101.xml"
SPEC = WorldSpec(
    (
        Thing("cube", "box", (0.0125,) * 3, RED, (0.22, 0.05), 0.3),
        Thing("plate", "plate", (0.04,), BLUE, (0.22, -0.08)),
    ),
    (ABOVE, CameraSpec("wrist_view", body_camera="wrist")),
    {"shoulder_lift": -1.2, "elbow_flex": 1.2, "wrist_flex": 0.4},
)


def one(kind: int, size: tuple[float, float, float], position: Any = (0, 0, -1.0), **changes: Any) -> Any:
    values: dict[str, Any] = {
        "kinds": [kind],
        "sizes": [size],
        "positions": [position],
        "rotations": [np.eye(3).ravel()],
        "colours": [(1, 0, 0, 1)],
        "patterns": [0],
        "eye": (0, 0, 0),
        "axes": np.eye(3).ravel(),
        "fovy": math.radians(60),
        "width": 64,
        "height": 64,
    }
    return draw_picture(**{**values, **changes})


def is_red(picture: np.ndarray) -> np.ndarray:
    found: np.ndarray = (picture[..., 0] > 60) & (picture[..., 1] < 90) & (picture[..., 2] < 90)
    return found


@pytest.mark.parametrize(
    ("kind", "size", "half_width", "half_height"),
    [
        (2, (0.1, 0, 0), 0.1, 0.1),  # sphere
        (3, (0.05, 0.1, 0), 0.05, 0.05),  # capsule, seen along its axis
        (4, (0.2, 0.1, 0.1), 0.2, 0.1),  # ellipsoid
        (5, (0.1, 0.02, 0), 0.1, 0.1),  # cylinder, from above
        (6, (0.2, 0.1, 0.02), 0.2, 0.1),  # box
    ],
)
def test_a_shape_covers_the_pixels_that_it_should(
    kind: int, size: tuple[float, float, float], half_width: float, half_height: float
) -> None:
    picture = one(kind, size)
    seen = is_red(picture)
    # a camera at the origin that looks down on something 1 m below; its nearest face is what counts
    depth = 1.0 - {2: 0.0, 3: 0.1, 4: 0.0, 5: 0.02, 6: 0.02}[kind]
    pixel = 2 * math.tan(math.radians(30)) / 64 * depth
    columns, rows = np.flatnonzero(seen.any(axis=0)), np.flatnonzero(seen.any(axis=1))
    assert abs(len(columns) - 2 * half_width / pixel) <= 2.5
    assert abs(len(rows) - 2 * half_height / pixel) <= 2.5
    assert abs(columns.mean() - 31.5) < 1 and abs(rows.mean() - 31.5) < 1
    assert not is_red(one(kind, size, (0, 0, 1.0))).any(), "behind the camera"
    assert np.array_equal(picture, one(kind, size))


def test_what_is_nearer_hides_what_is_behind_and_bounds_cut_nothing_off() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        kind = int(random.choice([2, 3, 4, 5, 6]))
        size = tuple(random.uniform(0.02, 0.25, 3))
        rotation = np.linalg.qr(random.standard_normal((3, 3)))[0].ravel()
        position = (*random.uniform(-0.6, 0.6, 2), random.uniform(-1.2, -0.2))
        narrow = one(kind, size, position, rotations=[rotation])
        # beside an endless plane far below, which has no bounds, nothing of the shape may change
        both = one(
            0,
            (0, 0, 1),
            kinds=[kind, 0],
            sizes=[size, (0, 0, 1)],
            positions=[position, (0, 0, -50.0)],
            rotations=[rotation, np.eye(3).ravel()],
            colours=[(1, 0, 0, 1), (0, 1, 0, 1)],
            patterns=[0, 0],
        )
        assert np.array_equal(is_red(narrow), is_red(both))
        # a wider picture of the same scene shows in its middle what the narrow one shows
        wide_fovy = 2 * math.atan(3 * math.tan(math.radians(30)))
        wide = one(kind, size, position, rotations=[rotation], width=192, height=192, fovy=wide_fovy)
        assert np.array_equal(is_red(wide)[64:128, 64:128], is_red(narrow))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kinds": [7]}, "shape 0 is of kind 7"),
        ({"width": 0}, "a picture of 0 x 64"),
        ({"samples": 9}, "9 samples"),
        ({"fovy": 4.0}, "fovy is 4"),
        ({"colours": [(1, 1, 1)]}, "colours must have the shape"),
        ({"eye": (0, 0)}, "a camera with 3 and 9 numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        one(6, (0.1, 0.1, 0.1), **changes)


def test_the_cameras_show_where_things_are() -> None:
    world = SO101.make_world(SPEC)
    picture = world.picture(ABOVE)
    rows, columns = np.nonzero(is_red(picture))
    # straight down: up in the picture is away from the arm, left is left
    pixel = 2 * math.tan(math.radians(20)) / 120 * (0.6 - 0.025)
    assert abs((60 - columns.mean()) * pixel - 0.05) < 0.004
    assert abs((60 - rows.mean()) * pixel) < 0.004
    assert world.picture(SPEC.cameras[1]).shape == (224, 224, 3)
    moved = replace(SPEC, things=(replace(SPEC.things[0], position=(0.26, 0.05)), SPEC.things[1]))
    assert np.nonzero(is_red(SO101.make_world(moved).picture(ABOVE)))[0].mean() < rows.mean() - 5


def test_a_copy_shows_what_the_original_does() -> None:
    world, copy = SO101.make_world(SPEC), SO101.make_world(SPEC)
    arm = SO101.make_arm(world=world)
    arm.advance(400_000_000)
    at_ns, state = arm.world_state()
    assert at_ns == 400_000_000 and np.array_equal(state, world.state)
    copy.show(state)
    assert np.abs(copy.arm_pose - SPEC_POSE).max() > 0.01, "an arm without torque sags"
    assert np.array_equal(copy.arm_pose, world.arm_pose)
    positions = [arm.positions[i] for i in range(1, 7)]
    middles = [(u["range_min"] + u["range_max"]) // 2 for u in SO101.default_calibration().values()]
    assert np.abs(np.array(positions) - middles - world.arm_pose * 4096 / (2 * math.pi)).max() <= 1.0


SPEC_POSE = np.array([0, -1.2, 1.2, 0.4, 0, 0])


def test_an_arm_keeps_its_world_alive() -> None:
    world = SO101.make_world(SPEC)
    watched = weakref.ref(world)
    arm = SO101.make_arm(world=world)
    del world
    gc.collect()
    assert watched() is not None
    arm.advance(50_000_000)
    del arm
    gc.collect()
    assert watched() is None


def test_things_fall_rest_and_are_named() -> None:
    world = SO101.make_world(SPEC)
    arm = SO101.make_arm(world=world)
    arm.advance(1_000_000_000)
    position, yaw = world.pose("cube")
    assert np.abs(position - [0.22, 0.05, 0.0125]).max() < 0.001 and abs(yaw - 0.3) < 0.01
    assert world.is_upright("cube")
    with pytest.raises(ConfigError, match="no thing 'cup' on the table; there are cube, plate"):
        world.pose("cup")


def test_a_blocked_joint_stands_and_a_hand_moves_the_world() -> None:
    world = SO101.make_world(SPEC)
    arm = SO101.make_arm(world=world)
    arm.set_fault("block", 2)
    before = world.arm_pose
    arm.advance(300_000_000)
    assert world.arm_pose[1] == before[1]
    assert world.arm_pose[2] != before[2]
    arm.clear_fault("block", 2)
    arm.hand(1, 0.6)
    arm.advance(2_000_000_000)
    assert world.arm_pose[0] > 0.2


def test_two_stepped_runs_are_bit_equal() -> None:
    def run() -> tuple[list[float], bytes]:
        world = SO101.make_world(SPEC)
        with SteppedRobot(world=world) as robot, robot.enabled():
            rows = np.repeat(world.arm_pose[np.newaxis], 20, axis=0)
            rows[:, 0] += np.linspace(0, 0.4, 20)
            robot.play(rows, robot.now, 0.05, robot.loop.generation)
            for _ in range(250):
                robot.tick()
            pictures = b"".join(camera.read().image.tobytes() for camera in robot.cameras().values())
        return world.state.tolist(), pictures

    first = run()
    assert abs(first[0][0] - 0.4) < 0.02
    assert run() == first


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (("<mujoco", "<mujoc"), "cannot read the arm's model"),
        (('name="elbow_flex"', 'name="elbow"'), "has no joint elbow_flex"),
        (('name="tool"', 'name="tip"'), "has no site tool"),
        (('mass="0.045"', 'mass="-1"'), "make no model"),
        (("</contact>", '</contact><equality><joint joint1="nobody"/></equality>'), "make no model"),
    ],
)
def test_a_bad_model_is_one_message(change: tuple[str, str], text: str, tmp_path: Path) -> None:
    path = tmp_path / "arm.xml"
    path.write_text(ARM.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    dynamics = dict.fromkeys(SO101.joint_names, (0.028, 0.15, 0.05))
    with pytest.raises(ConfigError, match=text):
        World(SPEC, path, SO101.joint_names, dynamics)


def test_what_has_no_place_in_a_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="koch has no model of its geometry"):
        KOCH.make_world(SPEC)
    with pytest.raises(ConfigError, match="names a joint wing"):
        SO101.make_world(replace(SPEC, pose={"wing": 0.0}))
    plant = SO101.make_world(SPEC).plant(dict.fromkeys(SO101.joint_names, 2048.0))
    with pytest.raises(ConfigError, match="feetech_sts servos only"):
        ArmEmulator(KOCH.servo_setups(), family="dynamixel_x", world=plant)
    with pytest.raises(ConfigError, match="the world has 6 joints for 2 servos"):
        ArmEmulator(SO101.servo_setups()[:2], world=plant)
    with pytest.raises(ConfigError, match="stands in no world"):
        SO101.make_arm().world_state()


def test_a_spec_survives_its_file_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "world.json"
    SPEC.write(path)
    assert WorldSpec.read(path) == SPEC
    text = path.read_text(encoding="utf-8")
    for old, new in (
        ("{", "["),
        ('"cube"', "7, 8"),
        ('"plate",\n   "size": [\n    0.04', '"plate",\n   "size": [\n    -1'),
    ):
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(ConfigError, match="is no world"):
            WorldSpec.read(path)
