"""Parts: what a session needs of a policy, a robot and a reasoner."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.generation import GenerationConfig, OnText
from wallx_edge.policy import Follow
from wallx_edge.robot_model import RobotModel
from wallx_edge.types import ActionChunk, DofLayout, Observation

if TYPE_CHECKING:
    from wallx_edge.reasoner import Answer

__all__ = ["ActingPolicy", "DrivenRobot", "Thinker"]


class Settings(Protocol):
    """Of a policy."""

    @property
    def cameras(self) -> tuple[str, ...]:
        """Roles it looks at."""

    @property
    def horizon(self) -> int:
        """Rows of a chunk."""

    @property
    def step(self) -> float:
        """Between them [s]."""


class ActingPolicy(Protocol):
    """A :class:`wallx_edge.policy.Policy`, or something that acts like one. One thread at a time calls it."""

    queue: _core.InferenceQueue | None
    action_layout: DofLayout
    state_layout: DofLayout
    statistics: str
    statistics_source: str

    @property
    def config(self) -> Settings:
        """How it is asked."""

    @property
    def context(self) -> Any:
        """With ``fork()``: what a Reasoner goes on with."""

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        """One chunk. Blocks."""

    def cancel(self) -> None:
        """Ends an ``act`` under way, which then raises; from any thread."""


class Thinker(Protocol):
    """A :class:`wallx_edge.reasoner.Reasoner`, or something that answers like one."""

    queue: _core.InferenceQueue | None

    @property
    def context(self) -> Any:
        """The engine's state of its conversation."""

    @context.setter
    def context(self, context: Any) -> None:
        pass

    def subtask(
        self, observation: Observation, config: GenerationConfig | None = None, on_text: OnText | None = None
    ) -> Answer:
        """What to do next. Blocks; raises AnswerError when the model says nothing or does not end."""

    def reason(
        self,
        images: Sequence[NDArray[np.uint8]],
        goal: str,
        config: GenerationConfig | None = None,
        on_text: OnText | None = None,
        *,
        resolution: int = -1,
    ) -> Answer:
        """Step by step. Blocks."""

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        question: str,
        config: GenerationConfig | None = None,
        on_text: OnText | None = None,
        *,
        resolution: int = -1,
    ) -> Answer:
        """An answer. Blocks."""

    def cancel(self) -> None:
        """Ends a call under way, which then raises; from any thread."""


class DrivenRobot(Protocol):
    """A connected :class:`wallx_edge.robot.Robot`, or one on a simulated clock."""

    loop: _core.ControlLoop
    max_first_step: float
    model: RobotModel | None
    embodiment: _core.Embodiment
    joint_names: tuple[str, ...]

    def state(self) -> tuple[NDArray[np.float64], float]:
        """Measured joints [rad] and when [s]."""

    def play(self, rows: NDArray[np.float64], start: float, step: float, generation: int) -> int:
        """Hands rows to the loop."""

    def check(self) -> None:
        """Raises the loop's fault."""

    def enabled(self) -> AbstractContextManager[Any]:
        """Torque on."""
