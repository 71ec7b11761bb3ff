"""wallx-edge tell: sends one request to the daemon of a robot."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
from pathlib import Path

from wallx_edge.daemon.client import tell
from wallx_edge.robot_config import RobotConfig
from wallx_edge.safe_stop import daemon_socket_path, find_socket

TIMEOUT = 40.0  # a question takes its time [s]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, help="ROBOT.toml of the robot")
    parser.add_argument(
        "request", choices=("task", "subtask", "ask", "pause", "resume", "reset", "stop"), help="what to do"
    )
    parser.add_argument("text", nargs="?", default="", help="of a task, subtask or question")
    parser.add_argument("--json", action="store_true", help="print the answer for programs")


def run(args: argparse.Namespace) -> int:
    """Sends it; 0 when the daemon did it."""
    config = RobotConfig.load(args.robot)
    found = tell(find_socket(daemon_socket_path(config.bus.port)), args.request, args.text, TIMEOUT)
    print(json.dumps(found) if args.json else found.get("answer", f"{args.request}: done"))
    return 0
