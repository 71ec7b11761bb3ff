"""Dataset: a LeRobotDataset v3 folder, frame by frame; what does not fit is refused by name."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge.dataset.layout import DATA_PATH, IMAGES, LANGUAGE, VERSION, VIDEO_PATH
from wallx_edge.errors import ConfigError
from wallx_edge.extras import require

__all__ = ["Dataset", "Frame"]

# what tables raise that do not fit each other; ConfigError is a ValueError, and says it better
_MISFIT = (KeyError, IndexError, TypeError, ValueError, StopIteration, ZeroDivisionError)
_TOLERANCE = 0.5  # of a frame, between its time and its picture's


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment of an episode.

    Attributes:
        index: in the dataset.
        episode: its number.
        time: since the episode's begin [s].
        state: (columns)
        action: (columns)
        images: by role, uint8 RGB   (height, width, 3)
        task: the instruction.
        subtask: what was being done; empty: not said.
    """

    index: int
    episode: int
    time: float
    state: NDArray[np.float32]
    action: NDArray[np.float32]
    images: Mapping[str, NDArray[np.uint8]]
    task: str
    subtask: str


class Dataset:
    """A folder that lerobot or :class:`wallx_edge.dataset.DatasetWriter` wrote. Not for two threads at once.

    Attributes:
        fps: frames a second.
        robot_type: of the embodiment; empty: not said.
        names: of the columns of ``observation.state`` and ``action``.
        cameras: role -> height, width [pixels].
        tasks: by number.
        lengths: frames of each episode.
        stats: feature -> min, max, mean, std, ...
    """

    def __init__(self, folder: str | Path) -> None:
        """Reads what the folder says of itself and looks whether its files are there.

        Raises:
            ConfigError: another version, files missing or damaged, widths or counts that disagree.
        """
        self.folder = Path(folder)
        self._parquet = require("pyarrow.parquet", "dataset", "a dataset")
        self._av = require("av", "dataset", "a dataset")
        info = self._json("meta/info.json")
        version = info.get("codebase_version")
        if version != VERSION:
            raise ConfigError(f"{self.folder}: codebase_version is {version!r}, this reads {VERSION} only")
        try:
            self.fps = float(info["fps"])
            if not 0 < self.fps < 1e4:
                raise ValueError(f"fps is {self.fps:g}")
            self.robot_type = str(info.get("robot_type") or "")
            features: dict[str, Any] = dict(info["features"])
            total_episodes, total_frames = int(info["total_episodes"]), int(info["total_frames"])
            self._data_path = str(info.get("data_path") or DATA_PATH)
            self._video_path = str(info.get("video_path") or VIDEO_PATH)
            self._vectors = {key: int(features[key]["shape"][0]) for key in ("observation.state", "action")}
            self.names = {key: _names(features[key].get("names"), width) for key, width in self._vectors.items()}
            videos = {key: f for key, f in features.items() if f["dtype"] == "video"}
            self._keys = {key.removeprefix(IMAGES): key for key in videos}
            self.cameras = {
                key.removeprefix(IMAGES): (int(f["shape"][0]), int(f["shape"][1])) for key, f in videos.items()
            }
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ConfigError(f"{self.folder}/meta/info.json: {type(error).__name__} {error}: no dataset's") from error
        pictures = [key for key, f in features.items() if f["dtype"] == "image"]
        if pictures:
            raise ConfigError(f"{self.folder}: {pictures[0]} is kept as single pictures; only videos are read")
        self._has_words = LANGUAGE in features
        try:
            self._read_tables(total_episodes, total_frames)
        except _MISFIT as error:
            if isinstance(error, ConfigError):
                raise
            raise self._misfit(error) from error
        self._rows = lru_cache(maxsize=4)(self._load_rows)

    def _misfit(self, error: Exception) -> ConfigError:
        return ConfigError(f"{self.folder}: its tables do not fit each other: {type(error).__name__} {error}")

    def _read_tables(self, total_episodes: int, total_frames: int) -> None:
        self.stats = self._json("meta/stats.json") if (self.folder / "meta/stats.json").exists() else {}
        table = self._table(self.folder / "meta/tasks.parquet").to_pydict()
        texts = next((v for k, v in table.items() if k != "task_index"), None)
        if texts is None or "task_index" not in table:
            raise ConfigError(f"{self.folder}/meta/tasks.parquet has no tasks with their task_index")
        self.tasks = {int(i): str(t) for i, t in zip(table["task_index"], texts, strict=True)}
        episodes: list[dict[str, Any]] = []
        for path in sorted((self.folder / "meta/episodes").rglob("*.parquet")):
            episodes += self._table(path).to_pylist()
        # one more may be there: its writer was killed before it said so
        self._episodes = sorted(episodes, key=lambda e: int(e["episode_index"]))[:total_episodes]
        if [int(e["episode_index"]) for e in self._episodes] != list(range(total_episodes)):
            raise ConfigError(
                f"{self.folder}/meta/episodes has {len(self._episodes)} of the {total_episodes} episodes of info.json"
            )
        self.lengths = [int(e["length"]) for e in self._episodes]
        if sum(self.lengths) != total_frames:
            raise ConfigError(
                f"{self.folder}: the episodes have {sum(self.lengths)} frames, info.json says {total_frames}"
            )
        for episode in self._episodes:
            for path in (self._data_file(episode), *(self._video_file(episode, role) for role in self.cameras)):
                if not path.is_file():
                    raise ConfigError(f"{path} of episode {episode['episode_index']} is missing")

    @classmethod
    def load(cls, folder: str | Path) -> Dataset:
        """Opens one; raises as the constructor does."""
        return cls(folder)

    def __len__(self) -> int:
        """Frames of all episodes."""
        return sum(self.lengths)

    def frame(self, index: int) -> Frame:
        """One frame with its pictures. Blocks while they are decoded.

        Args:
            index: in the dataset.

        Raises:
            ConfigError: no such frame, a damaged file, another width or size than the dataset says.
        """
        try:
            return self._frame(index)
        except _MISFIT as error:
            if isinstance(error, ConfigError):
                raise
            raise self._misfit(error) from error

    def _frame(self, index: int) -> Frame:
        if not 0 <= index < len(self):
            raise ConfigError(f"{self.folder}: no frame {index}, there are {len(self)}")
        episode = next(e for e in self._episodes if index < int(e["dataset_to_index"]))
        rows = self._rows(self._data_file(episode))
        at = index - int(rows["index"][0])
        if not 0 <= at < len(rows["index"]) or int(rows["index"][at]) != index:
            raise ConfigError(f"{self._data_file(episode)} has no frame {index} where it is to be")
        time = float(rows["timestamp"][at])
        images = {role: self._picture(episode, role, time) for role in self.cameras}
        subtask = ""
        for said in rows["said"][at]:
            if said["style"] == "subtask" and said["timestamp"] <= time + 1e-4:
                subtask = said["content"] or ""
        return Frame(
            index=index,
            episode=int(episode["episode_index"]),
            time=time,
            state=rows["observation.state"][at],
            action=rows["action"][at],
            images=images,
            task=self.tasks[int(rows["task_index"][at])],
            subtask=subtask,
        )

    def _data_file(self, episode: Mapping[str, Any]) -> Path:
        place = {name: int(episode[f"data/{name}"]) for name in ("chunk_index", "file_index")}
        return self.folder / self._data_path.format(**place)

    def _video_file(self, episode: Mapping[str, Any], role: str) -> Path:
        key = self._keys[role]
        if f"videos/{key}/file_index" not in episode:
            raise ConfigError(f"{self.folder}: episode {episode['episode_index']} has no video of {role}")
        place = {name: int(episode[f"videos/{key}/{name}"]) for name in ("chunk_index", "file_index")}
        return self.folder / self._video_path.format(video_key=key, **place)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path} cannot be read: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} is no table of keys and values")
        return content

    def _table(self, path: Path) -> Any:
        try:
            return self._parquet.read_table(path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error

    def _load_rows(self, path: Path) -> dict[str, Any]:
        table = self._table(path)
        needed = ("observation.state", "action", "timestamp", "index", "task_index")
        missing = [name for name in needed if name not in table.column_names]
        if missing:
            raise ConfigError(f"{path} has no column {missing[0]}")
        rows: dict[str, Any] = {name: table[name].to_numpy() for name in needed[2:]}
        for key, width in self._vectors.items():
            values = [v if isinstance(v, list) else [v] for v in table[key].to_pylist()]
            wrong = next((len(v) for v in values if len(v) != width), None)
            if wrong is not None:
                raise ConfigError(f"{path}: {key} has {wrong} columns, info.json says {width}")
            rows[key] = np.array(values, np.float32)
        has_words = self._has_words and LANGUAGE in table.column_names
        rows["said"] = table[LANGUAGE].to_pylist() if has_words else [[]] * table.num_rows
        return rows

    def _picture(self, episode: Mapping[str, Any], role: str, time: float) -> NDArray[np.uint8]:
        path = self._video_file(episode, role)
        wanted = float(episode[f"videos/{self._keys[role]}/from_timestamp"]) + time
        try:
            with self._av.open(str(path)) as container:
                stream = container.streams.video[0]
                container.seek(max(0, int(wanted / stream.time_base)), stream=stream)
                for frame in container.decode(stream):
                    if frame.time is not None and frame.time >= wanted - _TOLERANCE / self.fps:
                        image: NDArray[np.uint8] = frame.to_ndarray(format="rgb24")
                        if image.shape[:2] != self.cameras[role]:
                            raise ConfigError(
                                f"{path}: pictures of {image.shape[:2]} pixels, info.json says {self.cameras[role]}"
                            )
                        return image
        except (self._av.error.FFmpegError, OSError, IndexError) as error:
            raise ConfigError(f"{path} cannot be decoded: {error}") from error
        raise ConfigError(f"{path} ends before {wanted:.3f} s, where episode {episode['episode_index']} goes on")


def _names(names: Any, width: int) -> tuple[str, ...]:
    if isinstance(names, dict):  # some datasets name their groups of columns
        names = next(iter(names.values()), None)
    if isinstance(names, list) and len(names) == width:
        return tuple(str(name) for name in names)
    return tuple(str(i) for i in range(width))
