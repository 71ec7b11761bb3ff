"""Engine report: how `wallx-edge bench engine` is run and printed."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from wallx_edge.bench.cold import bench_cold
from wallx_edge.bench.engine import STAGES, Asked, bench_engine, compare
from wallx_edge.bench.reuse import bench_reuse
from wallx_edge.bench.work import PRECISIONS
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.synth import SIZES, synth

CACHE = Path("out")  # below the working directory: checkpoints that are made once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the engine."""
    group = parser.add_argument_group("engine")
    group.add_argument("--checkpoint", type=Path, help="folder; a synthetic one by default")
    group.add_argument(
        "--size",
        choices=list(SIZES),
        help="of a synthetic one, kept as out/synth-SIZE; a tiny one, not kept, by default",
    )
    group.add_argument(
        "--precision",
        choices=list(PRECISIONS),
        default=Asked.precision,
        help="of the engine; as the folder is packed, else fp32",
    )
    group.add_argument(
        "--threads", type=int, default=Asked.threads, help="of the engine and the peaks; as many as cores by default"
    )
    group.add_argument("--steps", type=int, default=Asked.steps, help="of the flow (10)")
    group.add_argument("--cameras", type=int, default=Asked.cameras, help="1 to 3 of 640 x 480 (2)")
    group.add_argument("--repeats", type=int, default=Asked.repeats, help="of every stage, in turns (5)")
    group.add_argument("--sweep", action="store_true", help="chunks of 1, 2, 3 cameras and 5, 10, 20 steps too")
    group.add_argument("--compare", type=Path, metavar="FILE", help="with an earlier result of --json")


def measure(args: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """All of it: from a cold cache in a process of its own first, while nobody has the files mapped."""
    asked = Asked(args.precision, args.threads, args.steps, args.cameras, args.repeats, args.sweep)
    if args.checkpoint is not None and args.size is not None:
        raise ConfigError("--checkpoint and --size exclude each other")
    before = _read(args.compare)
    with _checkpoint(args, progress) as checkpoint:
        task = progress.add_task("engine, from a cold cache", total=None)
        try:
            cold = bench_cold(checkpoint, asked)
        except WallxError as error:  # such as a file system that keeps everything in memory
            cold = {"left_out": str(error)}
        progress.remove_task(task)
        engine = asked.load(checkpoint)
        rounds = asked.repeats + (asked.repeats + 1 if asked.does_sweep else 0)
        task = progress.add_task("engine", total=rounds + 1)
        found = bench_engine(checkpoint, asked, engine, lambda: progress.advance(task))
        found["cold"] = cold
        found["reuse"] = bench_reuse(checkpoint, engine, asked.repeats)
        progress.advance(task)
    if before is not None:
        found["compared"] = compare(found, before)
    return found


def _read(path: Path | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["engine"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--compare {path}: not a result of bench engine --json: {error!r}") from error


@contextmanager
def _checkpoint(args: argparse.Namespace, progress: Progress) -> Iterator[Path]:
    if args.checkpoint is not None:
        yield args.checkpoint
        return
    joints = {joint.name: joint.rest_position for joint in load_embodiment("so101").joints}
    if args.size is None:
        with tempfile.TemporaryDirectory() as temporary:
            synth("tiny", Path(temporary) / "synth-tiny", joints, "so101")
            yield Path(temporary) / "synth-tiny"
        return
    folder = CACHE / f"synth-{args.size}"
    if not (folder / "model.safetensors").is_file():
        task = progress.add_task(f"synth {args.size}", total=None)
        synth(
            args.size,
            folder,
            joints,
            "so101",
            on_bytes=lambda done, total: progress.update(task, completed=done, total=total),
        )
        progress.remove_task(task)
    yield folder


def show(console: Console, found: Mapping[str, Any]) -> None:
    """Prints it."""
    case = found["conditions"]
    console.print(
        f"\nengine, {case['precision']} on {case['backend']}, {case['threads']} threads, {case['checkpoint']}\n"
        f"  {case['cameras']} cameras, {case['patches']} patches, {case['prefix_tokens']} tokens before "
        f"{case['horizon']} rows, {case['steps']} steps; medians of {case['repeats']} repetitions in turns",
        soft_wrap=True,
    )
    _show_peaks(console, found["peaks"])
    compared = found.get("compared", {})
    for stage in STAGES:
        row = found["stages"][stage]
        text = f"  {stage:10s} {row['ms']:10.3f} ms"
        if "share" in row:
            text += f", {row['operations_per_s'] / 1e9:8.1f} Gop/s, {row['bytes_per_s'] / 1e9:6.2f} GB/s"
            text += f": {row['share']:.1%} of the {row['bound_by']} peak, bound {row['bound_ms']:.3f} ms"
        if stage in compared:
            text += f"; {compared[stage]:.3f} of the time before"
        console.print(text, soft_wrap=True)
    console.print(f"  a chunk takes {found['chunk_over_bound']:.2f} times the sum of its stages' bounds")
    _show_cold(console, found["cold"])
    for name, row in found.get("sweep", {}).items():
        points = ", ".join(f"{value}: {ms:.1f} ms" for value, ms in zip(row["values"], row["ms"], strict=True))
        console.print(
            f"  {name} {points}; {row['ms_each']:.1f} ms each and {row['ms_fixed']:.1f} ms, "
            f"{row['off_line']:.1%} off this line at most",
            soft_wrap=True,
        )
    _show_reuse(console, found["reuse"])
    for reason in found["reasons"]:
        console.print(f"  not valid: {reason}", soft_wrap=True)


def _show_peaks(console: Console, peaks: Mapping[str, Mapping[str, Any]]) -> None:
    for kind, row in peaks.items():
        if kind == "clock":
            console.print(f"  clock      {row['highest'] / 1e9:8.3f} GHz")
        elif kind == "read":
            console.print(
                f"  read       {row['median'] / 1e9:8.1f} GB/s, {row['lowest'] / 1e9:.1f} to "
                f"{row['highest'] / 1e9:.1f} in this run"
            )
        else:
            share = "width not known" if row["share"] is None else f"{row['share']:.1%} of cores x clock x width"
            console.print(
                f"  peak {kind}  {row['median'] / 1e9:8.1f} Gop/s, {row['lowest'] / 1e9:.1f} to "
                f"{row['highest'] / 1e9:.1f}: {share} ({row['instruction']})",
                soft_wrap=True,
            )


def _show_cold(console: Console, cold: Mapping[str, Any]) -> None:
    if "left_out" in cold:
        console.print(f"  from a cold cache: left out: {cold['left_out']}", soft_wrap=True)
        return
    console.print(
        f"  from a cold cache: loading {cold['load_s']:.2f} s, first chunk {cold['first_chunk_s']:.2f} s, a warm one "
        f"{cold['warm_chunk_s']:.2f} s: the first takes longer by {cold['cold_over_read']:.2f} times reading "
        f"{cold['file_gb']:.2f} GB ({cold['read_s']:.2f} s); peak memory {cold['peak_mb']:.0f} MB",
        soft_wrap=True,
    )


def _show_reuse(console: Console, reuse: Mapping[str, Any]) -> None:
    for row in reuse["rows"]:
        console.print(
            f"  prefix {row['prefix_tokens']:5d} tokens: prefill {row['prefill_ms']:8.2f} ms, "
            f"Euler step {row['step_ms']:7.3f} ms, text {row['text_tokens_per_s']:7.1f} tokens/s "
            f"(slowest {row['longest_token_ms']:.2f} ms)",
            soft_wrap=True,
        )
    first = reuse["rows"][0]
    console.print(
        f"  after a subtask's prompt on the same pictures: {reuse['shared_tokens']} of {first['prefix_tokens']} "
        f"tokens shared, prefill {reuse['reused_prefill_ms']:.2f} ms instead of {first['prefill_ms']:.2f} ms",
        soft_wrap=True,
    )
    console.print(
        f"  a prefix {reuse['prefix_ratio']:.1f} times as long makes a step {reuse['step_ratio']:.2f} times as "
        f"long; computing it again in every step would make that {reuse['recompute_ratio']:.0f} times",
        soft_wrap=True,
    )
