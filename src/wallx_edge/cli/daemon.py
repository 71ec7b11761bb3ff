"""wallx-edge daemon: owns a robot until it is stopped, and takes tasks over a socket."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.cli.run import StopSignals
from wallx_edge.daemon import Daemon, Notifier
from wallx_edge.daemon.unit import installed_unit, unit_path
from wallx_edge.errors import ConfigError
from wallx_edge.robot_config import RobotConfig
from wallx_edge.safe_stop import daemon_socket_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("robot", type=Path, nargs="?", help="ROBOT.toml")
    parser.add_argument("--task", help="what the robot is to do at once; without it nothing moves before a client says")
    add_computing_arguments(parser)
    parser.add_argument("--unit", action="store_true", help="print the systemd unit for this installation, and end")


def run(args: argparse.Namespace) -> int:
    """Serves; 0 after a stop, also by SIGTERM: what a service manager sends is no failure."""
    if args.unit:
        print(f"# from {shlex.quote(str(unit_path()))}\n{installed_unit()}", end="")
        return 0
    if args.robot is None:
        raise ConfigError("daemon: name a ROBOT.toml, or --unit")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    config = RobotConfig.load(args.robot)
    config = replace(config, computing=computing(args, config.computing))
    with ExitStack() as stack:
        signals = stack.enter_context(StopSignals())
        daemon = stack.enter_context(Daemon(config, notifier=Notifier()))
        signals.stop(daemon)
        for shortfall in daemon.robot.loop.real_time["shortfalls"]:
            print(f"not real time: {shortfall}", flush=True)
        print(f"ready: {config.path} on {daemon_socket_path(config.bus.port)}", flush=True)
        if args.task:
            daemon.handle("task", args.task, lambda answer: None)
        daemon.serve()
    print("stopped: the robot holds its last command")
    return 0
