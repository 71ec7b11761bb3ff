"""The robot that the contract is run against: emulated ones, or the one that --robot names."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from leaks import Snapshot
from wallx_edge.hil import HilPlan
from wallx_edge.robot_config import RobotConfig
from wallx_edge.sim import SimProcess
from wallx_edge.sim.program import ROBOTS

# what an emulated robot's file says beside its embodiment and its calibration
_LINES = {
    "so101": 'kind = "serial"',
    "koch": 'kind = "serial"',
    "openarm": 'kind = "slcan"\nbit_rate = 1000000\ndata_bit_rate = 5000000',
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every embodiment that can be emulated, or the one robot that is named."""
    if "robot_config" in metafunc.fixturenames:
        named = metafunc.config.getoption("--robot")
        metafunc.parametrize("robot_config", [named] if named else sorted(ROBOTS), indirect=True)


@pytest.fixture
def robot_config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RobotConfig]:
    """A robot that may be moved: a small way, after whoever runs this has cleared its surroundings."""
    if request.config.getoption("--robot"):
        yield RobotConfig.load(request.param)
        return
    ROBOTS[request.param].write_calibration(tmp_path / "calibration.json")
    robot = f'embodiment = "{request.param}"\ncalibration = "calibration.json"\n'
    if request.param == "openarm":
        robot += "accept_drop = false\n"
    (tmp_path / "robot.toml").write_text(
        f'[robot]\n{robot}[bus]\nport = "{tmp_path}/port"\n{_LINES[request.param]}\n', encoding="utf-8"
    )
    with SimProcess(request.param, link=tmp_path / "port"):
        yield RobotConfig.load(tmp_path / "robot.toml")


@pytest.fixture
def plan(request: pytest.FixtureRequest, robot_config: RobotConfig) -> HilPlan:
    """How long and how well: an emulator's pseudo-terminal may be slow on a busy computer, a wire may not."""
    if request.config.getoption("--robot"):
        return HilPlan(robot=robot_config.path)
    return HilPlan(robot=robot_config.path, soak_seconds=2.0, max_lost_share=0.5)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fails a test that leaves a thread running or a file, bus or socket open."""
    before = Snapshot.take()
    yield
    left = before.left_since()
    if left:
        pytest.fail("the test left behind: " + ", ".join(left), pytrace=False)
