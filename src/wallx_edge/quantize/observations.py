"""Observations to judge a quantized checkpoint by: the user's, or synthetic ones."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge.errors import ConfigError
from wallx_edge.pictures import read_picture
from wallx_edge.policy import Policy
from wallx_edge.scene import pattern
from wallx_edge.types import Observation

__all__ = ["read_observations", "synthetic"]

_TASKS = (
    "put the cube on the plate of the same color",
    "wipe the table",
    "open the drawer and take out the cup",
    "fold the towel",
)
_SIZE = (640, 480)  # of synthetic pictures [px]
_KEYS = {"images", "task", "state"}


def synthetic(policy: Policy, count: int, seed: int = 0) -> list[Observation]:
    """Drawn scenes, states anywhere in the range of the statistics, some tasks.

    Args:
        policy: whose cameras and state.
        count: of observations.
        seed: of all of them.
    """
    random = np.random.default_rng(seed)
    return [
        Observation(
            {
                role: pattern(float(random.uniform(0, 60)), *_SIZE, int(random.integers(1000)))
                for role in policy.config.cameras
            },
            policy.drawn_state(random),
            _TASKS[number % len(_TASKS)],
            float(number),
        )
        for number in range(count)
    ]


def read_observations(path: Path, policy: Policy) -> list[Observation]:
    """Reads a JSON file: a list of ``{"images": {ROLE: FILE}, "task": TEXT, "state": [NUMBER, ...]}``.

    Files are relative to its folder; the state is SI, in the model's order, and may be left out.

    Raises:
        ConfigError: not such a list, a picture that cannot be read, or another number of state values.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, list) or not content:
        raise ConfigError(f"{path}: expected a list of one observation or more, got {type(content).__name__}")
    return [_observation(path, number, item, policy) for number, item in enumerate(content)]


def _observation(path: Path, number: int, item: Any, policy: Policy) -> Observation:
    where = f"{path}: observation {number}"
    if not isinstance(item, dict) or not {"images", "task"} <= item.keys() <= _KEYS:
        raise ConfigError(f"{where}: expected images, task and perhaps state, and nothing else")
    images, state = item["images"], item.get("state")
    if not isinstance(images, dict) or not all(isinstance(file, str) for file in images.values()):
        raise ConfigError(f"{where}: images is {images!r:.60}, expected a file for each camera role")
    if state is not None and not (isinstance(state, list) and all(type(v) in (int, float) for v in state)):
        raise ConfigError(f"{where}: state is {state!r:.60}, expected a list of numbers")
    return Observation(
        {role: read_picture(f"{where}: {role}", str(path.parent / file)) for role, file in images.items()},
        policy.middle_state() if state is None else np.array(state, np.float64),
        item["task"],
        float(number),
    )
