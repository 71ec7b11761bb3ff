"""Program: an emulated robot in the foreground, until it is told to stop."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from wallx_edge._emulator import FAULTS, ArmEmulator, CanArmEmulator
from wallx_edge.errors import ConfigError, DeviceError
from wallx_edge.sim import openarm
from wallx_edge.sim.arm import EmulatedArm
from wallx_edge.sim.filming import Filming
from wallx_edge.sim.koch import KOCH
from wallx_edge.sim.so101 import SO101
from wallx_edge.sim.world import WorldSpec

# the one table of emulated arms
ROBOTS: dict[str, EmulatedArm | ModuleType] = {"so101": SO101, "koch": KOCH, "openarm": openarm}

COMMANDS = """commands, one a line on standard input; each is answered with one line, `ok` or `error: why`:
  fault KIND [ID|all] [VALUE]   make something go wrong    clear KIND [ID|all]   end it
  hand ID [SHARE]               a hand drags the joint to a share of its travel [0..1]; without one it lets go
                                (serial servos only)
  quit                          stop
kinds of fault (value, preset):
""" + "\n".join(
    f"  {row.name:<14}{row.effect}"
    + (f" ({row.minimum:g}..{row.maximum:g} {row.unit}, {row.preset:g})" if row.unit else "")
    for row in FAULTS
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``run`` to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = COMMANDS
    parser.add_argument("robot", choices=list(ROBOTS), help="the robot to emulate")
    parser.add_argument("--link", default="", metavar="PATH", help="make a symbolic link to the port")
    parser.add_argument("--log", default="", metavar="FILE", help="log what is received and done, as JSON lines")
    parser.add_argument("--calibration", metavar="FILE", help="calibration of the emulated unit, LeRobot's JSON")
    parser.add_argument("--write-calibration", metavar="FILE", help="write the calibration in use to a file")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the injected faults")
    parser.add_argument("--drop", type=float, default=0.0, metavar="P", help="drop answers with probability P")
    parser.add_argument("--corrupt", type=float, default=0.0, metavar="P", help="change a byte with probability P")
    parser.add_argument("--bus", choices=["slcan", "udp_multicast"], default="slcan", help="how a CAN robot is reached")
    parser.add_argument("--group", default="239.74.163.2", help="of udp_multicast, with or without :PORT")
    parser.add_argument("--interface", default="", metavar="NAME", help="network interface for udp_multicast")
    parser.add_argument("--classic", action="store_true", help="a CAN line without FD")
    parser.add_argument("--world", type=Path, metavar="FILE", help="a scene around the arm, JSON (needs MuJoCo)")
    parser.add_argument("--frames", type=Path, metavar="FILE", help="where its cameras' pictures go, in /dev/shm")
    parser.add_argument("--fps", type=float, default=15.0, help="pictures of each camera a second (15)")
    parser.add_argument("--json", action="store_true", help="report as JSON lines")
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop at the end of standard input")


def run(args: argparse.Namespace) -> int:
    """Runs an emulated robot until SIGINT, SIGTERM, ``quit`` or, if asked for, the end of standard input.

    Must be called on the main thread, which it blocks. Prints one line with the port when the robot is ready.

    Returns:
        0 after an orderly stop.

    Raises:
        CalibrationError, ConfigError, DeviceError: the robot cannot be set up.
    """
    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed} must not be negative")
    robot = ROBOTS[args.robot]
    calibration = robot.read_calibration(args.calibration) if args.calibration else robot.default_calibration()
    if args.write_calibration:
        robot.write_calibration(args.write_calibration, calibration)
    if args.frames and not args.world:
        raise ConfigError("--frames shows the cameras of a world: --world FILE is missing")
    if args.world and not isinstance(robot, EmulatedArm):
        raise ConfigError(f"{args.robot} stands in no world; only serial arms with a model of their geometry do")
    spec = WorldSpec.read(args.world) if args.world else None
    filming: Filming | None = None
    with _stop_signals() as stop_file:
        arm: ArmEmulator | CanArmEmulator
        if isinstance(robot, EmulatedArm):
            world = robot.make_world(spec) if spec else None
            arm = robot.make_arm(seed=args.seed, calibration=calibration, world=world)
            arm.start(link=args.link, log=args.log)
            if spec and args.frames:
                try:
                    filming = Filming(arm, robot.make_world(spec), args.frames, args.fps)
                except BaseException:
                    arm.stop()
                    raise
        else:
            rate = 0 if args.classic else 5_000_000
            arm = openarm.make_arm(seed=args.seed, calibration=calibration, data_bit_rate=rate)
            arm.start(bus=args.bus, link=args.link, group=args.group, interface=args.interface, log=args.log)
        try:
            for kind, chance in (("drop", args.drop), ("corrupt", args.corrupt)):
                if chance:
                    arm.set_fault(kind, None, chance)
            if not arm.is_realtime:
                print(
                    "SCHED_FIFO is not permitted: answers may be late when the computer is busy "
                    "(run as root or raise the rtprio limit to 60)",
                    file=sys.stderr,
                    flush=True,
                )
            if args.json:
                ready = {"port": arm.port, "realtime": arm.is_realtime, "pid": os.getpid()}
                _report(json.dumps(ready))
            else:
                _report(f"{args.robot} is ready on {args.link or arm.port}")
            _serve(arm, stop_file, args.until_stdin_closes, args.json)
        finally:
            if filming:
                filming.close()
            arm.stop()
    if filming and filming.error:
        raise DeviceError(f"the cameras' pictures cannot be made: {filming.error}")
    return 0


def execute(arm: ArmEmulator | CanArmEmulator, line: str) -> bool:
    """Executes one command line; false: it was ``quit``.

    Raises:
        ConfigError: unknown command, or an argument that does not fit.
    """
    name, *words = line.split() or [""]
    if name == "quit" and not words:
        return False
    bounds = {"fault": (1, 3), "clear": (1, 2), "hand": (1, 2)}
    if name not in bounds:
        raise ConfigError(f"unknown command {line.strip()!r}; known are {', '.join(bounds)} and quit")
    least, most = bounds[name]
    if not least <= len(words) <= most:
        raise ConfigError(f"command {line.strip()!r}: {name} takes {least} to {most} words")
    try:
        if name == "hand":
            arm.hand(int(words[0]), float(words[1]) if len(words) > 1 else None)
            return True
        id = None if len(words) < 2 or words[1] == "all" else int(words[1])
        value = float(words[2]) if len(words) > 2 else None
    except ValueError as error:
        raise ConfigError(f"command {line.strip()!r}: {error}") from error
    if name == "fault":
        arm.set_fault(words[0], id, value)
    else:
        arm.clear_fault(words[0], id)
    return True


def _serve(arm: ArmEmulator | CanArmEmulator, stop_file: int, is_bound_to_stdin: bool, is_json: bool) -> None:
    stdin = 0
    watched = [stop_file, stdin]
    pending = b""
    while True:
        ready, _, _ = select.select(watched, [], [])
        if stop_file in ready:
            return
        chunk = _read(stdin)
        if not chunk:
            if is_bound_to_stdin:
                return
            watched = [stop_file]
            continue
        *lines, pending = (pending + chunk).split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            try:
                keeps_running = execute(arm, line.decode(errors="replace"))
            except (ConfigError, TypeError, ValueError, OverflowError) as error:
                print(f"error: {error}", file=sys.stderr, flush=True)
                _report(json.dumps({"ok": False, "error": str(error)}) if is_json else f"error: {error}")
                continue
            _report(json.dumps({"ok": True}) if is_json else "ok")
            if not keeps_running:
                return


def _read(file: int) -> bytes:
    try:
        return os.read(file, 4096)
    except OSError:  # no standard input at all
        return b""


def _report(line: str) -> None:
    # whoever started the robot may have stopped listening; the arm goes on
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)


@contextlib.contextmanager
def _stop_signals() -> Iterator[int]:
    """A file that becomes readable at SIGINT or SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing)
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield reading
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(reading)
        os.close(writing)
