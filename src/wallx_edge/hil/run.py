"""Run: the stages of a plan one after the other; asks before anything moves, and stops at the first that fails."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.hil.evidence import Evidence, StageResult
from wallx_edge.hil.plan import HilPlan
from wallx_edge.hil.stages import STAGES
from wallx_edge.robot_config import RobotConfig

__all__ = ["run_plan"]


def run_plan(
    plan: HilPlan, folder: Path, confirm: Callable[[str], bool], report: Callable[[StageResult], None]
) -> bool:
    """Runs a plan. Blocks until its last stage is over; Ctrl-C ends it in order.

    Every stage connects anew and leaves the robot as :class:`wallx_edge.robot.Robot` does, whatever happens: what was
    enabled brakes along its limits and holds. After a stage that failed nothing moves any more.

    Args:
        plan: what to do.
        folder: for the evidence; new or empty.
        confirm: is asked before a stage that moves the arm or lets it go; false leaves the stage out.
        report: is told of each stage when it is over.

    Returns:
        whether every stage ran and passed.

    Raises:
        ConfigError: the plan or the robot's file is wrong, or the folder is taken.
        KeyboardInterrupt: from Ctrl-C, with the evidence so far written.
    """
    config = RobotConfig.load(plan.robot)
    embodiment = load_embodiment(config.embodiment)
    try:
        evidence = Evidence(folder, f"{plan.robot.stem} ({embodiment.name})", [j.name for j in embodiment.joints])
    except OSError as error:
        raise ConfigError(f"the evidence cannot be written to {folder}: {error}; name another folder") from error
    with evidence:
        evidence.copy(plan.robot, config.calibration, *([plan.path] if plan.path else []))
        has_failed = False
        for stage in STAGES:
            if stage.name not in plan.stages:
                continue
            result = evidence.begin(stage.name)
            begin = time.monotonic()
            try:
                if has_failed:
                    result.reason = "a stage before it failed"
                elif stage.moves and not confirm(f"{stage.name} {stage.moves}. Go on?"):
                    result.reason = "not confirmed"
                else:
                    result.outcome = "failed"  # until it is over
                    result.checks = stage.run(plan, config, evidence.keep)
                    if all(check.is_ok for check in result.checks):
                        result.outcome = "passed"
            except WallxError as error:
                result.reason = f"{type(error).__name__}: {error}"
            except BaseException as error:
                result.reason = type(error).__name__
                raise
            finally:
                result.seconds = time.monotonic() - begin
                has_failed = has_failed or result.outcome == "failed"
                report(result)
    return evidence.has_passed
