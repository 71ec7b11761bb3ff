"""Checkpoint policy: a trained one in an episode, with its noise from the scene's seed."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.policy import Follow, Policy
from wallx_edge.policy_config import PolicyConfig
from wallx_edge.types import ActionChunk, Observation

__all__ = ["CheckpointPolicy"]


@lru_cache(maxsize=1)
def _engine(directory: str, precision: str) -> _core.Engine:
    return Computing(precision, threads=1).load(directory)


class CheckpointPolicy(Policy):
    """A checkpoint whose pictures may be black: what it does without them it knows by heart."""

    def __init__(self, directory: str, precision: str, seed: int, is_blanked: bool) -> None:
        """Loads the engine once a process.

        Args:
            directory: of the checkpoint.
            precision: to compute in; empty: as it is packed.
            seed: of the noise.
            is_blanked: whether its pictures are black.

        Raises:
            CheckpointError, ConfigError: as :meth:`wallx_edge.policy.Policy.load`.
        """
        config = PolicyConfig(cameras=("face_view", "wrist_view"), resolution=224, step=0.04, seed=seed)
        super().__init__(directory, config, _engine(directory, precision))
        self._is_blanked = is_blanked

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
        **others: Any,
    ) -> ActionChunk:
        """One chunk, as :meth:`wallx_edge.policy.Policy.act`."""
        if self._is_blanked:
            black = {role: np.zeros_like(image) for role, image in observation.images.items()}
            observation = replace(observation, images=black)
        return super().act(observation, noise, follow=follow, deadline=deadline, **others)
