"""Procedure: sweep by hand, choose homing, write, sweep again, keep; whatever goes wrong leaves the unit as it was."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from wallx_edge.calibrate.plan import CalibrationPlan, JointPlan
from wallx_edge.calibrate.signature import make_signature, write_calibration
from wallx_edge.calibrate.sweep import TICKS_PER_TURN, Sweep
from wallx_edge.calibrate.unit import Unit
from wallx_edge.embodiment import JointCalibration
from wallx_edge.errors import CalibrationError, ConfigError, SafetyStop

__all__ = ["Operator", "Procedure"]

POLL = 0.01  # between two looks at the joints [s]
MIDDLE = TICKS_PER_TURN // 2
PLACE_TOLERANCE = 40  # of a joint that a hand holds still while it is written to [ticks]


class Operator(Protocol):
    """The person at the arm, or a script in their place. Any call may raise KeyboardInterrupt: they gave up."""

    def tell(self, text: str) -> None:
        """One line to read."""

    def confirm(self, question: str) -> bool:
        """Waits for yes or no."""

    def begin(self, task: str, joints: Mapping[str, str]) -> None:
        """Something to do with some joints: name -> how. Returns at once."""

    def is_done(self, ranges: Mapping[str, tuple[int, int, int]]) -> bool:
        """Whether they say it is done. Does not wait.

        Args:
            ranges: name -> lowest, present and highest position so far [ticks or degrees].
        """


class Procedure:
    """Calibrates one unit. Its motors must be silent to everybody else: no Robot is connected."""

    def __init__(self, unit: Unit, plan: CalibrationPlan, operator: Operator, path: Path) -> None:
        """Does nothing yet.

        Args:
            unit: open.
            plan: what to measure.
            operator: who moves the joints.
            path: of the calibration file to write.
        """
        self.unit = unit
        self.plan = plan
        self.operator = operator
        self.path = path
        self.undo_path = path.with_suffix(".undo.json")

    def run(self) -> dict[str, JointCalibration]:
        """Measures, writes, verifies, keeps and signs. Blocks until the operator is through.

        Returns:
            the calibration, in the embodiment's order.

        Raises:
            SafetyStop: a motor has torque, and the operator did not let go of it.
            CalibrationError: what was measured cannot be right, or the second pass differs; the unit is as before.
            DeviceError, BusTimeout, BusError: a motor; the unit is as before, or the undo file is left to say how.
            KeyboardInterrupt: the operator gave up; the unit is as before.
        """
        self.put_back()
        self.unit.identity()
        self.let_go()
        found = self._measure()
        return self._keep(found, lambda: self._verify(found))

    def take_over(self, calibration: Mapping[str, JointCalibration]) -> dict[str, JointCalibration]:
        """Writes a calibration that exists, LeRobot's for this very unit, to its motors, verifies and signs it.

        Raises:
            as :meth:`run`; ConfigError: motors that keep no calibration.
        """
        if not self.unit.family.kept:
            raise ConfigError(
                f"motors of the family {self.unit.embodiment.motor_family!r} keep no calibration: there is nothing to "
                "write; name that file as calibration under [robot], or calibrate without --import"
            )
        self.put_back()
        self.unit.identity()
        for joint, values in calibration.items():
            drive_mode = self.unit.drive_mode(joint)
            if drive_mode not in (None, values.drive_mode):
                raise CalibrationError(
                    f"joint {joint!r}: its motor's drive_mode is {drive_mode}, the file says {values.drive_mode}: "
                    "it is of another unit, or the motor was changed since; nothing was written"
                )
        for line in self.unit.differences(calibration):
            self.operator.tell(line)
        self.let_go()
        return self._keep(dict(calibration), lambda: self._verify(calibration))

    def put_back(self) -> None:
        """Undoes an earlier calibration that was cut off, by a power cut for instance."""
        if self.undo_path.is_file():
            self.operator.tell("an earlier calibration was cut off; its motors are put back as they were first")
            self.unit.restore(self.undo_path)

    def let_go(self) -> None:
        """Sees to it that no motor has torque; asks before anything falls."""
        holding = self.unit.holding()
        if not holding:
            return
        question = f"{', '.join(holding)} hold with torque and will fall when it is cut; support the arm. Cut it now?"
        if not self.operator.confirm(question):
            raise SafetyStop(f"{', '.join(holding)} keep their torque; nothing was changed")
        for joint in holding:
            self.unit.let_go(joint)

    def _watch(
        self, task: str, joints: Mapping[str, str], check: Callable[[Mapping[str, Sweep]], str]
    ) -> dict[str, Sweep]:
        """Follows joints until the operator is done and `check` finds nothing missing."""
        family = self.unit.family
        sweeps = {joint: Sweep(joint, self.unit.position(joint), family.turn, family.unit) for joint in joints}
        self.operator.begin(task, joints)
        next_look = time.monotonic()
        while True:
            for joint, sweep in sweeps.items():
                sweep.update(self.unit.position(joint))
            if self.operator.is_done({j: (s.low, s.position, s.high) for j, s in sweeps.items()}):
                missing = check(sweeps)
                if not missing:
                    return sweeps
                self.operator.tell(missing)
                self.operator.begin(task, joints)
            next_look = max(next_look + POLL, time.monotonic())
            time.sleep(max(0.0, next_look - time.monotonic()))

    def _measure(self) -> dict[str, JointCalibration]:
        swept = [joint for joint in self.plan.joints if joint.is_swept]
        unit = self.unit.family.unit
        sweeps = self._watch("sweep", {j.name: j.hint for j in swept}, lambda s: _unfinished(swept, s, unit))
        for joint in swept:
            travel = sweeps[joint.name].travel
            if travel > joint.travel + joint.tolerance:
                raise CalibrationError(
                    f"joint {joint.name!r} moved over {travel} {unit}, its parts allow {joint.travel} "
                    f"+-{joint.tolerance}: is the horn loose, or a stop missing?"
                )
            self._check_seam(sweeps[joint.name])
        found: dict[str, JointCalibration] = {}
        placed = [joint for joint in swept if joint.method == "zero"]
        zeros = self._watch("zero", {joint.name: joint.place for joint in placed}, lambda _: "") if placed else {}
        for joint in swept:
            sweep = sweeps[joint.name]
            if joint.method == "zero":
                found[joint.name] = self._from_zero(joint, zeros[joint.name].position, sweep.low, sweep.high)
            else:
                found[joint.name] = self._center(joint, sweep.low, sweep.high)
        for joint in self.plan.joints:
            if joint.method == "middle":
                place = self._watch("middle", {joint.name: joint.hint}, lambda _: "")[joint.name].position
                homing = self._homing(joint.name, place)
                found[joint.name] = self._calibration(joint, homing, 0, TICKS_PER_TURN - 1)
        return {spec.name: found[spec.name] for spec in self.unit.embodiment.joints}

    def _homing(self, joint: str, center: int) -> int:
        """The offset with which a motor reports 2048 where it now reports `center` (unwrapped) [ticks]."""
        family = self.unit.family
        encoder = center - family.homing_sign * self.unit.read(joint, family.kept[0])
        offset = family.homing_sign * (MIDDLE - encoder)
        offset = (offset + MIDDLE) % TICKS_PER_TURN - MIDDLE
        return min(max(offset, -family.max_homing_offset), family.max_homing_offset)

    def _check_seam(self, sweep: Sweep) -> None:
        """Where an encoder starts anew after a power cycle, a joint must not pass: it would come back a turn away."""
        family = self.unit.family
        if not family.is_seam_fixed:
            return
        first = -family.turn // 2 if family.unit == "degrees" else 0
        offset = self.unit.read(sweep.joint, family.kept[0]) * family.homing_sign if family.kept else 0
        low, high = sweep.low - offset, sweep.high - offset
        if low < first or high >= first + family.turn:
            raise CalibrationError(
                f"joint {sweep.joint!r} moved from {low} to {high} {family.unit} of its motor, which counts from "
                f"{first} to {first + family.turn - 1} when it is switched on. Switch its supply off and on and try "
                "again; when that does not help, mount the motor (or set its own zero) so that the joint stays within"
            )

    def _from_zero(self, joint: JointPlan, zero: int, low: int, high: int) -> JointCalibration:
        """Around where the joint was placed; the ends one degree within what was swept, for they were rounded."""
        spec = next(spec for spec in self.unit.embodiment.joints if spec.name == joint.name)
        limits = math.degrees(spec.limits.min_position), math.degrees(spec.limits.max_position)
        for drive_mode in (0, 1) if joint.drive_mode is None else (joint.drive_mode,):
            reach = (zero - high, zero - low) if drive_mode else (low - zero, high - zero)
            if reach[0] <= limits[0] + joint.tolerance and reach[1] >= limits[1] - joint.tolerance:
                return JointCalibration(
                    id=self.unit.ids[joint.name],
                    drive_mode=drive_mode,
                    homing_offset=zero,
                    range_min=low - zero + 1,
                    range_max=high - zero - 1,
                )
        raise CalibrationError(
            f"joint {joint.name!r} reaches from {low - zero} to {high - zero} degrees of where it was placed, the "
            f"embodiment's limits are {limits[0]:.0f}..{limits[1]:.0f} (+-{joint.tolerance}): is that its zero "
            f"({joint.place}), and was it swept to both stops?"
        )

    def _center(self, joint: JointPlan, low: int, high: int) -> JointCalibration:
        center = (low + high) // 2
        homing = self._homing(joint.name, center)
        range_min = MIDDLE - (center - low)
        return self._calibration(joint, homing, range_min, range_min + high - low)

    def _calibration(self, joint: JointPlan, homing: int, range_min: int, range_max: int) -> JointCalibration:
        drive_mode = self.unit.drive_mode(joint.name) if joint.drive_mode is None else joint.drive_mode
        if drive_mode is None:
            raise ConfigError(f"joint {joint.name!r}: its calibration plan must say drive_mode, its motor does not")
        return JointCalibration(
            id=self.unit.ids[joint.name],
            drive_mode=drive_mode,
            homing_offset=homing,
            range_min=range_min,
            range_max=range_max,
        )

    def _keep(
        self, calibration: dict[str, JointCalibration], verify: Callable[[], None]
    ) -> dict[str, JointCalibration]:
        """Writes, verifies, and only then keeps; otherwise everything is put back."""
        self.unit.backup(self.undo_path)
        try:
            for joint, values in calibration.items():
                self.unit.write(joint, self.unit.wanted(values))
            verify()
            left = self.unit.differences(calibration)
            if left:
                raise CalibrationError("; ".join(left))
            write_calibration(self.path, calibration, make_signature(self.unit, calibration))
        except BaseException:
            self.unit.restore(self.undo_path)
            raise
        self.undo_path.unlink()
        return calibration

    def _verify(self, calibration: Mapping[str, JointCalibration]) -> None:
        """The second pass: what the motors report now, against what the first one found."""
        for joint in self.plan.joints:
            position = self.unit.position(joint.name)
            if joint.method == "middle" and abs(position - MIDDLE) > PLACE_TOLERANCE:
                self.operator.tell(f"{joint.name} stands at {position}, {MIDDLE} is its middle")
        swept = [joint for joint in self.plan.joints if joint.is_swept]
        family = self.unit.family
        sweeps = self._watch("verify", {j.name: j.hint for j in swept}, lambda s: _unfinished(swept, s, family.unit))
        for name, sweep in sweeps.items():
            wanted = calibration[name]
            # what a motor keeps it reports with its homing; what only the file knows it does not
            zero = 0 if family.kept else wanted.homing_offset
            low, high = zero + wanted.range_min, zero + wanted.range_max
            if sweep.is_wrapped or abs(sweep.low - low) > family.give or abs(sweep.high - high) > family.give:
                raise CalibrationError(
                    f"joint {name!r}: the second pass went from {sweep.low} to {sweep.high} {family.unit}, the first "
                    f"one says {low}..{high} (+-{family.give}); the unit is put back as it was. "
                    "Sweep every joint to both stops, both times"
                )


def _unfinished(joints: list[JointPlan], sweeps: Mapping[str, Sweep], unit: str) -> str:
    """What has not been moved far enough yet; empty: nothing."""
    return "; ".join(
        f"{joint.name} moved over {sweeps[joint.name].travel} of {joint.travel} {unit}: {joint.hint}"
        for joint in joints
        if sweeps[joint.name].travel < joint.travel - joint.tolerance
    )
