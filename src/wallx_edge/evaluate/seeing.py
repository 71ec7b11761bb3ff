"""Seeing: an onlooker that films an episode."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from wallx_edge.evaluate.episode import Episode
from wallx_edge.sim.world import CameraSpec, World
from wallx_edge.video import Video

__all__ = ["ONLOOKER", "Seeing", "filmed"]

FPS = 20
ONLOOKER = CameraSpec("onlooker", (0.56, -0.40, 0.40), (0.19, 0.02, 0.04), math.radians(37), 512, 384)
SMALL = 192  # side of the cameras' own pictures [pixels]
BAR = 32  # for the words [pixels]


def filmed(world: World, words: str, samples: int = 2) -> NDArray[np.uint8]:
    """The scene, what its cameras see beside it, and words under it: RGB   (height, width, 3)"""
    side = [replace(camera, width=SMALL, height=SMALL) for camera in world.spec.cameras[:2]]
    pictures = np.concatenate([world.picture(camera, samples) for camera in side])
    frame = np.concatenate([world.picture(ONLOOKER, samples), pictures], axis=1)
    bar = Image.new("RGB", (frame.shape[1], BAR), (24, 26, 30))
    ImageDraw.Draw(bar).text((10, 9), words, fill=(235, 235, 235), font_size=13)
    return np.concatenate([frame, np.asarray(bar)])


class Seeing:
    """Films one episode; without a file it looks away."""

    def __init__(self, path: str = "") -> None:
        """Writes nothing yet.

        Args:
            path: of the mp4; empty: none.

        Raises:
            ConfigError: PyAV is not installed.
        """
        self._video = Video(Path(path), FPS) if path else None

    def look(self, episode: Episode, now: float) -> None:
        """One frame."""
        if self._video is None:
            return
        said = episode.policy.subtask(now) if hasattr(episode.policy, "subtask") else ""
        words = f"{episode.scene.instruction}   |   {said}   |   {100 * episode.progress.share:.0f} %"
        self._video.add(filmed(episode.world, words))

    def close(self) -> None:
        """Completes the file."""
        if self._video is not None:
            self._video.close()
