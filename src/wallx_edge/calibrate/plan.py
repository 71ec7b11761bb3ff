"""CalibrationPlan: what is measured on a robot model, in which order; calibration/robots/<name>.toml."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wallx_edge.embodiment import Embodiment, share_path
from wallx_edge.errors import ConfigError
from wallx_edge.tables import Table, read_toml

__all__ = ["CalibrationPlan", "JointPlan"]

METHODS = {"damiao": ("zero",)}  # by motor family; the others count ticks:
TICK_METHODS = ("sweep", "middle")
MAX_TRAVEL = 4090  # a full turn less what an encoder that wraps cannot tell apart [ticks]
MAX_TRAVEL_DEG = 350  # the same of a motor that reports degrees


@dataclass(frozen=True)
class JointPlan:
    """How one joint is measured.

    Attributes:
        name: the joint.
        method: ``sweep`` from stop to stop; ``middle``: it turns freely and is placed; ``zero``: swept, then placed
            where it is zero.
        hint: what the person does.
        place: how it is placed, for ``zero``.
        travel: from stop to stop, as the parts allow it; 0 for ``middle`` [ticks, or degrees of a Damiao motor].
        tolerance: of the travel [the same].
        drive_mode: 1: the joint's positive direction is the encoder's negative one; None: it is found, in the motor
            or by the sweep.
    """

    name: str
    method: str
    hint: str
    place: str
    travel: int
    tolerance: int
    drive_mode: int | None

    @property
    def is_swept(self) -> bool:
        """Whether it has stops that are looked for."""
        return self.method != "middle"


@dataclass(frozen=True)
class CalibrationPlan:
    """The joints of a robot model in the order in which they are measured."""

    joints: tuple[JointPlan, ...]

    @classmethod
    def load(cls, embodiment: Embodiment, path: Path | None = None) -> CalibrationPlan:
        """Reads the plan of a robot model. Opens no device.

        Args:
            embodiment: the model.
            path: of the file; by default that of the embodiment's name.

        Raises:
            ConfigError: no such file, or a key or value that is wrong.
        """
        file = path or share_path() / "calibration" / "robots" / f"{embodiment.name}.toml"
        if not file.is_file():
            raise ConfigError(f"{file} does not exist: nothing says how a {embodiment.name} is calibrated; write it")
        top = Table(file, "", read_toml(file, "calibration plan "))
        top.check_keys(("embodiment", "joints"))
        if top.text("embodiment") != embodiment.name:
            raise top.fail("embodiment", f"is {top.text('embodiment')!r}, the robot is a {embodiment.name}")
        values = top.values["joints"]
        if not isinstance(values, list) or not all(isinstance(joint, dict) for joint in values):
            raise top.fail("joints", "must be a list of tables, each under [[joints]]")
        joints = tuple(_joint(file, i, joint, embodiment.motor_family) for i, joint in enumerate(values))
        names = sorted(joint.name for joint in joints)
        wanted = sorted(joint.name for joint in embodiment.joints)
        if names != wanted:
            raise top.fail("joints", f"are {', '.join(names)}; a {embodiment.name} has {', '.join(wanted)}, each once")
        return cls(joints)


def _joint(file: Path, index: int, values: dict[str, Any], family: str) -> JointPlan:
    table = Table(file, f"joints[{index}] ({values.get('name', 'without a name')})", values)
    methods = METHODS.get(family, TICK_METHODS)
    method = table.choice("method", methods, methods[0])
    travel = ("travel", "travel_tolerance") if method != "middle" else ()
    place = ("place",) if method == "zero" else ()
    table.check_keys(("name", "hint", *place, *travel), ("method", "drive_mode"))
    most = MAX_TRAVEL_DEG if method == "zero" else MAX_TRAVEL
    return JointPlan(
        name=table.text("name"),
        method=method,
        hint=table.text("hint"),
        place=table.text("place") if place else "",
        travel=table.integer("travel", 1, most) if travel else 0,
        tolerance=table.integer("travel_tolerance", 1, most) if travel else 0,
        drive_mode=table.integer("drive_mode", 0, 1) if "drive_mode" in values else None,
    )
