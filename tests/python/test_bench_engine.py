"""Benchmark: every number that bench engine prints is there, for a state as a token and as text; none is judged."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import pytest

from golden import ROOT
from wallx_edge.bench.engine import bench_engine
from wallx_edge.cli import main


@pytest.mark.parametrize("case", ["case1_flow_v1", "case2_mot_v05"])
def test_the_engine_is_measured(case: str) -> None:
    result = bench_engine(ROOT / "tests" / "golden" / case, repeats=1)
    first, longer = result["rows"]
    assert longer["prefix_tokens"] == 4 * first["prefix_tokens"]
    for row in result["rows"]:
        assert all(value > 0 for value in row.values())
        assert 1e3 / row["text_tokens_per_s"] <= row["longest_token_ms"]
    # three pictures and the words before the instruction
    assert 100 < result["shared_tokens"] < first["prefix_tokens"]
    assert result["reused_prefill_ms"] > 0


def test_it_is_printed(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine", "--checkpoint", str(tiny_checkpoint)]) == 0
    out = capsys.readouterr().out
    assert "tokens/s (slowest" in out
    assert "tokens shared, prefill" in out
