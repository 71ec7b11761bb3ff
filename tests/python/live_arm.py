"""An emulated arm in a process of its own, a ROBOT.toml for it, and what its log says afterwards."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import demo
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess, read_log, state_trace

TICKS_PER_RAD = 4096 / (2 * np.pi)
DEADLINE = 20.0  # for anything that must happen, generous so that a busy computer does not matter [s]


@dataclass(frozen=True)
class LiveArm:
    """A running emulator and the configuration that reaches it."""

    sim: SimProcess
    config: RobotConfig
    log: Path

    def edit(self, old: str, new: str) -> RobotConfig:
        """Changes the ROBOT.toml and loads it again."""
        text = self.config.path.read_text(encoding="utf-8")
        assert old in text
        self.config.path.write_text(text.replace(old, new), encoding="utf-8")
        return RobotConfig.load(self.config.path)

    def story(self) -> Story:
        """Waits until the arm is still, stops the emulator and reads its log."""

        def is_still() -> bool:
            position = state_trace(read_log(self.log)).position[-40:]
            return len(position) == 40 and int(np.ptp(position, axis=0).max()) <= 2

        wait_for(is_still, "rest")
        self.sim.stop()
        return Story(read_log(self.log))


class Story:
    """What the emulator received and did."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self.records = records
        self.trace = state_trace(records)

    @property
    def goals(self) -> NDArray[np.int64]:
        """Every goal write that reached all servos [ticks]   (n, servos)"""
        ids = self.trace.ids
        rows = [r["goals"] for r in self.records if len(r.get("goals", {})) == len(ids)]
        return np.array([[row[str(i)] for i in ids] for row in rows], np.int64).reshape(-1, len(ids))

    @property
    def num_writes(self) -> int:
        """Instructions that write anything."""
        return sum("data" in r for r in self.records if r["kind"] == "instruction")

    def check_held(self) -> None:
        """The arm was moved, then rested under torque; nothing let go and no command jumped."""
        torque = self.trace.torque
        on = np.flatnonzero(torque.all(axis=1))
        assert on.size, "the motors were never enabled"
        assert torque[on[0] :].all(), "a motor let go"
        # the emulated joints have come to rest where they were told to be, but for their sag
        last = self.trace.position[-20:]
        assert np.ptp(last, axis=0).max() <= 2
        assert np.abs(last[-1] - self.goals[-1]).max() <= 8
        # 3.5 rad/s over the longest gap between two commands that a hold may follow
        assert np.abs(np.diff(self.goals, axis=0)).max() <= 3.5 * 0.005 * TICKS_PER_RAD + 2


@contextmanager
def live_arm(folder: Path, checkpoint: Path) -> Iterator[LiveArm]:
    """Starts an emulator and writes a ROBOT.toml with a copy of the checkpoint beside it."""
    log = folder / "emulator.jsonl"
    with SimProcess("so101", link=folder / "port", log=log) as sim:
        shutil.copytree(checkpoint, folder / "checkpoint")
        yield LiveArm(sim, demo.prepare(folder, folder / "port"), log)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Polls until something holds; a wait without a bound on being early, with a bound on being late."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE:g} s"
        time.sleep(0.005)


def wait_for_the_end(robot: Robot) -> None:
    """Waits until the plan in force has been played; a hold by a lost answer is not that."""

    def is_over() -> bool:
        record = robot.loop.snapshot()
        return record is not None and record["state"] == "hold" and record["cause"]["reason"] == "plan exhausted"

    wait_for(is_over, "the end of the plan")


def sweep(robot: Robot, reach: float = 0.5) -> NDArray[np.float64]:
    """Rows that move every joint slowly towards the middle of its range   (41, joints)"""
    now, _ = robot.state()
    part = np.linspace(0, 1, 41)[:, np.newaxis]
    middle = np.array([(j.limits.min_position + j.limits.max_position) / 2 for j in robot.embodiment.joints])
    away = np.where(np.abs(middle - now) < 0.1, 0.4, (middle - now) * reach)
    rows: NDArray[np.float64] = now + away * part
    return rows


def play_sweep(robot: Robot, seconds: float = 4.0) -> NDArray[np.float64]:
    """Plays :func:`sweep` and waits until the arm moves."""
    rows = sweep(robot)
    # at rest at its end, for long enough to catch up after a hold on the way
    rows = np.concatenate([rows, np.repeat(rows[-1:], 10, axis=0)])
    start, _ = robot.state()
    assert robot.play(rows, time.monotonic(), seconds / 40, robot.loop.generation) > 0
    wait_for(lambda: bool(np.abs(robot.state()[0] - start).max() > 0.05), "motion")
    return rows
