"""One of each embodiment that is emulated: a process, and the ROBOT.toml that reaches it; or a log of one."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live_arm import wait_for
from wallx_edge.robot import Robot
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
_REPLAY = """[bus]
kind = "replay"
port = "line.log"
"""
EMBODIMENTS = tuple(_BUS)
RECORDED_TICKS = 1200  # more than a stage of the contract reads


@contextmanager
def emulated(name: str, folder: Path) -> Iterator[tuple[SimProcess, RobotConfig]]:
    """Starts one and writes its ROBOT.toml and calibration."""
    with SimProcess(name, link=folder / "port", log=folder / "emulator.jsonl") as sim:
        yield sim, _write(name, folder, _BUS[name].format(port=folder / "port"))


def replayed(name: str, folder: Path) -> RobotConfig:
    """Reads one for a while, then leaves the line's log and a ROBOT.toml that plays it."""
    with emulated(name, folder) as (_, config):
        config.path.write_text(config.path.read_text().replace("[bus]\n", '[bus]\nrecord = "line.log"\n'))
        with Robot.connect(config.path) as robot:
            wait_for(lambda: robot.loop.counters()["ticks"] >= RECORDED_TICKS, "a log that is long enough")
    accept = "accept_drop = false\n" if name == "openarm" else ""
    return _write(name, folder, accept + _REPLAY)


def _write(name: str, folder: Path, bus: str) -> RobotConfig:
    write = {"so101": so101.write_calibration, "koch": KOCH.write_calibration, "openarm": openarm.write_calibration}
    write[name](folder / "calibration.json")
    head = f'[robot]\nembodiment = "{name}"\ncalibration = "calibration.json"\n'
    path = folder / "robot.toml"
    path.write_text(head + bus + _REST, encoding="utf-8")
    return RobotConfig.load(path)
