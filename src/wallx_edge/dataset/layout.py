"""Layout: names, places and statistics of a LeRobotDataset v3 folder."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHUNKS_SIZE",
    "DATA_PATH",
    "DEFAULTS",
    "EPISODES_PATH",
    "IMAGES",
    "LANGUAGE",
    "VERSION",
    "VIDEO_PATH",
    "Statistics",
    "merged",
    "statistics",
]

VERSION = "v3.0"
CHUNKS_SIZE = 1000  # files of a folder
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
IMAGES = "observation.images."
LANGUAGE = "language_persistent"  # of every frame: what was said in its episode, each with the time it began to hold
# what every dataset has beside its own
DEFAULTS: Mapping[str, dict[str, Any]] = {
    "timestamp": {"dtype": "float32", "shape": [1], "names": None},
    "frame_index": {"dtype": "int64", "shape": [1], "names": None},
    "episode_index": {"dtype": "int64", "shape": [1], "names": None},
    "index": {"dtype": "int64", "shape": [1], "names": None},
    "task_index": {"dtype": "int64", "shape": [1], "names": None},
}
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

Statistics = dict[str, list[Any]]


def statistics(values: NDArray[Any], count: int) -> Statistics:
    """Of a feature's values, by column.

    Args:
        values: (n, columns)
        count: of frames they stand for.
    """
    values = np.asarray(values, np.float64)
    found = {"min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0)}
    found |= {name: np.quantile(values, share, axis=0) for name, share in _QUANTILES.items()}
    return {**{name: value.tolist() for name, value in found.items()}, "count": [count]}


def merged(parts: Sequence[Mapping[str, Any]]) -> Statistics:
    """Statistics of several episodes as one; quantiles are means of theirs, weighted by their frames."""
    counts = np.array([part["count"][0] for part in parts], np.float64)
    share = counts / counts.sum()

    def weighted(key: str) -> NDArray[np.float64]:
        return np.tensordot(share, np.array([part[key] for part in parts], np.float64), 1)

    mean = weighted("mean")
    # E[x^2] of all, from each episode's deviation and mean
    square = np.tensordot(
        share, np.array([np.square(part["std"]) + np.square(part["mean"]) for part in parts], np.float64), 1
    )
    out: dict[str, Any] = {
        "min": np.min([part["min"] for part in parts], axis=0),
        "max": np.max([part["max"] for part in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(np.maximum(square - np.square(mean), 0.0)),
        **{name: weighted(name) for name in _QUANTILES},
    }
    return {**{name: value.tolist() for name, value in out.items()}, "count": [int(counts.sum())]}
