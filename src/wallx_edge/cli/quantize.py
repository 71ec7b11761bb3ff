"""wallx-edge quantize: a checkpoint packed for a precision."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from wallx_edge._core import Quantizer
from wallx_edge.errors import ConfigError
from wallx_edge.quantize.page import write_report
from wallx_edge.quantize.quality import Quality, measure
from wallx_edge.quantize.recipe import Recipe, Smoothing
from wallx_edge.quantize.smoothing import observe, smooth
from wallx_edge.quantize.writer import quantize


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder in the published layout")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--recipe", default="int8", help=f"how: {', '.join(Recipe.names())}, or a TOML file (int8)")
    parser.add_argument(
        "--observations",
        type=Path,
        metavar="FILE.json",
        help='to judge it by: a list of {"images": {ROLE: FILE}, "task": TEXT, "state": [...]}; synthetic by default',
    )
    parser.add_argument("--count", type=int, default=4, help="of synthetic observations (4)")
    parser.add_argument("--statistics", help="of the checkpoint, for states and rows; the first by default")
    parser.add_argument("--no-report", action="store_true", help="do not compare it with fp32")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what became of it."""
    recipe = Recipe.load(args.recipe)
    if not 1 <= args.count <= 1000:
        raise ConfigError(f"--count is {args.count}, expected 1 to 1000 observations")
    if args.observations is not None and not args.observations.is_file():
        raise ConfigError(f"--observations {args.observations}: there is no such file")
    console = Console(highlight=False, stderr=args.json)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("packing", total=None)
        written = quantize(
            args.checkpoint,
            args.out,
            recipe,
            lambda done, total: bar.update(task, completed=done, total=total),
            partial(_smooth, args, recipe.smoothing, console) if recipe.smoothing else None,
        )
    quality = None if args.no_report else _measure(args, console)
    if args.json:
        print(
            json.dumps(
                {
                    "folder": str(written.folder),
                    "recipe": recipe.name,
                    "precision": recipe.precision,
                    "weight_bytes": written.weight_bytes,
                    "source_bytes": written.source_bytes,
                    "formats": written.formats,
                    "source_sha256": written.source_digest,
                    "quality": None if quality is None else quality.as_json(),
                },
                indent=1,
            )
        )
        return 0
    layers = ", ".join(f"{count} {kind}" for kind, count in sorted(written.formats.items()))
    console.print(
        f"{written.folder}: {written.weight_bytes / 1e6:.1f} MB of {written.source_bytes / 1e6:.1f} MB; packed layers: "
        f"{layers}; recipe {recipe.name}",
        soft_wrap=True,
    )
    if quality is not None:
        _print(console, quality, args.out)
    return 0


def _smooth(args: argparse.Namespace, smoothing: Smoothing, console: Console, quantizer: Quantizer) -> dict[str, str]:
    console.print("observing the inputs of its layers in fp32", soft_wrap=True)
    engine = observe(args.checkpoint, args.observations, args.statistics, args.count)
    layers = smooth(quantizer, engine, smoothing)
    whose = f"{args.count} synthetic observations" if args.observations is None else "the user's observations"
    return {"wallx_smoothing": f"{layers} layers, by {whose}"}


def _measure(args: argparse.Namespace, console: Console) -> Quality:
    with console.status("comparing") as status:
        quality = measure(
            args.checkpoint,
            args.out,
            args.observations,
            statistics=args.statistics,
            count=args.count,
            progress=lambda text: status.update(text),
        )
    write_report(quality, args.out / "quality", f"{args.out.name}: {quality.computing['given']['precision']}")
    return quality


def _print(console: Console, quality: Quality, out: Path) -> None:
    found = quality.as_json()
    whose = "synthetic observations" if quality.is_synthetic else "observations"
    console.print(
        f"against {quality.reference}, {quality.num_observations} {whose} x {quality.num_noises} starts of the flow: "
        f"cosine of the integrated action {found['cosine']['median']:.5f} (median), {found['cosine']['worst']:.5f} "
        f"(worst); jerk x {found['jerk_ratio']['median']:.3f}; next tokens {quality.token_agreement:.1%} the same\n"
        f"report: {out / 'quality' / 'index.html'}",
        soft_wrap=True,
    )
