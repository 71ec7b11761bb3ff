"""Signature: which unit a calibration was measured on, beside LeRobot's file, and the check that it is still that one.

The file ``<calibration>.signature.json`` says what was measured, on which motors (id, model, firmware) behind which
adapter, and ends with the SHA-256 over all of it. It finds mistakes, not forgers.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wallx_edge.buses import BusConfig
from wallx_edge.calibrate.unit import Unit, adapter_serial, fields_of, write_durably
from wallx_edge.embodiment import Embodiment, JointCalibration
from wallx_edge.errors import CalibrationError

__all__ = ["check_signature", "make_signature", "signature_path", "write_calibration"]

SCHEMA = 1


def signature_path(calibration: Path) -> Path:
    """Where the signature of a calibration file lies."""
    return calibration.with_suffix(".signature.json")


def _digest(values: Mapping[str, Any]) -> str:
    text = json.dumps({k: v for k, v in values.items() if k != "sha256"}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def make_signature(unit: Unit, calibration: Mapping[str, JointCalibration]) -> dict[str, Any]:
    """The signature of a calibration for the unit that is open now.

    Raises:
        BusTimeout, BusError, DeviceError: the unit cannot be identified.
    """
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "embodiment": unit.embodiment.name,
        "motor_family": unit.embodiment.motor_family,
        "adapter_serial": adapter_serial(unit.bus.port),
        "motors": unit.identity(),
        "measured": {joint: fields_of(c) for joint, c in calibration.items()},
    }
    values["sha256"] = _digest(values)
    return values


def write_calibration(path: Path, calibration: Mapping[str, JointCalibration], signature: Mapping[str, Any]) -> None:
    """Writes LeRobot's file and its signature."""
    write_durably(path, json.dumps({joint: fields_of(c) for joint, c in calibration.items()}, indent=4) + "\n")
    write_durably(signature_path(path), json.dumps(signature, indent=4) + "\n")


def check_signature(
    path: Path, embodiment: Embodiment, calibration: Mapping[str, JointCalibration], bus: BusConfig
) -> bool:
    """Compares a calibration file's signature with the file and with the unit on the bus. Blocks some 20 ms.

    Args:
        path: the calibration file.
        embodiment: the robot model.
        calibration: the file's content.
        bus: the line; nothing else may have it open.

    Returns:
        False when the file has no signature: it comes from elsewhere, and only its registers can be compared.

    Raises:
        CalibrationError: the signature is damaged, or file or unit differ from what was signed.
        BusTimeout, BusError, DeviceError: the unit cannot be identified.
    """
    file = signature_path(path)
    if not file.is_file():
        return False
    again = f"calibrate this {embodiment.name} again (wallx-edge calibrate)"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        parts = {key: values[key] for key in ("schema", "embodiment", "motor_family", "motors", "measured", "sha256")}
        adapter = values.get("adapter_serial")
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CalibrationError(f"the signature {file} is damaged: {error!r}; {again}") from error
    if parts["schema"] != SCHEMA or parts["sha256"] != _digest(values):
        raise CalibrationError(f"the signature {file} was changed after it was made; {again}")
    if parts["measured"] != {joint: fields_of(c) for joint, c in calibration.items()}:
        raise CalibrationError(f"{path} is not what was measured and signed in {file}: it was edited; {again}")
    if (parts["embodiment"], parts["motor_family"]) != (embodiment.name, embodiment.motor_family):
        raise CalibrationError(f"{file} is of a {parts['embodiment']}, this is a {embodiment.name}; {again}")
    found_adapter = adapter_serial(bus.port)
    if adapter is not None and found_adapter is not None and adapter != found_adapter:
        raise CalibrationError(
            f"{path} was measured behind the adapter {adapter}, {bus.port} is {found_adapter}: "
            f"another unit? choose its calibration, or {again}"
        )
    with Unit(embodiment, {joint: c.id for joint, c in calibration.items()}, bus) as unit:
        identity = unit.identity()
    for joint, found in identity.items():
        if found != parts["motors"].get(joint):
            raise CalibrationError(
                f"joint {joint!r}: the motor is {_describe(found)}, the calibration was measured on "
                f"{_describe(parts['motors'].get(joint, {}))}; {again}"
            )
    return True


def _describe(motor: Mapping[str, Any]) -> str:
    serial = f", serial {motor['serial']}" if "serial" in motor else ""
    return f"id {motor.get('id')}, model {motor.get('model')}, firmware {motor.get('firmware')}{serial}"
