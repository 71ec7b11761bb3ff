"""wallx-edge pull: a checkpoint from the hub, only the files that the engine needs."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from wallx_edge.errors import CheckpointError, ConfigError, WallxError
from wallx_edge.pull import OPTIONAL, REQUIRED, Plan, endpoint, fetch, free_bytes, plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("repo", metavar="REPO", help="OWNER/NAME on the hub")
    parser.add_argument("directory", nargs="?", type=Path, metavar="DIR", help="folder; by default NAME, here")
    parser.add_argument("--revision", help="branch, tag or commit; the default branch by default")
    parser.add_argument(
        "--fast", metavar="REPO", help="action tokenizer for a checkpoint without one, as physical-intelligence/fast"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what it would do; fetch and write nothing")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Plans, fetches and prints."""
    folder = args.directory or Path(args.repo.rstrip("/").rpartition("/")[2])
    address = endpoint()
    try:
        chosen = plan(args.repo, folder, revision=args.revision, fast_repo=args.fast)
    except (ConfigError, CheckpointError):
        raise
    except WallxError as error:
        # without an answer the sizes are not known; the rest is
        intent = (
            f"with an answer it would fetch {', '.join(REQUIRED)}, model*.safetensors and, where there, "
            f"{', '.join(OPTIONAL)} of {args.repo} ({args.revision or 'default branch'}) from {address} to {folder}, "
            f"where {free_bytes(folder) / 1e9:.2f} GB are free"
        )
        if not args.dry_run:
            raise WallxError(f"{error}\nnothing was written; {intent}") from error
        print(json.dumps({"error": str(error), "would": intent}) if args.json else f"{error}\n{intent}")
        return 0
    console = Console(highlight=False, stderr=args.json)
    if not args.json:
        _show(console, chosen)
    fetched: list[str] = []
    if not args.dry_run:
        fetched = _fetch(console, chosen)
        if not args.json:
            console.print(f"{len(fetched)} files fetched; look at it with: wallx-edge inspect {folder}", soft_wrap=True)
    if args.json:
        print(json.dumps(_as_json(chosen, fetched), indent=1))
    return 0


def _fetch(console: Console, chosen: Plan) -> list[str]:
    bar = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    columns = (*bar, TransferSpeedColumn(), TimeRemainingColumn())
    total = sum(file.size for file in chosen.files)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks = {
            "fetch": progress.add_task("fetching", total=chosen.missing_bytes),
            "check": progress.add_task("checking", total=total),
        }
        return fetch(chosen, lambda what, count: progress.advance(tasks[what], count))


def _show(console: Console, chosen: Plan) -> None:
    for file in chosen.files:
        console.print(f"{file.size / 1e6:12.3f} MB  {file.target}  ({file.repo} {file.commit[:10]})", soft_wrap=True)
    console.print(
        f"{chosen.missing_bytes / 1e9:.3f} GB to fetch from {chosen.endpoint} to {chosen.folder}, "
        f"{chosen.free_bytes / 1e9:.2f} GB free; {len(chosen.left_out)} files of the repository are not needed",
        soft_wrap=True,
    )


def _as_json(chosen: Plan, fetched: list[str]) -> dict[str, Any]:
    return {
        "folder": str(chosen.folder),
        "endpoint": chosen.endpoint,
        "files": [
            {"target": f.target, "size": f.size, "repo": f.repo, "commit": f.commit, "digest": f.digest}
            for f in chosen.files
        ],
        "left_out": list(chosen.left_out),
        "missing_bytes": chosen.missing_bytes,
        "free_bytes": chosen.free_bytes,
        "fetched": fetched,
    }
