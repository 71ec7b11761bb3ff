"""Calibration of one unit: measured by sweeping its joints by hand, written to its motors, verified and signed."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from wallx_edge.calibrate.plan import CalibrationPlan, JointPlan
from wallx_edge.calibrate.procedure import Operator, Procedure
from wallx_edge.calibrate.signature import check_signature, make_signature, signature_path
from wallx_edge.calibrate.sweep import Sweep
from wallx_edge.calibrate.unit import Unit

__all__ = [
    "CalibrationPlan",
    "JointPlan",
    "Operator",
    "Procedure",
    "Sweep",
    "Unit",
    "check_signature",
    "make_signature",
    "signature_path",
]
