"""Unit: the motors of one robot, seen through the registers that calibration reads and writes."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from wallx_edge import _core
from wallx_edge.buses import Adapter, BusConfig
from wallx_edge.calibrate.sweep import TICKS_PER_TURN
from wallx_edge.embodiment import Embodiment, JointCalibration
from wallx_edge.errors import CalibrationError, ConfigError, DeviceError

__all__ = ["Unit", "adapter_serial", "fields_of", "write_durably"]

FIELDS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")  # LeRobot's


@dataclass(frozen=True)
class _Family:
    """Names of one motor family's registers, and how it counts."""

    kept: tuple[str, ...]  # what calibration changes: homing offset, lowest and highest position; none: only the file
    model: str | None  # None: it does not say
    firmware: tuple[str, ...]
    serial: str | None = None  # None: it has none
    direction: str | None = None  # register whose bit 0 is its drive mode; None: its plan says
    homing_sign: int = 0  # reported = encoder + sign * homing_offset
    max_homing_offset: int = 0  # [ticks]
    is_seam_fixed: bool = False  # its homing does not move the place where its encoder starts anew
    turn: int = TICKS_PER_TURN  # [unit]
    unit: str = "ticks"
    give: int = 40  # between the ends of two sweeps of one joint: how far printed parts give way [unit]


_FAMILIES = {
    "feetech_sts": _Family(
        kept=("homing_offset", "min_angle", "max_angle"),
        model="model_number",
        firmware=("firmware_major", "firmware_minor"),
        homing_sign=-1,
        max_homing_offset=2047,
    ),
    "dynamixel_x": _Family(
        kept=("homing_offset", "min_position", "max_position"),
        direction="drive_mode",
        model="model_number",
        firmware=("firmware_version",),
        homing_sign=1,
        max_homing_offset=4095,
        is_seam_fixed=True,
    ),
    # Its own zero could be set, but neither read nor put back: the zero stays in the file.
    "damiao": _Family(
        kept=(),
        model=None,
        firmware=("software_version",),
        serial="serial_number",
        is_seam_fixed=True,
        turn=360,
        unit="degrees",
        give=3,
    ),
}


class Unit:
    """One robot's motors, opened for reading and, without torque, for writing. Not while a Robot is connected."""

    def __init__(self, embodiment: Embodiment, ids: Mapping[str, int], bus: BusConfig) -> None:
        """Opens nothing.

        Args:
            embodiment: the model.
            ids: bus id of each joint's motor.
            bus: the line.

        Raises:
            ConfigError: a motor family that is not calibrated here, or a bus it cannot use.
        """
        if embodiment.motor_family not in _FAMILIES:
            raise ConfigError(
                f"motors of the family {embodiment.motor_family!r} are not calibrated here, only {', '.join(_FAMILIES)}"
            )
        self.embodiment = embodiment
        self.ids = dict(ids)
        self.bus = bus
        self.family = _FAMILIES[embodiment.motor_family]
        self._adapter = Adapter(bus) if bus.adapter else None
        line = self._adapter.config if self._adapter else bus.core()
        self._registers = _core.make_motor_registers(embodiment.motor_family, line)

    def __enter__(self) -> Unit:
        """Takes the port. Raises BusError."""
        try:
            if self._adapter:
                self._adapter.open()
            self._registers.open()
        except BaseException:
            if self._adapter:
                self._adapter.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the port back."""
        self._registers.close()
        if self._adapter:
            self._adapter.close()

    def read(self, joint: str, register: str) -> int:
        """One register of a joint's motor. Raises BusTimeout, BusError."""
        return self._registers.read(self.ids[joint], register)

    def position(self, joint: str) -> int:
        """Where a joint stands, as its motor reports it [ticks, or degrees of a Damiao motor]."""
        if self.family.unit == "degrees":
            return round(math.degrees(self._registers.value(self.ids[joint], "present_position")))
        return self.read(joint, "present_position")

    def drive_mode(self, joint: str) -> int | None:
        """1: the motor itself turns its direction round, 0: it does not; None: such motors cannot."""
        register = self.family.direction
        return None if register is None else self.read(joint, register) & 1

    def identity(self) -> dict[str, dict[str, Any]]:
        """What tells this unit's motors from others, by joint: id, model, firmware, and serial where they have one.

        A motor that does not say its model is what its embodiment says; what else it is, connecting finds out.

        Raises:
            DeviceError: another kind of motor than the embodiment's; BusTimeout: a motor is silent.
        """
        found: dict[str, dict[str, Any]] = {}
        for spec in self.embodiment.joints:
            model = self.read(spec.name, self.family.model) if self.family.model else spec.model_numbers[0]
            if model not in spec.model_numbers:
                raise DeviceError(
                    f"joint {spec.name!r} (id {self.ids[spec.name]}) is model {model}, expected "
                    f"{' or '.join(map(str, spec.model_numbers))}; check the ids"
                )
            firmware = ".".join(str(self.read(spec.name, register)) for register in self.family.firmware)
            found[spec.name] = {"id": self.ids[spec.name], "model": model, "firmware": firmware}
            if self.family.serial:
                found[spec.name]["serial"] = self.read(spec.name, self.family.serial)
        return found

    def holding(self) -> list[str]:
        """The joints whose motors have torque."""
        return [joint for joint in self.ids if self.read(joint, "torque_enable") != 0]

    def let_go(self, joint: str) -> None:
        """Switches a joint's torque off: a gravity-loaded one falls. Raises DeviceError, BusTimeout."""
        self._registers.write(self.ids[joint], "torque_enable", 0)

    def registers(self, joint: str) -> dict[str, int]:
        """What calibration may change, as it is now."""
        return {name: self.read(joint, name) for name in self.family.kept}

    def write(self, joint: str, values: Mapping[str, int]) -> None:
        """Writes what differs and reads it back. Raises DeviceError, BusTimeout, BusError."""
        for name, value in values.items():
            if self.read(joint, name) != value:
                self._registers.write(self.ids[joint], name, value)

    def wanted(self, calibration: JointCalibration) -> dict[str, int]:
        """The register values that a calibration asks for."""
        values = (calibration.homing_offset, calibration.range_min, calibration.range_max)
        return dict(zip(self.family.kept, values, strict=False))  # a family that keeps nothing wants nothing

    def differences(self, calibration: Mapping[str, JointCalibration]) -> list[str]:
        """Where the motors differ from a calibration, one sentence each."""
        return [
            f"joint {joint!r}: register {name} is {found[name]}, the calibration says {value}"
            for joint, values in calibration.items()
            for found in [self.registers(joint)]
            for name, value in self.wanted(values).items()
            if found[name] != value
        ]

    def backup(self, path: Path) -> None:
        """Writes what calibration may change to a file, on the disk before this returns."""
        kept = {joint: {"id": id, "registers": self.registers(joint)} for joint, id in self.ids.items()}
        write_durably(path, json.dumps(kept, indent=4) + "\n")

    def restore(self, path: Path) -> None:
        """Puts back what :meth:`backup` kept and removes the file.

        Raises:
            CalibrationError: the file is damaged or of other motors; DeviceError, BusTimeout: a motor does not take it.
        """
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            wanted = {joint: dict(kept[joint]["registers"]) for joint in self.ids}
            ids = {joint: kept[joint]["id"] for joint in self.ids}
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            raise CalibrationError(f"{path} cannot be used to put the motors back as they were: {error}") from error
        if ids != self.ids:
            raise CalibrationError(f"{path} is of motors {ids}, these are {self.ids}; move the file away")
        for joint, values in wanted.items():
            self.write(joint, values)
        path.unlink()


def fields_of(calibration: JointCalibration) -> dict[str, int]:
    """A joint's calibration with LeRobot's field names."""
    return {field: int(getattr(calibration, field)) for field in FIELDS}


def adapter_serial(port: str) -> str | None:
    """The serial number of the USB adapter behind a serial port, or None when it has none or is not USB."""
    device = Path("/sys/class/tty") / Path(port).resolve().name / "device"
    if not device.exists():
        return None
    folder = device.resolve()
    for candidate in (folder, *list(folder.parents)[:3]):
        file = candidate / "serial"
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").strip() or None
    return None


def write_durably(path: Path, text: str) -> None:
    """Writes a file so that at any moment the old or the new one is there, whole, even when the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
