"""wallx-edge quantize: a checkpoint packed for a precision."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import quantize


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder in the published layout")
    parser.add_argument("out", type=Path, help="folder to make")
    parser.add_argument("--recipe", default="int8", help=f"how: {', '.join(Recipe.names())}, or a TOML file (int8)")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Writes the folder and says what became of it."""
    recipe = Recipe.load(args.recipe)
    console = Console(highlight=False, stderr=args.json)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("packing", total=None)
        written = quantize(
            args.checkpoint, args.out, recipe, lambda done, total: bar.update(task, completed=done, total=total)
        )
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
    return 0
