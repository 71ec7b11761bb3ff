"""Screen: the three clocks, the words and the joints of a session as one table, for `run`, `demo` and `status`."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from wallx_edge._core import LoopRecord

__all__ = ["clocks", "joints", "line", "words"]

STATE_STYLES = {
    "running": "bold green",
    "run": "green",
    "paused": "bold yellow",
    "hold": "yellow",
    "fault": "bold red",
    "failed": "bold red",
}


def _ms(seconds: Any) -> str:
    return "" if not isinstance(seconds, (int, float)) else f"{seconds * 1e3:.0f} ms"


def _hz(rate: Any) -> str:
    return "" if not isinstance(rate, (int, float)) or not rate else f"{rate:.3g} Hz"


def _state(name: str) -> Text:
    return Text(name, STATE_STYLES.get(name, ""))


def words(session: Mapping[str, Any]) -> RenderableType:
    """Task, subtask and reasoning.

    Args:
        session: a session's status in types of JSON.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("task", Text(str(session.get("task", ""))))
    if subtask := session.get("subtask"):
        table.add_row("subtask", Text(f"{subtask}  ({session.get('subtask_from', '')})"))
    if reasoning := session.get("reasoning"):
        table.add_row("reasoning", Text(str(reasoning)[-300:]))
    return table


def clocks(session: Mapping[str, Any]) -> RenderableType:
    """The three clocks: how often, how late, what came of it.

    Args:
        session: a session's status in types of JSON.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("clock", "state", "rate", "latency", "late", "what came of it"):
        table.add_column(heading, no_wrap=heading != "what came of it", overflow="fold")
    get = session.get
    table.add_row(
        "Reasoner",
        _state(str(get("reason_state", "off"))),
        _hz(get("reasoner_hz")),
        _ms(get("reasoner_latency")),
        "",
        f"{get('answers', 0)} answers, {get('answers_dropped', 0)} dropped, {get('tokens_per_s') or 0:.0f} tokens/s",
    )
    delay = f", delay {get('delay_rows')} rows, at most {get('delay_rows_max')}" if "delay_rows" in session else ""
    table.add_row(
        f"Policy {get('mode', '')}".strip(),
        _state(str(get("state", ""))),
        _hz(get("policy_hz")),
        _ms(get("policy_latency", get("latency"))),
        f"{_ms(get('chunk_age'))} old",
        f"{get('chunks', 0)} chunks, {get('dropped', 0)} dropped, {get('refused', 0)} refused{delay}",
    )
    limited = {reason: ticks for reason, ticks in (get("limited_ticks") or {}).items() if ticks}
    limits = ", ".join(f"{reason} {ticks}" for reason, ticks in limited.items()) or "nothing"
    late = f"p50 {get('loop_late_p50_us') or 0:.0f}, p99 {get('loop_late_p99_us') or 0:.0f} us"
    table.add_row(
        "ControlLoop",
        _state(str(get("loop_state", ""))),
        _hz(get("loop_hz")),
        "",
        late,
        f"{get('overruns', 0)} overruns, {get('holds', 0)} holds; limited ticks: {limits}",
    )
    return table


def joints(names: Sequence[str], record: LoopRecord | None) -> RenderableType:
    """Where every joint is told to be and is.

    Args:
        names: of the joints.
        record: the loop's newest.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for heading in ("joint", "target [rad]", "command [rad]", "measured [rad]", "error [deg]", "age [ms]", "limited"):
        is_text = heading in ("joint", "limited")
        # as a text: [rad] in a string would be taken for markup
        table.add_column(Text(heading), justify="left" if is_text else "right", no_wrap=True)
    if record is None:
        return table
    for i, name in enumerate(names):
        command, measured = record["command"][i], record["measured"][i]
        table.add_row(
            name,
            f"{record['target'][i]:+.4f}",
            f"{command:+.4f}",
            f"{measured:+.4f}",
            f"{np.degrees(command - measured):+.2f}",
            f"{record['sample_age'][i] * 1e3:.1f}",
            "yes" if record["reasons"][i] else "",
        )
    return table


def line(session: Mapping[str, Any]) -> str:
    """The same in one line, where there is no terminal."""
    get = session.get
    return (
        f"{get('loop_state', ''):5s} chunk {get('chunks', 0)}, age {_ms(get('chunk_age', 0.0))}, "
        f"latency {_ms(get('policy_latency', get('latency', 0.0)))}; loop late p50 {get('loop_late_p50_us') or 0:.0f} "
        f"p99 {get('loop_late_p99_us') or 0:.0f} us, {get('overruns', 0)} overruns, "
        f"{max((get('limited_ticks') or {}).values(), default=0)} limited"
    )


def status(found: Mapping[str, Any]) -> RenderableType:
    """What `wallx-edge status` shows.

    Args:
        found: a daemon's status.
    """
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    loop, recording, session = found["loop"], found["recording"], found["session"]
    table.add_row("robot", Text(f"{found['robot']}, {found['file']}"))
    table.add_row("daemon", _state(found["state"]))
    table.add_row("process", f"{found['pid']}, version {found['version']}, up {found['uptime']:.0f} s")
    table.add_row(
        "loop",
        f"{loop['state']}, {loop['ticks']} ticks, {loop['overruns']} overruns, "
        f"late p50 {loop['late_p50_us']:.0f}, p99 {loop['late_p99_us']:.0f} us",
    )
    if found["error"]:
        table.add_row("error", Text(found["error"], "red"))
    if recording is not None:
        text = f"{recording['path']}, {recording['messages']} messages, {recording['dropped']} dropped"
        table.add_row("recording", Text(text))
        if recording["error"]:
            table.add_row("", Text(f"stopped: {recording['error']}", "yellow"))
    table.add_row("control", Text(found["control"] or "free"))
    parts: list[RenderableType] = [table]
    if session is not None:
        parts += [words(session), clocks(session)]
    return Group(*parts)
