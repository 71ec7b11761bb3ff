"""EmulatedArm: the servos of an emulated arm, what hangs on them, and the unit's calibration."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wallx_edge._emulator import ArmEmulator, ServoSetup
from wallx_edge.embodiment import share_path
from wallx_edge.errors import CalibrationError, ConfigError
from wallx_edge.sim.world import World, WorldSpec

Calibration = dict[str, dict[str, int]]

_FIELDS = ("id", "drive_mode", "homing_offset", "range_min", "range_max")
_TICKS_PER_RADIAN = 4096 / (2 * math.pi)
ROTOR = 0.028  # inertia of a motor through its gearbox [kg m^2]


@dataclass(frozen=True)
class EmulatedArm:
    """One model of arm on one serial line.

    Attributes:
        name: of its embodiment.
        family: its motors'.
        unit: joint -> id, drive_mode, homing_offset, range_min, range_max [ticks]: one plausible unit.
        plant: joint -> inertia [kg m^2]; gravity [N m]; pitch sign; pitch at the middle of the range [rad]; rest
            from there [rad].
        stops: joint -> end stops that are not the calibrated range's ends, from the middle [ticks].
        servos: joint -> further fields of its ServoSetup.
    """

    name: str
    family: str
    unit: Mapping[str, tuple[int, int, int, int, int]]
    plant: Mapping[str, tuple[float, float, int, float, float]]
    stops: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    servos: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def joint_names(self) -> tuple[str, ...]:
        """In joint order."""
        return tuple(self.unit)

    def default_calibration(self) -> Calibration:
        """The emulated unit's calibration with LeRobot's field names, by joint [ticks]."""
        return {name: dict(zip(_FIELDS, values, strict=True)) for name, values in self.unit.items()}

    def write_calibration(self, path: str | Path, calibration: Calibration | None = None) -> None:
        """Writes a calibration (default: the emulated unit's) as LeRobot's JSON."""
        text = json.dumps(calibration or self.default_calibration(), indent=4)
        Path(path).write_text(text + "\n", encoding="utf-8")

    def read_calibration(self, path: str | Path) -> Calibration:
        """Reads LeRobot's JSON of such an arm.

        Raises:
            CalibrationError: no such file, no JSON, a joint or field missing, unknown, or no whole number.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise CalibrationError(f"cannot read the calibration {path}: {error}") from error
        if not isinstance(content, dict) or set(content) != set(self.joint_names):
            found = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise CalibrationError(f"calibration {path}: expected the joints {sorted(self.joint_names)}, found {found}")
        for name, fields in content.items():
            if not isinstance(fields, dict) or set(fields) != set(_FIELDS):
                raise CalibrationError(f"calibration {path}, joint {name}: expected the fields {', '.join(_FIELDS)}")
            for key, value in fields.items():
                if type(value) is not int:
                    raise CalibrationError(
                        f"calibration {path}, joint {name}: {key} must be a whole number, is {value!r}"
                    )
            if not 0 <= fields["range_min"] < fields["range_max"] <= 4095:
                raise CalibrationError(
                    f"calibration {path}, joint {name}: range {fields['range_min']}..{fields['range_max']} "
                    "must grow within 0..4095 ticks"
                )
        return {name: content[name] for name in self.joint_names}

    def servo_setups(self, calibration: Calibration | None = None) -> list[ServoSetup]:
        """The servos, in joint order, folded at rest, with their registers as the calibration says."""
        calibration = calibration or self.default_calibration()
        setups = []
        for name in self.joint_names:
            unit = calibration[name]
            inertia, gravity, pitch_sign, pitch, rest = self.plant[name]
            low, high = unit["range_min"], unit["range_max"]
            middle = (low + high) // 2
            stop_min, stop_max = low, high
            if name in self.stops:
                stop_min, stop_max = (min(max(middle + ticks, low), high) for ticks in self.stops[name])
            setup = ServoSetup(
                name=name,
                id=unit["id"],
                drive_mode=unit["drive_mode"],
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
            for key, value in self.servos.get(name, {}).items():
                setattr(setup, key, value)
            setups.append(setup)
        return setups

    def make_arm(
        self,
        *,
        seed: int = 0,
        baud_rate: int = 1_000_000,
        calibration: Calibration | None = None,
        world: World | None = None,
    ) -> ArmEmulator:
        """The emulated arm at rest, torque off, not started; in a world, where the world has it.

        Raises:
            ConfigError: ids twice, a value no servo can hold, a world of another arm.
        """
        unit = calibration or self.default_calibration()
        plant = None
        if world is not None:
            plant = world.plant({n: (u["range_min"] + u["range_max"]) // 2 for n, u in unit.items()})
        return ArmEmulator(self.servo_setups(unit), seed=seed, baud_rate=baud_rate, family=self.family, world=plant)

    def make_world(self, spec: WorldSpec) -> World:
        """A scene with this arm in it.

        Raises:
            ConfigError: MuJoCo is not installed, this arm has no model of its geometry, or the scene makes none.
        """
        path = share_path() / "drivers" / "embodiments" / self.name / f"{self.name}.xml"
        if not path.is_file():
            raise ConfigError(f"{self.name} has no model of its geometry ({path}): it cannot stand in a world")
        motors = {s.name: (ROTOR, s.damping, s.friction) for s in self.servo_setups()}
        return World(spec, path, self.joint_names, motors)
