"""wallx-edge hil: walks a robot through the stages of a plan and leaves evidence."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.prompt import Confirm

from wallx_edge.hil import HilPlan, run_plan
from wallx_edge.hil.evidence import StageResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="run a plan's stages against the robot that it names")
    run.add_argument("plan", type=Path, help="plan.toml")
    run.add_argument("--out", type=Path, metavar="DIR", help="for the evidence; out/hil/<plan>-<time> by default")
    run.add_argument("--yes", action="store_true", help="do not ask before the arm moves or is let go")
    run.add_argument("--json", action="store_true", help="report each stage as a JSON line; needs --yes to move")


def run(args: argparse.Namespace) -> int:
    """Runs; 0 when every stage ran and passed."""
    plan = HilPlan.load(args.plan)
    folder = args.out or Path("out") / "hil" / f"{args.plan.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    console = Console(highlight=False)

    def confirm(question: str) -> bool:
        if args.yes:
            return True
        if args.json:
            return False
        try:
            return Confirm.ask(question, console=console, default=False)
        except EOFError:
            return False

    def report(result: StageResult) -> None:
        if args.json:
            print(json.dumps(asdict(result)), flush=True)
            return
        colour = {"passed": "green", "failed": "red"}.get(result.outcome, "yellow")
        reason = f" ({result.reason})" if result.reason else ""
        console.print(f"[{colour}]{result.outcome:<8}[/]{result.name}, {result.seconds:.1f} s{reason}", soft_wrap=True)
        for check in result.checks:
            if not check.is_ok:
                console.print(f"  [red]{check.name}[/]: {check.found}, must be {check.bound}", soft_wrap=True)

    has_passed = run_plan(plan, folder, confirm, report)
    if args.json:
        print(json.dumps({"passed": has_passed, "evidence": str(folder)}), flush=True)
    else:
        console.print(f"{'passed' if has_passed else 'not passed'}; evidence in {folder}", soft_wrap=True)
    return 0 if has_passed else 1
