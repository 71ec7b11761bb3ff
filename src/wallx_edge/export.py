"""Export: recordings of runs as episodes of a dataset."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import bisect
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wallx_edge.dataset import DatasetWriter
from wallx_edge.errors import ConfigError
from wallx_edge.recording import read_mcap
from wallx_edge.recording.description import Description
from wallx_edge.recording.topics import CAMERA, DECISION, LOOP, OBSERVATION

__all__ = ["Exported", "export"]

SHORTEST = 2  # frames of an episode


@dataclass(frozen=True)
class Exported:
    """What came of it.

    Attributes:
        episodes: written.
        frames: written.
        fps: frames a second.
        skipped: file -> why it gave no episode.
        cut: files whose writer died; what is whole of them is in.
    """

    episodes: int
    frames: int
    fps: int
    skipped: dict[str, str]
    cut: tuple[str, ...]


@dataclass
class _Run:
    """One recording, sorted by time [s]."""

    names: tuple[str, ...]
    robot: str
    times: list[float] = field(default_factory=list)  # of the loop's ticks that sent a command
    measured: list[list[float]] = field(default_factory=list)
    commands: list[list[float]] = field(default_factory=list)
    pictures: dict[str, list[tuple[float, str]]] = field(default_factory=dict)  # role -> time, JPEG in base64
    words: list[tuple[float, str, str]] = field(default_factory=list)  # time, task, subtask
    is_whole: bool = True


def export(
    recordings: Sequence[Path], folder: Path, fps: int | None = None, on_file: Callable[[Path], None] | None = None
) -> Exported:
    """Writes a dataset with an episode for each recording. Blocks.

    Frames stand on a grid from the first picture on. A frame has the newest picture of each camera, the newest measured
    joint positions as state, and as action the joint command that the loop sent next, after the limiter.

    Args:
        recordings: MCAP files of runs of one robot.
        folder: that does not exist, or is empty.
        fps: of the dataset; as often as pictures came by default.
        on_file: called before each file.

    Raises:
        ConfigError: a file is no recording, the robots or cameras differ, nothing in them is an episode, or the folder
            is in use.
    """
    writer: DatasetWriter | None = None
    skipped: dict[str, str] = {}
    cut: list[str] = []
    frames = 0
    first: tuple[Any, ...] | None = None
    try:
        for path in recordings:
            if on_file is not None:
                on_file(path)
            run = _read(path)
            if not run.is_whole:
                cut.append(str(path))
            why = _trouble(run)
            if why:
                skipped[str(path)] = why
                continue
            sizes = {role: _decoded(shots[0][1]).shape[:2] for role, shots in run.pictures.items()}
            if writer is None:
                fps = fps or _rate(run)
                writer = DatasetWriter(
                    folder,
                    fps=fps,
                    state_names=run.names,
                    action_names=run.names,
                    cameras=sizes,
                    robot_type=run.robot,
                )
                first = (run.robot, run.names, sizes)
            elif first != (run.robot, run.names, sizes):
                raise ConfigError(f"{path} is of another robot, or has other cameras, than {recordings[0]}: {first}")
            assert fps is not None
            frames += _write(run, writer, fps)
    finally:
        if writer is not None:
            writer.close()
    if writer is None or fps is None:
        why = "; ".join(f"{path}: {text}" for path, text in skipped.items())
        raise ConfigError(f"nothing to export: {why or 'no recordings'}")
    return Exported(writer.num_episodes, frames, fps, skipped, tuple(cut))


def _read(path: Path) -> _Run:
    found = read_mcap(path)
    description = Description.read(found.metadata, path)
    run = _Run(tuple(str(joint["name"]) for joint in description.joints), description.robot, is_whole=found.is_whole)
    for message in found.messages:
        at = message.log_time * 1e-9
        if message.topic == LOOP:
            content = message.json
            if content["command"] is None or None in content["measured"] or None in content["command"]:
                continue
            run.times.append(at)
            run.measured.append(content["measured"])
            run.commands.append(content["command"])
        elif message.topic == OBSERVATION:
            content = message.json
            run.words.append((at, "", content["instruction"]))
        elif message.topic == DECISION:
            content = message.json
            if "task" in content:
                run.words.append((float(content.get("time", at)), content["task"], content.get("subtask", "")))
        elif message.topic.startswith(CAMERA):
            role = message.topic.removeprefix(CAMERA)
            run.pictures.setdefault(role, []).append((at, message.json["data"]))
    run.words.sort(key=lambda word: word[0])
    for shots in run.pictures.values():
        shots.sort(key=lambda shot: shot[0])
    return run


def _trouble(run: _Run) -> str:
    if not run.pictures:
        return "it has no pictures"
    if len(run.times) < SHORTEST:
        return "the robot was never moved"
    if not any(task for _, task, _ in run.words):
        return "it has no task"
    begin, end = _span(run)
    return "pictures and motion do not overlap" if end <= begin else ""


def _span(run: _Run) -> tuple[float, float]:
    return max(run.times[0], *(shots[0][0] for shots in run.pictures.values())), run.times[-1]


def _rate(run: _Run) -> int:
    shots = max(run.pictures.values(), key=len)
    gaps = np.diff([at for at, _ in shots])
    return int(np.clip(round(1 / float(np.median(gaps))), 1, 60)) if len(gaps) else 1


def _decoded(data: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(base64.b64decode(data)), formats=("JPEG",)) as picture:
        return np.asarray(picture.convert("RGB"))


def _write(run: _Run, writer: DatasetWriter, fps: int) -> int:
    begin, end = _span(run)
    number = int((end - begin) * fps) + 1
    said = [at for at, _, _ in run.words]
    shown: dict[str, tuple[int, NDArray[np.uint8]]] = {}
    task = next(task for _, task, _ in run.words if task)
    for i in range(number):
        at = begin + i / fps
        tick = min(bisect.bisect_left(run.times, at), len(run.times) - 1)
        before = max(0, bisect.bisect_right(run.times, at) - 1)
        images = {}
        for role, shots in run.pictures.items():
            newest = max(0, bisect.bisect_right(shots, at, key=lambda shot: shot[0]) - 1)
            if role not in shown or shown[role][0] != newest:
                shown[role] = newest, _decoded(shots[newest][1])
            images[role] = shown[role][1]
        word = bisect.bisect_right(said, at) - 1
        subtask = run.words[word][2] if word >= 0 else ""
        task = next((t for _, t, _ in reversed(run.words[: word + 1]) if t), task)
        writer.add_frame(
            state=np.array(run.measured[before]),
            action=np.array(run.commands[tick]),
            images=images,
            task=task,
            subtask=subtask if subtask != task else "",
        )
    writer.end_episode()
    return number
