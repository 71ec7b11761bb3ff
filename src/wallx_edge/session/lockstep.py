"""Lock-step: an emulated arm, its loop and a session on one simulated clock; two runs of one seed are bit-equal."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from wallx_edge import _core
from wallx_edge.cameras import Camera
from wallx_edge.embodiment import load_calibration, load_embodiment
from wallx_edge.errors import SafetyStop
from wallx_edge.robot import Robot
from wallx_edge.robot_model import RobotModel
from wallx_edge.session.pace import Desk, Outcome
from wallx_edge.sim.arm import EmulatedArm
from wallx_edge.sim.so101 import SO101
from wallx_edge.sim.world import World, WorldCamera
from wallx_edge.tables import Table

__all__ = ["StepPace", "SteppedRobot"]

BEGIN_NS = 1_000_000_000_000  # of the simulated clock: no time is 0, which would mean never
PATIENCE = 10.0  # for what must happen within a run [s of simulated time]


class SteppedRobot(Robot):
    """A connected robot whose loop moves on only by :meth:`tick`; its motors are emulated in this process."""

    def __init__(
        self,
        arm: EmulatedArm = SO101,
        *,
        seed: int = 0,
        rate_hz: float = 200.0,
        max_first_step: float = 0.5,
        world: World | None = None,
        kinematics: Table | None = None,
    ) -> None:
        """Builds arm and loop and connects them.

        Args:
            arm: the emulated robot.
            kinematics: as ``[kinematics]`` of a ROBOT.toml; without it the policy speaks of joints.
            world: where it stands, of :meth:`EmulatedArm.make_world`; without one every joint is on its own.
            seed: of its faults.
            rate_hz: of the loop [1/s].
            max_first_step: as :class:`wallx_edge.robot.Robot`'s [rad].
        """
        self.world = world
        self.emulator = emulator = arm.make_arm(seed=seed, world=world)
        self._period_ns = round(1e9 / rate_hz)
        self._now_ns = BEGIN_NS

        def exchange(data: bytes, now_ns: int) -> tuple[bytes, int]:
            answer, quiet_ns = emulator.exchange(data, now_ns - BEGIN_NS)
            return answer, quiet_ns + BEGIN_NS

        # not a method: the line would keep its owner
        self._line = _core.SteppedLine(exchange, self._now_ns)
        embodiment = load_embodiment(arm.name)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "calibration.json"
            arm.write_calibration(path)
            calibration = load_calibration(path, embodiment)
        core = _core.make_robot(
            embodiment, calibration, _core.BusConfig(kind="stepped", port="lock-step", stepped_line=self._line)
        )
        loop = _core.ControlLoop(
            core,
            rate_hz=rate_hz,
            max_first_step=2 * max_first_step,
            origin_s=self._now_ns * 1e-9,
            ring_capacity=65536,
        )
        super().__init__(core, loop, max_first_step=max_first_step)
        self.model = RobotModel.read(kinematics, embodiment) if kinematics else None
        core.connect()
        self._wait_for_feedback()

    def __enter__(self) -> SteppedRobot:
        """The robot itself."""
        return self

    @property
    def now(self) -> float:
        """Of the simulated clock [s]."""
        return self._now_ns * 1e-9

    def cameras(self) -> dict[str, Camera]:
        """The world's cameras, by role, which see it as it is now."""
        if self.world is None:
            return {}
        world = self.world
        return {camera.role: WorldCamera(world, camera, lambda: self.now) for camera in world.spec.cameras}

    def tick(self) -> None:
        """Lets one period pass."""
        self._now_ns += self._period_ns
        self._line.advance(self._now_ns)
        self.emulator.advance(self._now_ns - BEGIN_NS)
        self.loop.tick(self._now_ns * 1e-9)

    def rest(self) -> None:
        """Ticks until a hold has braked to rest."""
        for _ in range(round(self.loop.max_stop_time_s * 1e9 / self._period_ns) + 10):
            self.tick()

    def _wait_for_state(self, states: Collection[str], otherwise: str, timeout: float = PATIENCE) -> None:
        self._tick_until(lambda: self.loop.state in states, otherwise)

    def _wait_for_feedback(self) -> None:
        self._tick_until(lambda: self.loop.state == "calibrated", "no feedback")

    def _tick_until(self, condition: Callable[[], bool], otherwise: str) -> None:
        for _ in range(round(PATIENCE * 1e9 / self._period_ns)):
            if condition():
                return
            self.tick()
        self.check()
        raise SafetyStop(f"{otherwise} within {PATIENCE:g} s of simulated time")


class _StepDesk:
    """Does work at once; its outcome is there after a delay."""

    def __init__(self, delay: Callable[[], float]) -> None:
        self._delay = delay
        self._outcome: Outcome | None = None
        self._ready_at = 0.0

    @property
    def is_busy(self) -> bool:
        return self._outcome is not None

    def begin(self, work: Callable[[], Any], now: float) -> None:
        self._outcome = Outcome.of(work)
        self._ready_at = now + self._delay()

    def take(self, now: float) -> Outcome | None:
        if self._outcome is None or now < self._ready_at:
            return None
        outcome, self._outcome = self._outcome, None
        return outcome

    def close(self) -> None:
        self._outcome = None


class StepPace:
    """A session's pace on a robot's simulated clock; a wait is one tick, inference takes what it is said to take."""

    def __init__(self, robot: SteppedRobot, policy_delays: Sequence[float], reasoner_delay: float = 0.5) -> None:
        """Begins with the first delay.

        Args:
            robot: whose clock it is.
            policy_delays: of one inference after another, over and over [s].
            reasoner_delay: of each of its texts [s].
        """
        self._robot = robot
        self._delays = tuple(policy_delays)
        self._reasoner_delay = reasoner_delay
        self._count = 0

    def now(self) -> float:
        """The simulated time [s]."""
        return self._robot.now

    def desk(self, name: str) -> Desk:
        """One that answers after the delay of the policy or the Reasoner."""
        return _StepDesk(self._next_delay if name == "policy" else lambda: self._reasoner_delay)

    def queue(self) -> None:
        """None: what computes does so where it is called."""

    def wake(self) -> None:
        """Nobody sleeps."""

    def wait(self, seconds: float) -> None:
        """One tick, however long."""
        self._robot.tick()

    def _next_delay(self) -> float:
        self._count += 1
        return self._delays[(self._count - 1) % len(self._delays)]
