"""The arguments that say how a checkpoint is computed, for every verb that loads one."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
from dataclasses import replace

from wallx_edge import _core
from wallx_edge.computing import Computing

__all__ = ["add_computing_arguments", "computing"]


def add_computing_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds ``--precision`` and ``--threads``."""
    parser.add_argument(
        "--precision",
        choices=_core.precisions(),
        help="to compute in; as the folder is packed by default, else fp32",
    )
    parser.add_argument("--threads", type=int, help="that compute; one for each core by default")


def computing(args: argparse.Namespace, base: Computing | None = None) -> Computing:
    """What the command line asks for, over what a file says."""
    base = base or Computing()
    return replace(
        base,
        precision=base.precision if args.precision is None else args.precision,
        threads=base.threads if args.threads is None else args.threads,
    )
