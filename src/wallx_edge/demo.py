"""Demo: the whole chain against an emulated SO-101, checked by the emulator's own log."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import __version__
from wallx_edge.embodiment import load_calibration, load_embodiment
from wallx_edge.extras import without_screen
from wallx_edge.policy import Policy
from wallx_edge.recording import Description, Recorder, Segments
from wallx_edge.recording.topics import CAMERA, CHUNK, DECISION, FAULT, LOOP, OBSERVATION
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.session import PlayedChunk, Session, SessionStatus
from wallx_edge.session.parts import ActingPolicy
from wallx_edge.session.recorded import tell_recorder
from wallx_edge.sim import read_log, state_trace
from wallx_edge.sim.so101 import write_calibration
from wallx_edge.synth import synth

if TYPE_CHECKING:
    from wallx_edge._core import LoopColumns

__all__ = ["check", "plot", "prepare", "run"]

TICKS_PER_TURN = 4096
MAX_FINAL_ERROR_DEG = 1.0
_ROBOT_TOML = """# The demo's robot: an emulated SO-101, two cameras, an untrained checkpoint.
[robot]
embodiment = "so101"
calibration = "calibration.json"

[bus]
port = "{port}"

[control]
rate_hz = {rate_hz}

[policy]
checkpoint = "checkpoint"
resolution = 128
horizon = 32
step = 0.03
execute_rows = 16
max_first_step = 1.5   # the untrained checkpoint begins at its own rest pose, far from the folded arm
"""
_PATTERN_CAMERA = """
[[camera]]
role = "{role}"
kind = "pattern"
width = 320
height = 240
"""
_SHARED_CAMERA = """
[[camera]]
role = "{role}"
kind = "shared"
path = "{path}"
"""
ROLES = ("face_view", "wrist_view")


def prepare(folder: Path, port: Path, rate_hz: float = 200.0, seed: int = 0, frames: Path | None = None) -> RobotConfig:
    """Writes the demo's checkpoint, calibration and ROBOT.toml, over those of an earlier run.

    Args:
        folder: where to.
        port: of the emulated arm.
        rate_hz: of the control loop [1/s].
        seed: of the checkpoint's weights.
        frames: of a simulated robot's cameras; drawn patterns without.
    """
    folder.mkdir(parents=True, exist_ok=True)
    embodiment = load_embodiment("so101")
    rest_pose = {joint.name: joint.rest_position for joint in embodiment.joints}
    shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    synth("tiny", folder / "checkpoint", rest_pose, embodiment.name, seed=seed)
    write_calibration(folder / "calibration.json")
    text = _ROBOT_TOML.format(port=port, rate_hz=rate_hz)
    for index, role in enumerate(ROLES):
        text += (_SHARED_CAMERA if frames else _PATTERN_CAMERA).format(role=role, path=frames)
        if index and not frames:
            text += f"seed = {index}\n"
    (folder / "robot.toml").write_text(text, encoding="utf-8")
    return RobotConfig.load(folder / "robot.toml")


def run(
    config: RobotConfig,
    task: str,
    duration: float,
    on_start: Callable[[Robot, Session], Callable[[SessionStatus], None]],
    make_policy: Callable[[Policy], ActingPolicy] = lambda policy: policy,
) -> tuple[dict[str, NDArray[Any]], list[PlayedChunk], dict[str, Any]]:
    """Lets a policy drive the emulated arm, then waits until the arm rests; records it beside ROBOT.toml.

    Args:
        config: of :func:`prepare`; its port is there.
        task: the instruction.
        duration: [s]
        on_start: called with the connected robot; gives what to call on every look.
        make_policy: from the checkpoint's; the checkpoint's own by default.

    Returns:
        the loop's records by column, the chunks, and the loop's counters.
    """
    parts: list[LoopColumns] = []
    with ExitStack() as stack:
        policy = make_policy(Policy.load(config.checkpoint, config.policy, **asdict(config.computing)))
        cameras = stack.enter_context(config.open_cameras())
        robot = stack.enter_context(Robot.connect(config))
        session = Session(policy, robot, cameras, task, config=config.session)
        description = Description.of(robot.embodiment, config.rate_hz, 2 * config.max_first_step)
        about = description.metadata({"version": __version__, "robot_toml": config.path.read_text(encoding="utf-8")})
        topics = (LOOP, OBSERVATION, CHUNK, DECISION, FAULT, *(CAMERA + role for role in cameras))
        segments = Segments(
            config.path.parent / "recording", config.path.stem, f"wallx-edge {__version__}", about, topics, 1 << 28
        )
        recorder = stack.enter_context(Recorder(segments, robot.loop, parts.append))
        stack.callback(session.subscribe(lambda moment: tell_recorder(recorder, moment)))
        show = on_start(robot, session)
        session.run(duration, show)
        settled = wait_until_still(robot)
        robot.loop.stop()  # before the recorder, which then has every record
    statistics = {
        "counters": robot.loop.counters(),
        "lateness": robot.loop.lateness_histogram(),
        "real_time": robot.loop.real_time,
        "settled": settled,
        "recording": str(segments.path),
    }
    columns = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}  # type: ignore[literal-required]
    return columns, session.chunks, statistics


def wait_until_still(robot: Robot, timeout: float = 3.0) -> bool:
    """Waits until no joint has moved by more than a tick for 0.2 s; says whether that happened within the timeout."""
    tick = 2 * np.pi / TICKS_PER_TURN
    deadline = time.monotonic() + timeout
    since, pose = time.monotonic(), robot.state()[0]
    while time.monotonic() < deadline:
        now = robot.state()[0]
        if np.abs(now - pose).max() > 1.5 * tick:
            since, pose = time.monotonic(), now
        elif time.monotonic() - since > 0.2:
            return True
        time.sleep(0.01)
    return False


def check(
    config: RobotConfig, columns: dict[str, NDArray[Any]], chunks: list[PlayedChunk], log: Path, is_over: bool = True
) -> dict[str, Any]:
    """Compares what the emulator received and did with the chunks' rows. Uses none of the driver's conversions.

    Args:
        config: of the run.
        columns: the loop's records.
        chunks: what was handed to the loop.
        log: of the emulator.
        is_over: whether the last chunk was played to its end, where the arm must be then.

    Returns:
        numbers for the summary; ``ok`` says whether all held.
    """
    embodiment = load_embodiment(config.embodiment)
    calibration = load_calibration(config.calibration, embodiment)
    ids = [c.id for c in calibration]

    def to_ticks(radians: NDArray[np.float64]) -> NDArray[np.int64]:
        middle = np.array([(c.range_min + c.range_max) / 2 for c in calibration])
        sign = np.array([-1.0 if c.drive_mode else 1.0 for c in calibration])
        return np.rint(middle + sign * radians * TICKS_PER_TURN / (2 * np.pi)).astype(np.int64)

    records = read_log(log)
    goals = np.array(
        [[r["goals"][str(i)] for i in ids] for r in records if len(r.get("goals", {})) == len(ids)], np.int64
    )
    sent = columns["has_command"].astype(bool) & (columns["send_code"] == 0)
    commands = columns["command"][sent]
    # the first write of goals is the measured pose, at torque on: it is a command too, and recorded as one
    received_all = goals.shape[0] == commands.shape[0] and bool(np.array_equal(goals, to_ticks(commands)))

    on_row = sent & columns["is_on_row"].astype(bool) & (columns["row"] >= 0)
    by_sequence = {chunk.sequence: chunk for chunk in chunks if chunk.sequence > 0}
    rows = np.array(
        [
            by_sequence[int(s)].rows[int(r)]
            for s, r in zip(columns["plan_sequence"][on_row], columns["row"][on_row], strict=True)
        ]
    ).reshape(-1, len(ids))
    position_in_log = np.cumsum(sent) - 1
    at_rows = goals[position_in_log[on_row]] if received_all else np.empty((0, len(ids)), np.int64)
    equal = (at_rows == to_ticks(rows)).all(axis=1) if received_all else np.zeros(0, bool)
    limited = ~columns["is_exact"][on_row].astype(bool)
    unexplained = int((~equal & ~limited).sum()) if received_all else -1

    trace = state_trace(records)
    order = [trace.ids.index(i) for i in ids]
    final_row = chunks[-1].rows[-1] if chunks else np.full(len(ids), np.nan)
    final_ticks = trace.position[-1, order]
    final_error_deg = float(np.abs(final_ticks - to_ticks(final_row)).max() * 360 / TICKS_PER_TURN) if chunks else None
    travel_deg = np.ptp(trace.position[:, order], axis=0) * 360 / TICKS_PER_TURN
    out: dict[str, Any] = {
        "commands_sent": int(sent.sum()),
        "goals_received": int(goals.shape[0]),
        "goals_equal_commands": received_all,
        "rows_due": int(on_row.sum()),
        "rows_equal": int(equal.sum()),
        "rows_limited": int(limited.sum()),
        "rows_unexplained": unexplained,
        "final_error_deg": final_error_deg,
        "travel_deg": [round(float(t), 2) for t in travel_deg],
    }
    out["ok"] = bool(
        received_all
        and unexplained == 0
        and out["rows_equal"] > 0
        and final_error_deg is not None
        and (not is_over or final_error_deg <= MAX_FINAL_ERROR_DEG)
        and travel_deg.max() > MAX_FINAL_ERROR_DEG
    )
    return out


def plot(path: Path, columns: dict[str, NDArray[Any]], joint_names: Sequence[str]) -> None:
    """Draws commanded and measured joints over time.

    Args:
        path: PNG to write.
        columns: the loop's records.
        joint_names: one per column.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    pyplot = without_screen("the demo's plot")

    sent = columns["has_command"].astype(bool)
    seconds = columns["time"] - columns["time"][sent][0]
    figure, axes = pyplot.subplots(len(joint_names), 1, sharex=True, figsize=(10, 1.6 * len(joint_names) + 1))
    for i, (axis, name) in enumerate(zip(axes, joint_names, strict=True)):
        target = np.where(columns["row"] >= 0, columns["target"][:, i], np.nan)
        axis.plot(seconds, target, color="0.75", linewidth=1.0, label="chunk rows")
        axis.plot(seconds[sent], columns["command"][sent, i], color="tab:blue", linewidth=1.4, label="command")
        axis.plot(seconds, columns["measured"][:, i], color="tab:orange", linewidth=1.0, label="measured")
        axis.set_ylabel(f"{name}\n[rad]", rotation=0, ha="right", va="center")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False)
    axes[0].set_title("Rows, commands and measured joints", loc="left")
    axes[-1].set_xlabel("time since torque on [s]")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Writes the machine-readable summary."""
    path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
