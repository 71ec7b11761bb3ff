"""Status: what a session shows of its three clocks."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from wallx_edge.session.subtask import Source
from wallx_edge.session_config import Mode

__all__ = ["Rate", "SessionState", "SessionStatus"]

SessionState = Literal["idle", "starting", "running", "paused", "stopped", "failed"]


@dataclass(frozen=True)
class SessionStatus:
    """What a display shows.

    Attributes:
        time: CLOCK_MONOTONIC [s].
        elapsed: since the motors were enabled [s].
        state: ``idle`` before, ``stopped`` after the run; ``failed``: it ended with an error.
        loop_state: of the control loop.
        task: the operator's instruction.
        subtask: what the policy is told.
        subtask_from: who said so.
        reasoning: the Reasoner's last words.
        reason_state: whether it is at work.
        mode: how chunks are executed.
        policy_hz: chunks in the last 10 s, per second.
        policy_latency: of the newest chunk, from observation to hand-over [s]; 0 before the first.
        reasoner_hz: answers in the last 60 s, per second.
        reasoner_latency: of the newest answer [s].
        tokens_per_s: of the newest text.
        loop_hz: of the control loop.
        loop_late_p50_us: median of its lateness [us].
        loop_late_p99_us: [us]
        chunk_age: since the newest chunk's observation [s]; 0 before the first.
        delay_rows: rows that were played while the newest chunk was computed.
        delay_rows_max: the most so far.
        chunks: handed to the loop.
        dropped: that came too late, from before a stop, or for another instruction.
        refused: that must not reach the robot.
        holds: of the loop while the session ran.
        overruns: of the loop.
        limited_ticks: reason -> ticks in which the limiter had it.
        answers: taken.
        answers_dropped: of the Reasoner: stale, or no subtask.
        frames: pictures read.
        frames_used: of them, those that chunks came from that were handed to the loop.
    """

    time: float = 0.0
    elapsed: float = 0.0
    state: SessionState = "idle"
    loop_state: str = ""
    task: str = ""
    subtask: str = ""
    subtask_from: Source = "task"
    reasoning: str = ""
    reason_state: Literal["off", "idle", "thinking"] = "off"
    mode: Mode = "rtc"
    policy_hz: float = 0.0
    policy_latency: float = 0.0
    reasoner_hz: float = 0.0
    reasoner_latency: float = 0.0
    tokens_per_s: float = 0.0
    loop_hz: float = 0.0
    loop_late_p50_us: float = 0.0
    loop_late_p99_us: float = 0.0
    chunk_age: float = 0.0
    delay_rows: int = 0
    delay_rows_max: int = 0
    chunks: int = 0
    dropped: int = 0
    refused: int = 0
    holds: int = 0
    overruns: int = 0
    limited_ticks: dict[str, int] = field(default_factory=dict)
    answers: int = 0
    answers_dropped: int = 0
    frames: int = 0
    frames_used: int = 0

    def as_json(self) -> dict[str, Any]:
        """All of it, in JSON's types."""
        return asdict(self)


class Rate:
    """Events of the last seconds."""

    def __init__(self, window: float) -> None:
        """None yet.

        Args:
            window: that is looked back [s].
        """
        self._window = window
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        """One more."""
        self._times.append(now)
        self._forget(now)

    def per_s(self, now: float, since: float) -> float:
        """Their rate, over the window or since a later beginning [1/s]."""
        self._forget(now)
        span = min(self._window, now - since)
        return len(self._times) / span if span > 0 else 0.0

    def _forget(self, now: float) -> None:
        while self._times and self._times[0] < now - self._window:
            self._times.popleft()
