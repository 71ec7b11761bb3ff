"""RobotModel: a robot's geometry for its checkpoint: arms with tools, and what its links must keep out of."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import Embodiment
from wallx_edge.embodiment import share_path
from wallx_edge.errors import ConfigError
from wallx_edge.geometry import matrix_from_euler
from wallx_edge.kinematics import Kinematics, load_model
from wallx_edge.tables import Table

__all__ = ["ArmModel", "KeepOut", "RobotModel"]

Floats = NDArray[np.float64]
SHELL = "_shell"  # ending of the geoms that are kept apart


@dataclass(frozen=True, eq=False)
class ArmModel:
    """One arm and how the checkpoint speaks of it.

    Attributes:
        side: ``left``, ``right``, ...: as the checkpoint's slots call it.
        kinematics: of its joints and tool.
        position: of the model's world in the checkpoint's frame [m]   (3)
        rotation: likewise   (3, 3)
        gripper: joint of the gripper; empty: it has none.
        gripper_values: what the checkpoint says for closed and for open.
        gripper_positions: where the joint is then [rad].
        max_distance: from a pose that is asked for to the one that is played [m].
        max_tilt: likewise [rad].
    """

    side: str
    kinematics: Kinematics
    position: Floats
    rotation: Floats
    gripper: str
    gripper_values: tuple[float, float]
    gripper_positions: tuple[float, float]
    max_distance: float
    max_tilt: float

    def to_model(self, positions: Floats, rotations: Floats) -> tuple[Floats, Floats]:
        """Poses of the checkpoint's frame in the model's world   (n, 3), (n, 3, 3)"""
        return (positions - self.position) @ self.rotation, self.rotation.T @ rotations

    def from_model(self, positions: Floats, rotations: Floats) -> tuple[Floats, Floats]:
        """Poses of the model's world in the checkpoint's frame   (n, 3), (n, 3, 3)"""
        return positions @ self.rotation.T + self.position, self.rotation @ rotations


class KeepOut:
    """A table plane and the robot's own links, as capsules: geoms of its model whose names end with ``_shell``."""

    def __init__(self, model: Any, table: float | None, margin: float, where: str) -> None:
        """Finds the capsules.

        Args:
            model: of :func:`wallx_edge.kinematics.load_model`.
            table: height of the plane below which nothing may come [m]; ``None``: there is none.
            margin: that stays free [m].
            where: the model's file, for messages.

        Raises:
            ConfigError: a shell that is neither capsule nor sphere.
        """
        import mujoco

        self._mujoco, self._model, self._data = mujoco, model, mujoco.MjData(model)
        self._table, self._margin = table, margin
        names = [model.geom(i).name for i in range(model.ngeom)]
        self._geoms = np.array([i for i, name in enumerate(names) if name.endswith(SHELL)], np.intp)
        self._names = [names[i].removesuffix(SHELL) for i in self._geoms]
        capsule, sphere = int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_SPHERE)
        for index, name in zip(self._geoms, self._names, strict=True):
            if int(model.geom_type[index]) not in (capsule, sphere):
                raise ConfigError(f"{where}: geom {name}{SHELL} is no capsule and no sphere")
        is_long = model.geom_type[self._geoms] == capsule
        self._radius = model.geom_size[self._geoms, 0].astype(np.float64)
        self._half = np.where(is_long, model.geom_size[self._geoms, 1], 0.0)
        bodies = model.geom_bodyid[self._geoms]
        excluded = {int(signature) for signature in model.exclude_signature}
        pairs = []
        for i in range(len(self._geoms)):
            for j in range(i + 1, len(self._geoms)):
                a, b = sorted((int(bodies[i]), int(bodies[j])))
                near = a == b or model.body_parentid[b] == a or model.body_parentid[a] == b
                if not near and (a << 16) + b not in excluded:
                    pairs.append((i, j))
        self._pairs = np.array(pairs, np.intp).reshape(-1, 2)
        # what stands on the table anyway, and never moves, is not asked
        self._moves = np.array([_moves(model, int(body)) for body in bodies], bool)

    def trouble(self, rows: Floats, qpos: Sequence[int]) -> str:
        """The first row in which something comes too near, in words; empty: none does.

        Args:
            rows: joint rows [rad]   (n, joints)
            qpos: index in the model's positions of each of their columns; below 0: it is not in the model.
        """
        centre, axis = np.empty((len(rows), len(self._geoms), 3)), np.empty((len(rows), len(self._geoms), 3))
        at = np.array(qpos)
        inside = np.flatnonzero(at >= 0)
        for i, row in enumerate(rows):
            self._data.qpos[at[inside]] = row[inside]
            self._mujoco.mj_kinematics(self._model, self._data)
            centre[i] = self._data.geom_xpos[self._geoms]
            axis[i] = self._data.geom_xmat[self._geoms].reshape(-1, 3, 3)[:, :, 2]
        ends = self._half[:, np.newaxis] * axis
        if self._table is not None and self._moves.any():
            low = centre[..., 2] - np.abs(ends[..., 2]) - self._radius - self._table
            low[:, ~self._moves] = np.inf
            found = np.argwhere(low < self._margin)
            if found.size:
                row, part = found[0]
                return (
                    f"row {row}: {self._names[part]} would come to {low[row, part] * 1e3:.1f} mm above the table, at "
                    f"least {self._margin * 1e3:g} mm (kinematics.margin) must stay free"
                )
        if len(self._pairs):
            a, b = self._pairs.T
            gap = _distance(centre[:, a], ends[:, a], centre[:, b], ends[:, b]) - self._radius[a] - self._radius[b]
            found = np.argwhere(gap < self._margin)
            if found.size:
                row, pair = found[0]
                one, other = self._pairs[pair]
                return (
                    f"row {row}: {self._names[one]} and {self._names[other]} would come within "
                    f"{gap[row, pair] * 1e3:.1f} mm of each other, at least {self._margin * 1e3:g} mm "
                    "(kinematics.margin) must stay free"
                )
        return ""


def _moves(model: Any, body: int) -> bool:
    while body:
        if model.body_dofnum[body]:
            return True
        body = int(model.body_parentid[body])
    return False


def _distance(p: Floats, u: Floats, q: Floats, v: Floats) -> Floats:
    """Between segments p +- u and q +- v   (..., 3). Source: Ericson, Real-Time Collision Detection, 5.1.9."""
    r = p - q
    a, e, b = np.sum(u * u, -1), np.sum(v * v, -1), np.sum(u * v, -1)
    c, f = np.sum(u * r, -1), np.sum(v * r, -1)
    tiny = 1e-18
    denominator = a * e - b * b
    s = np.where(denominator > tiny, (b * f - c * e) / np.where(denominator > tiny, denominator, 1), 0.0)
    s = np.clip(np.where(a > tiny, s, 0.0), -1, 1)
    t = np.where(e > tiny, (b * s + f) / np.where(e > tiny, e, 1), 0.0)
    t = np.clip(t, -1, 1)
    s = np.clip(np.where(a > tiny, (b * t - c) / np.where(a > tiny, a, 1), 0.0), -1, 1)
    gap: Floats = np.linalg.norm(r + s[..., np.newaxis] * u - t[..., np.newaxis] * v, axis=-1)
    return gap


@dataclass(frozen=True, eq=False)
class RobotModel:
    """What ``[kinematics]`` of a ROBOT.toml says.

    Attributes:
        arms: whose tool poses the checkpoint speaks of.
        slots: slot -> joints that are its columns.
        hold: joints that the checkpoint does not speak of: they stay where they are.
        keep_out: of table and links; ``None``: nothing is kept out of.
        positions: joint -> index in the model's positions.
    """

    arms: tuple[ArmModel, ...]
    slots: Mapping[str, tuple[str, ...]]
    hold: tuple[str, ...]
    keep_out: KeepOut | None
    positions: Mapping[str, int]

    def trouble(self, rows: Floats, names: Sequence[str]) -> str:
        """The first row that comes too near to something, in words   (n, joints)"""
        if self.keep_out is None:
            return ""
        return self.keep_out.trouble(rows, [self.positions.get(name, -1) for name in names])

    @classmethod
    def read(cls, table: Table, embodiment: Embodiment) -> RobotModel:
        """Reads ``[kinematics]``.

        ::

            [kinematics]
            model = "my_arm.urdf"       # or MJCF; the embodiment's own by default
            keep_out = true             # whether rows that bring links near to each other or to the table are refused
            table = 0.0                 # height below which no link may come [m]; false: there is no table
            hold = ["head_yaw"]         # joints that the checkpoint does not speak of
            margin = 0.005              # that stays free around links and above the table [m]

            [[kinematics.arm]]
            side = "right"              # follow_right_ee_cartesian_pos, ...
            joints = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll"]
            tool = "tool"               # site or body of the model
            gripper = "gripper"         # joint of the robot
            gripper_values = [0.0, 1.0]         # what the checkpoint says: closed, open
            gripper_positions = [-0.95, 0.95]   # where the joint is then [rad]
            base = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]  # of the model in the checkpoint's frame: x y z [m], then rpy [rad]
            max_distance = 0.0001       # from the pose that is asked for [m]
            max_tilt = 0.35             # an arm of five joints leaves some of a rotation [rad]

            [kinematics.slots]
            head_actions = ["head_yaw", "head_pitch"]

        Args:
            table: of the file.
            embodiment: the robot.

        Raises:
            ConfigError: names file, table, key, value and bound.
        """
        table.check_keys((), ("model", "keep_out", "table", "margin", "hold", "arm", "slots"))
        if "model" in table.values:
            path = table.file.parent / table.text("model")
        else:
            path = share_path() / "drivers" / "embodiments" / embodiment.name / f"{embodiment.name}.xml"
            if not path.is_file():
                raise table.fail("model", f"is missing: {embodiment.name} has no model of its own; name a URDF or MJCF")
        model = load_model(path)
        names = [model.joint(i).name for i in range(model.njnt)]
        plane: float | None = 0.0
        if table.values.get("table") is False:
            plane = None
        elif "table" in table.values:
            plane = table.number("table", 0.0)
        margin = table.number("margin", 0.005)
        if not 0 <= margin <= 1:
            raise table.fail("margin", f"is {margin:g} m, must be 0 to 1 m")
        slots = table.table("slots")
        arms = tuple(_arm(one, model, path, embodiment) for one in _tables(table, "arm"))
        sides = [arm.side for arm in arms]
        if len(set(sides)) != len(sides):
            raise table.fail("arm", f"has one side twice: {', '.join(sides)}")
        return cls(
            arms=arms,
            slots={name: _words(slots, name) for name in slots.values},
            hold=_words(table, "hold") if "hold" in table.values else (),
            keep_out=KeepOut(model, plane, margin, str(path)) if table.flag("keep_out", True) else None,
            positions={name: int(model.jnt_qposadr[i]) for i, name in enumerate(names) if name},
        )


def _tables(table: Table, key: str) -> list[Table]:
    found = table.values.get(key, [])
    if not isinstance(found, list) or not all(isinstance(one, Mapping) for one in found):
        raise table.fail(key, f"is {found!r}, expected [[kinematics.{key}]] tables")
    return [Table(table.file, f"kinematics.{key}[{i}]", one) for i, one in enumerate(found)]


def _words(table: Table, key: str) -> tuple[str, ...]:
    found = table.values.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(word, str) and word for word in found):
        raise table.fail(key, f"is {found!r}, expected a list of joint names")
    return tuple(found)


def _floats(table: Table, key: str, number: int, default: Sequence[float]) -> tuple[float, ...]:
    found = table.values.get(key, list(default))
    is_good = isinstance(found, list) and len(found) == number
    if not is_good or not all(
        isinstance(v, (int, float)) and not isinstance(v, bool) and np.isfinite(v) for v in found
    ):
        raise table.fail(key, f"is {found!r}, expected {number} numbers")
    return tuple(float(v) for v in found)


def _arm(table: Table, model: Any, path: Path, embodiment: Embodiment) -> ArmModel:
    table.check_keys(
        ("side", "joints"),
        ("tool", "gripper", "gripper_values", "gripper_positions", "base", "max_distance", "max_tilt"),
    )
    by_name = {joint.name: joint for joint in embodiment.joints}
    joints = _words(table, "joints")
    gripper = table.text("gripper") if "gripper" in table.values else ""
    for name in (*joints, *([gripper] if gripper else [])):
        if name not in by_name:
            raise table.fail("joints", f"name {name}; {embodiment.name} has {', '.join(by_name)}")
    limits = [by_name[name].limits for name in joints]
    kinematics = Kinematics(
        model,
        joints,
        table.text("tool") if "tool" in table.values else "tool",
        [limit.min_position for limit in limits],
        [limit.max_position for limit in limits],
        str(path),
    )
    span = (0.0, 1.0)
    if gripper:
        span = by_name[gripper].limits.min_position, by_name[gripper].limits.max_position
    closed, opened = _floats(table, "gripper_values", 2, (0.0, 1.0))
    low, high = _floats(table, "gripper_positions", 2, span)
    if closed == opened or low == high:
        raise table.fail("gripper_values", "and gripper_positions: closed and open must differ")
    base = np.array(_floats(table, "base", 6, (0.0,) * 6))
    distance, tilt = table.number("max_distance", 1e-4), table.number("max_tilt", 0.35)
    if not 0 <= distance <= 1 or not 0 <= tilt <= 3.2:
        raise table.fail("max_distance", f"is {distance:g} m and max_tilt {tilt:g} rad; expected 0..1 m and 0..3.2 rad")
    return ArmModel(
        side=table.text("side"),
        kinematics=kinematics,
        position=base[:3],
        rotation=matrix_from_euler(base[3:]),
        gripper=gripper,
        gripper_values=(closed, opened),
        gripper_positions=(low, high),
        max_distance=distance,
        max_tilt=tilt,
    )
