"""Acting: one observation, one chunk, and every reason for which it must not reach the robot."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wallx_edge.action_map import ActionMap, RowsRefused
from wallx_edge.cameras import Camera
from wallx_edge.embodiment import JointMode
from wallx_edge.errors import DeviceError
from wallx_edge.session.execution import Execution, Place, PlannedRows
from wallx_edge.session.parts import ActingPolicy, DrivenRobot
from wallx_edge.session.subtask import Instruction
from wallx_edge.session_config import SessionConfig
from wallx_edge.types import ActionChunk, Observation

__all__ = ["MAX_REFUSALS", "Actor", "Inferred", "refusal"]

MAX_OUTSIDE = 0.2  # share of a chunk's normalised values beyond +-1: its statistics do not fit what it says
MAX_REFUSALS = 5  # chunks in a row


def refusal(
    chunk: ActionChunk,
    rows: NDArray[np.float64],
    measured: NDArray[np.float64],
    names: Sequence[str],
    max_first_step: float,
) -> str:
    """Why a chunk must not reach the robot; empty: it may.

    Args:
        chunk: what the policy said.
        rows: its joint rows [rad]   (horizon, joints)
        measured: the pose that it was computed from; NaN where a joint has no position [rad]   (joints,)
        names: of the joints.
        max_first_step: from the measured pose to the first row, of any joint [rad].
    """
    if chunk.outside > MAX_OUTSIDE:
        return (
            f"{chunk.outside:.0%} of the chunk's normalised values lie beyond +-1, at most {MAX_OUTSIDE:.0%} may; "
            "check the checkpoint's statistics, the cameras' order and the state"
        )
    distance = np.nan_to_num(np.abs(rows[0] - measured))
    worst = int(np.argmax(distance))
    if distance[worst] > max_first_step:
        return (
            f"the chunk begins at {rows[0, worst]:.3f} rad for {names[worst]}, {distance[worst]:.3f} rad from where it "
            f"stands, at most {max_first_step:g} rad (policy.max_first_step) may lie between; check calibration, "
            "statistics and action layout"
        )
    return ""


@dataclass(frozen=True, eq=False)
class Inferred:
    """One inference that has ended.

    Attributes:
        observation: what it was computed from.
        chunk: what the policy said.
        rows: by joint [rad]   (horizon, joints)
        measured: the pose it was computed from; NaN for a wheel [rad]   (joints,)
        place: where it goes.
        instruction: in force when it was observed.
        generation: of the loop, then.
        problem: why its rows became no joint rows; empty: they did.
    """

    observation: Observation
    chunk: ActionChunk
    rows: NDArray[np.float64]
    measured: NDArray[np.float64]
    place: Place
    instruction: Instruction
    generation: int
    problem: str = ""


class Actor:
    """Observes and infers, on one thread at a time."""

    def __init__(
        self,
        policy: ActingPolicy,
        robot: DrivenRobot,
        cameras: Mapping[str, Camera],
        action_map: ActionMap,
        config: SessionConfig,
    ) -> None:
        """Computes nothing yet.

        Args:
            policy: what decides.
            robot: whose joints are measured.
            cameras: open, by role.
            action_map: between the two.
            config: delays of cameras and state.
        """
        self._policy = policy
        self._robot = robot
        self._cameras = dict(cameras)
        self._map = action_map
        self._config = config
        self._wheels = np.array([joint.mode == JointMode.velocity for joint in robot.embodiment.joints])
        self._pictures: dict[str, tuple[int, float]] = {}  # role -> checksum, and since when it is the same [s]
        self._reading = threading.Lock()
        self.num_frames = 0

    def observe(self, instruction: str) -> tuple[Observation, NDArray[np.float64]]:
        """What cameras and robot say now, and the pose [rad] (joints,). Blocks until each camera has a frame.

        ``captured_at`` is the time of the oldest thing in it, with the calibrated delays taken off.

        Raises:
            DeviceError: a camera has stopped, or shows the very same picture for too long.
            SafetyStop: the loop has stopped the robot.
        """
        with self._reading:
            frames = {role: camera.read() for role, camera in self._cameras.items()}
            self.num_frames += len(frames)
            for role, frame in frames.items():
                self._check_picture(role, frame.image, frame.captured_at)
        positions, measured_at = self._robot.state()
        measured = np.where(self._wheels, np.nan, positions)
        delays = self._config.camera_delay
        captured_at = min(
            measured_at - self._config.state_delay,
            *(frame.captured_at - delays.get(role, 0.0) for role, frame in frames.items()),
        )
        images = {role: frame.image for role, frame in frames.items()}
        return Observation(images, self._map.model_state(positions), instruction, captured_at), measured

    def _check_picture(self, role: str, image: NDArray[np.uint8], captured_at: float) -> None:
        if not self._config.frozen_after:
            return
        checksum = zlib.crc32(np.ascontiguousarray(image).data)
        before, since = self._pictures.get(role, (-1, captured_at))
        if checksum != before:
            self._pictures[role] = (checksum, captured_at)
        elif captured_at - since >= self._config.frozen_after:
            raise DeviceError(
                f"camera {role!r} has shown the very same picture for {captured_at - since:.1f} s, at most "
                f"{self._config.frozen_after:g} s (session.frozen_after, 0: any time): a live picture has noise; "
                "check the device"
            )

    def infer(self, instruction: Instruction, execution: Execution, plan: PlannedRows | None) -> Inferred:
        """One observation and its chunk. Blocks while it computes.

        Args:
            instruction: in force.
            execution: where the chunk will go.
            plan: the rows in force.

        Raises:
            DeviceError, SafetyStop: as :meth:`observe`.
            ConfigError, WallxError: the policy failed, or was cancelled.
        """
        # before the observation: rows of an observation from before a stop must die
        generation = self._robot.loop.generation
        observation, measured = self.observe(instruction.subtask)
        place = execution.place(plan, observation.captured_at)
        told = observation
        pose = execution.pose_at(place)
        if pose is not None:
            told = replace(observation, state=self._map.model_state(pose))
        settings = self._policy.config
        deadline = plan.end if plan is not None else observation.captured_at + settings.horizon * settings.step
        chunk = self._policy.act(told, follow=execution.follow(place), deadline=deadline)
        # where the rows before these end: the same branch, and no drift of an arm with joints to spare
        seed = measured if plan is None else plan.rows[min(max(place.first - 1, 0), len(plan.rows) - 1)]
        problem = ""
        try:
            rows = self._map.joint_rows(chunk, seed)
        except RowsRefused as refused:
            rows, problem = np.repeat(measured[np.newaxis], chunk.horizon, axis=0), str(refused)
        return Inferred(observation, chunk, rows, measured, place, instruction, generation, problem)
