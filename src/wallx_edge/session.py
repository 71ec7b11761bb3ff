"""Session: a policy drives a robot: observe, infer, hand the rows over, watch."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.action_map import ActionMap
from wallx_edge.cameras import Camera
from wallx_edge.embodiment import JointMode
from wallx_edge.errors import ConfigError, SafetyStop
from wallx_edge.policy import Policy
from wallx_edge.robot import Robot
from wallx_edge.types import ActionChunk, Observation

__all__ = ["Decision", "Moment", "PlayedChunk", "Session", "SessionConfig", "SessionStatus", "Status"]

log = logging.getLogger(__name__)

TICK = 0.05  # between looks at the loop [s]
MAX_OUTSIDE = 0.2  # share of a chunk's normalised values beyond +-1: its statistics do not fit what it says
MAX_REFUSALS = 5  # chunks in a row


@dataclass(frozen=True, eq=False)
class PlayedChunk:
    """One chunk that was handed to the loop.

    Attributes:
        sequence: number of the plan; 0 when it came from before a stop and was dropped.
        observed_at: capture time of the oldest thing it was computed from [s].
        arrived_at: when it was handed over [s].
        step: between rows [s].
        rows: joint positions [rad]   (horizon, joints)
    """

    sequence: int
    observed_at: float
    arrived_at: float
    step: float
    rows: NDArray[np.float64]


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


@dataclass(frozen=True)
class SessionConfig:
    """How a session acts.

    Attributes:
        execute_rows: rows of a chunk that are played before the next is asked for; None: three quarters.
    """

    execute_rows: int | None = None


@dataclass(frozen=True)
class SessionStatus:
    """What a display shows.

    Attributes:
        elapsed: since the start [s].
        chunks: handed over so far.
        latency: from observation to hand-over, of the newest chunk [s]; 0 before the first.
        chunk_age: since the newest chunk's observation [s]; 0 before the first.
        state: idle, running, paused, stopped or failed.
        task: the instruction.
        loop_state: of the control loop.
    """

    elapsed: float
    chunks: int
    latency: float
    chunk_age: float
    state: str = "running"
    task: str = ""
    loop_state: str = ""

    def as_json(self) -> dict[str, Any]:
        """In types of JSON."""
        return asdict(self)


Status = SessionStatus


@dataclass(frozen=True)
class Decision:
    """One line of the session's log.

    Attributes:
        time: CLOCK_MONOTONIC [s].
        kind: observe, chunk, refuse, pause, resume or task.
        why: in words.
        observed_at: of the observation [s].
        task: the instruction.
        sequence: of the loop's plan.
    """

    time: float
    kind: str
    why: str = ""
    observed_at: float | None = None
    task: str = ""
    sequence: int | None = None

    def as_json(self) -> dict[str, Any]:
        """In types of JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Moment:
    """A decision with what it was about.

    Attributes:
        decision: the line.
        observation: of an observe or a chunk.
        rows: as handed to the loop [rad]   (n, joints)
        start: when the first is due [s].
        step: between them [s].
    """

    decision: Decision
    observation: Observation | None = None
    rows: NDArray[np.float64] | None = None
    start: float = 0.0
    step: float = 0.0


class Session:
    """One policy, one robot, one task. The policy runs on a thread of its own; the loop never waits for it."""

    def __init__(
        self,
        policy: Policy,
        robot: Robot,
        cameras: Mapping[str, Camera],
        task: str,
        execute_rows: int | None = None,
        *,
        config: SessionConfig = SessionConfig(),
    ) -> None:
        """Matches policy, robot and cameras.

        Args:
            policy: what decides.
            robot: connected.
            cameras: open, by role.
            task: the instruction.
            execute_rows: rows of a chunk that are played before the next is asked for; three quarters by default.
        Raises:
            ConfigError: they do not fit.
        """
        missing = [role for role in policy.config.cameras if role not in cameras]
        if missing:
            raise ConfigError(f"the policy looks at the camera {missing[0]!r}, which the robot does not have")
        self._map = ActionMap(policy.action_layout, policy.state_layout, robot.embodiment)
        self._policy = policy
        self._robot = robot
        self._cameras = dict(cameras)
        self._task = task
        horizon = policy.config.horizon
        execute_rows = execute_rows if execute_rows is not None else config.execute_rows
        self._listeners: list[Callable[[Moment], None]] = []
        self._resumed = threading.Event()
        self._resumed.set()
        self._is_running = False
        self._begin = time.monotonic()
        self._execute = execute_rows if execute_rows is not None else max(1, horizon * 3 // 4)
        if not 1 <= self._execute <= horizon:
            raise ConfigError(f"execute_rows is {self._execute}, expected 1 to the horizon {horizon}")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._chunks: list[PlayedChunk] = []
        self._failure: BaseException | None = None
        self._has_run = False
        self._measured = np.full(len(robot.joint_names), np.nan)  # of the newest observation
        self._wheels = np.array([joint.mode == JointMode.velocity for joint in robot.embodiment.joints])

    def observe(self) -> Observation:
        """What cameras and robot say now. Blocks until each camera has a frame.

        Raises:
            DeviceError: a camera has stopped.
            SafetyStop: the loop has stopped the robot.
        """
        frames = {role: camera.read() for role, camera in self._cameras.items()}
        positions, measured_at = self._robot.state()
        self._measured = np.where(self._wheels, np.nan, positions)
        images = {role: frame.image for role, frame in frames.items()}
        captured_at = min(measured_at, *(frame.captured_at for frame in frames.values()))
        return Observation(images, self._map.model_state(positions), self._task, captured_at)

    def infer(self) -> tuple[ActionChunk, NDArray[np.float64]]:
        """One observation, one chunk, and its joint rows [rad] (horizon, joints); moves nothing."""
        chunk = self._policy.act(self.observe())
        return chunk, self._map.joint_rows(chunk)

    def stop(self) -> None:
        """Asks :meth:`run` to end soon; from any thread or a signal handler."""
        self._stop.set()

    def pause(self) -> None:
        """Brakes along the limits and keeps the last command."""
        self._resumed.clear()
        self._robot.loop.hold()
        self._tell(Moment(Decision(time.monotonic(), "pause", task=self._task)))

    def resume(self) -> None:
        """Goes on from a fresh observation."""
        if not self._resumed.is_set():
            self._robot.loop.resume()
            self._resumed.set()
            self._tell(Moment(Decision(time.monotonic(), "resume", task=self._task)))

    def set_task(self, task: str) -> None:
        """Another instruction."""
        if not task.strip():
            raise ConfigError("the task is empty")
        self._task = task
        self._tell(Moment(Decision(time.monotonic(), "task", task=task)))

    def set_subtask(self, subtask: str | None) -> None:
        """Not built yet."""
        raise ConfigError("this session has no reasoner")

    def ask(self, question: str, timeout: float = 30.0) -> str:
        """Not built yet."""
        raise ConfigError("this session has no reasoner")

    def subscribe(self, callback: Callable[[Moment], None]) -> Callable[[], None]:
        """Tells of every decision; what it returns ends that."""
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    def _tell(self, moment: Moment) -> None:
        for listener in list(self._listeners):
            listener(moment)

    def status(self) -> SessionStatus:
        """How it goes."""
        now = time.monotonic()
        with self._lock:
            newest = self._chunks[-1] if self._chunks else None
            count = len(self._chunks)
        latency = newest.arrived_at - newest.observed_at if newest else 0.0
        age = now - newest.observed_at if newest else 0.0
        if self._failure is not None:
            state = "failed"
        elif self._stop.is_set():
            state = "stopped"
        else:
            state = "idle" if not self._is_running else "running" if self._resumed.is_set() else "paused"
        return SessionStatus(now - self._begin, count, latency, age, state, self._task, self._robot.loop.state)

    @property
    def chunks(self) -> list[PlayedChunk]:
        """What was handed to the loop, oldest first."""
        with self._lock:
            return list(self._chunks)

    def run(self, duration: float | None = None, on_tick: Callable[[Status], None] | None = None) -> bool:
        """Acts until the time is over, then plays the last chunk to its end, where it rests. Blocks.

        The first inference is done before the motors are enabled. When this returns or raises, the robot holds.

        Args:
            duration: how long to ask for new chunks [s]; without it, until :meth:`stop`.
            on_tick: called about every 50 ms on this thread.

        Returns:
            whether the time was used up; False when :meth:`stop` ended it, which brakes at once.

        Raises:
            SafetyStop: the loop stopped the robot.
            DeviceError: a camera stopped.
            ConfigError, WallxError: the policy failed.
        """
        if self._has_run:
            raise ConfigError("a session runs once; make another one")
        self._has_run = True
        self._policy.act(self.observe())  # warm: the first call sizes buffers and touches weights
        if self._stop.is_set():
            return False
        begin = self._begin = time.monotonic()
        self._is_running = True
        deadline = None if duration is None else begin + duration
        worker = threading.Thread(target=self._work, args=(deadline,), name="policy")
        was_stopped = False
        with self._robot.enabled():
            try:
                worker.start()
                while worker.is_alive() and not self._stop.is_set():
                    self._look(begin, on_tick)
                    worker.join(TICK)
                if self._failure is None and not self._stop.is_set():
                    self._finish(begin, on_tick)
            finally:
                was_stopped = self._stop.is_set()
                self._stop.set()
                # brake before waiting: the policy may still be computing
                self._robot.loop.hold()
                if worker.ident is not None:
                    worker.join()
        if self._failure is not None:
            raise self._failure
        return not was_stopped

    def _look(self, begin: float, on_tick: Callable[[Status], None] | None) -> None:
        self._robot.check()
        if on_tick is not None:
            on_tick(self.status())

    def _finish(self, begin: float, on_tick: Callable[[Status], None] | None) -> None:
        """Waits until the last chunk has been played and the loop rests on its last row."""
        config = self._policy.config
        limit = time.monotonic() + config.horizon * config.step + self._robot.loop.max_stop_time_s + 1.0
        last = self.chunks[-1].sequence if self.chunks else 0
        while time.monotonic() < limit and not self._stop.is_set():
            self._look(begin, on_tick)
            record = self._robot.loop.snapshot()
            # a hold for another reason, such as a lost answer, goes on by itself
            if (
                record is not None
                and record["state"] == "hold"
                and record["plan_sequence"] == last
                and record["cause"]["reason"] in ("plan exhausted", "no plan")
            ):
                return
            self._stop.wait(TICK)

    def _work(self, deadline: float | None) -> None:
        try:
            next_at = time.monotonic()
            refused = 0
            while not self._stop.is_set():
                if deadline is not None and next_at >= deadline:
                    return
                if self._stop.wait(max(0.0, next_at - time.monotonic())):
                    return
                while not self._resumed.wait(TICK):
                    if self._stop.is_set():
                        return
                # before the observation: rows of an observation from before a stop must die
                generation = self._robot.loop.generation
                observation = self.observe()
                at = observation.captured_at
                self._tell(Moment(Decision(time.monotonic(), "observe", "", at, self._task), observation))
                chunk = self._policy.act(observation)
                if self._stop.is_set():
                    return
                rows = self._map.joint_rows(chunk)
                why = refusal(chunk, rows, self._measured, self._robot.joint_names, self._robot.max_first_step)
                log.log(
                    logging.WARNING if why else logging.DEBUG,
                    "chunk: %.3f beyond +-1, first row %.3f rad from the measured pose%s",
                    chunk.outside,
                    float(np.nanmax(np.abs(rows[0] - self._measured), initial=0.0)),
                    f"; refused: {why}" if why else "",
                )
                if why:
                    refused += 1
                    if refused == MAX_REFUSALS:
                        raise SafetyStop(f"{MAX_REFUSALS} chunks in a row were refused; the last one: {why}")
                    next_at = time.monotonic()
                    continue
                refused = 0
                sequence = self._robot.play(rows, chunk.observed_at, chunk.step, generation)
                decision = Decision(time.monotonic(), "chunk", "", at, self._task, sequence)
                self._tell(Moment(decision, observation, rows, chunk.observed_at, chunk.step))
                with self._lock:
                    self._chunks.append(PlayedChunk(sequence, chunk.observed_at, time.monotonic(), chunk.step, rows))
                next_at = max(chunk.observed_at + self._execute * chunk.step, time.monotonic())
        except BaseException as error:
            self._failure = error
