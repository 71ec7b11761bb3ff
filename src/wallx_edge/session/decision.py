"""Decision: what a session decided, when and why; its journal hands every one to whoever listens."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wallx_edge.types import Observation

__all__ = ["KINDS", "Decision", "Journal", "Kind", "Moment"]

log = logging.getLogger(__name__)

Kind = Literal[
    "start",  # the motors are enabled
    "observe",  # an inference begins
    "chunk",  # rows were handed to the loop
    "drop",  # a chunk that came too late, from before a stop, or for another instruction
    "refuse",  # a chunk that must not reach the robot
    "reason",  # the Reasoner was asked
    "subtask",  # another subtask is in force from the next observation on
    "answer",  # the Reasoner answered, or its answer was not taken
    "task",
    "pause",
    "resume",
    "hold",  # the loop holds
    "stop",
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Decision:
    """One line of the journal.

    Attributes:
        time: CLOCK_MONOTONIC [s].
        kind: one of :data:`KINDS`.
        why: one sentence; may be empty.
        task: the operator's instruction.
        subtask: what the policy is told; the task where there is none.
        observed_at: capture time of the observation behind it [s].
        delay_rows: rows that were played between observation and arrival.
        delay_s: from observation to now [s].
        sequence: of the loop's plan.
        text: the Reasoner's words.
    """

    time: float
    kind: Kind
    why: str
    task: str
    subtask: str
    observed_at: float | None = None
    delay_rows: int | None = None
    delay_s: float | None = None
    sequence: int | None = None
    text: str = ""

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Moment:
    """A decision and what it is about; only of the kinds ``observe`` and ``chunk`` the latter is there.

    Attributes:
        decision: what was decided.
        observation: what was seen.
        rows: joint rows as handed to the loop [rad]   (rows, joints)
        start: when the first row is due [s].
        step: between rows [s].
    """

    decision: Decision
    observation: Observation | None = None
    rows: NDArray[np.float64] | None = None
    start: float = 0.0
    step: float = 0.0


class Journal:
    """Tells every moment to every subscriber, one after the other, and the log. For any thread."""

    def __init__(self) -> None:
        """Nobody listens yet."""
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[Moment], None]] = {}
        self._next = 0

    def subscribe(self, callback: Callable[[Moment], None]) -> Callable[[], None]:
        """Calls ``callback`` with every moment from now on; what this returns ends that."""
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._callbacks[number] = callback

        def leave() -> None:
            with self._lock:
                self._callbacks.pop(number, None)

        return leave

    def tell(self, moment: Moment) -> None:
        """Hands it out on this thread; what a subscriber raises comes out here."""
        decision = moment.decision
        log.log(
            logging.WARNING if decision.kind in ("refuse", "drop") else logging.DEBUG,
            "%s: %s",
            decision.kind,
            decision.why,
            extra={"decision": decision},
        )
        with self._lock:
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback(moment)
