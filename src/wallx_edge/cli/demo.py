"""wallx-edge demo: the whole chain on this computer, in half a minute."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from wallx_edge import __version__, demo
from wallx_edge.cli import duration
from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.cli.live import LiveView
from wallx_edge.cli.run import StopSignals
from wallx_edge.errors import ConfigError
from wallx_edge.extras import require
from wallx_edge.robot import Robot, lateness_us
from wallx_edge.session import PlayedChunk, Session, SessionStatus
from wallx_edge.showcase import Showcase
from wallx_edge.sim import SimProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("--out", type=Path, default=Path("wallx-demo"), help="folder for what it leaves (wallx-demo)")
    parser.add_argument("--duration", type=duration, default=20.0, help="time for the task [s] (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the scene and of the untrained checkpoint (0)")
    add_computing_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the summary, for programs")


def run(args: argparse.Namespace) -> int:
    """Runs and checks; 0 when the task was done and the emulator's log agrees with what was commanded."""
    console = Console(highlight=False, stderr=args.json)
    out: Path = args.out
    # before anything moves
    for module, extra in (("matplotlib", "plot"), ("av", "video"), ("mujoco", "sim")):
        require(module, extra, "the demo")
    log = out / "emulator.jsonl"
    try:
        out.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: cannot be used as a folder: {error.strerror or error}") from error
    with ExitStack() as stack:
        showcase = stack.enter_context(Showcase(out, args.seed))
        task = showcase.scene.instruction
        console.print(
            f"wallx-edge {__version__}: a simulated SO-101 is to [bold]{task}[/]; a scripted expert that knows where "
            "everything is decides, since there is no trained checkpoint; an untrained one computes beside it"
        )
        port = out / "port"
        stack.enter_context(SimProcess("so101", link=port, log=log, options=showcase.options))
        config = demo.prepare(out, port.absolute(), seed=args.seed, frames=showcase.frames)
        config = replace(config, computing=computing(args, config.computing))
        joints: list[str] = []
        signals = stack.enter_context(StopSignals())

        def on_start(robot: Robot, session: Session) -> Callable[[SessionStatus], None]:
            for shortfall in robot.loop.real_time["shortfalls"]:
                console.print(f"[bold yellow]not real time:[/] {shortfall}", soft_wrap=True)
            joints.extend(robot.joint_names)
            signals.stop(session)
            show = stack.enter_context(LiveView(robot, args.duration, console))

            def look(status: SessionStatus) -> None:
                show(status)
                if showcase.look():
                    session.stop()

            return look

        columns, chunks, statistics = demo.run(config, task, args.duration, on_start, showcase.open)
        received = signals.received
        if received:
            console.print(f"stopped by {received[0].name}: the arm holds its last command")
            return int(128 + received[0])
        with console.status("drawing the film") if console.is_terminal else nullcontext():
            showcase.film(out / "demo.mp4")
        checked = demo.check(config, columns, chunks, log, is_over=showcase.succeeded_at is None)
        demo.plot(out / "joints.png", columns, joints)
        summary = _summary(args, checked, chunks, statistics, joints) | {
            "task": task,
            "policy": "a scripted expert that knows where everything is",
            "checkpoint": f"synth tiny, seed {args.seed} (untrained)",
            "chunks_computed": showcase.num_computed,
            "success": showcase.progress.is_success,
            "progress": showcase.progress.share,
            "recording": statistics["recording"],
        }
    summary["ok"] = bool(checked["ok"] and summary["success"])
    demo.write_summary(out / "summary.json", summary)
    if args.json:
        print(json.dumps(summary))
    else:
        _print(console, summary, out)
    return 0 if summary["ok"] else 1


def _summary(
    args: argparse.Namespace,
    checked: dict[str, Any],
    chunks: list[PlayedChunk],
    statistics: dict[str, Any],
    joints: list[str],
) -> dict[str, Any]:
    latencies = sorted(chunk.arrived_at - chunk.observed_at for chunk in chunks)
    lateness = statistics["lateness"]
    return {
        "version": __version__,
        "joints": joints,
        "chunks": len(chunks),
        "chunk_latency_ms": {
            "p50": latencies[len(latencies) // 2] * 1e3 if latencies else None,
            "max": latencies[-1] * 1e3 if latencies else None,
        },
        "loop": {
            **statistics["counters"],
            "lateness_p50_us": lateness_us(lateness, 0.5),
            "lateness_p99_us": lateness_us(lateness, 0.99),
            "real_time": statistics["real_time"],
        },
        "emulator": checked,
        "chunk_rows": [
            {
                "sequence": c.sequence,
                "observed_at_s": c.observed_at,
                "arrived_at_s": c.arrived_at,
                "step_s": c.step,
                "rows_rad": c.rows.tolist(),
            }
            for c in chunks
        ],
    }


def _print(console: Console, summary: dict[str, Any], out: Path) -> None:
    loop, seen = summary["loop"], summary["emulator"]
    console.print(f"task {'[green]done[/]' if summary['success'] else '[red]not done[/]'}: {summary['task']}")
    console.print(
        f"{summary['chunks']} chunks, latency p50 {summary['chunk_latency_ms']['p50']:.0f} ms; loop {loop['ticks']} "
        f"ticks, late p50 {loop['lateness_p50_us']:.0f} p99 {loop['lateness_p99_us']:.0f} us, "
        f"{loop['overruns']} overruns",
        soft_wrap=True,
    )
    console.print(
        f"by the emulator's log: {seen['goals_received']} of {seen['commands_sent']} commands received, "
        f"{seen['rows_equal']} of {seen['rows_due']} rows reached to the tick ({seen['rows_limited']} limited, "
        f"{seen['rows_unexplained']} unexplained), final pose {seen['final_error_deg']:.2f} deg from the last row",
        soft_wrap=True,
    )
    left = ", ".join(f"{out}/{name}" for name in ("demo.mp4", "joints.png", "summary.json", "recording"))
    console.print(f"{'[green]ok[/]' if summary['ok'] else '[red]FAILED[/]'}: {left}", soft_wrap=True)
