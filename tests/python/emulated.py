"""One of each embodiment that is emulated: a process, and the ROBOT.toml that reaches it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess, openarm, so101
from wallx_edge.sim.koch import KOCH

_SERIAL = """[bus]
port = "{port}"
"""
_CAN = """accept_drop = false
[bus]
kind = "slcan"
port = "{port}"
data_bit_rate = 5000000
"""
_BUS = {"so101": _SERIAL, "koch": _SERIAL, "openarm": _CAN}
_REST = """[policy]
checkpoint = "none"
[[camera]]
role = "face_view"
kind = "pattern"
"""
EMBODIMENTS = tuple(_BUS)


@contextmanager
def emulated(name: str, folder: Path) -> Iterator[tuple[SimProcess, RobotConfig]]:
    """Starts one and writes its ROBOT.toml and calibration."""
    write = {"so101": so101.write_calibration, "koch": KOCH.write_calibration, "openarm": openarm.write_calibration}
    write[name](folder / "calibration.json")
    head = f'[robot]\nembodiment = "{name}"\ncalibration = "calibration.json"\n'
    path = folder / "robot.toml"
    path.write_text(head + _BUS[name].format(port=folder / "port") + _REST, encoding="utf-8")
    with SimProcess(name, link=folder / "port", log=folder / "emulator.jsonl") as sim:
        yield sim, RobotConfig.load(path)
