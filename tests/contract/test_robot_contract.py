"""What every robot promises, written once: on an emulator, on a replayed log, on real hardware.

``pytest -m hil --robot=my.toml`` runs it against a real robot. It switches the torque off, then moves every joint a
little: clear its surroundings and support it. A robot on a replayed log can only be read.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from wallx_edge.hil import STAGES, HilPlan, Stage
from wallx_edge.robot_config import RobotConfig

pytestmark = pytest.mark.hil


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_stage(stage: Stage, plan: HilPlan, robot_config: RobotConfig) -> None:
    if stage.moves and robot_config.bus.kind == "replay":
        pytest.skip(f"{stage.name} {stage.moves}: a replayed log cannot be moved")
    num_records = 0

    def keep(columns: dict[str, object]) -> None:
        nonlocal num_records
        num_records += len(columns["tick"])  # type: ignore[arg-type]

    checks = stage.run(plan, robot_config, keep)  # type: ignore[arg-type]
    assert checks
    assert num_records > 0
    assert [check for check in checks if not check.is_ok] == []
