"""wallx-edge bench: engine, loading and control loop, measured on this computer."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from wallx_edge import benchmark
from wallx_edge.cli import duration
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError
from wallx_edge.synth import synth

PARTS = ("engine", "load", "loop")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("part", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--checkpoint", type=Path, help="for the engine; a synthetic tiny one by default")
    parser.add_argument("--duration", type=duration, default=20.0, help="of the loop's run [s] (20)")
    parser.add_argument("--rate", type=float, default=200.0, help="of the loop [1/s] (200)")
    parser.add_argument("--busy", type=int, default=2, help="busy processes beside the loop (2)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    for part in args.part:
        if part not in PARTS:
            raise ConfigError(f"unknown part {part!r}; there are: {', '.join(PARTS)}")
    if not 20 <= args.rate <= 1000:
        raise ConfigError(f"--rate is {args.rate:g}, expected 20 to 1000 Hz")
    if not 0 <= args.busy <= 64:
        raise ConfigError(f"--busy is {args.busy}, expected 0 to 64 processes")
    console = Console(highlight=False, stderr=args.json)
    results: dict[str, Any] = {"machine": _machine()}
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for part in args.part or PARTS:
            progress.add_task(part, total=None)
            if part == "engine":
                results[part] = _engine(args.checkpoint)
            elif part == "load":
                results[part] = benchmark.bench_load()
            else:
                results[part] = benchmark.bench_loop(args.duration, args.rate, args.busy)
    if args.json:
        print(json.dumps(results, indent=1))
    else:
        _print(console, results)
    return 0


def _engine(checkpoint: Path | None) -> dict[str, Any]:
    if checkpoint is not None:
        return benchmark.bench_engine(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        joints = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
        synth("tiny", Path(folder) / "synth-tiny", joints, "so101")
        return benchmark.bench_engine(Path(folder) / "synth-tiny")


def _machine() -> str:
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith(("model name", "Model"))
    ]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def _print(console: Console, results: dict[str, Any]) -> None:
    console.print(results["machine"])
    if engine := results.get("engine"):
        console.print(f"\nengine, fp32, one thread, {engine['checkpoint']}")
        for row in engine["rows"]:
            console.print(
                f"  prefix {row['prefix_tokens']:5d} tokens: prefill {row['prefill_ms']:8.2f} ms, "
                f"Euler step {row['step_ms']:7.3f} ms, text {row['text_tokens_per_s']:7.1f} tokens/s "
                f"(slowest {row['longest_token_ms']:.2f} ms)",
                soft_wrap=True,
            )
        first = engine["rows"][0]
        console.print(
            f"  after a subtask's prompt on the same pictures: {engine['shared_tokens']} of {first['prefix_tokens']} "
            f"tokens shared, prefill {engine['reused_prefill_ms']:.2f} ms instead of {first['prefill_ms']:.2f} ms",
            soft_wrap=True,
        )
        console.print(
            f"  a prefix {engine['prefix_ratio']:.1f} times as long makes a step {engine['step_ratio']:.2f} times as "
            f"long; computing it again in every step would make that {engine['recompute_ratio']:.0f} times",
            soft_wrap=True,
        )
        console.print(
            f"  prefill {engine['engine_gflops']:.0f} GFLOP/s in its products alone; numpy's product, all threads, "
            f"{engine['numpy_gflops']:.0f} GFLOP/s",
            soft_wrap=True,
        )
    if load := results.get("load"):
        console.print("\nloading, peak resident memory with file pages")
        for row in load:
            console.print(
                f"  {row['dtype']:5s} {row['fp32_mb']:7.1f} MB in fp32, peak grows by {row['growth_mb']:7.1f} MB: "
                f"{row['ratio']:.2f} times; {row['load_s']:.2f} s"
            )
    if loop := results.get("loop"):
        console.print(
            f"\ncontrol loop, {loop['rate_hz']:.0f} Hz on an emulated arm, engine and {loop['busy_processes']} busy "
            f"processes beside it\n"
            f"  {loop['ticks']} ticks, SCHED_FIFO: loop {loop['loop_is_fifo']}, emulator {loop['emulator_is_fifo']}\n"
            f"  late p50 {loop['lateness_p50_us']:.0f} us, p99 {loop['lateness_p99_us']:.0f} us, "
            f"max {loop['lateness_max_us']:.0f} us; reading p50 {loop['read_p50_us']:.0f} us\n"
            f"  overruns {loop['overrun_share']:.3%}, {loop['skipped_periods']} periods skipped, "
            f"fresh feedback from every servo in {loop['fresh_share']:.3%}"
        )
