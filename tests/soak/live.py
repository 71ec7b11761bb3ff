"""Live faults: one after the other on a moving emulated arm, two busy Python threads beside the loop.

What the lock-step tables show tick by tick holds here with a real clock: the documented state, within the documented
number of the loop's own ticks, no command beyond the braking distance, no record lost.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core, demo
from wallx_edge.errors import BusTimeout, SafetyStop, WallxError
from wallx_edge.hil import Watch
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess

GRIPPER = 6  # not following is its work
MOST = 800  # moving ticks for a fault to show: an arm that does not follow must first be left behind
PATIENCE = 20.0  # for so many, on a busy computer [s]
GOES_ON = 1.0  # of a fault that nothing comes of [s]
MAX_DISTURBED = 0.05  # of all faults
SAG = 0.05  # static_sag, at most [rad]
RUNS = ("ramp", "run", "hold")  # on a busy computer the terminal loses answers by itself: a hold that ends by itself

STALE, FOLLOW = frozenset({"stale feedback", "send failed"}), frozenset({"obstruction", "torque lost", "overload"})


@dataclass(frozen=True)
class Row:
    """One kind of fault, and what it comes to.

    Attributes:
        kind: of fault.
        reasons: any of them ends it in a fault; none: it goes on.
        ticks: of the loop, from the fault's start to that state at most; as in tests/cpp/arm/fault_outcomes.cpp, but
            for joints that do not follow: when they are left behind is up to the motion here, and only its ticks count.
        value: of the fault; None: its preset.
        is_line: of the whole line, not of one servo.
    """

    kind: str
    reasons: frozenset[str] = frozenset()
    ticks: int = 0
    value: float | None = None
    is_line: bool = False


WIDE = 9  # the torque register is read with every eighth state
STALES = 21  # 0.1 s, and the tick that sees it
BEFORE = [i for i, name in enumerate(_core.LOOP_STATES) if name != "fault"]
MOVING = [_core.LOOP_STATES.index(name) for name in ("ramp", "run")]
DOCUMENTED = (
    Row("drop", value=0.02),
    Row("drop", STALE, STALES, 1.0),
    Row("corrupt", value=0.02),
    Row("corrupt", STALE, STALES, 1.0),
    Row("truncate", STALE, STALES),
    Row("wrong_length", STALE, STALES),
    Row("noise"),
    Row("repeat"),
    Row("late"),
    Row("delay", value=0.0005),
    Row("babble"),
    Row("supply"),
    Row("wrong_id", STALE, STALES),
    Row("duplicate_id", STALE | {"implausible"}, STALES),
    Row("silent", STALE, STALES),
    Row("unplug", frozenset({"bus closed"}), 1, is_line=True),
    Row("ignore_writes", FOLLOW, MOST),
    Row("stuck", FOLLOW, MOST),
    Row("freeze", FOLLOW, MOST),
    Row("wrong_mode", FOLLOW, MOST),
    Row("block", FOLLOW | {"drive fault"}, MOST),  # a servo that pushes for long lets go
    Row("drive_error", frozenset({"drive fault"}), 1),
    Row("overheat", frozenset({"drive fault"}), 1),
    Row("torque_lost", FOLLOW, WIDE),
    Row("reboot", FOLLOW, WIDE),
    Row("brown_out", STALE | {"torque lost"}, STALES),
    Row("sensor_jump", frozenset({"implausible"}), 1),
    Row("encoder_wrap", frozenset({"implausible"}), 1),
)


@dataclass
class Found:
    """What one kind came to.

    Attributes:
        outcomes: reason, or how it went on, and how often.
        ticks: the most until the documented state.
        beyond: of any command, past where braking may end, at most [rad].
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    ticks: int = 0
    beyond: float = -np.inf


def spin(is_over: threading.Event) -> None:
    """Keeps one thread of Python busy."""
    value = 0
    while not is_over.is_set():
        value = (value * 31 + 7) % 1000003


def swing(robot: Robot) -> None:
    """Moves every joint, wide enough that a joint that does not follow is left behind."""
    limits = [joint.limits for joint in robot.embodiment.joints]
    middle = np.array([(limit.min_position + limit.max_position) / 2 for limit in limits])
    reach = np.array([(limit.max_position - limit.min_position) / 2 for limit in limits])
    record = robot.loop.snapshot()
    assert record is not None
    start = np.array(record["command"])
    phase = np.linspace(0, 1, 101)[:, np.newaxis]
    side = np.where(start > middle, -0.7, 0.7) * reach
    rows = start + (middle + side - start) * (1 - np.cos(np.pi * phase)) / 2
    robot.play(rows, time.monotonic(), 0.02, robot.loop.generation)


def beyond(columns: dict[str, NDArray[Any]], robot: Robot) -> float:
    """How far any command after the first stop went past where braking may end [rad]; negative: not that far."""
    stops = np.isin(columns["state"], [_core.LOOP_STATES.index(name) for name in ("hold", "fault")])
    stops &= columns["has_command"]
    if not stops.any() or not columns["has_command"][max(0, int(np.argmax(stops)) - 2) :].all():
        return -np.inf
    at = int(np.argmax(stops))
    if at < 2:
        return -np.inf
    limits = [joint.limits for joint in robot.embodiment.joints]
    acceleration = np.array([limit.max_acceleration for limit in limits])
    turning = acceleration / np.array([limit.max_jerk for limit in limits])  # from full push to none [s]
    command, measured = columns["command"], columns["measured"]
    speed = np.abs(command[at - 1] - command[at - 2]) / robot.loop.period_s
    fastest = speed + acceleration * turning / 2
    margin = fastest**2 / (2 * acceleration) + 2 * fastest * turning
    worst = -np.inf
    low, high = command[at - 1] - margin, command[at - 1] + margin
    for i in range(at, len(command)):
        if not stops[i]:  # it went on: the next stop is another one
            break
        # a command may be pulled back to where the joint stands, or sinks to: but never where it cannot be
        if _core.LOOP_REASONS[columns["reason"][i]] != "implausible":
            low, high = np.minimum(low, measured[i] - SAG), np.maximum(high, measured[i] + SAG)
        worst = max(worst, float(np.max(low - command[i])), float(np.max(command[i] - high)))
    return worst


class Disturbed(Exception):
    """This computer stood still before there was a fault: nothing is learnt."""


def one(config: RobotConfig, sim: SimProcess, row: Row, id: int) -> tuple[str, int, float]:
    """One fault: what it came to, the ticks until then, and how far a command went.

    Raises:
        AssertionError: it was not latched, or a record is lost.
        Disturbed: the robot was stopped before the fault was in force.
    """
    try:
        robot = Robot.connect(config)
    except BusTimeout as error:
        raise Disturbed(str(error)) from error
    with robot:
        watch = Watch(robot, lambda columns: None)
        began = np.inf

        def num_ticks(states: list[int], is_heard: bool = False) -> int:
            columns = watch.columns()
            counted = np.isin(columns["state"], states) & (columns["time"] >= began)
            if is_heard:
                counted &= columns["read_code"] == 0
            return int(counted.sum())

        with suppress(SafetyStop), robot.enabled():  # the report below says which
            swing(robot)
            watch.until(lambda: robot.loop.state in ("ramp", "run"), 2.0)
            watch.seconds(0.1)
            sim.fault(row.kind, None if row.is_line else id, 1 + id % 6 if row.kind == "duplicate_id" else row.value)
            began = time.monotonic()  # it is in force
            deadline = began + (PATIENCE if row.reasons else GOES_ON)
            while robot.loop.state != "fault" and time.monotonic() < deadline and num_ticks(MOVING) <= MOST:
                if robot.loop.state == "hold":
                    swing(robot)
                watch.until(lambda: robot.loop.state == "fault", 0.1)
        before = robot.loop.fault_report()
        sim.clear(row.kind)
        watch.seconds(robot.loop.max_stop_time_s + 0.1)
        report = robot.loop.fault_report()
        if began == np.inf:
            raise Disturbed(report["message"] if report else "torque did not come on")
        assert before is None or report is not None, "a fault was not latched"
        assert all(check.is_ok for check in watch.checks()), "a record is lost"
        columns = watch.columns()
        if report is not None and report["cause"]["reason"] == "drive fault":
            robot.release(robot.falling_joints)  # what a servo protects itself from is over without torque
        if row.kind == "freeze" and before is None and report is not None:
            assert report["cause"]["reason"] == "implausible", report["message"]  # feedback that thaws has jumped
            return "goes on", 0, -np.inf
        if report is not None:
            counted = MOVING if row.ticks == MOST else BEFORE
            reason = str(report["cause"]["reason"])
            # what an answer shows cannot be seen while a busy computer loses answers
            return reason, num_ticks(counted, is_heard=reason not in STALE) + 1, beyond(columns, robot)
        assert robot.loop.state in RUNS, robot.loop.state
        return "goes on", 0, beyond(columns, robot)


def is_documented(row: Row, id: int, outcome: str, ticks: int) -> bool:
    """Whether a fault may come to that, in so many ticks."""
    if outcome == "goes on":
        # the gripper may not follow, and what its motor lost is not seen until it is asked
        is_spared = id == GRIPPER and (bool(row.reasons & FOLLOW) or row.kind == "drive_error")
        return not row.reasons or is_spared
    if outcome in row.reasons:
        return ticks <= row.ticks
    # a busy computer's terminal is silent by itself at times, whatever else goes on
    return outcome in STALE


def main() -> int:
    """``live.py COUNT SEED``."""
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    logging.getLogger("wallx_edge").setLevel(logging.ERROR)  # that torque is let go is no news here
    chance = random.Random(seed)
    found: dict[Row, Found] = defaultdict(Found)
    wrong = []
    num_disturbed = 0
    is_over = threading.Event()
    load = [threading.Thread(target=spin, args=(is_over,)) for _ in range(2)]
    for thread in load:
        thread.start()
    try:
        with tempfile.TemporaryDirectory() as folder, SimProcess("so101", link=Path(folder) / "port", seed=seed) as sim:
            config = demo.prepare(Path(folder), Path(folder) / "port")
            for i in range(count):
                row = DOCUMENTED[i % len(DOCUMENTED)]
                id = chance.randint(1, 6)
                while True:
                    try:
                        outcome, ticks, way = one(config, sim, row, id)
                        break
                    except Disturbed as error:
                        num_disturbed += 1
                        if num_disturbed > max(1, MAX_DISTURBED * count):
                            raise SystemExit(f"   this computer stood still {num_disturbed} times: {error}") from error
                    except (WallxError, AssertionError) as error:
                        outcome, ticks, way = f"{type(error).__name__}: {error}", 0, -np.inf
                        sim.clear(row.kind)
                        break
                found[row].outcomes[outcome] += 1
                if outcome in row.reasons:
                    found[row].ticks = max(found[row].ticks, ticks)
                found[row].beyond = max(found[row].beyond, way)
                if not is_documented(row, id, outcome, ticks) or way > 1e-9:
                    wrong.append(
                        f"{row.kind} at {id} (number {i}): {outcome} after {ticks} ticks, at most {row.ticks}, "
                        f"{max(way, 0):.4f} rad beyond"
                    )
                    print(f"   UNDOCUMENTED {wrong[-1]}", flush=True)
    finally:
        is_over.set()
        for thread in load:
            thread.join()
    print(f"   {count} live faults, seed {seed}: {len(wrong)} undocumented")
    print(f"   {num_disturbed} times this computer stood still before a fault was in force: done again")
    print(f"   {'fault':<14}{'value':<8}{'ticks':>6}{'most':>6}{'braking':>10}  outcomes")
    for row, what in found.items():
        shown = ", ".join(f"{outcome} {number}" for outcome, number in what.outcomes.most_common())
        preset = "" if row.value is None else f"{row.value:g}"
        braking = "-" if what.beyond == -np.inf else f"{what.beyond:+.3f}"
        print(f"   {row.kind:<14}{preset:<8}{what.ticks:>6}{row.ticks:>6}{braking:>10}  {shown}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
