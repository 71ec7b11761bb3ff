"""ActionMap: a model's DofLayout <-> a robot's joints; for now the identity on joint-space layouts and no more."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wallx_edge._core import Embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.types import ActionChunk, DofLayout

__all__ = ["ActionMap"]


class ActionMap:
    """Rows of a chunk to joint rows, and a joint state to the model's state, by the joints' names."""

    def __init__(self, action: DofLayout, state: DofLayout, embodiment: Embodiment) -> None:
        """Matches every slot with a joint.

        Args:
            action: layout of the model's rows.
            state: layout of the model's state.
            embodiment: the robot.

        Raises:
            ConfigError: a slot that is not one of the robot's joints, or a joint without a slot.
        """
        self._joints = [joint.name for joint in embodiment.joints]
        self._action = self._match(action, embodiment, "action")
        self._state = self._match(state, embodiment, "state")

    def _match(self, layout: DofLayout, embodiment: Embodiment, what: str) -> NDArray[np.intp]:
        """Column of the layout that each joint has."""
        for slot in layout:
            if not slot.is_joint:
                raise ConfigError(
                    f"the checkpoint's {what} slot {slot.name} ({slot.width} columns) is not a joint of "
                    f"{embodiment.name}; end-effector layouts need kinematics, which this version does not have. "
                    f"It drives checkpoints whose slots are joints: {', '.join(self._joints)}"
                )
            if slot.name not in self._joints:
                raise ConfigError(
                    f"the checkpoint's {what} slot {slot.name} is not a joint of {embodiment.name}; "
                    f"its joints are {', '.join(self._joints)}"
                )
        missing = [name for name in self._joints if name not in layout.names]
        if missing:
            raise ConfigError(f"the checkpoint has no {what} slot for the joint {missing[0]} of {embodiment.name}")
        return np.array([layout.slices[name].start for name in self._joints], np.intp)

    def joint_rows(self, chunk: ActionChunk) -> NDArray[np.float64]:
        """Rows in the order of the robot's joints [rad]   (horizon, joints)"""
        return np.ascontiguousarray(chunk.rows[:, self._action])

    def model_state(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Measured joint positions [rad] (joints,) in the order of the model's state   (state_dim,)

        Raises:
            ConfigError: another number of positions.
        """
        if np.shape(positions) != (len(self._joints),):
            raise ConfigError(
                f"joint positions have shape {np.shape(positions)}, expected ({len(self._joints)},): "
                f"{', '.join(self._joints)}"
            )
        state = np.empty(len(self._joints))
        state[self._state] = positions
        return state
