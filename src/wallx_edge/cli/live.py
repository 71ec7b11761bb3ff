"""Live: what `run` and `demo` show while the robot moves."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from wallx_edge.cli import screen
from wallx_edge.robot import Robot, lateness_us
from wallx_edge.session import SessionStatus

__all__ = ["LiveView"]

LINE_EVERY = 1.0  # where there is no terminal [s]
DRAW_EVERY = 0.125  # where there is one: drawing takes time from the policy's Python [s]


class LiveView:
    """Redraws in place on a terminal; elsewhere prints a line a second."""

    def __init__(
        self,
        robot: Robot,
        duration: float | None,
        console: Console | None = None,
        footer: Callable[[], RenderableType] | None = None,
    ) -> None:
        """Shows nothing yet.

        Args:
            robot: whose loop is shown.
            duration: of the run [s]; ``None``: open.
            console: where to; standard output by default.
            footer: what stands below the tables on a terminal.
        """
        self._robot = robot
        self._duration = duration
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._footer = footer
        self._next = 0.0

    def __enter__(self) -> LiveView:
        """Starts the display."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last table standing."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, status: SessionStatus) -> None:
        """Shows the newest numbers."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._live is not None:
            self._next = now + DRAW_EVERY
            self._live.update(self.picture(self._numbers(status)), refresh=True)
        else:
            self._next = now + LINE_EVERY
            self._console.print(Text(self._line(self._numbers(status))), soft_wrap=True)

    def picture(self, session: Mapping[str, Any]) -> RenderableType:
        """Everything at once.

        Args:
            session: a session's status in types of JSON.
        """
        parts: list[RenderableType] = [
            Text(f"{self._robot.embodiment.name}  {self._progress(session)}", "bold"),
            screen.words(session),
            screen.clocks(session),
            screen.joints(self._robot.joint_names, self._robot.loop.snapshot()),
        ]
        if self._footer is not None:
            parts.append(self._footer())
        return Group(*parts)

    def _numbers(self, status: SessionStatus) -> dict[str, Any]:
        """The session's status, with what only the loop knows."""
        loop = self._robot.loop
        counters, histogram = loop.counters(), loop.lateness_histogram()
        return {
            "loop_hz": 1 / loop.period_s,
            "loop_late_p50_us": lateness_us(histogram, 0.5),
            "loop_late_p99_us": lateness_us(histogram, 0.99),
            "overruns": counters["overruns"],
            "holds": counters["holds"],
            "limited_ticks": counters["limited_ticks"],
            **status.as_json(),
        }

    def _progress(self, session: Mapping[str, Any]) -> str:
        elapsed = session["elapsed"]
        if self._duration is None:
            return f"{elapsed:.1f} s"
        filled = min(20, int(20 * elapsed / self._duration))
        return f"[{'#' * filled}{'.' * (20 - filled)}] {min(elapsed, self._duration):.1f}/{self._duration:g} s"

    def _line(self, session: Mapping[str, Any]) -> str:
        record = self._robot.loop.snapshot()
        pose = ""
        if record is not None:
            pairs = zip(record["command"], record["measured"], strict=True)
            pose = " | " + " ".join(f"{c:+.2f}/{m:+.2f}" for c, m in pairs) + " rad"
        return f"{self._progress(session)} {screen.line(session)}{pose}"
