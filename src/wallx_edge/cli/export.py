"""wallx-edge export: recordings of runs as a LeRobotDataset."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wallx_edge.export import export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("recording", type=Path, nargs="+", help="MCAP files of one robot's runs, an episode each")
    parser.add_argument("folder", type=Path, help="of the dataset: new, or empty")
    parser.add_argument("--fps", type=int, help="frames a second; as often as pictures came by default")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Exports; 0 when every recording gave an episode."""
    console = Console(highlight=False, stderr=args.json)
    with console.status("exporting") as status:
        found = export(args.recording, args.folder, args.fps, lambda path: status.update(f"exporting {path.name}"))
    for path, why in found.skipped.items():
        console.print(f"[yellow]skipped[/] {path}: {why}", soft_wrap=True)
    for path in found.cut:
        console.print(f"[yellow]cut short[/] {path}: its writer died; what is whole was exported", soft_wrap=True)
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        console.print(
            f"{args.folder}: {found.episodes} episodes, {found.frames} frames at {found.fps} a second", soft_wrap=True
        )
    return 1 if found.skipped else 0
