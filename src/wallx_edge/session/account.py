"""Account: what a session has done so far: its words in force, its chunks, its status, and who hears its decisions."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from wallx_edge import _core
from wallx_edge.robot import lateness_us
from wallx_edge.session.decision import Decision, Journal, Kind, Moment
from wallx_edge.session.execution import PlayedChunk
from wallx_edge.session.status import Rate, SessionState, SessionStatus
from wallx_edge.session.subtask import Instruction
from wallx_edge.session.thinking import Thought
from wallx_edge.session_config import SessionConfig

__all__ = ["Account"]

MAX_CHUNKS = 4096  # that are remembered


class Account:
    """Written by the session's thread, read by any."""

    def __init__(self, task: str, config: SessionConfig) -> None:
        """Nothing has happened.

        Args:
            task: the instruction.
            config: of the session.
        """
        self._lock = threading.Lock()
        self._journal = Journal()
        self._instruction = Instruction.of_task(task)
        self._chunks: deque[PlayedChunk] = deque(maxlen=MAX_CHUNKS)
        self._status = SessionStatus(
            task=task,
            subtask=task,
            mode=config.mode,
            reason_state="off" if config.reason == "off" else "idle",
        )
        self._policy_rate, self._reasoner_rate = Rate(10.0), Rate(60.0)
        self._begin = 0.0
        self._holds_before = 0

    @property
    def instruction(self) -> Instruction:
        """The words in force."""
        return self._instruction

    def instruct(self, instruction: Instruction) -> None:
        """Other words are in force."""
        with self._lock:
            self._instruction = instruction

    @property
    def state(self) -> SessionState:
        """Of the session."""
        return self._status.state

    @property
    def is_live(self) -> bool:
        """Whether it runs or pauses."""
        return self.state in ("running", "paused")

    def subscribe(self, callback: Callable[[Moment], None]) -> Callable[[], None]:
        """As :meth:`wallx_edge.session.session.Session.subscribe`."""
        return self._journal.subscribe(callback)

    @property
    def chunks(self) -> list[PlayedChunk]:
        """What was handed to the loop, oldest first; the newest 4096."""
        with self._lock:
            return list(self._chunks)

    @property
    def newest(self) -> PlayedChunk | None:
        """The last of them."""
        with self._lock:
            return self._chunks[-1] if self._chunks else None

    def status(self, now: float, loop: _core.ControlLoop, frames: int) -> SessionStatus:
        """What a display shows.

        Args:
            now: [s]
            loop: of the robot.
            frames: pictures read.
        """
        histogram, counters = loop.lateness_histogram(), loop.counters()
        with self._lock:
            newest = self._chunks[-1] if self._chunks else None
            since = self._begin
            return replace(
                self._status,
                time=now,
                elapsed=now - since if since else 0.0,
                loop_state=loop.state,
                task=self._instruction.task,
                subtask=self._instruction.subtask,
                subtask_from=self._instruction.source,
                policy_hz=self._policy_rate.per_s(now, since) if since else 0.0,
                reasoner_hz=self._reasoner_rate.per_s(now, since) if since else 0.0,
                loop_hz=1 / loop.period_s,
                loop_late_p50_us=lateness_us(histogram, 0.5),
                loop_late_p99_us=lateness_us(histogram, 0.99),
                chunk_age=now - newest.observed_at if newest else 0.0,
                holds=counters["holds"] - self._holds_before if since else 0,
                overruns=counters["overruns"],
                limited_ticks=dict(counters["limited_ticks"]),
                frames=frames,
            )

    def begin(self, now: float, holds: int) -> None:
        """The motors are enabled.

        Args:
            now: [s]
            holds: of the loop until now.
        """
        with self._lock:
            self._begin, self._holds_before = now, holds

    def set(self, *, state: SessionState | None = None, reason_state: Any = None) -> None:
        """Other states."""
        with self._lock:
            self._status = replace(
                self._status,
                state=state or self._status.state,
                reason_state=reason_state or self._status.reason_state,
            )

    def add(self, *, dropped: int = 0, refused: int = 0) -> None:
        """Chunks that were not played."""
        with self._lock:
            self._status = replace(
                self._status, dropped=self._status.dropped + dropped, refused=self._status.refused + refused
            )

    def played(self, now: float, chunk: PlayedChunk, delay: int, frames: int) -> None:
        """One was handed to the loop.

        Args:
            now: [s]
            chunk: that one.
            delay: rows that were played while it was computed.
            frames: pictures that it came from.
        """
        with self._lock:
            self._chunks.append(chunk)
            self._policy_rate.add(now)
            self._status = replace(
                self._status,
                chunks=self._status.chunks + 1,
                policy_latency=now - chunk.observed_at,
                delay_rows=delay,
                delay_rows_max=max(delay, self._status.delay_rows_max),
                frames_used=self._status.frames_used + frames,
            )

    def answered(self, now: float, thought: Thought, is_taken: bool) -> None:
        """The Reasoner has said something."""
        with self._lock:
            self._reasoner_rate.add(now)
            self._status = replace(
                self._status,
                reasoning=thought.reasoning or thought.text or self._status.reasoning,
                reasoner_latency=now - thought.began_at,
                tokens_per_s=thought.tokens_per_s,
                answers=self._status.answers + is_taken,
                answers_dropped=self._status.answers_dropped + (not is_taken),
            )

    def tell(
        self,
        now: float,
        kind: Kind,
        why: str,
        observed_at: float | None = None,
        *,
        delay_rows: int | None = None,
        sequence: int | None = None,
        text: str = "",
        **moment: Any,
    ) -> None:
        """Whoever listens hears of a decision.

        Args:
            now: [s]
            kind: of decision.
            why: it was taken.
            observed_at: of what it was taken on [s].
            delay_rows: of a chunk.
            sequence: of a plan.
            text: that was said.
            moment: further fields of :class:`wallx_edge.session.decision.Moment`.
        """
        instruction = self._instruction
        decision = Decision(
            now,
            kind,
            why,
            instruction.task,
            instruction.subtask,
            observed_at,
            delay_rows,
            now - observed_at if observed_at is not None else None,
            sequence,
            text,
        )
        self._journal.tell(Moment(decision, **moment))
