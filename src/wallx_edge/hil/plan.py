"""HilPlan: which robot, which stages, and how long, far and well each of them must go; a plan.toml."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wallx_edge.errors import ConfigError
from wallx_edge.tables import Table, read_toml

__all__ = ["STAGE_NAMES", "HilPlan"]

# in the order in which they run: each takes for granted what the ones before it showed
STAGE_NAMES = ("comms", "soak", "torque_free", "motion", "watchdog", "estop")

# key -> default, lowest, highest
_NUMBERS: dict[str, tuple[float, float, float]] = {
    "connections": (3, 1, 100),
    "soak_seconds": (10.0, 0.1, 86400.0),
    "torque_free_seconds": (3.0, 0.1, 600.0),
    "max_lost_share": (0.01, 0.0, 1.0),
    "amplitude": (0.05, 0.005, 0.3),
    "max_tracking_error": (0.15, 0.001, 1.0),
    "max_sag": (0.08, 0.001, 1.0),
}


@dataclass(frozen=True)
class HilPlan:
    """One plan.toml.

    ::

        robot = "so101.toml"             # ROBOT.toml, from the plan's folder
        stages = ["comms", "soak"]       # all of them by default

        [limits]                         # each may be left out
        connections = 3                  # how often the robot is connected anew
        soak_seconds = 10.0              # of reading only [s]
        torque_free_seconds = 3.0        # of watching the limp arm [s]
        max_lost_share = 0.01            # ticks in which a motor did not answer
        amplitude = 0.05                 # of each joint's small motion [rad]
        max_tracking_error = 0.15        # between command and measurement while it moves [rad]
        max_sag = 0.08                   # of the pose while the robot holds [rad]

    Attributes:
        robot: path of the ROBOT.toml.
        stages: in the order in which they run.
        connections: how often the robot is connected anew.
        soak_seconds: of reading only [s].
        torque_free_seconds: of watching the limp arm [s].
        max_lost_share: of ticks in which a motor did not answer.
        amplitude: of each joint's small motion [rad].
        max_tracking_error: between command and measurement while it moves [rad].
        max_sag: of the pose while the robot holds [rad].
        path: of the plan, if it came from a file.
    """

    robot: Path
    stages: tuple[str, ...] = STAGE_NAMES
    connections: int = int(_NUMBERS["connections"][0])
    soak_seconds: float = _NUMBERS["soak_seconds"][0]
    torque_free_seconds: float = _NUMBERS["torque_free_seconds"][0]
    max_lost_share: float = _NUMBERS["max_lost_share"][0]
    amplitude: float = _NUMBERS["amplitude"][0]
    max_tracking_error: float = _NUMBERS["max_tracking_error"][0]
    max_sag: float = _NUMBERS["max_sag"][0]
    path: Path | None = field(default=None)

    @classmethod
    def load(cls, path: str | Path) -> HilPlan:
        """Reads and checks a plan. Opens no device.

        Raises:
            ConfigError: names file, key, value and bound.
        """
        path = Path(path)
        top = Table(path, "", read_toml(path, "plan "))
        top.check_keys(("robot",), ("stages", "limits"))
        stages = top.values.get("stages", list(STAGE_NAMES))
        if not isinstance(stages, list) or not stages or any(name not in STAGE_NAMES for name in stages):
            raise top.fail("stages", f"is {stages!r}, must list some of {', '.join(STAGE_NAMES)}")
        limits = top.table("limits")
        limits.check_keys((), tuple(_NUMBERS))
        values: dict[str, float] = {}
        for key, (default, low, high) in _NUMBERS.items():
            values[key] = limits.number(key, default)
            if not low <= values[key] <= high:
                raise limits.fail(key, f"is {values[key]:g}, must be {low:g}..{high:g}")
        connections = values.pop("connections")
        if connections != int(connections):
            raise limits.fail("connections", f"is {connections:g}, must be a whole number")
        robot = path.parent / top.text("robot")
        if not robot.is_file():
            raise ConfigError(f"{path}: robot {robot} does not exist")
        ordered = tuple(name for name in STAGE_NAMES if name in stages)
        return cls(robot=robot, stages=ordered, connections=int(connections), path=path, **values)
