"""Benchmark: every number that bench engine prints is there and computed as documented; none is judged."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden import ROOT
from wallx_edge import _core
from wallx_edge.bench import engine as bench
from wallx_edge.bench.cold import bench_cold, resident_share
from wallx_edge.bench.engine import STAGES, Asked, bench_engine, compare
from wallx_edge.bench.probe import Probe, last_cache_bytes, num_cores
from wallx_edge.bench.reuse import bench_reuse
from wallx_edge.bench.work import PRECISIONS, Scenario, Work, works
from wallx_edge.cli import main
from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.synth.files import write_files
from wallx_edge.synth.size import SIZES
from wallx_edge.train_config import load_engine

CASES = ("case1_flow_v1", "case2_mot_v05")


@pytest.fixture(scope="module", params=CASES)
def result(request: pytest.FixtureRequest) -> dict[str, Any]:
    return bench_engine(ROOT / "tests" / "golden" / request.param, Asked(repeats=2, steps=4, does_sweep=True))


def test_every_stage_is_measured_beside_the_peaks(result: dict[str, Any]) -> None:
    assert tuple(result["stages"]) == STAGES
    assert result["conditions"]["prefix_tokens"] >= 246
    for row in result["stages"].values():
        assert len(row["all_ms"]) == 2
    for stage in STAGES[1:]:
        row = result["stages"][stage]
        assert row["operations"] > 0 and row["bytes"] > 0
        assert row["share"] == max(row["compute_share"], row["read_share"]) > 0
        assert row["operations_per_s"] == pytest.approx(row["operations"] / row["ms"] * 1e3)
    assert result["stages"]["step"]["ms"] < result["stages"]["steps"]["ms"]
    assert {"fp32", "read", "clock"} <= set(result["peaks"])
    for row in result["peaks"].values():
        assert 0 < row["lowest"] <= row["median"] <= row["highest"]
    stages = result["stages"]
    bound = sum(stages[stage]["bound_ms"] for stage in ("vision", "prefill", "steps"))
    assert result["chunk_over_bound"] == pytest.approx(stages["chunk"]["ms"] / bound)


def test_the_sweep_has_every_number_of_cameras_and_steps(result: dict[str, Any]) -> None:
    assert result["sweep"]["cameras"]["values"] == [1, 2, 3]
    assert result["sweep"]["steps"]["values"] == [5, 10, 20]
    for row in result["sweep"].values():
        assert len(row["ms"]) == 3 and row["off_line"] >= 0


def test_a_run_is_compared_with_the_one_before(result: dict[str, Any]) -> None:
    before = json.loads(json.dumps(result))
    for row in before["stages"].values():
        row["ms"] *= 2
    assert compare(result, before) == pytest.approx(dict.fromkeys(STAGES, 0.5))
    before["conditions"]["cameras"] = 3
    with pytest.raises(ConfigError, match="cameras was 3, now it is 2"):
        compare(result, before)
    with pytest.raises(ConfigError, match="not a result"):
        compare(result, {"stages": {}})


def test_reuse_is_measured() -> None:
    checkpoint = ROOT / "tests" / "golden" / "case1_flow_v1"
    reuse = bench_reuse(checkpoint, load_engine(checkpoint), repeats=1)
    first, longer = reuse["rows"]
    assert longer["prefix_tokens"] == 4 * first["prefix_tokens"]
    for row in reuse["rows"]:
        assert all(value > 0 for value in row.values())
        assert 1e3 / row["text_tokens_per_s"] <= row["longest_token_ms"]
    # three pictures and the words before the instruction
    assert 100 < reuse["shared_tokens"] < first["prefix_tokens"]
    assert reuse["reused_prefill_ms"] > 0


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> _core.ModelConfig:
    """The full size's config, without its weights."""
    folder = tmp_path_factory.mktemp("full")
    slots = {"arm": 6, "action_padding": 14}
    write_files(folder, SIZES["wall-oss"], slots, [0.0] * 6, "v1")
    return _core.ModelConfig.load(str(folder))


def test_the_work_of_the_published_model_is_what_the_literature_counts(full: _core.ModelConfig) -> None:
    """Two cameras, 504 patches, a prefix of 246 tokens; counted by hand, rounded as published."""
    scenario = Scenario(np.array([[1, 14, 18]] * 2), 246, 32, 10)
    found = works(full, 153_715, scenario)
    assert found["vision"].operations == pytest.approx(0.65e12, rel=0.01)
    assert found["prefill"].operations == pytest.approx(1.34e12, rel=0.01)
    assert 53e9 <= found["step"].operations <= 59e9
    assert found["steps"].operations == pytest.approx(10 * found["step"].operations)
    assert found["token"].operations == pytest.approx(6.2e9, rel=0.02)
    assert found["vision"].num_bytes("int8") == pytest.approx(0.67e9, rel=0.01)
    assert found["prefill"].num_bytes("fp16") == pytest.approx(5.40e9, rel=0.01)
    assert found["token"].num_bytes("int8") == pytest.approx(3.09e9, rel=0.01)
    parts = (found[stage].operations for stage in ("vision", "prefill", "steps"))
    assert found["chunk"].operations == pytest.approx(sum(parts))


def test_attention_grows_with_the_pairs(full: _core.ModelConfig) -> None:
    def prefill(tokens: int) -> float:
        return works(full, 153_715, Scenario(np.array([[1, 14, 18]]), tokens, 32, 10))["prefill"].operations

    # products are linear, attention is not: 35 whole layers, 4 operations a pair and channel, half the pairs
    extra = prefill(2000) - 2 * prefill(1000)
    assert extra == pytest.approx(4 * 35 * 2048 * (2000 * 2001 / 2 - 1000 * 1001), rel=1e-6)


def test_precisions_have_their_peaks_and_widths() -> None:
    work = Work(narrow=8e9, wide=2e9, narrow_weights=3e9, wide_weights=1e9, cached=1e6)
    peaks = {"int8": 4e9, "bf16": 2e9, "fp32": 1e9}
    assert work.seconds_at("fp32", peaks) == pytest.approx(10)
    assert work.seconds_at("int8", peaks) == pytest.approx(2.5)
    assert work.seconds_at("mixed", peaks) == pytest.approx(8 / 4 + 2 / 2)
    assert work.seconds_at("int8", {"fp32": 1e9}) is None
    assert work.num_bytes("mixed") == pytest.approx(3e9 + 2e9 + 2e6)
    assert work.num_bytes("fp32") == pytest.approx(16e9 + 4e6)
    assert {width.peak for pair in PRECISIONS.values() for width in pair} <= {"int8", "bf16", "fp32"}


def test_a_stage_is_compared_with_the_faster_probe_beside_it() -> None:
    probe = Probe.__new__(Probe)
    probe.taken = [{"read": 1.0}, {"read": 5.0}, {"read": 3.0}]
    assert probe.beside(1) == {"read": 5.0}
    assert probe.beside(2) == {"read": 5.0}
    assert probe.beside(0) == {"read": 1.0}


def test_the_machine_is_known() -> None:
    assert num_cores(1) == 1
    assert last_cache_bytes() >= 0
    with pytest.raises(ConfigError, match="processors that this process may use"):
        Probe(100_000, ("fp32",))


def peak(share: float | None) -> dict[str, dict[str, Any]]:
    return {"int8": {"share": share}, "read": {}}


def test_what_cannot_be_believed_is_said() -> None:
    good = {"token": {"ms": 1.0, "share": 0.9, "bound_by": "read"}, "preprocess": {"ms": 1.0}}
    assert bench._reasons(peak(0.9), good) == []
    assert bench._reasons(peak(None), good) == []
    (reason,) = bench._reasons(peak(0.89), good)
    assert "the int8 peak is 89% of cores x clock x width" in reason
    (reason,) = bench._reasons(peak(1.0), good | {"token": {"ms": 1.0, "share": 1.01, "bound_by": "read"}})
    assert "token reaches 101% of the read peak" in reason


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"precision": "int4"}, "unknown precision 'int4'"),
        ({"cameras": 4}, "--cameras is 4, expected 1 to 3"),
        ({"steps": 0}, "--steps is 0"),
        ({"threads": -1}, "--threads is -1"),
        ({"repeats": 0}, "--repeats is 0"),
    ],
)
def test_bad_wishes_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Asked(**values)


def test_the_first_chunk_is_measured_from_a_cold_cache(tiny_checkpoint: Path) -> None:
    weights = tiny_checkpoint / "model.safetensors"
    weights.read_bytes()
    assert resident_share(weights) > 0.9
    try:
        found = bench_cold(tiny_checkpoint, Asked(steps=2))
    except WallxError as error:
        # a file system in memory has no cold cache
        assert "of its pages stay in memory" in str(error)
        return
    assert found["file_gb"] == pytest.approx(weights.stat().st_size / 1e9)
    assert all(found[key] > 0 for key in ("read_s", "load_s", "first_chunk_s", "warm_chunk_s", "peak_mb"))


def test_a_failed_process_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WallxError, match=r"from a cold cache: .*config\.json"):
        bench_cold(tmp_path, Asked())


def test_a_worker_answers_in_turns(tiny_checkpoint: Path) -> None:
    task = {"checkpoint": str(tiny_checkpoint), **asdict(Asked(steps=2))}
    done = subprocess.run(
        [sys.executable, "-m", "wallx_edge.bench.worker", json.dumps(task)],
        input="peaks\nstages\nnonsense\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    scenario, peaks, stages = (json.loads(line) for line in done.stdout.splitlines())
    assert scenario["steps"] == 2 and scenario["work"]["token"]["bytes"]["int8"] > 0
    assert peaks["fp32"] > 0
    assert set(stages) == set(STAGES)
    assert done.returncode == 1
    assert "'nonsense', expected peaks or stages" in done.stderr


def test_it_is_printed_and_compared(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "engine", "--checkpoint", str(tiny_checkpoint), "--repeats", "1", "--steps", "2"]
    code = main([*words, "--json"])
    found = json.loads(capsys.readouterr().out)
    # a machine that is busy is no failure of this test, but the exit code must say it
    assert code == (1 if found["engine"]["reasons"] else 0)
    before = tmp_path / "before.json"
    before.write_text(json.dumps(found))
    main([*words, "--compare", str(before)])
    out = capsys.readouterr().out
    assert out.count("of the time before") == len(STAGES)
    assert "tokens/s (slowest" in out
    assert "tokens shared, prefill" in out
    assert "times the sum of its stages' bounds" in out


def test_another_file_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "before.json"
    path.write_text("[]")
    assert main(["bench", "engine", "--compare", str(path)]) == 1
    assert "not a result of bench engine --json" in capsys.readouterr().err
    assert main(["bench", "engine", "--size", "tiny", "--checkpoint", str(tmp_path)]) == 1
    assert "exclude each other" in capsys.readouterr().err
