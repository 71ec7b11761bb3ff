"""Stages: what a robot must do, step by step, each with its checks; the same on an emulator and on the real one."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import SafetyStop
from wallx_edge.hil.plan import HilPlan
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig

__all__ = ["STAGES", "Check", "Stage", "Watch", "small_motion"]

POLL = 0.02  # between two drains of the loop's records [s]
STEP = 0.02  # between rows of a small motion [s]
MOTION_SECONDS = 2.0  # of one small motion, there and back [s]
SETTLE_SECONDS = 5.0  # for anything that must happen by itself [s]
STILL_SECONDS = 1.0  # of watching that nothing moves any more [s]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: what.
        is_ok: whether it was as it must be.
        found: what was found, with its unit.
        bound: what it must be.
    """

    name: str
    is_ok: bool
    found: str
    bound: str


class Watch:
    """Takes every record of a robot's loop and hands it on; looks on while a stage waits."""

    def __init__(self, robot: Robot, keep: Callable[[_core.LoopColumns], None]) -> None:
        """Starts with the next record.

        Args:
            robot: connected.
            keep: takes records by column, some at a time.
        """
        self.robot = robot
        self._keep = keep
        self._parts: list[Any] = []

    def take(self) -> None:
        """Takes what there is."""
        part = self.robot.loop.drain()
        if part["tick"].size:
            self._parts.append(part)
            self._keep(part)

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Looks on until something holds; false when it did not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            self.take()
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL)
        self.take()
        return True

    def seconds(self, seconds: float) -> None:
        """Looks on for some time."""
        self.until(lambda: False, seconds)

    def columns(self) -> dict[str, NDArray[Any]]:
        """All records so far, oldest first."""
        self.take()
        return {key: np.concatenate([part[key] for part in self._parts]) for key in self._parts[0]}

    def checks(self) -> list[Check]:
        """That nothing is missing from the records: every tick, one after the other."""
        ticks = self.columns()["tick"]
        dropped = self.robot.loop.counters()["dropped_records"]
        gaps = int((np.diff(ticks.astype(np.int64)) != 1).sum())
        return [Check("no record is lost", dropped == 0 and gaps == 0, f"{dropped} dropped, {gaps} gaps", "0")]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: as in a plan.
        moves: what it does to the arm, for whoever is asked; empty: nothing.
        run: does it; returns its checks.
    """

    name: str
    moves: str
    run: Callable[[HilPlan, RobotConfig, Callable[[_core.LoopColumns], None]], list[Check]]


def small_motion(robot: Robot, amplitude: float) -> NDArray[np.float64]:
    """Rows that take every joint a little way towards the middle of its range and back, smoothly   (rows, joints)."""
    record = robot.loop.snapshot()
    assert record is not None  # connected robots have one
    start = np.array(record["command"])
    limits = [joint.limits for joint in robot.embodiment.joints]
    middle = np.array([(limit.min_position + limit.max_position) / 2 for limit in limits])
    direction = np.where(middle >= start, 1.0, -1.0)
    phase = np.linspace(0.0, 1.0, round(MOTION_SECONDS / STEP) + 1)[:, np.newaxis]
    rows: NDArray[np.float64] = start + direction * amplitude * (1 - np.cos(2 * np.pi * phase)) / 2
    return rows


def _lost_share(columns: dict[str, NDArray[Any]]) -> float:
    return float((columns["read_code"] != 0).mean())


def _comms(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    checks = []
    for i in range(plan.connections):
        begin = time.monotonic()
        with Robot.connect(config) as robot:
            watch = Watch(robot, keep)
            connected = time.monotonic() - begin
            watch.seconds(0.3)
            robot.check()
            columns = watch.columns()
            sent = int(columns["has_command"].sum())
            name = f"connection {i + 1}"
            every = columns["read_code"] == 0
            found = f"connected in {connected:.2f} s, all answered in {every.sum()} of {every.size} ticks"
            checks.append(Check(f"{name}: every joint answers", bool(every.any()), found, "in one tick at least"))
            checks.append(Check(f"{name}: nothing is sent", sent == 0, f"{sent} commands", "0"))
    return checks


def _soak(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        watch.seconds(plan.soak_seconds)
        robot.check()  # an e-stop ends the plan
        columns = watch.columns()
        lost, bound = _lost_share(columns), plan.max_lost_share
        age = float(columns["sample_age"].max())
        states = sorted({_core.LOOP_STATES[state] for state in np.unique(columns["state"])})
        faulty = int(np.count_nonzero(columns["drive_error"]))
        return [
            Check("share of ticks with a silent motor", lost <= bound, f"{lost:.2%}", f"at most {bound:.2%}"),
            Check("the loop only reads", not columns["has_command"].any(), ", ".join(states), "nothing sent"),
            Check("no drive reports an error", faulty == 0, f"{faulty} answers", "0"),
            Check("oldest sample", age < 0.1, f"{age * 1e3:.1f} ms", "below 100 ms"),
            *watch.checks(),
        ]


def _torque_free(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        robot.release(robot.falling_joints)
        watch.until(lambda: robot.loop.state == "off", SETTLE_SECONDS)
        watch.seconds(plan.torque_free_seconds)
        robot.check()
        columns = watch.columns()
        tail = columns["measured"][-max(2, round(0.5 / robot.loop.period_s)) :]
        rest = float(np.ptp(tail, axis=0).max())
        return [
            Check("torque is off", robot.loop.state == "off", robot.loop.state, "off"),
            Check("nothing is sent", not columns["has_command"][-len(tail) :].any(), "no command", "no command"),
            Check("the limp arm lies still", rest < 0.02, f"{rest:.4f} rad", "below 0.02 rad"),
            *watch.checks(),
        ]


def _motion(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        with robot.enabled():
            rows = small_motion(robot, plan.amplitude)
            rows = np.concatenate([rows, np.repeat(rows[-1:], round(0.5 / STEP), axis=0)])
            robot.play(rows, time.monotonic(), STEP, robot.loop.generation)
            ended = watch.until(lambda: _is_over(robot), MOTION_SECONDS + SETTLE_SECONDS)
        watch.seconds(STILL_SECONDS)
        columns = watch.columns()
        on = columns["is_enabled"]
        moved = np.ptp(columns["command"][on], axis=0)
        followed = np.ptp(columns["measured"][on], axis=0)
        error = float(np.abs(columns["command"][on] - columns["measured"][on]).max())
        # a joint that may sag by more than the whole motion may also stand still in it
        judged = np.array([joint.static_sag <= plan.amplitude for joint in robot.embodiment.joints])
        speed = np.abs(np.diff(columns["command"][on], axis=0)).max(axis=0) / robot.loop.period_s
        limits = [joint.limits.max_velocity for joint in robot.embodiment.joints]
        span = float(np.ptp(columns["measured"][-20:], axis=0).max())
        return [
            Check("the motion ends by itself", ended, robot.loop.state, "hold"),
            Check(
                "every joint was told to move",
                bool((moved >= plan.amplitude * 0.9).all()),
                f"{moved.min():.4f}..{moved.max():.4f} rad",
                f"{plan.amplitude:g} rad",
            ),
            Check(
                "every joint moved",
                bool((followed >= plan.amplitude / 10)[judged].all()),
                ", ".join(f"{name} {way:.4f}" for name, way in zip(robot.joint_names, followed, strict=True)) + " rad",
                f"at least {plan.amplitude / 10:g} rad, of those whose static_sag is not above the amplitude",
            ),
            Check(
                "tracking error",
                error <= plan.max_tracking_error,
                f"{error:.4f} rad",
                f"at most {plan.max_tracking_error:g} rad",
            ),
            Check("speed of every command", bool((speed <= limits).all()), f"{speed.max():.2f} rad/s", "its limit"),
            Check("it holds still afterwards", span < 0.01, f"{span:.4f} rad", "below 0.01 rad"),
            *watch.checks(),
        ]


def _is_over(robot: Robot) -> bool:
    record = robot.loop.snapshot()
    return record is not None and record["state"] == "hold" and record["cause"]["reason"] == "plan exhausted"


_VICTIM = """
import sys, time
from wallx_edge.errors import WallxError
from wallx_edge.hil.stages import SETTLE_SECONDS, STEP, small_motion
from wallx_edge.robot import Robot
import numpy as np
try:
    with Robot.connect(sys.argv[1]) as robot, robot.enabled():
        rows = small_motion(robot, float(sys.argv[2]))
        robot.play(rows, time.monotonic(), STEP, robot.loop.generation)
        start = robot.state()[0]
        deadline = time.monotonic() + SETTLE_SECONDS
        while np.abs(robot.state()[0] - start).max() < float(sys.argv[2]) / 4:
            if time.monotonic() > deadline:
                print("it did not move", flush=True)
                break
            time.sleep(0.001)
        else:
            print("moving", flush=True)
            time.sleep(60)
except WallxError as error:
    print(error, flush=True)
"""


def _watchdog(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    """The chunks stop coming; then the whole process is killed in mid motion, and another one looks at the arm."""
    checks = []
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        with robot.enabled():
            rows = small_motion(robot, plan.amplitude)
            half = rows[: len(rows) // 2]  # cut off where the arm is fastest: the next chunk never comes
            robot.play(half[: len(half) // 2 + 1], time.monotonic(), STEP, robot.loop.generation)
            held = watch.until(lambda: _is_over(robot), SETTLE_SECONDS)
            watch.seconds(STILL_SECONDS)
        tail = watch.columns()["command"][-20:]
        still = float(np.ptp(tail, axis=0).max())
        checks.append(Check("late chunk: the robot holds", held, robot.loop.state, "hold, plan exhausted"))
        checks.append(Check("late chunk: its command rests", still == 0, f"{still:.6f} rad", "0 rad"))
        checks += watch.checks()

    command = [sys.executable, "-c", _VICTIM, str(config.path), str(plan.amplitude)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdout is not None
        said = victim.stdout.readline().strip()
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    checks.append(Check("killed owner: it was moving", said == "moving", said or "it ended first", "moving"))
    time.sleep(STILL_SECONDS)  # what the drives do without an owner, they do now
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        watch.seconds(STILL_SECONDS)
        columns = watch.columns()
        measured = columns["measured"][columns["read_code"] == 0]  # before its first answer a joint stands nowhere
        still = float(np.ptp(measured, axis=0).max()) if measured.size else float("inf")
        checks.append(Check("killed owner: the arm stands still", still < 0.01, f"{still:.4f} rad", "below 0.01 rad"))
        # whoever takes over finds it where it stopped, and can hold it
        with robot.enabled():
            watch.seconds(0.5)
        sag = float(np.abs(watch.columns()["measured"][-1] - measured[-1]).max()) if measured.size else float("inf")
        bound = plan.max_sag
        checks.append(
            Check("killed owner: taken over without a jump", sag <= bound, f"{sag:.4f} rad", f"{bound:g} rad")
        )
    return checks


def _estop(plan: HilPlan, config: RobotConfig, keep: Callable[[_core.LoopColumns], None]) -> list[Check]:
    with Robot.connect(config) as robot:
        watch = Watch(robot, keep)
        refused = False
        with robot.enabled():
            rows = small_motion(robot, plan.amplitude)
            robot.play(rows, time.monotonic(), STEP, robot.loop.generation)
            watch.seconds(MOTION_SECONDS / 4)
            robot.estop()
            stopped = watch.until(lambda: robot.loop.state == "fault", SETTLE_SECONDS)
            watch.seconds(robot.loop.max_stop_time_s + STILL_SECONDS)
            try:
                robot.play(rows, time.monotonic(), STEP, robot.loop.generation)
            except SafetyStop:
                refused = True
        columns = watch.columns()
        estop = _core.LOOP_STATES.index("fault")
        at = int(np.argmax(columns["state"] == estop))
        after = columns["command"][at:]
        rest = np.flatnonzero((after != after[-1]).any(axis=1))
        stop_ticks = int(rest[-1]) + 1 if rest.size else 0
        bound = round(robot.loop.max_stop_time_s / robot.loop.period_s) + 1
        sag = float(np.abs(columns["measured"][-1] - after[-1]).max())
        share = float(columns["torque_share"][-1].max())
        checks = [
            Check("it stops", stopped, robot.loop.state, "fault"),
            Check("it brakes along its limits", stop_ticks <= bound, f"{stop_ticks} ticks", f"at most {bound}"),
            Check("it holds at a low torque limit", share < 1, f"{share:.2f} of full torque", "below 1"),
            Check("it does not drop", sag <= plan.max_sag, f"{sag:.4f} rad", f"at most {plan.max_sag:g} rad"),
            Check("it is latched: rows are refused", refused, "refused" if refused else "taken", "refused"),
            *watch.checks(),
        ]
        robot.reset()
        state = robot.loop.state
        checks.append(Check("a reset takes it back", state in ("identify", "calibrated"), state, "calibrated"))
        return checks


STAGES: Sequence[Stage] = (
    Stage("comms", "", _comms),
    Stage("soak", "", _soak),
    Stage("torque_free", "switches the torque off: what is not supported falls", _torque_free),
    Stage("motion", "switches the torque on and moves every joint a little", _motion),
    Stage("watchdog", "moves every joint a little, and kills the program that moves it", _watchdog),
    Stage("estop", "moves every joint a little, then stops it with the e-stop", _estop),
)
