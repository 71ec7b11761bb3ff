"""wallx-edge bench: engine, loading, control loop and buses, measured on this computer."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from wallx_edge.bench.bus import bench_bus
from wallx_edge.bench.load import bench_load
from wallx_edge.bench.loop import SETUPS, bench_loop
from wallx_edge.bench.session import bench_session
from wallx_edge.bench.sync_read import bench_codecs, bench_sync_read
from wallx_edge.cli import duration, engine_report
from wallx_edge.errors import ConfigError

PARTS = ("engine", "load", "loop", "bus", "session")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("part", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--setup", choices=sorted(SETUPS), help="robot of the loop; all of them by default")
    parser.add_argument("--rate", type=float, help="of the loop [1/s]; the setup's own by default")
    parser.add_argument("--blocks", type=int, default=5, help="of the loop, and as many of a bare one (5)")
    parser.add_argument("--duration", type=duration, default=10.0, help="of a block [s] (10)")
    parser.add_argument("--busy", type=int, default=2, help="busy Python threads beside the loop (2)")
    parser.add_argument("--json", action="store_true", help="for programs")
    engine_report.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measures and prints; 1 when what was measured cannot be believed."""
    for part in args.part:
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}; there are: {', '.join(PARTS)}")
    if args.rate is not None and not 20 <= args.rate <= 1000:
        raise ConfigError(f"--rate is {args.rate:g}, expected 20 to 1000 Hz")
    if not 0 <= args.busy <= 64:
        raise ConfigError(f"--busy is {args.busy}, expected 0 to 64 threads")
    if not 1 <= args.blocks <= 100:
        raise ConfigError(f"--blocks is {args.blocks}, expected 1 to 100")
    console = Console(highlight=False, stderr=args.json)
    results: dict[str, Any] = {"machine": _machine()}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for part in args.part or PARTS:
            if part == "loop":
                results[part] = _loop(args, progress)
                continue
            if part == "engine":
                results[part] = engine_report.measure(args, progress)
                continue
            progress.add_task(part, total=None)
            if part == "load":
                results[part] = bench_load()
            elif part == "session":
                results[part] = bench_session(args.duration)
            else:
                results[part] = {
                    "transports": bench_bus(),
                    "sync_read": bench_sync_read(),
                    "codecs": bench_codecs(),
                }
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        _print(console, results)
    return 1 if results.get("engine", {}).get("reasons") else 0


def _loop(args: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    found = []
    for setup in [args.setup] if args.setup else SETUPS:
        task = progress.add_task(f"loop, {SETUPS[setup].title}", total=args.blocks)
        found.append(
            bench_loop(setup, args.rate, args.blocks, args.duration, args.busy, partial(progress.advance, task))
        )
    return found


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith(("model name", "Model"))
    ]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def _print(console: Console, results: dict[str, Any]) -> None:
    console.print(results["machine"])
    if "engine" in results:
        engine_report.show(console, results["engine"])
    if "load" in results:
        _print_load(console, results["load"])
    for loop in results.get("loop", []):
        _print_loop(console, loop)
    if "bus" in results:
        _print_bus(console, results["bus"])
    if "session" in results:
        _print_session(console, results["session"])


def _print_load(console: Console, load: list[dict[str, Any]]) -> None:
    console.print("\nloading, peak resident memory with file pages")
    for row in load:
        console.print(
            f"  {row['dtype']:5s} {row['fp32_mb']:7.1f} MB in fp32, peak grows by {row['growth_mb']:7.1f} MB: "
            f"{row['ratio']:.2f} times; {row['load_s']:.2f} s"
        )


def _print_loop(console: Console, loop: dict[str, Any]) -> None:
    console.print(
        f"\ncontrol loop, {loop['title']}, {loop['rate_hz']:.0f} Hz, {loop['busy_threads']} busy Python threads "
        f"beside it; medians of {loop['blocks']} blocks of {loop['block_s']:g} s, in turns with a bare loop\n"
        f"  late p50 {loop['lateness_p50_us']:.0f} us, p99 {loop['lateness_p99_us']:.0f} us; bare loop "
        f"{loop['bare_p50_us']:.0f} us, {loop['bare_p99_us']:.0f} us: p99 {loop['p99_ratio']:.2f} times\n"
        f"  reading p50 {loop['read_p50_us']:.0f} us, overruns {loop['overrun_share']:.3%}, fresh feedback from "
        f"every joint in {loop['fresh_share']:.3%}\n"
        f"  calls for memory from the loop's thread in {loop['ticks']} ticks: {loop['allocations']} allocations, "
        f"{loop['frees']} frees, {loop['mappings']} mappings; SCHED_FIFO: {loop['is_fifo']}",
        soft_wrap=True,
    )
    for reason in loop["stops"]:
        console.print(f"  a block was stopped and is not counted: {reason}", soft_wrap=True)


def _print_session(console: Console, session: dict[str, Any]) -> None:
    queue, sharing = session["queue"], session["sharing"]
    console.print(
        f"\nacting and thinking at once, {queue['parameters'] / 1e6:.1f} million parameters, a chunk every two "
        f"times its lone time\n"
        f"  chunk p50 {queue['chunk_alone_ms']:.1f} ms alone, {queue['chunk_beside_text_ms']:.1f} ms beside text: "
        f"{queue['chunk_latency_ratio']:.2f} times; waited p99 {queue['chunk_waited_p99_ms']:.2f} ms\n"
        f"  text {queue['text_alone_per_s']:.0f} tokens/s alone, {queue['text_beside_chunks_per_s']:.0f} beside chunks"
        f": {queue['text_rate_share']:.0%}\n"
        f"  control loop late p99 {queue['loop_p99_us']['both'][0]:.0f} us beside both, alone "
        f"{min(queue['loop_p99_us']['quiet']):.0f} to {max(queue['loop_p99_us']['quiet']):.0f} us\n"
        f"  a subtask shares {sharing['subtask_tokens_shared']} of {sharing['subtask_prompt_tokens']} prompt tokens "
        f"with the policy and computes {sharing['pictures_computed_by_reasoner']} pictures",
        soft_wrap=True,
    )
    console.print("\nseams between chunks of a field with two modes, before the limiter")
    for row in session["seams"]:
        console.print(
            f"  {row['mode']:7s} delay {row['delay_steps']:2d} steps: jump {row['jump_rad']:.6f} rad, acceleration "
            f"{row['acceleration_at_seams']:.2f} rad/s^2 at the {row['seams']} seams and "
            f"{row['acceleration_inside']:.2f} inside, {row['holds']} holds",
            soft_wrap=True,
        )
    for name, is_kept in session["kept"].items():
        console.print(f"  {'kept' if is_kept else 'NOT KEPT'}: {name}")


def _print_bus(console: Console, bus: dict[str, Any]) -> None:
    console.print("\nbuses, eight bytes to another process and back, medians of interleaved blocks")
    for row in bus["transports"]:
        if "left_out" in row:
            console.print(f"  {row['transport']:26s} left out: {row['left_out']}", soft_wrap=True)
        else:
            console.print(f"  {row['transport']:26s} p50 {row['p50_us']:6.0f} us, p99 {row['p99_us']:6.0f} us")
    sync = bus["sync_read"]
    console.print(
        f"\nsync read of {sync['bytes']} bytes from {sync['servos']} emulated servos, {sync['wire_us']:.0f} us on "
        f"the wire; medians of {sync['blocks']} interleaved blocks of {sync['reads']} reads",
        soft_wrap=True,
    )
    for name, row in sync["readers"].items():
        console.print(
            f"  {name:13s} {row['read_us']:7.0f} us a read, {row['wire_share']:.0%} of the wire's rate, "
            f"{row['cpu_us']:6.0f} us of processor time, {row['failed']} failed",
            soft_wrap=True,
        )
    if "cpu_ratio" in sync:
        console.print(f"  processor time: {sync['cpu_ratio']:.2f} of the Python reader's")
    else:
        console.print("  without the package feetech-servo-sdk there is no Python reader to compare with")
    console.print("\nencoding the goal and decoding the state of one motor")
    for family, microseconds in bus["codecs"].items():
        console.print(f"  {family:12s} {microseconds:.3f} us")
