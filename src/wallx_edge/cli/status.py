"""wallx-edge status: shows what the daemon of a robot does."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path

from rich.console import Console

from wallx_edge.cli import screen
from wallx_edge.daemon.client import tell
from wallx_edge.robot_config import RobotConfig
from wallx_edge.safe_stop import daemon_socket_path, find_socket


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, help="ROBOT.toml of the robot")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Shows it; 0 when the daemon answered."""
    config = RobotConfig.load(args.robot)
    found = tell(find_socket(daemon_socket_path(config.bus.port)), "status")
    if args.json:
        print(json.dumps(found))
    else:
        Console(highlight=False).print(screen.status(found))
    return 0
