"""Hardware in the loop: walks a real or emulated robot through stages, from silence to e-stop, with evidence."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.hil.evidence import Evidence
from wallx_edge.hil.plan import STAGE_NAMES, HilPlan
from wallx_edge.hil.run import run_plan
from wallx_edge.hil.stages import STAGES, Check, Stage, Watch

__all__ = ["STAGES", "STAGE_NAMES", "Check", "Evidence", "HilPlan", "Stage", "Watch", "run_plan"]
