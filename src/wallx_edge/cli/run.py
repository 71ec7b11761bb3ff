"""wallx-edge run: a checkpoint drives a robot until Ctrl-C."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wallx_edge.cli import duration
from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.cli.live import LiveView
from wallx_edge.cli.operator import Operator, operate
from wallx_edge.daemon import Daemon, Notifier
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, help="ROBOT.toml")
    parser.add_argument("--task", required=True, help="what the robot is to do")
    parser.add_argument("--duration", type=duration, help="how long to ask for new chunks [s]; until Ctrl-C by default")
    add_computing_arguments(parser)
    parser.add_argument(
        "--dry-run", action="store_true", help="connect, show how everything matches and the first chunk; move nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Runs; 0 when the time is used up, 130 or 143 when a signal ended it. The robot holds either way."""
    config = RobotConfig.load(args.robot)
    config = replace(config, computing=computing(args, config.computing))
    console = Console(highlight=False)
    has_terminal = sys.stdin is not None and sys.stdin.isatty()
    if args.dry_run:
        config = replace(config, recording=None)
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        daemon = stack.enter_context(Daemon(config, "the console of `run`" if has_terminal else "", Notifier()))
        if args.dry_run:
            session = daemon.infer(args.task)
            console.print(f"checkpoint {config.checkpoint}, robot on {config.bus.port}", soft_wrap=True)
            for what, line in zip(("asked", "given"), config.computing.lines(daemon.policy.engine), strict=True):
                console.print(f"{what:11s} {line}", soft_wrap=True)
            console.print(session.binding.table())
            _show_chunk(console, session, daemon.robot)
            return 128 + signals.received[0] if signals.received else 0
        for shortfall in daemon.robot.loop.real_time["shortfalls"]:
            console.print(f"[bold yellow]not real time:[/] {shortfall}", soft_wrap=True)
        signals.stop(daemon)
        operator = Operator(daemon)
        has_keys = stack.enter_context(operate(operator))
        with LiveView(daemon.robot, args.duration, console, operator if has_keys else None) as view:
            is_used_up = daemon.run(args.task, args.duration, view)
    if signals.received:
        console.print(f"stopped by {signals.received[0].name}: the robot holds its last command")
        return 128 + signals.received[0]
    if not is_used_up:
        console.print("stopped: the robot holds its last command")
    return 0


class Stoppable(Protocol):
    """A session or a daemon."""

    def stop(self) -> None:
        """Ends it with a hold; from a signal handler."""


class StopSignals:
    """Lets SIGINT, SIGTERM and SIGHUP end a session with a hold, and nothing else, until the robot is disconnected."""

    def __init__(self) -> None:
        """Changes no handler yet."""
        self.received: list[signal.Signals] = []
        self._session: Stoppable | None = None
        self._before: dict[signal.Signals, Any] = {}

    def stop(self, session: Stoppable) -> None:
        """Names the session or daemon to stop; one that was asked for already is stopped now."""
        self._session = session
        if self.received:
            session.stop()

    def __enter__(self) -> StopSignals:
        """Takes the signals."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received.append(signal.Signals(number))
        if self._session is not None:
            self._session.stop()


def _show_chunk(console: Console, session: Session, robot: Robot) -> None:
    chunk, rows = session.infer()
    measured, _ = robot.state()
    table = Table(title="first chunk, not played", title_justify="left")
    for heading in ("joint", "limits [rad]", "measured [rad]", "first row", "last row", "smallest", "largest"):
        is_name = heading == "joint"
        table.add_column(Text(heading), justify="left" if is_name else "right", no_wrap=is_name, overflow="fold")
    for i, joint in enumerate(robot.embodiment.joints):
        values = rows[:, i]
        table.add_row(
            joint.name,
            f"{joint.limits.min_position:+.2f} {joint.limits.max_position:+.2f}",
            *(f"{v:+.4f}" for v in (measured[i], values[0], values[-1], values.min(), values.max())),
        )
    console.print(table)
    console.print(f"{chunk.horizon} rows; nothing was moved")
