"""wallx-edge synth: a random checkpoint for a robot's joints."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from wallx_edge.embodiment import load_embodiment
from wallx_edge.synth import SIZES, SPREAD, VARIANTS, synth


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("size", choices=list(SIZES), help="size of the network")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--embodiment", default="so101", help="robot whose joints the checkpoint moves (so101)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (0)")
    parser.add_argument("--variant", choices=VARIANTS, default="v1", help="form of the network (v1); docs/variants.md")
    parser.add_argument(
        "--dtype", choices=("f32", "bf16", "f16"), help="of the file (f32, bf16 for wall-oss and wall-oss-mini)"
    )


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what it is not."""
    embodiment = load_embodiment(args.embodiment)
    rest_pose = {joint.name: joint.rest_position for joint in embodiment.joints}
    dtype = args.dtype or SIZES[args.size].dtype
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(args.size, total=None)
            synth(
                args.size,
                args.out,
                rest_pose,
                embodiment.name,
                seed=args.seed,
                dtype=dtype,
                variant=args.variant,
                on_bytes=lambda done, total: progress.update(task, completed=done, total=total),
            )
    finally:
        signal.signal(signal.SIGTERM, previous)
    print(
        f"{args.out}: random weights ({args.size}, {dtype}, seed {args.seed}) in the published {args.variant} "
        f"layout for {embodiment.name}: {', '.join(rest_pose)}, {SPREAD} rad around the rest pose.\n"
        "It is untrained: the arm moves with what the cameras show, and does no task."
    )
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A process that is ended takes what it has half written with it."""
    raise KeyboardInterrupt
