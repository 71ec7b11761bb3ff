"""wallx-edge infer: one action chunk from picture files, in SI."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wallx_edge.cli.computing import add_computing_arguments, computing
from wallx_edge.errors import ConfigError
from wallx_edge.pictures import read_picture
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.types import Observation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("checkpoint", type=Path, help="folder in the published layout")
    parser.add_argument(
        "--image",
        action="append",
        required=True,
        metavar="ROLE=FILE",
        help="a camera's picture; in the model's order",
    )
    parser.add_argument("--task", required=True, help="what the robot is to do")
    parser.add_argument(
        "--state",
        metavar="A,B,...",
        help="state, SI, in the model's order; as --state=-0.1,... when the first is negative; by default the middle "
        "of the statistics",
    )
    parser.add_argument("--statistics", help="key of the statistics; the only one by default")
    parser.add_argument("--resolution", type=int, help="long side of a picture [px]; as the checkpoint says by default")
    parser.add_argument("--horizon", type=int, help="rows; as the checkpoint says by default")
    parser.add_argument("--steps", type=int, default=10, help="Euler steps (10)")
    parser.add_argument("--attention", choices=("checkpoint", "bidirectional", "causal"), default="checkpoint")
    parser.add_argument("--fast", action="store_true", help="by FAST tokens, as wall-oss-fast acts, instead of flow")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    add_computing_arguments(parser)
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Computes and prints one chunk."""
    images: dict[str, NDArray[np.uint8]] = {}
    for item in args.image:
        role, separator, path = item.partition("=")
        if not separator or not role or role in images:
            raise ConfigError(f"--image {item!r}: expected ROLE=FILE with a role of its own, as face_view=front.png")
        images[role] = read_picture(f"--image {role}", path)
    config = PolicyConfig(
        cameras=tuple(images),
        resolution=args.resolution,
        horizon=args.horizon,
        statistics=args.statistics,
        num_steps=args.steps,
        attention=args.attention,
        seed=args.seed,
    )
    asked = computing(args)
    policy = Policy.load(args.checkpoint, config, **asdict(asked))
    observation = Observation(images, _state(args.state, policy), args.task, time.monotonic())
    begin = time.perf_counter()
    chunk = policy.act_fast(observation) if args.fast else policy.act(observation)
    elapsed = time.perf_counter() - begin
    if args.json:
        out = {
            "layout": {slot.name: slot.width for slot in chunk.layout},
            "units": chunk.layout.units,
            "statistics": policy.statistics,
            "step_s": chunk.step,
            "elapsed_s": elapsed,
            "computing": asked.report(policy.engine),
            "rows": chunk.rows.tolist(),
        }
        print(json.dumps(out))
        return 0
    for what, line in zip(("asked", "given"), asked.lines(policy.engine), strict=True):
        print(f"{what}: {line}")
    print(f"{chunk.horizon} rows, {chunk.step:.4f} s apart, statistics {policy.statistics}, {elapsed * 1e3:.1f} ms")
    names = [f"{s.name}[{i}]" if s.width > 1 else s.name for s in chunk.layout for i in range(s.width)]
    for column, (name, unit) in enumerate(zip(names, chunk.layout.units, strict=True)):
        values = chunk.rows[:, column]
        shown = " ".join(f"{v:8.4f}" for v in values[:: max(1, chunk.horizon // 8)])
        print(f"{name:36s} [{unit or '?'}] {shown}")
    return 0


def _state(text: str | None, policy: Policy) -> NDArray[np.float64]:
    if text is None:
        return policy.middle_state()
    try:
        return np.array([float(part) for part in text.split(",")], np.float64)
    except ValueError as error:
        raise ConfigError(f"--state {text!r}: expected numbers separated by commas") from error
