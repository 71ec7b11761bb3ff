"""wallx-edge calibrate: measures one unit by hand, writes its motors, verifies and signs."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from wallx_edge.calibrate import CalibrationPlan, Procedure, Unit, signature_path
from wallx_edge.calibrate.unit import fields_of
from wallx_edge.embodiment import JointCalibration, load_calibration, load_embodiment
from wallx_edge.robot_config import RobotConfig

_TASKS = {
    "sweep": "move every joint by hand from stop to stop, then press Enter",
    "middle": "place the joint by hand, then press Enter",
    "zero": "place every joint at its zero by hand, then press Enter",
    "verify": "once more: move every joint by hand from stop to stop, then press Enter",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, help="ROBOT.toml; its calibration file is written")
    parser.add_argument(
        "--import", dest="imported", type=Path, metavar="FILE", help="take over LeRobot's calibration of this very unit"
    )
    parser.add_argument(
        "--json", action="store_true", help="report as JSON lines; each line on standard input is an Enter (or no)"
    )


def run(args: argparse.Namespace) -> int:
    """Calibrates; 0 when the unit is written, verified and signed. Otherwise it is as it was before."""
    config = RobotConfig.load(args.robot)
    embodiment = load_embodiment(config.embodiment)
    plan = CalibrationPlan.load(embodiment)
    names = [joint.name for joint in embodiment.joints]
    imported: dict[str, JointCalibration] | None = None
    ids = {joint.name: joint.id for joint in embodiment.joints}
    if args.imported is not None:
        imported = dict(zip(names, load_calibration(args.imported, embodiment), strict=True))
        ids = {name: joint.id for name, joint in imported.items()}
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Unit(embodiment, ids, config.bus) as unit, ConsoleOperator(args.json) as operator:
            procedure = Procedure(unit, plan, operator, config.calibration)
            result = procedure.run() if imported is None else procedure.take_over(imported)
            operator.finish(config.calibration, result)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class ConsoleOperator:
    """The person at the terminal, or a program at the other end of two pipes."""

    def __init__(self, is_json: bool) -> None:
        """``is_json``: lines of JSON instead of text."""
        self._is_json = is_json
        self._console = Console(highlight=False)
        self._live: Live | None = None
        self._pending = b""

    def __enter__(self) -> ConsoleOperator:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_table()

    def tell(self, text: str) -> None:
        """One line."""
        self._close_table()
        self._report({"event": "tell", "text": text}, text)

    def confirm(self, question: str) -> bool:
        """Asks for yes or no; anything but yes is no."""
        self._close_table()
        self._report({"event": "confirm", "text": question}, f"[bold]{question}[/] \\[y/N]")
        answer: str | None = None
        while answer is None:
            answer = self._line(None)
        return answer.strip().lower() in ("y", "yes")

    def begin(self, task: str, joints: Mapping[str, str]) -> None:
        """Says what to do."""
        self._close_table()
        hints = "\n".join(f"  {joint}: {hint}" for joint, hint in joints.items())
        self._report({"event": task, "joints": dict(joints)}, f"[bold]{_TASKS[task]}[/]\n{hints}")
        if not self._is_json and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=10, transient=False)
            self._live.start()

    def is_done(self, ranges: Mapping[str, tuple[int, int, int]]) -> bool:
        """Shows the ranges; true when a line has come."""
        if self._live is not None:
            table = Table("joint", "lowest", "now", "highest", "travel")
            for joint, (low, now, high) in ranges.items():
                table.add_row(joint, str(low), str(now), str(high), str(high - low))
            self._live.update(table)
        return self._line(0.0) is not None

    def finish(self, path: Path, calibration: Mapping[str, JointCalibration]) -> None:
        """The result."""
        self._close_table()
        table = Table("joint", "id", "homing offset", "range", title=f"calibrated, verified and signed: {path}")
        for joint, c in calibration.items():
            table.add_row(joint, str(c.id), str(c.homing_offset), f"{c.range_min}..{c.range_max}")
        result = {
            "event": "done",
            "calibration": str(path),
            "signature": str(signature_path(path)),
            "joints": {joint: fields_of(c) for joint, c in calibration.items()},
        }
        self._report(result, table)

    def _report(self, event: Mapping[str, object], text: object) -> None:
        if self._is_json:
            print(json.dumps(event), flush=True)
        else:
            self._console.print(text)

    def _close_table(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, timeout: float | None) -> str | None:
        """The next line, or None when none came in time. Raises KeyboardInterrupt at the end of standard input."""
        if b"\n" not in self._pending:
            ready, _, _ = select.select([sys.stdin], [], [], timeout)
            if not ready:
                return None
            chunk = os.read(sys.stdin.fileno(), 4096)
            if not chunk:
                raise KeyboardInterrupt
            self._pending += chunk
        if b"\n" not in self._pending:
            return None
        line, self._pending = self._pending.split(b"\n", 1)
        return line.decode(errors="replace")
