"""wallx-edge eval: what a policy is worth at the simulated tasks."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.evaluate.campaign import Campaign, against, jobs_of, run_jobs, summarize
from wallx_edge.evaluate.page import write_page
from wallx_edge.evaluate.taping import Taping
from wallx_edge.evaluate.tasks import TASKS, VARIANTS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("tasks", nargs="+", metavar="TASK", help=f"{', '.join(TASKS)}, or all")
    parser.add_argument("--episodes", type=int, default=20, help="of each task and variant (20)")
    parser.add_argument("--policy", default="expert", help="expert, blind, or a checkpoint's folder (expert)")
    parser.add_argument("--variants", default="train", help=f"{', '.join(VARIANTS)}, or all; with commas (train)")
    parser.add_argument("--precision", choices=_core.precisions(), default="", help="of a checkpoint; as it is packed")
    parser.add_argument("--blank", action="store_true", help="a checkpoint's pictures are black")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (0)")
    parser.add_argument("--workers", type=int, default=0, help="processes; one a core by default")
    parser.add_argument("--fleet", default="", metavar="ADDRESS", help="of a Ray cluster, or local")
    parser.add_argument("--out", type=Path, help="folder for a page with plots and videos")
    parser.add_argument("--videos", type=int, default=1, help="of each task and variant, with --out (1)")
    parser.add_argument(
        "--record", type=Path, metavar="DIR", help="successful episodes as a LeRobotDataset, new folder"
    )
    parser.add_argument("--against", type=Path, metavar="REPORT", help="report.json of another run, to pair with")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Runs every episode and prints; 0 when all of them ran, whatever came of them."""
    campaign = Campaign(
        tuple(TASKS) if args.tasks == ["all"] else tuple(args.tasks),
        VARIANTS if args.variants == "all" else tuple(args.variants.split(",")),
        args.episodes,
        args.seed,
        args.policy,
        args.precision,
        args.blank,
    )
    if args.record and (args.fleet or args.workers > 1):
        raise ConfigError("--record writes one dataset from one process: leave --workers and --fleet out")
    if args.record and args.record.exists() and any(args.record.iterdir()):
        raise ConfigError(f"--record {args.record} is not empty; name another folder or remove it")
    if not 0 <= args.workers <= 1024:
        raise ConfigError(f"--workers is {args.workers}, expected 0 to 1024")
    others = _others(args.against) if args.against else None
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
    jobs = jobs_of(campaign, args.out, args.videos)
    console = Console(highlight=False, stderr=args.json)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("episodes", total=len(jobs))
        with Taping(args.record) if args.record else nullcontext() as taping:
            outcomes = run_jobs(jobs, args.workers, lambda _: progress.advance(bar), args.fleet, taping)
    wall = time.monotonic() - began
    summaries = summarize(outcomes)
    simulated = sum(o.ticks for o in outcomes) / 200
    report: dict[str, Any] = {
        "policy": args.policy,
        "precision": args.precision,
        "seed": args.seed,
        "wall_s": wall,
        "simulated_s": simulated,
        "times_real_time": simulated / wall,
        "summaries": [asdict(s) for s in summaries],
        "outcomes": [o.as_json() for o in outcomes],
    }
    if others is not None:
        report["against"] = against(outcomes, others)
    if args.out:
        write_page(args.out, report, summaries, outcomes)
    if args.json:
        print(json.dumps(report))
        return 0
    table = Table(title=f"policy {args.policy}", title_justify="left")
    for heading in ("task", "success", "95 %", "progress", "time [s]", "jerk [rad/s³]", "limited", "errors"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for s in summaries:
        table.add_row(
            s.task if s.variant == "train" else f"{s.task}, {s.variant}",
            f"{s.successes}/{s.episodes}",
            f"{s.low:.1%}-{s.high:.1%}",
            f"{s.progress:.3f}",
            f"{s.time:.1f}",
            f"{s.jerk:.0f}",
            f"{s.limited:.1%}",
            str(s.errors),
        )
    console.print(table)
    console.print(f"{simulated:.0f} s of simulated time in {wall:.0f} s: {simulated / wall:.1f} times real time")
    if others is not None:
        paired = report["against"]
        console.print(
            f"against {args.against}: {paired['pairs']} pairs, success differs by {paired['difference']:+.3f} "
            f"+- {paired['half_width']:.3f}; only this one succeeds in {paired['only_this']}, only the other in "
            f"{paired['only_other']}"
        )
    if args.out:
        console.print(f"{args.out}/index.html, {args.out}/report.json", soft_wrap=True)
    if args.record:
        console.print(f"{args.record}: {sum(o.is_success for o in outcomes)} episodes", soft_wrap=True)
    return 0


def _others(path: Path) -> list[dict[str, Any]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
        return [{key: o[key] for key in ("task", "variant", "seed", "is_success")} for o in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--against {path} is no report of wallx-edge eval: {error}") from error
