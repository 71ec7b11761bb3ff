"""Session config: how chunks are executed and when the Reasoner is asked."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from wallx_edge.errors import ConfigError

__all__ = ["MODES", "REASONS", "Mode", "Reason", "SessionConfig"]

Mode = Literal["sync", "latest", "ensemble", "rtc"]
Reason = Literal["off", "subtask", "full"]
MODES: tuple[Mode, ...] = ("sync", "latest", "ensemble", "rtc")
REASONS: tuple[Reason, ...] = ("off", "subtask", "full")


@dataclass(frozen=True)
class SessionConfig:
    """How a session acts and thinks.

    Attributes:
        mode: ``sync``: rows are played to their end, where the robot rests while the next chunk is computed;
            ``latest``: the newest chunk takes over when it arrives; ``ensemble``: every row is the mean of all chunks
            that say something about its time, the oldest weighs most (ACT); ``rtc``: the new chunk continues the rows
            that are played while it is computed (real-time chunking).
        execute_rows: rows that are played before the next chunk is asked for; half the horizon when not given, and
            never so many that the rows run out before the next chunk is there.
        reason: ``off``: the task is the instruction; ``subtask``: the Reasoner says the next subtask; ``full``: it
            says its reasoning first.
        reason_every: longest time between two questions to the Reasoner [s].
        max_tokens: budget of each of its texts.
        max_answer_age: an answer about older pictures is dropped [s].
        still: a joint that moves less stands still, one whose rows lie closer is where it is to be [rad].
        done_chunks: so many chunks in a row that ask for no motion: the subtask is done.
        stall_after: so long asked for motion without any: progress has stalled [s].
        frozen_after: so long the very same picture from a camera ends the session, 0: never [s].
        camera_delay: camera role -> how much older its pictures are than they say [s].
        state_delay: how much older the measured state is than it says [s].
        roll_forward: whether the policy is told the pose that the robot will have when the chunk arrives: the last row
            that will then have been played. Models that were not trained so may act worse.
        max_guidance: bound of the gain of ``rtc``.
    """

    mode: Mode = "rtc"
    execute_rows: int | None = None
    reason: Reason = "off"
    reason_every: float = 5.0
    max_tokens: int = 64
    max_answer_age: float = 10.0
    still: float = 0.02
    done_chunks: int = 3
    stall_after: float = 4.0
    frozen_after: float = 2.0
    camera_delay: Mapping[str, float] = field(default_factory=dict)
    state_delay: float = 0.0
    roll_forward: bool = False
    max_guidance: float = 10.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ConfigError(f"session.mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        if self.reason not in REASONS:
            raise ConfigError(f"session.reason is {self.reason!r}, expected one of {', '.join(REASONS)}")
        if self.execute_rows is not None and not 1 <= self.execute_rows <= 128:
            raise ConfigError(f"session.execute_rows is {self.execute_rows}, expected 1 to the horizon")
        if not 1 <= self.max_tokens <= 4096:
            raise ConfigError(f"session.max_tokens is {self.max_tokens}, expected 1 to 4096")
        if not 1 <= self.done_chunks <= 1000:
            raise ConfigError(f"session.done_chunks is {self.done_chunks}, expected 1 to 1000")
        for key in ("reason_every", "max_answer_age", "stall_after", "still", "max_guidance"):
            if not 0 < getattr(self, key) <= 3600:
                raise ConfigError(f"session.{key} is {getattr(self, key)}, expected more than 0 and at most 3600")
        delays = {"frozen_after": self.frozen_after, "state_delay": self.state_delay}
        delays |= {f"camera_delay.{role}": value for role, value in self.camera_delay.items()}
        for key, value in delays.items():
            if not (math.isfinite(value) and 0 <= value <= 60):
                raise ConfigError(f"session.{key} is {value} s, expected 0 to 60 s")
