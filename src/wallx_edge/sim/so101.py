"""SO-101: the six servos of the emulated arm, what hangs on them, and the unit's calibration."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from pathlib import Path

from wallx_edge._emulator import ArmEmulator, ServoSetup
from wallx_edge.errors import CalibrationError

Calibration = dict[str, dict[str, int]]

JOINT_NAMES = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")
_FIELDS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
_TICKS_PER_RADIAN = 4096 / (2 * math.pi)

# id, drive_mode, homing_offset, range_min, range_max [ticks]: one plausible unit
_DEFAULT = {
    "shoulder_pan": (1, 0, -85, 743, 3441),
    "shoulder_lift": (2, 0, 312, 909, 3185),
    "elbow_flex": (3, 0, -640, 946, 3150),
    "wrist_flex": (4, 0, 128, 966, 3128),
    "wrist_roll": (5, 0, -1310, 0, 4095),
    "gripper": (6, 0, 1190, 2034, 3483),
}

# inertia [kg m^2]; gravity [N m]; pitch sign; pitch at the middle of the range [rad]; rest from there [rad].
# Masses and lengths are near those of the printed arm: 0.10 kg on each of upper arm, forearm and wrist,
# 0.08 kg of gripper, links of 0.116 m and 0.135 m. In the middle the upper arm stands upright and the forearm
# points forward. At rest the folded arm leans on itself and stays there without torque.
_PLANT = {
    "shoulder_pan": (0.038, 0.0, 0, 0.0, 0.0),
    "shoulder_lift": (0.040, 0.387, -1, math.pi / 2, -1.60),
    "elbow_flex": (0.034, 0.317, -1, -math.pi / 2, 1.629),
    "wrist_flex": (0.029, 0.124, -1, 0.0, 1.31),
    "wrist_roll": (0.028, 0.0, 0, 0.0, 0.0),
    "gripper": (0.028, 0.0, 0, 0.0, -1.0),
}
# end stops that are not the calibrated range's ends, from the middle [ticks]
_STOPS = {"elbow_flex": (-1102, 1062), "wrist_roll": (-1789, 1852)}


def default_calibration() -> Calibration:
    """The emulated unit's calibration with LeRobot's field names, by joint [ticks]."""
    return {name: dict(zip(_FIELDS, values, strict=True)) for name, values in _DEFAULT.items()}


def write_calibration(path: str | Path, calibration: Calibration | None = None) -> None:
    """Writes a calibration (default: the emulated unit's) as LeRobot's JSON."""
    text = json.dumps(calibration or default_calibration(), indent=4)
    Path(path).write_text(text + "\n", encoding="utf-8")


def read_calibration(path: str | Path) -> Calibration:
    """Reads LeRobot's JSON of an SO-101.

    Raises:
        CalibrationError: no such file, no JSON, a joint or field missing, unknown, or no whole number.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CalibrationError(f"cannot read the calibration {path}: {error}") from error
    if not isinstance(content, dict) or set(content) != set(JOINT_NAMES):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise CalibrationError(f"calibration {path}: expected the joints {sorted(JOINT_NAMES)}, found {found}")
    for name, fields in content.items():
        if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
            raise CalibrationError(f"calibration {path}, joint {name}: expected the fields {', '.join(_FIELDS)}")
        for field, value in fields.items():
            if type(value) is not int:
                raise CalibrationError(
                    f"calibration {path}, joint {name}: {field} must be a whole number, is {value!r}"
                )
        if not 0 <= fields["range_min"] < fields["range_max"] <= 4095:
            raise CalibrationError(
                f"calibration {path}, joint {name}: range {fields['range_min']}..{fields['range_max']} "
                "must grow within 0..4095 ticks"
            )
    return {name: content[name] for name in JOINT_NAMES}


def servo_setups(calibration: Calibration | None = None) -> list[ServoSetup]:
    """The six servos, in joint order, folded at rest, with registers 9-12 and 31 as the calibration says."""
    calibration = calibration or default_calibration()
    setups = []
    for name in JOINT_NAMES:
        unit = calibration[name]
        inertia, gravity, pitch_sign, pitch, rest = _PLANT[name]
        low, high = unit["range_min"], unit["range_max"]
        middle = (low + high) // 2
        stop_min, stop_max = low, high
        if name in _STOPS:
            stop_min, stop_max = (min(max(middle + ticks, low), high) for ticks in _STOPS[name])
        setup = ServoSetup(
            name=name,
            id=unit["id"],
            homing_offset=unit["homing_offset"],
            range_min=low,
            range_max=high,
            stop_min=stop_min,
            stop_max=stop_max,
            position=min(max(middle + round(rest * _TICKS_PER_RADIAN), stop_min), stop_max),
            inertia=inertia,
            gravity=gravity,
            pitch_sign=pitch_sign,
            # the plant counts from position 2048, the arm's geometry from the middle of the range
            pitch=pitch + pitch_sign * (2048 - middle) / _TICKS_PER_RADIAN,
        )
        if name == "gripper":
            setup.max_torque, setup.protection_current, setup.overload_threshold = 500, 250, 25
        setups.append(setup)
    return setups


def make_arm(*, seed: int = 0, baud_rate: int = 1_000_000, calibration: Calibration | None = None) -> ArmEmulator:
    """An emulated SO-101 at rest, torque off, not started.

    Raises:
        ConfigError: ids twice, a value no servo can hold.
    """
    return ArmEmulator(servo_setups(calibration), seed=seed, baud_rate=baud_rate)
