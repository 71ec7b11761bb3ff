"""Seams: how smoothly chunks follow each other, measured before the limiter, in lock-step."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.bench.two_modes import TwoModes
from wallx_edge.cameras import PatternCamera
from wallx_edge.embodiment import load_embodiment
from wallx_edge.session.execution import PlayedChunk
from wallx_edge.session.lockstep import StepPace, SteppedRobot
from wallx_edge.session.session import Session
from wallx_edge.session_config import Mode, SessionConfig

__all__ = ["measure_seams", "seam_summary"]

STEP = 0.03  # between rows [s]
AROUND = 2  # ticks on both sides of a seam that belong to it


def measure_seams(mode: Mode, delay: int, *, duration: float = 12.0, seed: int = 0) -> dict[str, Any]:
    """Runs a session on the field of two modes and measures what the loop was told, before its limiter.

    Args:
        mode: of execution.
        delay: of every inference [steps].
        duration: [simulated s]
        seed: of the noise.

    Returns:
        ``jump_rad``: the largest distance between the rows in force and those that took over, at that moment, of any
        joint; ``acceleration_at_seams`` and ``acceleration_inside``: largest second difference of the targets over the
        tick's square, within two ticks of a seam and elsewhere, where the rows are followed [rad/s^2]; ``seams`` and
        ``holds`` count.
    """
    joints = load_embodiment("so101").joints
    centre = {joint.name: joint.rest_position for joint in joints}
    with SteppedRobot(max_first_step=3.0) as robot:
        session = Session(
            TwoModes(centre, step=STEP, seed=seed),
            robot,
            {"face_view": PatternCamera("face_view", width=64, height=48, clock=lambda: robot.now)},
            "follow",
            config=SessionConfig(mode=mode),
            pace=StepPace(robot, [delay * STEP]),
        )
        begin = robot.now
        session.run(duration)
        columns = robot.loop.drain(65536)
        chunks = session.chunks
        period = robot.loop.period_s
    # from the first chunk until no other is to come
    sequence, target = columns["plan_sequence"], columns["target"]
    used = (sequence > 0) & (columns["time"] < begin + duration)
    sequence, target, times = sequence[used], target[used], columns["time"][used]
    seams = np.flatnonzero(np.diff(sequence)) + 1
    by_sequence = {chunk.sequence: chunk for chunk in chunks}
    jumps = [np.abs(target[at] - position(by_sequence[int(sequence[at - 1])], float(times[at]))).max() for at in seams]
    acceleration = np.abs(np.diff(target, 2, axis=0)).max(axis=1) / period**2
    is_seam = np.zeros(len(acceleration), bool)
    for at in seams:
        is_seam[max(0, at - 2 - AROUND) : at + AROUND] = True
    is_held = columns["state"][used] == 6
    return {
        "mode": mode,
        "delay_steps": delay,
        "seams": len(seams),
        "jump_rad": float(max(jumps, default=0.0)),
        "acceleration_at_seams": float(acceleration[is_seam].max(initial=0.0)),
        "acceleration_inside": float(acceleration[~is_seam].max(initial=0.0)),
        "holds": int(np.count_nonzero(np.diff(is_held.astype(int)) == 1)),
    }


def position(chunk: PlayedChunk, time: float) -> NDArray[np.float64]:
    """Where a chunk's spline is at a time; the loop's C++ is not asked   (joints,)"""
    rows, step = chunk.rows, chunk.step
    at = np.clip((time - chunk.start) / step, 0, len(rows) - 1)
    row = min(int(at), len(rows) - 2)
    b = at - row
    a = 1 - b
    curvature = _curvature(rows, step)
    bend: NDArray[np.float64] = (a**3 - a) * curvature[row] + (b**3 - b) * curvature[row + 1]
    out: NDArray[np.float64] = a * rows[row] + b * rows[row + 1] + bend * step**2 / 6
    return out


def _curvature(rows: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Second derivatives of the cubic spline that is natural at its start and at rest at its end."""
    n = len(rows)
    matrix, right = np.eye(n), np.zeros_like(rows)
    for i in range(1, n - 1):
        matrix[i, i - 1 : i + 2] = 1, 4, 1
        right[i] = 6 * (rows[i + 1] - 2 * rows[i] + rows[i - 1]) / step**2
    matrix[-1, -2:] = 1, 2
    right[-1] = -6 * (rows[-1] - rows[-2]) / step**2
    return np.asarray(np.linalg.solve(matrix, right), np.float64)


def seam_summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The worst of both kinds of session, delay by delay."""
    by = {(r["mode"], r["delay_steps"]): r for r in results}
    delays = sorted({r["delay_steps"] for r in results})
    return {
        "jump_ratio": max(by["rtc", d]["jump_rad"] / by["latest", d]["jump_rad"] for d in delays),
        "acceleration_ratio": max(
            by["rtc", d]["acceleration_at_seams"] / by["rtc", d]["acceleration_inside"] for d in delays
        ),
        "holds": sum(by["rtc", d]["holds"] for d in delays),
    }
