"""Log: reads what an emulated arm wrote about itself."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wallx_edge.errors import DeviceError


@dataclass(frozen=True)
class StateTrace:
    """The periodic states of a log, one row per state, one column per servo."""

    ids: tuple[int, ...]
    names: tuple[str, ...]
    t: npt.NDArray[np.int64]  # CLOCK_MONOTONIC (n) [ns]
    position: npt.NDArray[np.int64]  # as reported (n, servos) [ticks]
    goal: npt.NDArray[np.int64]  # in force, after the servos' limits (n, servos) [ticks]
    torque: npt.NDArray[np.int64]  # register 40 (n, servos)


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """Reads a log, one dict per line; a last line that was cut short (a killed emulator's) is left out.

    Raises:
        DeviceError: no such file, or a damaged line before the last one.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise DeviceError(f"cannot read the emulator's log {path}: {error}") from error
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last end of line is not whole
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise DeviceError(f"the emulator's log {path}, line {number}, is damaged: {error}") from error
    return records


def state_trace(records: list[dict[str, Any]]) -> StateTrace:
    """The states of a log as arrays.

    Raises:
        DeviceError: the log has no start line.
    """
    start = next((r for r in records if r["kind"] == "start"), None)
    if start is None:
        raise DeviceError("the emulator's log has no start line: it is empty or belongs to something else")
    states = [r for r in records if r["kind"] == "state"]
    columns = len(start["ids"])

    def table(key: str) -> npt.NDArray[np.int64]:
        return np.array([s[key] for s in states], dtype=np.int64).reshape(len(states), columns)

    t = np.array([s["t"] for s in states], dtype=np.int64)
    return StateTrace(tuple(start["ids"]), tuple(start["names"]), t, table("position"), table("goal"), table("torque"))
