"""TwoModes: an analytic flow with two equally good motions, between which chunks that do not listen jump."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.policy import Follow
from wallx_edge.types import ActionChunk, DofLayout, Observation

__all__ = ["TwoModes"]


SCALE = 0.25  # of the model's range [rad]


@dataclass(frozen=True)
class _Settings:
    cameras: tuple[str, ...]
    horizon: int
    step: float


class TwoModes:
    """Acts as a policy; its chunks come from the exact velocity field of two motions, mirrored about a pose.

    The field's data are two trajectories of absolute time, each with half of the probability: v(x, t) is the mean of
    (trajectory - x) / (1 - t) over which of them x may become. Without guidance the noise decides.
    """

    def __init__(
        self,
        centre: dict[str, float],
        *,
        horizon: int = 50,
        step: float = 0.03,
        cameras: tuple[str, ...] = ("face_view",),
        num_steps: int = 10,
        seed: int = 0,
    ) -> None:
        """Draws its noise from a seed.

        Args:
            centre: joint -> the pose between the two motions [rad].
            horizon: rows of a chunk.
            step: between them [s].
            cameras: roles it says it looks at.
            num_steps: Euler steps.
            seed: of the noise.
        """
        self.config = _Settings(cameras, horizon, step)
        self.action_layout = self.state_layout = DofLayout.from_config(dict.fromkeys(centre, 1))
        self.statistics = self.statistics_source = "none: an analytic field"
        self.queue: _core.InferenceQueue | None = None
        self.context = None
        self._centre = np.array(list(centre.values()))
        self._num_steps = num_steps
        self._random = np.random.default_rng(seed)
        self._phase = np.linspace(0, 1, len(centre))

    def motion(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """One of the two motions, in the model's range; the other is its negative   (times, joints)"""
        return 1 + 0.4 * np.sin(2 * np.pi * (0.5 * times[:, np.newaxis] + self._phase))

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        """One chunk, as :meth:`wallx_edge.policy.Policy.act`."""
        horizon, step = self.config.horizon, self.config.step
        motion = self.motion(observation.captured_at + step * np.arange(horizon, dtype=np.float64))
        if noise is None:
            noise = self._random.standard_normal(motion.shape, np.float32)
        x: NDArray[np.float64] = noise.astype(np.float64)
        previous, weights = None, None
        if follow is not None and len(follow.rows):
            index = np.minimum(np.arange(horizon), len(follow.rows) - 1)
            previous = (follow.rows[index] - self._centre) / SCALE
            weights = _core.guidance_weights(follow.num_frozen, len(follow.rows), horizon)
        for i in range(self._num_steps):
            time = i / self._num_steps
            velocity: NDArray[np.floating[Any]] = (self._mean(x, time, motion) - x) / (1 - time)
            if previous is not None and weights is not None and follow is not None:
                velocity = _core.guide_velocity(velocity, x, time, previous, weights, follow.max_guidance)
            x = x + velocity / self._num_steps
        rows = self._centre + SCALE * x
        if follow is not None:
            rows[: follow.num_frozen] = follow.rows[: follow.num_frozen]
        return ActionChunk(rows, step, observation.captured_at, self.action_layout)

    def cancel(self) -> None:
        """It computes at once."""

    @staticmethod
    def _mean(x: NDArray[np.float64], time: float, motion: NDArray[np.float64]) -> NDArray[np.float64]:
        """What x is expected to become   (horizon, joints)"""
        # of x = (1 - t) noise + t motion; the two likelihoods' difference is linear in x
        score = 2 * time * float(np.sum(x * motion)) / (1 - time) ** 2
        share = np.tanh(np.clip(score / 2, -30, 30))
        mean: NDArray[np.float64] = share * motion
        return mean
