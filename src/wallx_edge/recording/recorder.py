"""Recorder: a thread that writes down what a run does; whoever tells it never waits for the disk."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.recording.segments import Segments
from wallx_edge.recording.topics import (
    CAMERA,
    CHUNK,
    DECISION,
    FAULT,
    LOOP,
    OBSERVATION,
    encode,
    loop_messages,
    nanoseconds,
    picture,
)

if TYPE_CHECKING:
    from wallx_edge._core import ControlLoop
    from wallx_edge.types import Observation

__all__ = ["Recorder", "RecorderStatus"]

log = logging.getLogger(__name__)

PERIOD = 0.1  # between looks at the loop's ring, which holds seconds [s]
FLUSH_EVERY = 0.5  # what a killed program loses at most, besides the period [s]
MAX_WAITING = 256  # entries that were told and are not written yet
MAX_PICTURES = 8  # observations of them: pictures are large

Entry = Callable[[], None]


@dataclass(frozen=True)
class RecorderStatus:
    """How a recording goes.

    Attributes:
        path: of the file that is being written.
        messages: written so far.
        dropped: entries that found the queue full, because the disk or this computer was too slow.
        error: why it has stopped; empty: it has not.
    """

    path: Path
    messages: int
    dropped: int
    error: str


class Recorder:
    """Writes every record of a loop, and what it is told: observations, chunks, decisions.

    Its thread is the only one that waits for the disk, and it alone drains the loop. When a write fails, as on a full
    disk, recording stops with one warning, the files keep all that was flushed before, and the run goes on.
    """

    def __init__(self, segments: Segments, loop: ControlLoop, on_columns: Callable[[Any], None] | None = None) -> None:
        """Starts the thread.

        Args:
            segments: what to write to; the recorder owns it from now on.
            loop: whose records to drain.
            on_columns: is given every batch of them too, on the recorder's thread, also after an error.
        """
        self._segments = segments
        self._loop = loop
        self._on_columns = on_columns
        self._entries: deque[tuple[Entry, bool]] = deque()
        self._pictures = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._is_closing = False
        self._messages = self._dropped = 0
        self._error = ""
        self._has_faulted = False
        self._flushed_at = time.monotonic()
        self._thread = threading.Thread(target=self._work, name="recorder")
        self._thread.start()

    def __enter__(self) -> Recorder:
        """The recorder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    @property
    def status(self) -> RecorderStatus:
        """How it goes. Does not wait."""
        with self._lock:
            return RecorderStatus(self._segments.path, self._messages, self._dropped, self._error)

    def observation(self, observation: Observation) -> None:
        """Keeps an observation with its pictures. Does not wait.

        Args:
            observation: its arrays are not copied and must not change.
        """

        def write() -> None:
            at = nanoseconds(observation.captured_at)
            for role, image in observation.images.items():
                self._add(CAMERA + role, at, picture(role, image, observation.captured_at))
            content = {
                "captured_at": observation.captured_at,
                "instruction": observation.instruction,
                "state": observation.state.tolist(),
                "cameras": list(observation.images),
            }
            self._add(OBSERVATION, at, encode(content))

        self._tell(write, has_pictures=True)

    def chunk(
        self, sequence: int, rows: NDArray[np.float64], start: float, step: float, observed_at: float, arrived_at: float
    ) -> None:
        """Keeps rows that were handed to the loop. Does not wait.

        Args:
            sequence: of the plan; 0: it was dropped.
            rows: not copied, must not change [rad]   (rows, joints)
            start: when the first is due [s].
            step: between them [s].
            observed_at: of the observation behind them [s].
            arrived_at: when they were handed over [s].
        """

        def write() -> None:
            content = {
                "sequence": sequence,
                "observed_at": observed_at,
                "arrived_at": arrived_at,
                "start": start,
                "step": step,
                "rows": rows.tolist(),
            }
            self._add(CHUNK, nanoseconds(arrived_at), encode(content))

        self._tell(write)

    def decision(self, content: Mapping[str, Any]) -> None:
        """Keeps a line of a structured log. Does not wait.

        Args:
            content: JSON; ``time`` [s], if it has one, is when.
        """
        at = float(content.get("time", _core.monotonic()))
        self._tell(lambda: self._add(DECISION, nanoseconds(at), encode({"time": at, **content})))

    def close(self) -> None:
        """Writes what is left, and the index; joins the thread. Blocks for the disk. Idempotent."""
        self._is_closing = True
        self._wake.set()
        self._thread.join()

    def _tell(self, entry: Entry, has_pictures: bool = False) -> None:
        with self._lock:
            if self._error or self._is_closing:
                return
            if len(self._entries) >= MAX_WAITING or (has_pictures and self._pictures >= MAX_PICTURES):
                self._dropped += 1
                return
            self._pictures += has_pictures
            self._entries.append((entry, has_pictures))
        self._wake.set()

    def _work(self) -> None:
        while not self._is_closing:
            self._wake.wait(PERIOD)
            self._wake.clear()
            self._take()
        self._take()
        self._guard(self._segments.close)
        with contextlib.suppress(OSError):  # once more after an error: the file is closed in any case
            self._segments.close()

    def _take(self) -> None:
        """Everything there is now."""
        columns = self._loop.drain()
        if self._on_columns is not None:
            self._on_columns(columns)
        self._guard(lambda: self._add_loop(columns))
        while True:
            with self._lock:
                if not self._entries:
                    break
                entry, has_pictures = self._entries.popleft()
                self._pictures -= has_pictures
            self._guard(entry)
        if time.monotonic() - self._flushed_at >= FLUSH_EVERY:
            self._flushed_at = time.monotonic()
            self._guard(self._segments.flush)

    def _add_loop(self, columns: Any) -> None:
        for at, data in loop_messages(columns):
            self._add(LOOP, at, data)
        is_fault = columns["state"] == _core.LOOP_STATES.index("fault")
        report = self._loop.fault_report() if is_fault.any() and not self._has_faulted else None
        if is_fault.size:
            self._has_faulted = bool(is_fault[-1])
        if report is not None:
            content = {"time": report["time"], "message": report["message"], **report["cause"]}
            self._add(FAULT, nanoseconds(report["time"]), encode(content))

    def _add(self, topic: str, at: int, data: bytes) -> None:
        self._segments.add(topic, at, data)
        with self._lock:
            self._messages += 1

    def _guard(self, write: Entry) -> None:
        """Writes, unless something has failed before."""
        if self._error:
            return
        try:
            write()
        except Exception as error:  # a recorder must not end a run
            reason = getattr(error, "strerror", None) or str(error)
            with self._lock:
                self._error = f"{self._segments.path}: {reason}"
                self._entries.clear()
                self._pictures = 0
            log.warning("recording has stopped, the run goes on: %s", self._error)
