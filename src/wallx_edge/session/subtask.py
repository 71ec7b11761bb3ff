"""Subtask: what the policy is told, who said it, and when the Reasoner is to be asked again."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge.errors import ConfigError
from wallx_edge.session_config import SessionConfig

__all__ = ["Cause", "Instruction", "Progress", "Source", "Thinking", "check_words", "subtask_problem"]

Source = Literal["task", "reasoner", "operator"]
Cause = Literal["first", "done", "stalled", "time", "operator"]

MAX_WORDS = 40  # of a subtask: what is longer is a story, not one
MAX_LETTERS = 240


def check_words(text: object, what: str) -> str:
    """The text without white space around it.

    Raises:
        ConfigError: it is none, empty, or over 2000 characters.
    """
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{what} is {text!r:.60}, expected words")
    if len(text) > 2000:
        raise ConfigError(f"{what} has {len(text)} characters, at most 2000 are possible")
    return text.strip()


def subtask_problem(text: str) -> str:
    """Why words of the Reasoner are not a subtask; empty: they are one.

    A subtask is one line with at least one letter, at most 40 words and 240 characters, without markers such as
    ``<box>`` or ``<|action|>``, and without a question.
    """
    if not text.strip():
        return "it is empty"
    if "\n" in text.strip():
        return "it has more than one line"
    if "<" in text and ">" in text:
        return "it has markers"
    if "\ufffd" in text:
        return "it has broken characters"
    if not any(character.isalpha() for character in text):
        return "it has no word"
    if text.rstrip().endswith("?"):
        return "it is a question"
    if len(text.split()) > MAX_WORDS or len(text) > MAX_LETTERS:
        return f"it is longer than {MAX_WORDS} words or {MAX_LETTERS} characters"
    return ""


@dataclass(frozen=True)
class Instruction:
    """What the policy is told.

    Attributes:
        task: the operator's.
        subtask: what the policy is told.
        source: who said it.
        epoch: grows with every word of the operator: what was begun before is stale.
    """

    task: str
    subtask: str
    source: Source
    epoch: int = 0

    @classmethod
    def of_task(cls, task: str, epoch: int = 0) -> Instruction:
        """A task and nothing else: the task is what the policy is told."""
        return cls(task, task, "task", epoch)

    def with_task(self, task: str) -> Instruction:
        """Another task of the operator; what was said about the one before is forgotten."""
        return Instruction.of_task(task, self.epoch + 1)

    def with_operator(self, subtask: str | None) -> Instruction:
        """The operator's subtask, or, with ``None``, the task until the Reasoner says something."""
        if subtask is None:
            return Instruction.of_task(self.task, self.epoch + 1)
        return Instruction(self.task, subtask, "operator", self.epoch + 1)

    def with_answer(self, subtask: str) -> Instruction:
        """The Reasoner's subtask."""
        return Instruction(self.task, subtask, "reasoner", self.epoch)


class Progress:
    """Whether a subtask is done or has stalled, from what chunks ask for and what the joints do.

    - **done**: ``done_chunks`` chunks in a row have every row within ``still`` of the pose they were computed from.
    - **stalled**: for ``stall_after`` seconds chunks asked for more than that, and no joint has moved by ``still``.
    """

    def __init__(self, config: SessionConfig) -> None:
        """Nothing is known yet."""
        self._config = config
        self.clear()

    def clear(self) -> None:
        """Another subtask begins."""
        self._num_still = 0
        self._since: float | None = None
        self._low: NDArray[np.float64] = np.empty(0)
        self._high: NDArray[np.float64] = np.empty(0)

    def see(
        self, now: float, measured: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> Literal["", "done", "stalled"]:
        """Takes one chunk in.

        Args:
            now: [s]
            measured: the pose it was computed from; NaN for a wheel [rad]   (joints,)
            rows: its joint rows [rad]   (horizon, joints)
        """
        still = self._config.still
        has_position = np.isfinite(measured)
        away = np.abs(rows[:, has_position] - measured[has_position])
        # a wheel's row is a speed: any is motion
        asks = bool((away > still).any() or (np.abs(rows[:, ~has_position]) > still).any())
        if not asks:
            self._since = None
            self._num_still += 1
            return "done" if self._num_still >= self._config.done_chunks else ""
        self._num_still = 0
        pose = measured[has_position]
        if self._since is None:
            self._since, self._low, self._high = now, pose, pose
        self._low, self._high = np.minimum(self._low, pose), np.maximum(self._high, pose)
        if not has_position.all() or (self._high - self._low > still).any():
            self._since, self._low, self._high = now, pose, pose
        return "stalled" if now - self._since >= self._config.stall_after else ""


class Thinking:
    """When to ask the Reasoner. Pure."""

    def __init__(self, config: SessionConfig) -> None:
        """It has not been asked."""
        self._config = config
        self._asked_at = -math.inf
        self._cause: Cause | None = "first"

    def wish(self, cause: Cause) -> None:
        """Something happened that it should be asked about."""
        self._cause = self._cause or cause

    def due(self, now: float, instruction: Instruction) -> Cause | None:
        """Why it should be asked now; ``None``: it should not. ``first`` and ``operator`` at once, others not sooner
        than a fifth of ``reason_every`` after the last time."""
        if self._config.reason == "off" or instruction.source == "operator":
            return None
        since = now - self._asked_at
        if self._cause in ("first", "operator"):
            return self._cause
        if self._cause is not None and since >= self._config.reason_every / 5:
            return self._cause
        return "time" if since >= self._config.reason_every else None

    def asked(self, now: float) -> None:
        """It is being asked."""
        self._asked_at, self._cause = now, None
