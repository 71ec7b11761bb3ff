"""wallx-edge replay: drives the loop in simulation with a recording."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from wallx_edge.recording.replay import replay


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("file", type=Path, nargs="+", help="files of one run, oldest first")
    parser.add_argument("--check", action="store_true", help="fail when a command differs from the recorded one")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Replays; 0 when it came to its end and, with --check, every command was the recorded one."""
    found = replay(args.file)
    is_equal = found.compared > 0 and found.equal == found.compared
    if args.json:
        print(json.dumps(asdict(found)))
    else:
        first = "" if found.first_difference is None else f", first in tick {found.first_difference}"
        end = "" if found.is_whole else "; the recording breaks off: its writer died"
        Console(highlight=False).print(
            f"{found.robot}: {found.ticks} ticks and {found.chunks} chunks replayed, {found.equal} of "
            f"{found.compared} commands equal bit for bit, largest difference {found.max_difference:.2g} rad{first}; "
            f"states differ in {found.states_differ} ticks{end}",
            soft_wrap=True,
        )
    return 0 if is_equal or not args.check else 1
