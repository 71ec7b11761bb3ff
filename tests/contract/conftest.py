"""The robot that the contract is run against: emulated ones and logs of them, or the one that --robot names."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

from emulated import EMBODIMENTS, emulated, replayed
from leaks import Snapshot
from wallx_edge.hil import HilPlan
from wallx_edge.robot_config import RobotConfig


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test on every emulated embodiment and on a log of each, or on the one robot that was named."""
    if "robot_config" in metafunc.fixturenames:
        named = metafunc.config.getoption("--robot")
        every = [*EMBODIMENTS, *(f"{name}-replay" for name in EMBODIMENTS)]
        metafunc.parametrize("robot_config", [named] if named else every, indirect=True)


@pytest.fixture(scope="session")
def logs() -> dict[str, RobotConfig]:
    """Recorded so far, by embodiment: once for all stages."""
    return {}


@pytest.fixture
def robot_config(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    logs: dict[str, RobotConfig],
) -> Iterator[RobotConfig]:
    """A robot that may be moved: a small way, after whoever runs this has cleared its surroundings."""
    if request.config.getoption("--robot"):
        yield RobotConfig.load(request.param)
        return
    name, _, is_replay = request.param.partition("-")
    if is_replay:
        if name == "koch":
            pytest.skip("its driver asks by what came in time, and a replay runs in real time")
        if name not in logs:
            logs[name] = replayed(name, tmp_path_factory.mktemp(request.param))
        yield logs[name]
        return
    with emulated(name, tmp_path) as (_, config):
        yield config


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
