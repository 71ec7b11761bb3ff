"""Live: the table that `run` and `demo` show while the robot moves."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from types import TracebackType

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from wallx_edge.robot import Robot, lateness_us
from wallx_edge.session import SessionStatus

__all__ = ["LiveView"]

LINE_EVERY = 1.0  # where there is no terminal [s]


class LiveView:
    """Redraws in place on a terminal; elsewhere prints a line a second."""

    def __init__(self, robot: Robot, duration: float | None, console: Console | None = None) -> None:
        """Shows nothing yet.

        Args:
            robot: whose loop is shown.
            duration: of the run [s]; ``None``: open.
            console: where to; standard output by default.
        """
        self._robot = robot
        self._duration = duration
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._next_line = 0.0

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
        if self._live is not None:
            self._live.update(self._table(status), refresh=True)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_EVERY
            self._console.print(self._line(status), soft_wrap=True)

    def _progress(self, status: SessionStatus) -> str:
        if self._duration is None:
            return f"{status.elapsed:.1f} s"
        filled = min(20, int(20 * status.elapsed / self._duration))
        return f"[{'#' * filled}{'.' * (20 - filled)}] {min(status.elapsed, self._duration):.1f}/{self._duration:g} s"

    def _numbers(self, status: SessionStatus) -> str:
        loop = self._robot.loop
        histogram, counters = loop.lateness_histogram(), loop.counters()
        limited = max(counters["limited_ticks"].values(), default=0)
        return (
            f"{loop.state:5s} chunk {status.chunks}, age {status.chunk_age * 1e3:.0f} ms, "
            f"latency {status.policy_latency * 1e3:.0f} ms; loop late p50 {lateness_us(histogram, 0.5):.0f} "
            f"p99 {lateness_us(histogram, 0.99):.0f} us, {counters['overruns']} overruns, {limited} limited"
        )

    def _line(self, status: SessionStatus) -> str:
        record = self._robot.loop.snapshot()
        joints = ""
        if record is not None:
            pairs = zip(record["command"], record["measured"], strict=True)
            joints = " | " + " ".join(f"{c:+.2f}/{m:+.2f}" for c, m in pairs) + " rad"
        return f"{self._progress(status)} {self._numbers(status)}{joints}".replace("[", "\\[")

    def _table(self, status: SessionStatus) -> Table:
        table = Table(
            title=f"{self._progress(status)}  {self._numbers(status)}".replace("[", "\\["), title_justify="left"
        )
        for heading in ("joint", "target [rad]", "command [rad]", "measured [rad]", "error [deg]", "age [ms]"):
            is_name = heading == "joint"
            table.add_column(heading, justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
        record = self._robot.loop.snapshot()
        if record is None:
            return table
        for i, name in enumerate(self._robot.joint_names):
            command, measured = record["command"][i], record["measured"][i]
            table.add_row(
                name,
                f"{record['target'][i]:+.4f}",
                f"{command:+.4f}",
                f"{measured:+.4f}",
                f"{np.degrees(command - measured):+.2f}",
                f"{record['sample_age'][i] * 1e3:.1f}",
            )
        return table
