"""Verify at reduced precision: passes on the golden cases, by tolerances near what is measured; finds wrong scales."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from casefiles import linked_copy, write_tensors
from golden import CASE1, CASES, read_safetensors
from wallx_edge import _core
from wallx_edge.cli import main
from wallx_edge.computing import Computing
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import quantize
from wallx_edge.verify import Report, verify
from wallx_edge.verify_reduced import REDUCED, residuals

PRECISIONS = ("bf16", "mixed", "w8", "int8")
EVERY = pytest.mark.parametrize("precision", PRECISIONS)


@cache
def report(golden: Path, precision: str, kernels: str) -> Report:
    return verify(golden, computing=Computing(precision, kernels=kernels))


@pytest.mark.parametrize("kernels", _core.kernels())
@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
@EVERY
def test_passes_with_every_set_of_kernels(precision: str, golden: Path, kernels: str) -> None:
    found = report(golden, precision, kernels)
    assert [c for c in found.comparisons if not c.is_ok] == []
    expected = read_safetensors(golden / "expected.safetensors")
    assert set(expected) <= {c.name for c in found.comparisons}
    assert found.computing["given"]["kernels"] == f"cpu {kernels}"


@pytest.mark.skipif(
    "avx512" not in _core.kernels(), reason="the table was measured with AVX-512 and what stands below it"
)
@EVERY
def test_tolerances_are_at_most_three_times_what_is_measured(precision: str) -> None:
    rows = REDUCED[precision]
    largest: dict[tuple[str, bool], float] = defaultdict(float)
    tolerance: dict[tuple[str, bool], float] = {}
    for golden in CASES:
        for kernels in _core.kernels():
            for c in report(golden, precision, kernels).comparisons:
                is_gain = c.name.endswith("(gain)") or c.name.startswith("share.")
                row = max((prefix for prefix in rows if like(c.name).startswith(prefix)), key=len, default=None)
                if row is None or c.name.endswith("generated_ids"):
                    continue
                largest[row, is_gain] = max(largest[row, is_gain], c.error)
                tolerance[row, is_gain] = c.tolerance
    assert len(tolerance) > 40
    assert [key for key, bound in tolerance.items() if bound > 3 * largest[key]] == []


def like(name: str) -> str:
    for mine, row in (
        ("fastgen.", "text."),
        ("vis.merger", "vis.out"),
        ("flow_legacy9.", "flow."),
        ("flow_nocache.", "flow."),
    ):
        name = name.replace(mine, row)
    return name if "step0_v_diff" in name else name.replace("flow_causal.", "flow.")


def test_fp16_is_computed_as_bf16_here_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(CASE1), "--precision", "fp16", "--groups", "vision", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["computing"]["asked"]["precision"] == "fp16"
    assert "bf16" in found["computing"]["given"]["arithmetic"]
    assert "in place of fp16" in found["computing"]["given"]["arithmetic"]


def test_reduced_precision_does_not_pass_as_fp32(capsys: pytest.CaptureFixture[str]) -> None:
    """The fp32 table would refuse int8: the tables are not one."""
    exact = verify(CASE1, ["vision"])
    coarse = report(CASE1, "int8", _core.kernels()[0])
    bounds = {c.name: c.tolerance for c in exact.comparisons}
    expected = read_safetensors(CASE1 / "expected.safetensors")
    errors = {c.name: c.error * np.abs(expected[c.name]).max() for c in coarse.comparisons if c.name in bounds}
    assert errors["vis.block2"] > bounds["vis.block2"]


# early and late, vision and language, both experts, the scores
SCALES = {
    "case1_flow_v1": (
        "visual.blocks.0.attn.qkv",
        "visual.blocks.0.attn.proj",
        "visual.blocks.0.mlp.gate_up_proj",
        "visual.blocks.2.mlp.down_proj",
        "visual.merger.mlp.0",
        "visual.merger.mlp.2",
        "model.layers.0.self_attn.qkv_proj",
        "model.layers.0.moe.experts.1.down_proj",
        "model.layers.1.moe.experts.0.gate_up_proj",
        "model.layers.2.self_attn.o_proj",
        "model.layers.2.moe.experts.0.down_proj",
        "model.layers.2.moe.experts.1.down_proj",
        "lm_head",
    ),
    "case2_mot_v05": (
        "visual.blocks.0.attn.qkv",
        "model.layers.0.self_attn.qkv_proj_experts.1",
        "model.layers.2.self_attn.qkv_proj_experts.0",
        "model.layers.2.self_attn.o_proj_experts.1",
        "model.layers.2.moe.experts.1.gate_up_proj",
    ),
}


@pytest.mark.parametrize(
    ("golden", "layer"),
    [pytest.param(c, name, id=f"{c.name}-{name}") for c in CASES for name in SCALES.get(c.name, ())],
)
def test_scales_that_are_five_percent_off_fail(
    golden: Path, layer: str, packed: dict[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = linked_copy(packed[golden], tmp_path / "case")
    path = case / "model.safetensors"
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[:8], "little")
    begin, end = (8 + size + at for at in json.loads(data[8 : 8 + size])[f"{layer}.scale"]["data_offsets"])
    data[begin:end] = (np.frombuffer(data[begin:end], "<f4") * np.float32(1.05)).tobytes()
    path.unlink()
    path.write_bytes(data)
    assert main(["verify", str(case), "--groups", "vision,layers,text"]) == 1
    assert "[red]" not in (out := capsys.readouterr().out)
    assert "differ" in out


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    folder = tmp_path_factory.mktemp("packed")
    out = {golden: folder / golden.name for golden in CASES if golden.name in SCALES}
    for golden, target in out.items():
        quantize(golden, target, Recipe.load("int8"))
        assert verify(target).is_ok
    return out


@pytest.mark.parametrize("name", ["vis.block1", "flow.v", "text.logits"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_no_number_fails(name: str, bad: float, tmp_path: Path) -> None:
    case = linked_copy(CASE1, tmp_path / "case")
    expected = dict(read_safetensors(CASE1 / "expected.safetensors"))
    expected[name] = expected[name].copy()
    expected[name].flat[0] = bad
    write_tensors(case / "expected.safetensors", expected)
    found = verify(case, computing=Computing("int8"))
    failed = {c.name for c in found.comparisons if not c.is_ok}
    assert name in failed
    json.loads(json.dumps(found.as_json(), allow_nan=False))


def test_other_tokens_at_no_close_call_fail(tmp_path: Path) -> None:
    case = linked_copy(CASE1, tmp_path / "case")
    expected = dict(read_safetensors(CASE1 / "expected.safetensors"))
    tokens = expected["text.generated_ids"].copy()
    worst = int(expected["text.logits"][0].argmin())
    tokens[0, 0] = worst
    write_tensors(case / "expected.safetensors", expected | {"text.generated_ids": tokens})
    failed = {c.name for c in verify(case, ["text"], Computing("int8")).comparisons if not c.is_ok}
    assert "text.generated_ids" in failed


def test_noise_and_gain_are_what_they_say() -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((50, 40))
    noise, gain = residuals(1.05 * x, x)
    assert noise == pytest.approx(0.05)
    assert gain == pytest.approx(0.05)
    noise, gain = residuals(x + 0.1 * random.standard_normal(x.shape), x)
    assert noise == pytest.approx(0.1, rel=0.1)
    assert gain < 0.01
    assert residuals(x, np.zeros_like(x)) == (np.inf, np.inf)
    assert residuals(np.zeros_like(x), np.zeros_like(x)) == (0.0, 0.0)
