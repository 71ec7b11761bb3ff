"""wallx-edge verify: a golden case, tensor by tensor."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from wallx_edge import _core
from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.verify import GROUPS, Comparison, Report, verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("directory", type=Path, help="folder of the golden case")
    parser.add_argument("--groups", help=f"comma-separated; all by default: {','.join(GROUPS)}")
    add_computing_arguments(parser)
    parser.add_argument("--kernels", choices=_core.kernels(), help="the fastest by default")
    parser.add_argument("--json", action="store_true", help="every tensor, for programs")


def run(args: argparse.Namespace) -> int:
    """Compares and prints; 1 when anything differs."""
    groups = None if args.groups is None else [g.strip() for g in args.groups.split(",") if g.strip()]
    report = verify(args.directory, groups, replace(computing(args), kernels=args.kernels or ""))
    if args.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        _print(report)
    return 0 if report.is_ok else 1


def _share(comparison: Comparison) -> float:
    if comparison.tolerance > 0:
        return comparison.error / comparison.tolerance
    return float("inf") if comparison.error > 0 else 0.0


def _print(report: Report) -> None:
    console = Console(highlight=False)
    given = report.computing["given"]
    console.print(f"given: {given['arithmetic']}; {given['kernels']}, {given['threads']} threads", soft_wrap=True)
    table = Table(title=report.case, title_justify="left")
    for heading in ("group", "tensors", "largest error", "tolerance", "of", "result"):
        justify: Literal["left", "right"] = "left" if heading in ("group", "of", "result") else "right"
        table.add_column(heading, justify=justify, overflow="fold")
    for group in dict.fromkeys(c.group for c in report.comparisons):
        rows = [c for c in report.comparisons if c.group == group]
        worst = max(rows, key=_share)
        failed = sum(not c.is_ok for c in rows)
        result = f"[red]{failed} differ[/]" if failed else "[green]ok[/]"
        table.add_row(group, str(len(rows)), f"{worst.error:.1e}", f"{worst.tolerance:.1e}", worst.name, result)
    console.print(table)
    for comparison in report.comparisons:
        if not comparison.is_ok:
            console.print(
                f"[red]{comparison.name}[/]: error {comparison.error:.3e}, tolerance {comparison.tolerance:.1e} "
                f"{comparison.note}",
                soft_wrap=True,
            )
        elif comparison.note:
            console.print(f"{comparison.name}: {comparison.note}", soft_wrap=True)
    for group, count in report.not_run.items():
        console.print(f"not run: {group} ({count} tensors)")
