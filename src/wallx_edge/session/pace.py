"""Pace: a session's clock and where its slow work is done: on threads in real time, or in steps."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from wallx_edge import _core

__all__ = ["Desk", "Outcome", "Pace", "RealTime"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How a piece of work ended.

    Attributes:
        result: what it returned; ``None`` when it raised.
        error: what it raised.
    """

    result: Any = None
    error: BaseException | None = None

    @classmethod
    def of(cls, work: Callable[[], Any]) -> Outcome:
        """Does it now."""
        try:
            return cls(work())
        except BaseException as error:
            return cls(error=error)


class Desk(Protocol):
    """Does one piece of work at a time."""

    @property
    def is_busy(self) -> bool:
        """Whether work has begun whose outcome nobody has taken."""

    def begin(self, work: Callable[[], Any], now: float) -> None:
        """Begins work; not while busy."""

    def take(self, now: float) -> Outcome | None:
        """The outcome, once; ``None``: there is none yet. Does not block."""

    def close(self) -> None:
        """Waits for work under way; blocks until then."""


class Pace(Protocol):
    """A clock, two desks, and a way to wait."""

    def now(self) -> float:
        """CLOCK_MONOTONIC, or what stands for it [s]."""

    def desk(self, name: str) -> Desk:
        """Another desk."""

    def queue(self) -> _core.InferenceQueue | None:
        """Where engines are to compute; ``None``: where they are called. Whoever takes it closes it."""

    def wake(self) -> None:
        """Ends a wait soon; from any thread and from a signal handler."""

    def wait(self, seconds: float) -> None:
        """Waits, until woken at most."""


class _ThreadDesk:
    """A thread of its own."""

    def __init__(self, name: str, wake: Callable[[], None]) -> None:
        self._name = name
        self._wake = wake
        self._work: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._done: SimpleQueue[Outcome] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.is_busy = False

    def begin(self, work: Callable[[], Any], now: float) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name)
            self._thread.start()
        self.is_busy = True
        self._work.put(work)

    def take(self, now: float) -> Outcome | None:
        try:
            outcome = self._done.get_nowait()
        except Empty:
            return None
        self.is_busy = False
        return outcome

    def close(self) -> None:
        if self._thread is not None:
            self._work.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._done.put(Outcome.of(work))
            self._wake()


class RealTime:
    """Threads, and an inference queue between them."""

    def __init__(self) -> None:
        """Starts nothing yet."""
        # its put may be called from a signal handler, an Event's set may not
        self._bell: SimpleQueue[None] = SimpleQueue()

    def now(self) -> float:
        """CLOCK_MONOTONIC [s]."""
        return time.monotonic()

    def desk(self, name: str) -> Desk:
        """A thread, started when it is first needed."""
        return _ThreadDesk(name, self.wake)

    def queue(self) -> _core.InferenceQueue:
        """A new one."""
        return _core.InferenceQueue()

    def wake(self) -> None:
        """Rings."""
        self._bell.put(None)

    def wait(self, seconds: float) -> None:
        """Until the bell rings."""
        try:
            self._bell.get(timeout=max(0.0, seconds))
            while True:
                self._bell.get_nowait()
        except Empty:
            return
