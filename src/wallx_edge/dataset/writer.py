"""DatasetWriter: episodes to a LeRobotDataset v3 folder, each visible when it is whole."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.dataset.layout import (
    CHUNKS_SIZE,
    DATA_PATH,
    DEFAULTS,
    EPISODES_PATH,
    IMAGES,
    LANGUAGE,
    VERSION,
    VIDEO_PATH,
    Statistics,
    merged,
    statistics,
)
from wallx_edge.errors import ConfigError
from wallx_edge.extras import require
from wallx_edge.types import check_image
from wallx_edge.video import Video, encoder

__all__ = ["DatasetWriter"]

KEYFRAME_EVERY = 8  # pictures: what a reader decodes at most for one
SAMPLED = 60  # pictures of an episode that statistics are taken of, about
STRIDE = 4  # pixels between those that are looked at


class DatasetWriter:
    """Writes a folder that lerobot and :class:`wallx_edge.dataset.Dataset` read. Not thread-safe.

    Each episode has files of its own, written under temporary names, so that a writer that is killed leaves the
    episodes before. Pictures are encoded as they come: memory does not grow with them.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        fps: int,
        state_names: Sequence[str],
        action_names: Sequence[str],
        cameras: Mapping[str, tuple[int, int]],
        robot_type: str = "",
    ) -> None:
        """Makes the folder.

        Args:
            folder: that does not exist, or is empty.
            fps: frames a second.
            state_names: of the columns of the state.
            action_names: of the columns of the action.
            cameras: role -> height, width [pixels], even numbers.
            robot_type: of the embodiment.

        Raises:
            ConfigError: pyarrow or PyAV is not installed, the folder is in use, or a number does not fit.
        """
        self._arrow = require("pyarrow", "dataset", "a dataset")
        self._parquet = require("pyarrow.parquet", "dataset", "a dataset")
        encoder()
        if not 1 <= fps <= 1000:
            raise ConfigError(f"fps is {fps}, expected 1 to 1000")
        for role, size in cameras.items():
            if min(size) < 2 or size[0] % 2 or size[1] % 2:
                raise ConfigError(f"camera {role!r} gives {size[1]} x {size[0]} pixels; a video needs even sides")
        self.folder = Path(folder)
        if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise ConfigError(f"{self.folder} exists and is not an empty folder; name another one or remove it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._fps, self._robot_type = fps, robot_type
        self._names = {"observation.state": list(state_names), "action": list(action_names)}
        self._cameras = dict(cameras)
        self._tasks: dict[str, int] = {}
        self._totals: dict[str, list[Statistics]] = {}
        self._episodes = self._frames = 0
        self._rows: dict[str, list[NDArray[np.float32]]] = {}
        self._tasked: list[int] = []
        self._said: list[tuple[float, str]] = []
        self._videos: dict[str, Video] = {}
        self._samples: dict[str, list[NDArray[np.uint8]]] = {}
        self._every = 1  # frames between pictures that statistics are taken of
        self._clear()

    @property
    def num_episodes(self) -> int:
        """That are whole."""
        return self._episodes

    def add_frame(
        self,
        *,
        state: NDArray[Any],
        action: NDArray[Any],
        images: Mapping[str, NDArray[np.uint8]],
        task: str,
        subtask: str = "",
    ) -> None:
        """One frame of the episode under way; its time is its number over fps. Blocks while pictures are encoded.

        Args:
            state: SI   (columns)
            action: SI   (columns)
            images: by role, uint8 RGB   (height, width, 3)
            task: the instruction.
            subtask: what was being done; empty: not said.

        Raises:
            ConfigError: another width, size or role than the dataset has, values that are not finite, no task.
            OSError: the disk.
        """
        for key, value in (("observation.state", state), ("action", action)):
            names = self._names[key]
            if np.shape(value) != (len(names),):
                raise ConfigError(
                    f"{key} has shape {np.shape(value)}, the dataset has {len(names)}: {', '.join(names)}"
                )
            if not np.isfinite(value).all():
                raise ConfigError(f"{key} is {np.asarray(value).tolist()}, expected finite numbers")
        if set(images) != set(self._cameras):
            raise ConfigError(
                f"pictures of {', '.join(images) or 'nobody'}, the dataset has {', '.join(self._cameras)}"
            )
        if not task:
            raise ConfigError("a frame without a task: the dataset's reader needs one")
        for role, image in images.items():
            check_image(image, f"camera {role!r}")
            if image.shape[:2] != self._cameras[role]:
                raise ConfigError(f"camera {role!r}: {image.shape[:2]} pixels, the dataset has {self._cameras[role]}")
        for role, image in images.items():
            if role not in self._videos:
                path = self._part(VIDEO_PATH, video_key=IMAGES + role)
                self._videos[role] = Video(path, self._fps, KEYFRAME_EVERY)
            self._videos[role].add(image)
            if len(self._tasked) % self._every == 0:
                sample = image[::STRIDE, ::STRIDE].reshape(-1, 3)
                self._samples.setdefault(role, []).append(sample.copy())
                if len(self._samples[role]) > 2 * SAMPLED and role == next(iter(self._cameras)):
                    self._samples = {r: kept[::2] for r, kept in self._samples.items()}
                    self._every *= 2
        self._rows["observation.state"].append(np.asarray(state, np.float32))
        self._rows["action"].append(np.asarray(action, np.float32))
        self._tasked.append(self._tasks.setdefault(task, len(self._tasks)))
        if subtask != (self._said[-1][1] if self._said else ""):  # also where one ends and none begins
            self._said.append(((len(self._tasked) - 1) / self._fps, subtask))

    def end_episode(self) -> None:
        """Makes the episode visible. Blocks for the disk.

        Raises:
            ConfigError: it has no frame.
            OSError: the disk.
        """
        number = len(self._tasked)
        if not number:
            raise ConfigError("an episode without frames is none")
        for video in self._videos.values():
            video.close()
        stats = self._statistics()
        place = self._place()
        said = [
            {
                "role": "assistant",
                "content": text or None,
                "style": "subtask",
                "timestamp": at,
                "camera": None,
                "tool_calls": None,
            }
            for at, text in self._said
        ]
        index = np.arange(number)
        columns: dict[str, Any] = {
            **{key: self._vectors(rows) for key, rows in self._rows.items()},
            "timestamp": self._arrow.array((index / self._fps).astype(np.float32)),
            "frame_index": self._arrow.array(index),
            "episode_index": self._arrow.array(np.full(number, self._episodes)),
            "index": self._arrow.array(self._frames + index),
            "task_index": self._arrow.array(np.array(self._tasked, np.int64)),
            LANGUAGE: self._arrow.array([said] * number, type=self._language()),
        }
        self._write_table(columns, DATA_PATH)
        for role in self._cameras:
            self._show(VIDEO_PATH, video_key=IMAGES + role)
        self._write_tasks()
        tasks = [task for task, i in self._tasks.items() if i in set(self._tasked)]
        about: dict[str, Any] = {
            "episode_index": [self._episodes],
            "tasks": [tasks],
            "length": [number],
            "data/chunk_index": [place["chunk_index"]],
            "data/file_index": [place["file_index"]],
            "dataset_from_index": [self._frames],
            "dataset_to_index": [self._frames + number],
            "meta/episodes/chunk_index": [place["chunk_index"]],
            "meta/episodes/file_index": [place["file_index"]],
        }
        for role in self._cameras:
            key = f"videos/{IMAGES}{role}/"
            about[key + "chunk_index"], about[key + "file_index"] = [place["chunk_index"]], [place["file_index"]]
            about[key + "from_timestamp"], about[key + "to_timestamp"] = [0.0], [number / self._fps]
        for key, values in stats.items():
            about |= {f"stats/{key}/{name}": [value] for name, value in values.items()}
            self._totals.setdefault(key, []).append(values)
        self._totals = {key: [merged(parts)] for key, parts in self._totals.items()}
        self._write_json("meta/stats.json", {key: parts[0] for key, parts in self._totals.items()})
        self._write_table({key: self._arrow.array(value) for key, value in about.items()}, EPISODES_PATH)
        self._episodes += 1
        self._frames += number
        self._write_json("meta/info.json", self._info())  # last: it says how many episodes there are
        self._clear()

    def drop_episode(self) -> None:
        """Forgets the frames since the last episode."""
        for role, video in self._videos.items():
            video.close()
            self._part(VIDEO_PATH, video_key=IMAGES + role).unlink(missing_ok=True)
        self._clear()

    def close(self) -> None:
        """Drops an episode that was not ended; may be called again."""
        self.drop_episode()

    def __enter__(self) -> DatasetWriter:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def _clear(self) -> None:
        self._rows = {key: [] for key in self._names}
        self._tasked, self._said, self._videos, self._samples, self._every = [], [], {}, {}, 1

    def _place(self) -> dict[str, int]:
        return {"chunk_index": self._episodes // CHUNKS_SIZE, "file_index": self._episodes % CHUNKS_SIZE}

    def _path(self, template: str, **values: Any) -> Path:
        return self.folder / template.format(**self._place(), **values)

    def _part(self, template: str, **values: Any) -> Path:
        path = self._path(template, **values)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_name(f".{path.name}.part")

    def _show(self, template: str, **values: Any) -> None:
        self._part(template, **values).replace(self._path(template, **values))

    def _write_table(self, columns: Mapping[str, Any], template: str) -> None:
        self._parquet.write_table(self._arrow.table(dict(columns)), self._part(template), compression="snappy")
        self._show(template)

    def _write_tasks(self) -> None:
        # as pandas writes a frame whose index are the tasks
        index = "__index_level_0__"
        table = self._arrow.table({"task_index": list(self._tasks.values()), index: list(self._tasks)})
        about = {
            "index_columns": [index],
            "column_indexes": [
                {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": None}
            ],
            "columns": [
                {
                    "name": "task_index",
                    "field_name": "task_index",
                    "pandas_type": "int64",
                    "numpy_type": "int64",
                    "metadata": None,
                },
                {
                    "name": None,
                    "field_name": index,
                    "pandas_type": "unicode",
                    "numpy_type": "object",
                    "metadata": None,
                },
            ],
            "creator": {"library": "pyarrow", "version": self._arrow.__version__},
            "pandas_version": "2.2.0",
        }
        table = table.replace_schema_metadata({b"pandas": json.dumps(about).encode()})
        path = self.folder / "meta/tasks.parquet"
        part = path.with_name(f".{path.name}.part")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._parquet.write_table(table, part)
        part.replace(path)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.folder / name
        part = path.with_name(f".{path.name}.part")
        with part.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=4)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _vectors(self, rows: Sequence[NDArray[np.float32]]) -> Any:
        values = np.stack(rows)
        if values.shape[1] == 1:  # as lerobot has them
            return self._arrow.array(values.ravel())
        return self._arrow.FixedSizeListArray.from_arrays(self._arrow.array(values.ravel()), values.shape[1])

    def _language(self) -> Any:
        arrow = self._arrow
        return arrow.list_(
            arrow.struct(
                [
                    arrow.field("role", arrow.string(), nullable=False),
                    arrow.field("content", arrow.string()),
                    arrow.field("style", arrow.string()),
                    arrow.field("timestamp", arrow.float32(), nullable=False),
                    arrow.field("camera", arrow.string()),
                    arrow.field("tool_calls", arrow.list_(arrow.string())),
                ]
            )
        )

    def _statistics(self) -> dict[str, Statistics]:
        number = len(self._tasked)
        index = np.arange(number)[:, np.newaxis]
        scalars = {
            "timestamp": index / self._fps,
            "frame_index": index,
            "episode_index": np.full((number, 1), self._episodes),
            "index": self._frames + index,
            "task_index": np.array(self._tasked)[:, np.newaxis],
        }
        found = {key: statistics(np.stack(rows), number) for key, rows in self._rows.items()}
        found |= {key: statistics(values, number) for key, values in scalars.items()}
        for role, samples in self._samples.items():
            # by channel, 0..1, shaped as lerobot has them: (3, 1, 1)
            pixels = statistics(np.concatenate(samples) / 255.0, len(samples))
            count = pixels.pop("count")
            shaped: Statistics = {name: [[[float(v)]] for v in value] for name, value in pixels.items()}
            found[IMAGES + role] = {**shaped, "count": count}
        return found

    def _info(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            key: {"dtype": "float32", "shape": [len(names)], "names": names} for key, names in self._names.items()
        }
        for role, (height, width) in self._cameras.items():
            features[IMAGES + role] = {
                "dtype": "video",
                "shape": [height, width, 3],
                "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height,
                    "video.width": width,
                    "video.codec": "mpeg4" if encoder() == "mpeg4" else "h264",
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self._fps,
                    "video.channels": 3,
                    "has_audio": False,
                },
            }
        features |= DEFAULTS
        features[LANGUAGE] = {"dtype": "language", "shape": [1], "names": None}
        megabytes = sum(p.stat().st_size for p in (self.folder / "data").rglob("*.parquet")) / 2**20
        return {
            "codebase_version": VERSION,
            "robot_type": self._robot_type or None,
            "total_episodes": self._episodes,
            "total_frames": self._frames,
            "total_tasks": len(self._tasks),
            "chunks_size": CHUNKS_SIZE,
            "data_files_size_in_mb": max(100, math.ceil(megabytes)),
            "video_files_size_in_mb": 200,
            "fps": self._fps,
            "splits": {"train": f"0:{self._episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": features,
        }
