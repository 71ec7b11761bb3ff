"""The mixtures, forks and the text decoder as Python sees them; `verify` compares every tensor, this the interface."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from casefiles import change_json, linked_copy, write_tensors
from golden import CASE1, ROOT, read_safetensors
from wallx_edge import _core
from wallx_edge.errors import CheckpointError, ConfigError

CASES = {
    "v1": CASE1,
    "mot-0.5": ROOT / "tests/golden/case2_mot_v05",
    "mot-adarms": ROOT / "tests/golden/case3_mot_adarms",
    "mot-0.1": ROOT / "tests/golden/case4_mot_v01",
}
MIXTURES = [name for name in CASES if name != "v1"]


class Case:
    """One golden folder, its engine, and its flow prompt."""

    def __init__(self, folder: Path) -> None:
        self.engine = _core.Engine.load(str(folder))
        self.config = self.engine.config
        self.inputs = read_safetensors(folder / "inputs.safetensors")
        self.expected = read_safetensors(folder / "expected.safetensors")
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.ids = self.expected["tok.flow.input_ids"][0][: -int(self.manifest["horizon"])]

    @property
    def prompt(self) -> list[Any]:
        state: list[Any] = []
        if not self.config.is_state_text:
            values, mask = self.expected["proprio.normalized"], self.inputs["agent_pos_mask"]
            state = [self.manifest["special_ids"]["<|propri|>"], values.reshape(-1), mask.reshape(-1)]
        return [self.ids, self.expected["pre.pixel_values"], self.expected["pre.image_grid_thw"], *state]

    def denoise(self, context: _core.Context, **options: Any) -> tuple[NDArray[np.float32], _core.Trace]:
        if "flow.padding_action" in self.expected:
            options.setdefault("padding_action", self.expected["flow.padding_action"][0])
        return context.denoise(self.inputs["noise"][0], self.inputs["dof_mask"][0], trace=True, **options)


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: Case(folder) for name, folder in CASES.items()}


def error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(np.float64) - expected).max() / np.abs(expected).max())


def test_one_table_names_every_variant() -> None:
    rows = {v.name: v for v in _core.variants()}
    assert list(rows) == ["v1", "mot-0.1", "mot-0.5", "mot-adarms"]
    assert rows["mot-0.5"].checkpoints == "wall-oss-0.5"
    assert rows["mot-adarms"].checkpoints == ""
    for name, folder in CASES.items():
        config = _core.ModelConfig.load(str(folder))
        row = rows[config.architecture]
        assert config.architecture == name
        assert config.has_expert_attention == row.has_expert_attention
        assert config.has_adaptive_norms == row.has_adaptive_norms
        assert config.is_state_text == row.is_state_text
        assert config.does_pad_masked_dims == row.does_pad_masked_dims
        assert (config.time_scale != 1) == row.is_time_scaled


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_agree_with_the_reference(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    expected, width = case.expected, case.config.expert_widths[1]
    context = _core.Context(case.engine)
    assert context.prefill(*case.prompt) == 0
    _, steps = case.denoise(context)
    assert np.array_equal(steps["times"], expected["flow.times"])
    for key in ("x", "v", "v_raw"):
        assert error(steps[key], expected[f"flow.{key}"]) < 1e-5
    assert error(steps["step1.norm"], expected["flow.step1.final"][0, :, :width]) < 1e-5
    # action tokens are as narrow as their expert
    assert steps["layers.0"].shape[1] == width < case.config.hidden_size
    assert ("condition" in steps) == case.config.has_adaptive_norms
    if case.config.has_adaptive_norms:
        assert error(steps["condition"], expected["flow.adarms_cond"]) < 1e-5


@pytest.mark.parametrize("name", list(CASES))
def test_text_agrees_with_the_reference(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    ids = case.expected["text.prompt_ids"][0]
    grids = case.expected["pre.image_grid_thw"][: case.manifest["text_prompt"].count("<|image_pad|>")]
    context = _core.Context(case.engine)
    context.prefill(ids, case.expected["pre.pixel_values"][: int(grids.prod(axis=1).sum())], grids)
    expected = case.expected["text.generated_ids"][0]
    decoder = _core.TextDecoder(context, max_new_tokens=int(case.manifest["max_new_tokens"]), stop_ids=[514])
    found = []
    while (token := decoder.next()) is not None:
        found.append(token)
    close = np.flatnonzero(case.expected["text.top2_margin"] <= 1e-2)
    end = int(close[0]) if close.size else len(expected)
    assert end > 10
    assert found[:end] == list(expected[:end])
    assert decoder.end == ("stop" if expected[-1] == 514 else "budget")
    assert context.length == len(ids) + len(found) - 1


def test_masked_dims_need_to_know_where_they_go(cases: dict[str, Case]) -> None:
    case = cases["mot-0.5"]
    context = _core.Context(case.engine)
    context.prefill(*case.prompt)
    with pytest.raises(ConfigError, match="give it, the normalised zero of each dim"):
        case.denoise(context, padding_action=None)
    with pytest.raises(ConfigError, match="padding_action has 3 values, expected 26"):
        case.denoise(context, padding_action=[0, 0, 0])
    with pytest.raises(ConfigError, match="padding_action has 0 values"):
        case.denoise(context, padding_action=[])
    with pytest.raises(ConfigError, match=r"padding_action\[0\] is nan"):
        case.denoise(context, padding_action=np.full(26, np.nan))
    _, steps = case.denoise(context, time_scale=1)
    assert steps["times"][-1] == 1
    assert len(steps["times"]) == len(steps["t"]) + 1
    for scale in (0, -1, 1.5, np.nan):
        with pytest.raises(ConfigError, match="time_scale is"):
            case.denoise(context, time_scale=scale)
    with pytest.raises(ConfigError, match="time_shift is"):
        case.denoise(context, time_shift=0)


def test_the_checkpoint_says_how_action_tokens_see_each_other(cases: dict[str, Case]) -> None:
    for name, own in (("mot-0.5", "causal"), ("mot-adarms", "bidirectional"), ("v1", "bidirectional")):
        case = cases[name]
        context = _core.Context(case.engine)
        context.prefill(*case.prompt)
        results = {a: case.denoise(context, attention=a)[0] for a in ("checkpoint", "causal", "bidirectional")}
        assert np.array_equal(results["checkpoint"], results[own])
        assert not np.array_equal(results["causal"], results["bidirectional"])


def test_a_state_for_a_checkpoint_that_reads_it_as_text_is_refused(cases: dict[str, Case]) -> None:
    case = cases["mot-0.5"]
    context = _core.Context(case.engine)
    with pytest.raises(ConfigError, match="has no state token: the state is text in the prompt"):
        context.prefill([1, 534], [], [], 534, np.zeros(26), np.ones(26))


def test_slots_may_come_from_the_caller(tmp_path: Path) -> None:
    folder = linked_copy(CASES["mot-0.5"], tmp_path / "checkpoint")

    def strip(config: dict[str, Any]) -> None:
        del config["dof_config"], config["agent_pos_config"]

    change_json(folder / "config.json", strip)
    assert _core.ModelConfig.load(str(folder)).dof == []
    with pytest.raises(CheckpointError, match=r"dof_config: missing; mot-0\.5 checkpoints may have it in config\.yml"):
        _core.Engine.load(str(folder))
    with pytest.raises(CheckpointError, match=r"w1\.weight: expected shape \[64, 50\], found \[64, 52\]"):
        _core.Engine.load(str(folder), [("arm", 25)])
    engine = _core.Engine.load(str(folder), [("arm", 20), ("rest", 6)], [("arm", 26)])
    assert engine.config.dof == [("arm", 20), ("rest", 6)]
    assert (engine.config.action_dim, engine.config.state_dim) == (26, 26)


@pytest.mark.parametrize("name", MIXTURES)
def test_unfused_files_are_the_same_network(name: str, cases: dict[str, Case], tmp_path: Path) -> None:
    source = CASES[name]
    case = cases[name]
    tensors: dict[str, NDArray[Any]] = {}
    q, kv = (n * case.config.head_dim for n in (case.config.num_heads, case.config.num_kv_heads))
    for key, value in read_safetensors(source / "model.safetensors").items():
        if "gate_up_proj" in key:
            gate, up = np.split(value, 2)
            tensors |= {key.replace("gate_up_proj", "gate_proj"): gate, key.replace("gate_up_proj", "up_proj"): up}
        elif "qkv_proj_experts" in key:
            for part, rows in zip("qkv", np.split(value, [q, q + kv]), strict=True):
                tensors[key.replace("qkv_proj", f"{part}_proj")] = rows
        else:
            tensors[key] = value
    folder = linked_copy(source, tmp_path / "checkpoint")
    write_tensors(folder / "model.safetensors", tensors)
    results = []
    for engine in (case.engine, _core.Engine.load(str(folder))):
        context = _core.Context(engine)
        context.prefill(*case.prompt)
        results.append(case.denoise(context)[0])
    assert np.array_equal(results[0], results[1])


def test_a_prompt_is_kept_as_far_as_it_is_equal(cases: dict[str, Case]) -> None:
    case = cases["mot-0.1"]
    context, fresh = (_core.Context(case.engine) for _ in range(2))
    prompt = case.prompt
    assert context.prefill(*prompt) == 0
    assert context.prefill(*prompt) == len(case.ids) - 1
    other = [np.append(case.ids[:-3], [7, 8]), *prompt[1:]]
    assert context.prefill(*other) == len(case.ids) - 3
    assert fresh.prefill(*other, reuse=False) == 0
    assert np.array_equal(context.logits(), fresh.logits())
    assert np.array_equal(case.denoise(context)[0], case.denoise(fresh)[0])


def test_a_fork_shares_and_goes_on_by_itself(cases: dict[str, Case]) -> None:
    case = cases["mot-0.1"]
    context = _core.Context(case.engine)
    context.prefill(*case.prompt)
    before = context.logits()
    fork = context.fork()
    assert (fork.length, fork.cache_bytes) == (context.length, context.cache_bytes)
    fork.decode(5)
    assert (fork.length, context.length) == (len(case.ids) + 1, len(case.ids))
    assert np.array_equal(context.logits(), before)
    del context
    assert fork.prefill(*case.prompt) == len(case.ids) - 1
    assert np.array_equal(fork.logits(), before)


def test_text_options_reach_the_decoder(cases: dict[str, Case]) -> None:
    context = _core.Context(cases["mot-0.1"].engine, 64)
    context.prefill([1, 2, 3])

    def text(**options: Any) -> list[int]:
        fork = context.fork()
        decoder = _core.TextDecoder(fork, **options)
        del fork  # the decoder keeps it
        out = []
        while (token := decoder.next()) is not None:
            out.append(token)
        return out

    greedy = text(max_new_tokens=20)
    assert greedy == text(max_new_tokens=20, temperature=0, top_p=0.5, seed=3)
    drawn = text(max_new_tokens=20, temperature=1.5, seed=3)
    assert drawn == text(max_new_tokens=20, temperature=1.5, seed=3)
    assert drawn != text(max_new_tokens=20, temperature=1.5, seed=4)
    assert all(600 <= t < 700 for t in text(max_new_tokens=10, allowed_ids=(600, 700)))
    assert text(max_new_tokens=20, stop_ids=[greedy[4]])[-1] == greedy[4]
    for options, message in (
        ({"max_new_tokens": 63}, "does not fit max_tokens 64"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -1}, "temperature is"),
        ({"top_p": 0}, "top_p is"),
        ({"stop_ids": [856]}, "stop id 856"),
        ({"allowed_ids": (0, 857)}, r"no range of the vocabulary \[0, 856\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            _core.TextDecoder(context, **{"max_new_tokens": 5, **options})  # type: ignore[arg-type]


def test_a_text_ends_where_its_context_changes(cases: dict[str, Case]) -> None:
    context = _core.Context(cases["mot-0.1"].engine, 64)
    with pytest.raises(ConfigError, match="text: the context is empty"):
        _core.TextDecoder(context, max_new_tokens=3)
    context.prefill([1, 2, 3])
    decoder = _core.TextDecoder(context, max_new_tokens=3)
    assert decoder.end == "none"
    assert decoder.next() is not None
    context.decode(1)
    with pytest.raises(ConfigError, match="the context has changed since this text began"):
        decoder.next()
