"""Replay: a recorded run's rows and requests through the loop again, on a simulated clock and joints without wires."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.recording.description import Description
from wallx_edge.recording.mcap import read_mcap
from wallx_edge.recording.topics import CHUNK, LOOP

__all__ = ["Replay", "replay"]

# bit of a record's requests -> what asks the loop for it
REQUESTS: tuple[tuple[int, Literal["enable", "hold", "resume", "reset", "estop", "release"]], ...] = (
    (1, "enable"),
    (2, "hold"),
    (4, "resume"),
    (8, "reset"),
    (16, "estop"),
    (32, "release"),
)


@dataclass(frozen=True)
class Replay:
    """What the loop did again.

    Attributes:
        robot: name of the embodiment.
        ticks: replayed.
        chunks: handed over again.
        compared: ticks in which both loops sent a command.
        equal: of them, those in which every joint's command was the same, bit for bit.
        max_difference: of a joint's command, over all ticks compared [rad].
        first_difference: tick of the first command that differs; None: there is none.
        states_differ: ticks in which the states of the two loops differ, as after an answer that was lost in the run.
        is_whole: whether the recording was closed in order.
    """

    robot: str
    ticks: int
    chunks: int
    compared: int
    equal: int
    max_difference: float
    first_difference: int | None
    states_differ: int
    is_whole: bool


def replay(paths: Sequence[Path]) -> Replay:
    """Drives a loop with what was recorded: each request and plan before the tick that took it up in the run.

    The joints follow their commands at once, so what a real arm did beside them, sag, lost answers, faults of motors,
    is not played again; what limiter, interpolator and states make of the rows is. Blocks.

    Args:
        paths: files of one run, oldest first.

    Raises:
        ConfigError: a file is no recording of a run, or they are of different robots, or hold no tick.
    """
    ticks: list[dict[str, Any]] = []
    chunks: dict[int, dict[str, Any]] = {}
    found: Description | None = None
    is_whole = True
    for path in paths:
        file = read_mcap(path, (LOOP, CHUNK))
        description = Description.read(file.metadata, path)
        if found is not None and description != found:
            raise ConfigError(f"{path} is of another robot than {paths[0]}, or of other limits; replay one run")
        found, is_whole = description, is_whole and file.is_whole
        for message in file.messages:
            if message.topic == LOOP:
                ticks.append(message.json)
            else:
                chunk = message.json
                chunks[chunk["sequence"]] = chunk
    if found is None or not ticks:
        raise ConfigError(f"{', '.join(str(path) for path in paths) or 'no file'}: no tick of a loop is recorded")
    ticks.sort(key=lambda tick: int(tick["tick"]))
    return _run(found, ticks, chunks, is_whole)


def _run(
    description: Description, ticks: list[dict[str, Any]], chunks: dict[int, dict[str, Any]], is_whole: bool
) -> Replay:
    # the run's times, moved by whole nanoseconds so that the last tick has passed
    shift = round((_core.monotonic() - 1.0 - ticks[-1]["time"]) * 1e9)

    def moved(seconds: float) -> float:
        return float(round(seconds * 1e9) + shift) / 1e9

    robot = _core.make_robot(
        description.simulated(_first_pose(ticks)), [], _core.BusConfig(kind="loopback", port="none")
    )
    robot.connect()
    loop = _core.ControlLoop(
        robot, rate_hz=description.rate_hz, max_first_step=description.max_first_step, origin_s=moved(ticks[0]["time"])
    )
    try:
        handed: dict[int, int] = {}
        compared = equal = states_differ = 0
        largest, first = 0.0, None
        for tick, requests in zip(ticks, _requests(ticks), strict=True):
            for bit, name in REQUESTS:
                if requests & bit:
                    getattr(loop, name)()
            sequence = int(tick["plan_sequence"])
            if sequence > 0 and sequence not in handed and sequence in chunks:
                chunk = chunks[sequence]
                rows = np.array(chunk["rows"], np.float64)
                handed[sequence] = loop.submit(rows, moved(chunk["start"]), chunk["step"], loop.generation)
            record = loop.tick(moved(tick["time"]))
            states_differ += record["state"] != tick["state"]
            if tick["command"] is None or not record["has_command"]:
                continue
            compared += 1
            difference = float(np.max(np.abs(record["command"] - np.array(tick["command"], np.float64))))
            equal += difference == 0.0
            if difference > 0 and first is None:
                first = int(tick["tick"])
            largest = max(largest, difference)
    finally:
        robot.disconnect()
    return Replay(description.robot, len(ticks), len(handed), compared, equal, largest, first, states_differ, is_whole)


def _requests(ticks: list[dict[str, Any]]) -> Iterator[int]:
    """Of each tick; a recording that begins in the middle of a run is enabled by its first command."""
    is_enabled = False
    for tick in ticks:
        requests = int(tick["requests"])
        if requests & 1:
            is_enabled = True
        elif tick["command"] is not None and not is_enabled:
            is_enabled = True
            requests |= 1
        yield requests


def _first_pose(ticks: list[dict[str, Any]]) -> list[float]:
    """Where the joints stood when the first command was sent, or at the end [rad]."""
    last: list[float | None] = []
    for tick in ticks:
        last = tick["command"] or tick["measured"]
        if tick["command"] is not None:
            break
    return [0.0 if value is None else float(value) for value in last]
