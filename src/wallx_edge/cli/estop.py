"""wallx-edge estop: stops a robot that another program drives."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
from pathlib import Path

from wallx_edge import _core
from wallx_edge.robot_config import RobotConfig
from wallx_edge.safe_stop import estop_socket_path, find_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, help="ROBOT.toml of the robot")


def run(args: argparse.Namespace) -> int:
    """Sends it; 0 when the program that drives the robot has it in its queue."""
    config = RobotConfig.load(args.robot)
    _core.send_estop(str(find_socket(estop_socket_path(config.bus.port))))
    print("e-stop sent: the robot brakes, holds at low torque and stays so until it is reset")
    return 0
