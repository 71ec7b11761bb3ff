"""Worker: the stages of one engine in a process of its own, for a program that measures something else in turns.

``python -m wallx_edge.bench.worker TASK``; TASK is JSON: ``checkpoint`` and the fields of ``Asked``. Its first line is
the scenario and each stage's work; then each line ``peaks`` or ``stages`` on standard input is answered with one line
of JSON, until the input ends.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from wallx_edge.bench.engine import Asked, Bench
from wallx_edge.bench.probe import Probe
from wallx_edge.bench.work import PRECISIONS
from wallx_edge.errors import ConfigError, WallxError


def main() -> None:
    """Answers until standard input ends."""
    task = json.loads(sys.argv[1])
    checkpoint = Path(task.pop("checkpoint"))
    asked = Asked(**task)
    bench = Bench(checkpoint, asked.load(checkpoint), asked)
    probe = Probe(asked.num_threads, ("int8", "bf16", "fp32"))
    bench.warm_up()
    _answer(
        {
            "grids": bench.scenario.grids.tolist(),
            "prefix": bench.scenario.prefix,
            "horizon": bench.scenario.horizon,
            "steps": bench.scenario.steps,
            "work": {
                stage: {
                    "operations": work.operations,
                    "bytes": {precision: work.num_bytes(precision) for precision in PRECISIONS},
                }
                for stage, work in bench.work.items()
            },
        }
    )
    for line in sys.stdin:
        if line.strip() == "peaks":
            probe.take()
            _answer(probe.taken[-1])
        elif line.strip() == "stages":
            _answer(bench.see() | bench.flow() | bench.text() | bench.act())
        else:
            raise ConfigError(f"bench worker: {line.strip()!r}, expected peaks or stages")


def _answer(content: dict[str, Any]) -> None:
    print(json.dumps(content), flush=True)


if __name__ == "__main__":
    try:
        main()
    except WallxError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
