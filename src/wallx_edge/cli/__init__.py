"""The command line: one program, one verb per file; exit code 0 only on success."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import importlib
import math
import os
import signal
import sys
from collections.abc import Sequence

from wallx_edge import __version__
from wallx_edge.errors import WallxError

__all__ = ["duration", "main"]

# verb -> what it does; its module is wallx_edge.cli.<verb>, with add_arguments(parser) and run(args) -> exit code
VERBS = {
    "demo": "run the whole chain on a simulated arm and leave a film, a plot and a summary",
    "run": "let a checkpoint drive a robot",
    "daemon": "own a robot and take tasks over a socket",
    "tell": "send one request to the daemon of a robot",
    "status": "show what the daemon of a robot does",
    "replay": "drive the loop in simulation with a recording",
    "export": "turn recordings of runs into a LeRobotDataset",
    "estop": "stop a robot that another program drives, at once",
    "sim": "start an emulated arm behind a serial port",
    "pull": "fetch a checkpoint from the hub",
    "hil": "walk a robot through the stages of a plan and leave evidence",
    "calibrate": "measure one unit's joints by hand, write its motors, verify and sign",
    "inspect": "show what a checkpoint is",
    "quantize": "pack a checkpoint for a precision, and report what that costs",
    "verify": "compare the engine with a golden case of the reference implementation",
    "synth": "write a random checkpoint for a robot's joints",
    "infer": "compute one action chunk from pictures",
    "ask": "ask a question about pictures",
    "eval": "run a policy through simulated tasks and say how often it succeeds",
    "bench": "measure engine, loading, control loop, buses and sessions",
}


def duration(text: str) -> float:
    """A time in seconds from the command line: finite and above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        0 on success, 1 on an error of wallx-edge, 130 on Ctrl-C, 143 on SIGTERM.

    Raises:
        SystemExit: 2 on wrong usage, 0 after ``--help`` and ``--version``, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="wallx-edge",
        description="From a WALL-OSS checkpoint to a moving robot, on the robot's own computer.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    arguments = list(sys.argv[1:] if argv is None else argv)
    # only the chosen verb is imported: `wallx-edge inspect` needs no camera library
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    for verb, text in VERBS.items():
        verb_parser = verbs.add_parser(verb, help=text, description=text[0].upper() + text[1:] + ".")
        if verb == chosen:
            importlib.import_module(f"wallx_edge.cli.{verb}").add_arguments(verb_parser)
    args = parser.parse_args(arguments)
    try:
        code = int(importlib.import_module(f"wallx_edge.cli.{args.verb}").run(args))
        sys.stdout.flush()  # what is wrong with stdout must come out here, not while the interpreter ends
        return code
    except WallxError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # the reader of our output went away: not worth a traceback, nor is what is still in the buffer
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:  # a full disk behind stdout: the interpreter must not try again while it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
