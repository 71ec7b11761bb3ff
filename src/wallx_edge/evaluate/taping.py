"""Taping: successful episodes as a dataset, for training."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np

from wallx_edge.dataset import DatasetWriter
from wallx_edge.evaluate.episode import Episode, Outcome

__all__ = ["Taping"]

FPS = 20  # an onlooker is called as often


class Taping:
    """Writes each successful episode: pictures and measured joints, and the joint command in force, at 20 Hz."""

    def __init__(self, folder: Path) -> None:
        """Makes nothing before the first frame.

        Args:
            folder: of the dataset: new, or empty.
        """
        self._folder = folder
        self._writer: DatasetWriter | None = None

    @property
    def num_episodes(self) -> int:
        """Written."""
        return self._writer.num_episodes if self._writer else 0

    def look(self, episode: Episode, now: float) -> None:
        """One frame.

        Raises:
            ConfigError: the folder is in use, or the extra ``dataset`` is not installed.
        """
        record = episode.robot.loop.snapshot()
        if record is None or not record["has_command"]:
            return
        cameras = {camera.role: camera for camera in episode.scene.world.cameras}
        if self._writer is None:
            names = episode.robot.joint_names
            sizes = {role: (camera.height, camera.width) for role, camera in cameras.items()}
            self._writer = DatasetWriter(
                self._folder, fps=FPS, state_names=names, action_names=names, cameras=sizes, robot_type="so101"
            )
        said = episode.policy.subtask(now) if hasattr(episode.policy, "subtask") else ""
        self._writer.add_frame(
            state=np.array(record["measured"]),
            action=np.array(record["command"]),
            images={role: episode.world.picture(camera) for role, camera in cameras.items()},
            task=episode.scene.instruction,
            subtask=said,
        )

    def end(self, outcome: Outcome) -> None:
        """Keeps the episode, or forgets it."""
        if self._writer is None:
            return
        if outcome.is_success:
            self._writer.end_episode()
        else:
            self._writer.drop_episode()

    def __enter__(self) -> Taping:
        """The writer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Completes the dataset."""
        if self._writer is not None:
            self._writer.close()
