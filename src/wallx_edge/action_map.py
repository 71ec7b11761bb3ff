"""ActionMap: a model's DofLayout <-> a robot's joints: by the joints' names, or through the arms' kinematics."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import Embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.geometry import ROTATIONS
from wallx_edge.kinematics import POSITION, ROTATION
from wallx_edge.robot_model import ArmModel, RobotModel
from wallx_edge.types import ActionChunk, DofLayout, DofSlot

__all__ = ["ActionMap", "RowsRefused"]

Floats = NDArray[np.float64]

_POSITION, _GRIPPER, _JOINTS = "_ee_cartesian_pos", "_gripper", "_arm_joint_pos"
_PREFIXES = ("follow_", "master_")
SPARE = 1.02  # a row's step may be this much of what the joint's velocity limit allows


class RowsRefused(ConfigError):
    """The rows of one chunk cannot be played; the next ones may. Nothing has moved."""


class _Part(Protocol):
    """Some of a layout's columns and some of the robot's joints."""

    def to_joints(self, rows: Floats, joints: Floats, seed: Floats) -> None:
        """Fills its joints of ``joints`` (n, joints) from ``rows`` (n, dof); may refuse them."""

    def to_state(self, positions: Floats, state: Floats) -> None:
        """Fills its columns of ``state`` (state_dim,) from the joints (joints,)."""


@dataclass(frozen=True)
class _Columns:
    """Columns that are joints, one by one: value = scale * joint + offset."""

    columns: NDArray[np.intp]
    joints: NDArray[np.intp]
    scale: float = 1.0
    offset: float = 0.0

    def to_joints(self, rows: Floats, joints: Floats, seed: Floats) -> None:
        joints[:, self.joints] = (rows[:, self.columns] - self.offset) / self.scale

    def to_state(self, positions: Floats, state: Floats) -> None:
        state[self.columns] = self.scale * positions[self.joints] + self.offset


@dataclass(frozen=True)
class _Pose:
    """Columns that are an arm's tool pose."""

    arm: ArmModel
    position: slice
    rotation: slice
    to_matrix: Callable[[Floats], Floats]
    from_matrix: Callable[[Floats], Floats]
    joints: NDArray[np.intp]
    names: str

    def to_joints(self, rows: Floats, joints: Floats, seed: Floats) -> None:
        try:
            matrices = self.to_matrix(rows[:, self.rotation])
        except ConfigError as error:
            raise RowsRefused(f"slot {self.names}: {error}") from error
        positions, rotations = self.arm.to_model(rows[:, self.position], matrices)
        tracked = self.arm.kinematics.track(positions, rotations, seed[self.joints])
        far = np.flatnonzero(tracked.position_error > max(POSITION, self.arm.max_distance))
        if far.size:
            row = far[0]
            raise RowsRefused(
                f"row {row} of {self.names}: {np.round(rows[row, self.position], 4).tolist()} m is "
                f"{tracked.position_error[row] * 1e3:.1f} mm out of the {self.arm.side} arm's reach, at most "
                f"{self.arm.max_distance * 1e3:g} mm (kinematics.arm.max_distance)"
            )
        turned = np.flatnonzero(tracked.rotation_error > max(ROTATION, self.arm.max_tilt))
        if turned.size:
            row = turned[0]
            raise RowsRefused(
                f"row {row} of {self.names}: the {self.arm.side} arm's tool can only come within "
                f"{np.degrees(tracked.rotation_error[row]):.1f} degrees of its rotation there, at most "
                f"{np.degrees(self.arm.max_tilt):.1f} (kinematics.arm.max_tilt)"
            )
        joints[:, self.joints] = tracked.rows

    def to_state(self, positions: Floats, state: Floats) -> None:
        at, matrix = self.arm.from_model(*self.arm.kinematics.forward(positions[self.joints]))
        state[self.position] = at[0]
        state[self.rotation] = self.from_matrix(matrix)[0]


class ActionMap:
    """Rows of a chunk to joint rows, and a joint state to the model's state. Not for two threads at once."""

    def __init__(
        self, action: DofLayout, state: DofLayout, embodiment: Embodiment, model: RobotModel | None = None
    ) -> None:
        """Matches every slot with joints.

        Args:
            action: layout of the model's rows, absolute.
            state: layout of the model's state.
            embodiment: the robot.
            model: its geometry, where slots are poses of its arms, or are to be kept out of things.

        Raises:
            ConfigError: a slot that is neither a joint nor mapped by the model, one without its counterpart, or a joint
                that no slot of the action moves.
        """
        self._names = [joint.name for joint in embodiment.joints]
        self._model = model
        self._holds = model.hold if model else ()
        self._robot = embodiment.name
        self._action_width, self._state_width = action.width, state.width
        self._action = self._match(action, "action", is_complete=True)
        self._state = self._match(state, "state", is_complete=action.is_joint_space and model is None)
        # found by a search, whose branch could change between two rows; any other joint's way is the limiter's to slow
        self._searched = np.array([j for part in self._action if isinstance(part, _Pose) for j in part.joints], np.intp)
        self._limits = np.array([joint.limits.max_velocity for joint in embodiment.joints])

    def joint_rows(self, chunk: ActionChunk, seed: Floats | None = None) -> Floats:
        """Rows in the order of the robot's joints [rad]   (horizon, joints)

        Args:
            chunk: in the action's layout, absolute.
            seed: joints from which a first pose is looked for, the measured or last commanded ones [rad]   (joints,)

        Raises:
            RowsRefused: a pose out of reach; neighbouring rows farther apart than a joint can go in a step, as where an
                arm would flip to another branch; a link that would come too near to the table or to another link.
        """
        rows = chunk.rows
        if (self._searched.size or self._holds) and seed is None:
            raise ConfigError("poses become joints from a seed: the measured joint positions")
        start = np.zeros(len(self._names)) if seed is None else np.nan_to_num(np.asarray(seed, np.float64))
        out = np.repeat(start[np.newaxis], len(rows), axis=0)
        for part in self._action:
            part.to_joints(rows, out, start)
        self._check_steps(out, chunk.step)
        if self._model is not None:
            trouble = self._model.trouble(out, self._names)
            if trouble:
                raise RowsRefused(trouble)
        return out

    def model_state(self, positions: Floats) -> Floats:
        """Measured joint positions [rad] (joints,) in the order of the model's state   (state_dim,)

        Raises:
            ConfigError: another number of positions.
        """
        if np.shape(positions) != (len(self._names),):
            raise ConfigError(
                f"joint positions have shape {np.shape(positions)}, expected ({len(self._names)},): "
                f"{', '.join(self._names)}"
            )
        state = np.zeros(self._state_width)
        for part in self._state:
            part.to_state(positions, state)
        return state

    def _check_steps(self, rows: Floats, step: float) -> None:
        """Refuses a branch flip: what no joint of an arm can do between two rows."""
        moved, limits = np.abs(np.diff(rows[:, self._searched], axis=0)) / step, self._limits[self._searched]
        beyond = np.argwhere(moved > SPARE * limits)
        if beyond.size:
            row, column = beyond[0]
            raise RowsRefused(
                f"rows {row} and {row + 1}: {self._names[self._searched[column]]} would have to turn at "
                f"{moved[row, column]:.1f} rad/s, at most {limits[column]:g} rad/s: the poses jump, or the arm "
                "would flip"
            )

    def _match(self, layout: DofLayout, what: str, is_complete: bool) -> list[_Part]:
        parts: list[_Part] = []
        left = {slot.name: slot for slot in layout}
        for arm in self._model.arms if self._model else ():
            parts += self._match_arm(arm, left, what)
        mapped = self._model.slots if self._model else {}
        columns: list[int] = []
        joints: list[int] = []
        for slot in list(left.values()):
            names = mapped.get(slot.name, (slot.name,) if slot.is_joint else ())
            if slot.name in mapped and len(names) != slot.width:
                raise ConfigError(
                    f"kinematics.slots.{slot.name} names {len(names)} joints, the checkpoint's {what} slot has "
                    f"{slot.width} columns"
                )
            if not names:
                raise ConfigError(self._unmapped(slot, what))
            for name in names:
                if name not in self._names:
                    raise ConfigError(
                        f"the checkpoint's {what} slot {slot.name} is not a joint of {self._robot}; "
                        f"its joints are {', '.join(self._names)}"
                        if names == (slot.name,)
                        else f"kinematics.slots.{slot.name}: {self._robot} has no joint {name}"
                    )
            columns += range(slot.start, slot.start + slot.width)
            joints += [self._names.index(name) for name in names]
        if columns:
            parts.append(_Columns(np.array(columns), np.array(joints)))
        moved: list[int] = [int(j) for part in parts for j in part.joints]  # type: ignore[attr-defined]
        twice = next((j for j in moved if moved.count(j) > 1), None)
        if twice is not None:
            raise ConfigError(f"two of the checkpoint's {what} slots are for the joint {self._names[twice]}")
        missing = [name for i, name in enumerate(self._names) if i not in moved and name not in self._holds]
        if is_complete and missing:
            advice = "" if self._model is None else "; name it in kinematics.hold where it is to stay where it is"
            raise ConfigError(f"the checkpoint has no {what} slot for the joint {missing[0]} of {self._robot}{advice}")
        return parts

    def _match_arm(self, arm: ArmModel, left: dict[str, DofSlot], what: str) -> list[_Part]:
        """Takes an arm's slots out of those that are left."""
        parts: list[_Part] = []
        indices = np.array([self._names.index(name) for name in arm.kinematics.joints])
        position = self._take(arm, left, (_POSITION,))
        rotation = self._take(arm, left, tuple(ROTATIONS))
        if (position is None) != (rotation is None):
            there = position or rotation
            assert there is not None
            raise ConfigError(
                f"the checkpoint's {what} has {there.name}, but not the {arm.side} arm's "
                f"{'position' if position is None else 'rotation'}"
            )
        if position is not None and rotation is not None:
            ending = next(e for e in ROTATIONS if rotation.name.endswith(e) and rotation.width == ROTATIONS[e][0])
            _, to_matrix, from_matrix = ROTATIONS[ending]
            names = f"{position.name}, {rotation.name}"
            pose = _Pose(arm, position.columns, rotation.columns, to_matrix, from_matrix, indices, names)
            parts.append(pose)
        gripper = self._take(arm, left, (_GRIPPER,))
        if gripper is not None:
            if not arm.gripper:
                raise ConfigError(f"the checkpoint's {what} slot {gripper.name} needs a joint: kinematics.arm.gripper")
            (closed, opened), (low, high) = arm.gripper_values, arm.gripper_positions
            scale = (opened - closed) / (high - low)
            parts.append(
                _Columns(
                    np.array([gripper.start]),
                    np.array([self._names.index(arm.gripper)]),
                    scale,
                    closed - scale * low,
                )
            )
        joints = self._take(arm, left, (_JOINTS,))
        if joints is not None:
            if joints.width != len(indices):
                raise ConfigError(
                    f"the checkpoint's {what} slot {joints.name} has {joints.width} columns, the {arm.side} arm has "
                    f"{len(indices)} joints"
                )
            parts.append(_Columns(np.arange(joints.start, joints.start + joints.width), indices))
        return parts

    @staticmethod
    def _take(arm: ArmModel, left: dict[str, DofSlot], endings: Sequence[str]) -> DofSlot | None:
        widths = {_POSITION: 3, _GRIPPER: 1, **{e: r[0] for e, r in ROTATIONS.items()}}
        for prefix in _PREFIXES:
            for ending in endings:
                slot = left.get(f"{prefix}{arm.side}{ending}")
                if slot is None:
                    continue
                if slot.width != widths.get(ending, slot.width):
                    raise ConfigError(f"slot {slot.name} has {slot.width} columns, expected {widths[ending]}")
                return left.pop(slot.name)
        return None

    def _unmapped(self, slot: DofSlot, what: str) -> str:
        text = f"the checkpoint's {what} slot {slot.name} ({slot.width} columns) is not a joint of {self._robot}"
        if self._model is None:
            return (
                f"{text}; end-effector layouts need kinematics: add [kinematics] to the robot's file. Without it only "
                f"slots that are joints are driven: {', '.join(self._names)}"
            )
        sides = ", ".join(arm.side for arm in self._model.arms) or "none"
        return (
            f"{text}, no slot of its arms ({sides}) and not in kinematics.slots; map it there, or name it in "
            "policy.masked where the robot lacks it"
        )
