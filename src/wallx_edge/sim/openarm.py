"""OpenArm: the eight motors of the emulated arm, what hangs on them, and the unit's calibration."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from pathlib import Path

from wallx_edge._emulator import CanArmEmulator, MotorSetup
from wallx_edge.errors import CalibrationError

Calibration = dict[str, dict[str, int]]

_FIELDS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")

# id, drive_mode, homing_offset, range_min, range_max [deg]: one plausible right arm
_DEFAULT = {
    "joint_1": (1, 0, 0, -80, 80),
    "joint_2": (2, 0, 3, -12, 95),
    "joint_3": (3, 0, 0, -90, 90),
    "joint_4": (4, 0, 0, -2, 140),
    "joint_5": (5, 0, 0, -90, 90),
    "joint_6": (6, 0, 0, -45, 45),
    "joint_7": (7, 0, 0, -85, 85),
    "gripper": (8, 0, 0, -68, 2),
}

# pmax [rad], vmax [rad/s], tmax [N m] as the factory sets them; peak torque [N m] as openarm_description bounds it
_MODELS = {8009: (12.5, 45.0, 54.0, 40.0), 4340: (12.5, 10.0, 28.0, 27.0), 4310: (12.5, 30.0, 10.0, 7.0)}

# model; inertia [kg m^2]; gravity [N m]; pitch sign; pitch at 0 [rad]. Upper arm 1.5 kg, forearm 1.0 kg, hand 0.6 kg,
# links of 0.22 m; at 0 the arm hangs straight down. joint_2 carries nothing here: the plant knows one plane.
_PLANT = {
    "joint_1": (8009, 0.45, 6.4, 1, -math.pi / 2),
    "joint_2": (8009, 0.45, 0.0, 0, 0.0),
    "joint_3": (4340, 0.08, 0.0, 0, 0.0),
    "joint_4": (4340, 0.12, 3.1, 1, 0.0),
    "joint_5": (4310, 0.02, 0.0, 0, 0.0),
    "joint_6": (4310, 0.02, 0.47, 1, 0.0),
    "joint_7": (4310, 0.02, 0.0, 0, 0.0),
    "gripper": (4310, 0.015, 0.0, 0, 0.0),
}
_BEYOND = math.radians(3)  # end stops behind the calibrated range


def default_calibration() -> Calibration:
    """The emulated unit's calibration with LeRobot's field names, by joint [deg]."""
    return {name: dict(zip(_FIELDS, values, strict=True)) for name, values in _DEFAULT.items()}


def write_calibration(path: str | Path, calibration: Calibration | None = None) -> None:
    """Writes a calibration (default: the emulated unit's) as LeRobot's JSON."""
    text = json.dumps(calibration or default_calibration(), indent=4)
    Path(path).write_text(text + "\n", encoding="utf-8")


def read_calibration(path: str | Path) -> Calibration:
    """Reads LeRobot's JSON of an OpenArm.

    Raises:
        CalibrationError: no such file, no JSON, a joint or field missing, unknown, or no whole number.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CalibrationError(f"cannot read the calibration {path}: {error}") from error
    if not isinstance(content, dict) or set(content) != set(_PLANT):
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise CalibrationError(f"calibration {path}: expected the joints {sorted(_PLANT)}, found {found}")
    for name, fields in content.items():
        if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
            raise CalibrationError(f"calibration {path}, joint {name}: expected the fields {', '.join(_FIELDS)}")
        for field, value in fields.items():
            if type(value) is not int or abs(value) > 720:
                raise CalibrationError(
                    f"calibration {path}, joint {name}: {field} must be a whole number of -720..720, is {value!r}"
                )
        if not fields["range_min"] <= 0 <= fields["range_max"]:
            raise CalibrationError(
                f"calibration {path}, joint {name}: range {fields['range_min']}..{fields['range_max']} must hold 0, "
                "where the emulated arm hangs"
            )
    return {name: content[name] for name in _PLANT}


def motor_setups(calibration: Calibration | None = None) -> list[MotorSetup]:
    """The eight motors, in joint order, at the joints' zero: the arm hangs."""
    calibration = calibration or default_calibration()
    setups = []
    for number, (name, (model, inertia, gravity, pitch_sign, pitch)) in enumerate(_PLANT.items()):
        unit = calibration[name]
        pmax, vmax, tmax, peak = _MODELS[model]
        zero = math.radians(unit["homing_offset"])
        sign = -1 if unit["drive_mode"] else 1
        setups.append(
            MotorSetup(
                name=name,
                id=unit["id"],
                feedback_id=unit["id"] + 0x10,
                pmax=pmax,
                vmax=vmax,
                tmax=tmax,
                peak_torque=peak,
                serial=26_000 + number,
                position=zero,
                stop_min=zero + math.radians(unit["range_min"]) - _BEYOND,
                stop_max=zero + math.radians(unit["range_max"]) + _BEYOND,
                inertia=inertia,
                gravity=gravity,
                pitch_sign=sign * pitch_sign,
                # the plant counts from the motor's zero, the arm's geometry from the joint's
                pitch=pitch - sign * pitch_sign * zero,
            )
        )
    return setups


def make_arm(
    *, seed: int = 0, data_bit_rate: int = 5_000_000, calibration: Calibration | None = None
) -> CanArmEmulator:
    """An emulated OpenArm, hanging, torque off, not started. ``data_bit_rate`` 0: classic CAN.

    Raises:
        ConfigError: ids twice, a value no motor can hold.
    """
    return CanArmEmulator(motor_setups(calibration), seed=seed, data_bit_rate=data_bit_rate)
