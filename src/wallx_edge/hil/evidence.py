"""Evidence: the folder a run leaves: JUnit XML for machines, every loop record as MCAP, a page for people."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import html
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.hil.stages import Check
from wallx_edge.recording.mcap import McapWriter
from wallx_edge.recording.topics import LOOP, loop_messages, schema

__all__ = ["Evidence", "StageResult"]

MAX_POINTS = 600  # of one line in a plot
COLOURS = ("#0b7285", "#c2255c", "#5f3dc4", "#e8590c", "#2b8a3e", "#495057", "#1864ab", "#862e9c")


@dataclass
class StageResult:
    """What one stage came to.

    Attributes:
        name: the stage.
        outcome: passed, failed, or skipped.
        reason: why it was skipped, or the error that ended it.
        seconds: how long it took [s].
        checks: what it looked at.
    """

    name: str
    outcome: str = "skipped"
    reason: str = ""
    seconds: float = 0.0
    checks: list[Check] = field(default_factory=list)


class Evidence:
    """One run's folder. Records are written as they come: a run that dies leaves what it had."""

    def __init__(self, folder: Path, robot: str, joints: Sequence[str]) -> None:
        """Makes the folder.

        Args:
            folder: must not hold an earlier run.
            robot: name, for the page.
            joints: in order.

        Raises:
            OSError: it cannot be made, or is not empty.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty")
        self.folder = folder
        self.robot = robot
        self.joints = list(joints)
        self.results: list[StageResult] = []
        self._stage = ""
        self._plots: dict[str, list[_core.LoopColumns]] = {}
        self._file = (folder / "records.mcap").open("wb", buffering=0)
        self._records = McapWriter(
            self._file, "wallx-edge", {"run": {"robot": robot, "joints": json.dumps(self.joints)}}
        )
        self._records.add_channel(LOOP, *schema(LOOP))

    def __enter__(self) -> Evidence:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the recording and writes JUnit, report and page: also when the run was broken off."""
        try:
            self._records.finish()
        finally:
            self._file.close()
        self._write_junit()
        report = {"robot": self.robot, "stages": [asdict(result) for result in self.results]}
        (self.folder / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        (self.folder / "index.html").write_text(self._page(), encoding="utf-8")

    def copy(self, *files: Path) -> None:
        """Keeps the files that a run was made of."""
        for file in files:
            if file.is_file():
                shutil.copyfile(file, self.folder / file.name)

    def begin(self, stage: str) -> StageResult:
        """The result to fill in for the stage whose records come now."""
        self._stage = stage
        self.results.append(StageResult(stage))
        return self.results[-1]

    def keep(self, columns: _core.LoopColumns) -> None:
        """Writes records as a chunk of messages; a number is SI, an array has one entry per joint."""
        for at, data in loop_messages(columns, self._stage):
            self._records.add(LOOP, at, data)
        self._records.flush()
        self._plots.setdefault(self._stage, []).append(columns)

    @property
    def has_passed(self) -> bool:
        """Whether every stage ran and passed."""
        return bool(self.results) and all(result.outcome == "passed" for result in self.results)

    def _write_junit(self) -> None:
        suites = ET.Element("testsuites", name=f"hil {self.robot}")
        for result in self.results:
            bad = [check for check in result.checks if not check.is_ok]
            is_error = result.outcome == "failed" and not bad
            suite = ET.SubElement(
                suites,
                "testsuite",
                name=result.name,
                tests=str(max(1, len(result.checks) + is_error)),
                failures=str(len(bad)),
                errors=str(int(is_error)),
                skipped=str(int(result.outcome == "skipped")),
                time=f"{result.seconds:.3f}",
            )
            for check in result.checks:
                case = ET.SubElement(suite, "testcase", classname=f"hil.{result.name}", name=check.name)
                if not check.is_ok:
                    ET.SubElement(case, "failure", message=f"found {check.found}, must be {check.bound}")
            if is_error or not result.checks:
                case = ET.SubElement(suite, "testcase", classname=f"hil.{result.name}", name=result.name)
                if result.outcome == "skipped":
                    ET.SubElement(case, "skipped", message=result.reason)
                elif is_error:
                    ET.SubElement(case, "error", message=result.reason)
        ET.indent(suites)
        ET.ElementTree(suites).write(self.folder / "junit.xml", encoding="utf-8", xml_declaration=True)

    def _page(self) -> str:
        title = f"{html.escape(self.robot)}: {'passed' if self.has_passed else 'not passed'}"
        parts = [_HEAD.format(title=title), f"<h1>{title}</h1>", _legend(self.joints)]
        for result in self.results:
            parts.append(f'<h2 class="{result.outcome}">{result.name}: {result.outcome}, {result.seconds:.1f} s</h2>')
            if result.reason:
                parts.append(f"<p>{html.escape(result.reason)}</p>")
            if result.checks:
                rows = "".join(
                    f'<tr class="{"ok" if c.is_ok else "bad"}"><td>{html.escape(c.name)}</td>'
                    f"<td>{html.escape(c.found)}</td><td>{html.escape(c.bound)}</td></tr>"
                    for c in result.checks
                )
                parts.append(f"<table><tr><th>check</th><th>found</th><th>must be</th></tr>{rows}</table>")
            if result.name in self._plots:
                parts.append(_plot(self._plots[result.name]))
        return "\n".join(parts) + "\n</body></html>\n"


_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #212529 }}
table {{ border-collapse: collapse; width: 100% }} th, td {{ text-align: left; padding: .2rem .6rem }}
tr {{ border-bottom: 1px solid #dee2e6 }} th {{ color: #868e96; font-weight: 500 }}
tr.bad td, h2.failed {{ color: #c92a2a; font-weight: 600 }}
h2.passed {{ color: #2b8a3e }} h2.skipped {{ color: #868e96 }}
svg {{ width: 100%; height: auto; margin-top: .8rem; background: #f8f9fa }} .key {{ margin-right: 1rem }}
</style></head><body>"""


def _legend(joints: Sequence[str]) -> str:
    keys = "".join(
        f'<span class="key" style="color:{COLOURS[i % len(COLOURS)]}">&#9632; {html.escape(joint)}</span>'
        for i, joint in enumerate(joints)
    )
    text = "Plots: way from where each joint stood first [rad] over time [s]; measured solid, commanded dashed."
    return f"<p>{keys}<br>{text}</p>"


def _plot(parts: Sequence[_core.LoopColumns]) -> str:
    """The joints' way through one stage as an SVG: measured solid, commanded dashed."""
    time = np.concatenate([part["time"] for part in parts])
    measured = np.concatenate([part["measured"] for part in parts])
    command = np.concatenate([part["command"] for part in parts])
    command = np.where(np.concatenate([part["has_command"] for part in parts])[:, np.newaxis], command, np.nan)
    every = max(1, len(time) // MAX_POINTS)
    time, start = time[::every] - time[0], measured[0]
    measured, command = measured[::every] - start, command[::every] - start
    finite = measured[np.isfinite(measured)]
    if len(time) < 2 or not finite.size:
        return ""
    low, high = float(finite.min()) - 0.01, float(finite.max()) + 0.01
    width, height, left, bottom = 900.0, 260.0, 50.0, 36.0
    x = left + time / max(float(time[-1]), 1e-9) * (width - left - 8)

    def y(values: NDArray[np.float64]) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = (height - bottom) * (1 - (values - low) / (high - low)) + 14
        return scaled

    lines = []
    for j in range(measured.shape[1]):
        colour = COLOURS[j % len(COLOURS)]
        for values, dash in ((command[:, j], ' stroke-dasharray="5 4" opacity=".6"'), (measured[:, j], "")):
            keep = np.isfinite(values)
            if keep.sum() > 1:
                points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x[keep], y(values)[keep], strict=True))
                lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.4"{dash} points="{points}"/>')
    marks = []
    for value in np.linspace(low, high, 5):
        at = float(y(np.array([value]))[0])
        marks.append(f'<line x1="{left}" x2="{width}" y1="{at:.1f}" y2="{at:.1f}" stroke="#dee2e6"/>')
        marks.append(f'<text x="4" y="{at + 4:.1f}" font-size="11" fill="#868e96">{value:.3f}</text>')
    for value in np.linspace(0, float(time[-1]), 6):
        at = left + value / max(float(time[-1]), 1e-9) * (width - left - 30)
        marks.append(f'<text x="{at:.1f}" y="{height - 4:.1f}" font-size="11" fill="#868e96">{value:.1f} s</text>')
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img">{"".join(marks)}{"".join(lines)}</svg>'
