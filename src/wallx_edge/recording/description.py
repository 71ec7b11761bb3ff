"""Description: what a recording says about the robot it is of, enough to run its loop again."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wallx_edge._core import Embodiment, JointLimits, JointMode, JointSpec, monotonic
from wallx_edge.errors import ConfigError

__all__ = ["Description"]

_LIMITS = ("min_position", "max_position", "max_velocity", "max_acceleration", "max_jerk")


@dataclass(frozen=True)
class Description:
    """A robot and its loop.

    Attributes:
        robot: name of the embodiment.
        rate_hz: of the loop [1/s].
        max_first_step: from the command to a plan's row that takes over [rad].
        joints: name, mode and limits of each, in order, as the loop kept them.
    """

    robot: str
    rate_hz: float
    max_first_step: float
    joints: tuple[Mapping[str, Any], ...]

    @classmethod
    def of(cls, embodiment: Embodiment, rate_hz: float, max_first_step: float) -> Description:
        """Of a connected robot, whose limits are narrowed to its calibrated range."""
        joints = tuple(
            {
                "name": joint.name,
                "mode": joint.mode.name,
                "grips": joint.grips,
                "max_following_error": joint.max_following_error,
                "static_sag": joint.static_sag,
                **{key: getattr(joint.limits, key) for key in _LIMITS},
            }
            for joint in embodiment.joints
        )
        return cls(embodiment.name, rate_hz, max_first_step, joints)

    def metadata(self, more: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """As a recording has it.

        Args:
            more: keys and values of the run, such as its configuration.
        """
        clocks = {"monotonic_s": repr(monotonic()), "unix_s": repr(time.time())}
        robot = {
            "name": self.robot,
            "rate_hz": repr(self.rate_hz),
            "max_first_step": repr(self.max_first_step),
            "joints": json.dumps(self.joints),
        }
        # times are CLOCK_MONOTONIC; the pair says when that was
        return {"run": {**clocks, **more}, "robot": robot}

    @classmethod
    def read(cls, metadata: Mapping[str, Mapping[str, str]], source: object) -> Description:
        """Of a recording.

        Args:
            metadata: of the file.
            source: the file, for the message.

        Raises:
            ConfigError: it says nothing of a robot.
        """
        try:
            robot = metadata["robot"]
            joints = tuple(json.loads(robot["joints"]))
            found = cls(robot["name"], float(robot["rate_hz"]), float(robot["max_first_step"]), joints)
            found.simulated([0.0] * len(joints))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{source} does not say which robot it is of: {error}; is it a recording of a run?"
            ) from None
        return found

    def simulated(self, pose: Sequence[float]) -> Embodiment:
        """The same joints without wires: what they are told, they are.

        Args:
            pose: that they stand at before they are told anything [rad].
        """
        joints = [
            JointSpec(
                name=joint["name"],
                id=number,
                model_numbers=[0],
                limits=JointLimits(**{key: joint[key] for key in _LIMITS}),
                rest_position=at,
                gravity_loaded=False,
                mode=JointMode.velocity if joint["mode"] == "velocity" else JointMode.position,
                max_following_error=joint["max_following_error"],
                static_sag=joint["static_sag"],
                grips=joint["grips"],
            )
            for number, (joint, at) in enumerate(zip(self.joints, pose, strict=True), 1)
        ]
        return Embodiment(name=self.robot, motor_family="loopback", joints=joints)
