"""Verify on variations of the golden cases: other forms of the same weights pass, any other network is caught."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from casefiles import change_json, linked_copy, replace, write_tensors
from golden import CASES, read_safetensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.verify import GROUPS, verify

Tensors = dict[str, NDArray[Any]]
CASE = {case.name.split("_")[0]: case for case in CASES}
MIXTURES = [CASE["case2"], CASE["case3"], CASE["case4"]]
EVERY_MIXTURE = pytest.mark.parametrize("golden", MIXTURES, ids=lambda c: c.name)


def config_of(golden: Path) -> dict[str, Any]:
    config = json.loads((golden / "config.json").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def failing_groups(case: Path) -> set[str]:
    return {c.group for c in verify(case).comparisons if not c.is_ok}


# --- the same network in another form


def unfused(weights: Tensors, config: dict[str, Any]) -> Tensors:
    """Every fused matrix cut into the reference's older names."""
    head = config["hidden_size"] // config["num_attention_heads"]
    rows = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    out: Tensors = {}
    for name, value in weights.items():
        if ".qkv_proj_experts." in name:
            for part, piece in zip("qkv", np.split(value, [rows[0], rows[0] + rows[1]]), strict=True):
                out[name.replace("qkv_proj_experts", f"{part}_proj_experts")] = piece
        elif ".gate_up_proj." in name:
            for part, piece in zip(("gate", "up"), np.split(value, 2), strict=True):
                out[name.replace("gate_up_proj", f"{part}_proj")] = piece
        else:
            out[name] = value
    return out


def vision_padded(weights: Tensors, config: dict[str, Any], to: int | None) -> Tensors:
    """The vision tower's feed-forward with zero rows behind each half up to a multiple of ``to``, or without them."""
    inner = config["vision_config"]["intermediate_size"]
    wanted = inner if to is None else -(-inner // to) * to
    out: Tensors = {}
    for name, value in weights.items():
        if name.startswith("visual.blocks.") and ".mlp.gate_up_proj." in name:
            halves = [half[:inner] for half in np.split(value, 2)]
            fill = [(0, wanted - inner), *[(0, 0)] * (value.ndim - 1)]
            out[name] = np.concatenate([np.pad(half, fill) for half in halves])
        elif name.startswith("visual.blocks.") and name.endswith(".mlp.down_proj.weight"):
            out[name] = np.pad(value[:, :inner], [(0, 0), (0, wanted - inner)])
        else:
            out[name] = value
    return out


EMBEDDING = "model.embed_tokens.weight"
FORMS: dict[str, Callable[[Tensors, dict[str, Any]], Tensors]] = {
    "unfused": unfused,
    "vision padded": lambda w, c: vision_padded(w, c, 128),
    "vision not padded": lambda w, c: vision_padded(w, c, None),
    "a larger embedding": lambda w, c: w | {EMBEDDING: np.pad(w[EMBEDDING], ((0, 9), (0, 0)))},
}


@EVERY_MIXTURE
@pytest.mark.parametrize("form", FORMS)
def test_another_form_of_the_weights_passes(golden: Path, form: str, tmp_path: Path) -> None:
    case = linked_copy(golden, tmp_path / "case")
    weights = read_safetensors(golden / "model.safetensors")
    write_tensors(case / "model.safetensors", FORMS[form](weights, config_of(golden)))
    # more rows in the embedding are more scores
    groups = [g for g in GROUPS if g != "fast" and (g != "text" or form != "a larger embedding")]
    assert [c.name for c in verify(case, groups).comparisons if not c.is_ok] == []


@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
def test_many_shards_pass(golden: Path, tmp_path: Path) -> None:
    case = linked_copy(golden, tmp_path / "case")
    weights = read_safetensors(golden / "model.safetensors")
    (case / "model.safetensors").unlink()
    names = list(weights)
    index = {}
    for i in range(3):
        shard = f"model-{i + 1:05d}-of-00003.safetensors"
        write_tensors(case / shard, {name: weights[name] for name in names[i::3]})
        index |= dict.fromkeys(names[i::3], shard)
    content = {"metadata": {"total_size": sum(v.nbytes for v in weights.values())}, "weight_map": index}
    replace(case / "model.safetensors.index.json", json.dumps(content))
    assert [c.name for c in verify(case).comparisons if not c.is_ok] == []


@EVERY_MIXTURE
def test_what_config_yml_says_counts_like_config_json(golden: Path, tmp_path: Path) -> None:
    """wall-oss-0.5 is published so: the slots and the form of the state are in the other file."""
    case = linked_copy(golden, tmp_path / "case")
    config = config_of(golden)
    moved = ("dof_config", "agent_pos_config", "use_state_string_representation")
    task = {key: config[key] for key in moved}
    # the reference moves the padding to the end
    task["dof_config"] = dict(sorted(task["dof_config"].items(), key=lambda item: item[0] != "action_padding"))
    replace(case / "config.yml", yaml.safe_dump({"task": task, "data": {"num_workers": 4}}, sort_keys=False))
    change_json(case / "config.json", lambda c: [c.pop(key) for key in moved])
    assert failing_groups(case) == set()
    (case / "config.yml").unlink()
    with pytest.raises(CheckpointError, match="dof_config"):
        verify(case)


@pytest.mark.parametrize("place", ["norm_stats.json", "normalizer_action.pth", "the weights"])
@EVERY_MIXTURE
def test_each_place_of_the_statistics_passes(golden: Path, place: str, tmp_path: Path) -> None:
    case = linked_copy(golden, tmp_path / "case")
    weights = read_safetensors(golden / "model.safetensors")
    if place != "norm_stats.json":
        (case / "norm_stats.json").unlink()
    if place != "normalizer_action.pth":
        for kind in ("action", "propri"):
            (case / f"normalizer_{kind}.pth").unlink()
    if place != "the weights":
        write_tensors(case / "model.safetensors", {k: v for k, v in weights.items() if ".normalizer_" not in k})
    assert failing_groups(case) == set()


# --- another network, another request


def set_config(**values: Any) -> Callable[[Path], None]:
    return lambda case: change_json(case / "config.json", lambda c: c.update(values))


def set_manifest(**values: Any) -> Callable[[Path], None]:
    return lambda case: change_json(case / "manifest.json", lambda m: m.update(values))


def change_inputs(name: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Path], None]:
    def apply(case: Path) -> None:
        inputs = read_safetensors(case / "inputs.safetensors")
        write_tensors(case / "inputs.safetensors", inputs | {name: change(inputs[name].copy())})

    return apply


def change_weights(change: Callable[[Tensors], Tensors]) -> Callable[[Path], None]:
    def apply(case: Path) -> None:
        weights = read_safetensors(case / "model.safetensors")
        write_tensors(case / "model.safetensors", weights | change(weights))

    return apply


def scaled(name: str) -> Callable[[Path], None]:
    return change_weights(lambda w: {name: w[name] * np.float32(1.05)})


def last_in_use(mask: NDArray[Any]) -> NDArray[Any]:
    mask[..., int(np.flatnonzero(mask.reshape(-1, mask.shape[-1])[0])[-1])] = 0
    return mask


def scale_norm_stats(case: Path) -> None:
    def widen(content: dict[str, Any]) -> None:
        q99 = content["norm_stats"]["action"]["q99"]
        q99[0] += 0.1

    change_json(case / "norm_stats.json", widen)


@pytest.mark.parametrize(
    ("name", "change", "caught"),
    [
        ("case2", set_config(causal_action_attention_mask=False), "flow"),
        ("case3", set_config(causal_action_attention_mask=True), "flow"),
        ("case4", set_config(causal_action_attention_mask=False), "layers"),
        ("case2", set_config(noise_scheduler={"s": 1.0}), "flow"),
        ("case3", set_config(noise_scheduler={"s": 0.99}), "flow"),
        ("case4", set_config(noise_scheduler={"s": 0.999, "time_shift": 1.1}), "flow"),
        ("case2", set_config(rms_norm_eps=1e-3), "layers"),
        ("case4", set_config(rope_theta=10000.0), "layers"),
        ("case1", set_config(rope_theta=10000.0), "layers"),
        ("case3", set_config(rope_scaling={"type": "mrope", "mrope_section": [4, 2, 2]}), "layers"),
        ("case4", set_config(use_state_string_representation=True), "tokens"),
        ("case2", set_manifest(state_bins=512), "tokens"),
        ("case2", set_manifest(state_bins=255), "normalizer"),
        ("case3", set_manifest(instruction="fold the towels"), "tokens"),
        ("case2", set_manifest(camera_order=["right_wrist_view", "face_view"]), "tokens"),
        ("case4", set_manifest(num_inference_timesteps=9), "flow"),
        ("case2", change_inputs("dof_mask", last_in_use), "flow"),
        ("case3", change_inputs("dof_mask", np.ones_like), "flow"),
        ("case1", change_inputs("noise", lambda n: n * np.float32(1.001)), "flow"),
        ("case2", change_inputs("agent_pos_mask", last_in_use), "tokens"),
        ("case4", change_inputs("agent_pos_mask", last_in_use), "layers"),
        ("case3", change_inputs("noise", lambda n: n * np.float32(1.001)), "flow"),
        ("case2", change_inputs("state", lambda x: x + np.float32(0.1)), "normalizer"),
        ("case4", change_inputs("image.left_wrist_view", lambda x: x[:, ::-1]), "preprocess"),
        ("case2", change_inputs("geom.state_rpy_f64", lambda x: x + 1e-6), "geometry"),
        ("case3", change_inputs("geom.euler_f64", lambda x: x[:, ::-1]), "geometry"),
        ("case2", scale_norm_stats, "normalizer"),
        ("case2", scaled("model.layers.1.self_attn.qkv_proj_experts.1.bias"), "layers"),
        ("case2", scaled("model.layers.2.moe.experts.1.down_proj.weight"), "flow"),
        ("case3", scaled("action_preprocessor.time_mlp_out.weight"), "layers"),
        ("case3", scaled("model.norms.1.dense.weight"), "flow"),
        ("case4", scaled("action_preprocessor.propri_proj.weight"), "layers"),
        ("case4", scaled("model.norms.0.weight"), "text"),
        ("case1", scaled("visual.merger.mlp.2.bias"), "vision"),
        (
            "case2",
            change_weights(lambda w: {"model.norms.1.weight": w["model.layers.0.input_layernorms.1.weight"] + 0.1}),
            "flow",
        ),
    ],
)
def test_a_change_is_caught(name: str, change: Callable[[Path], None], caught: str, tmp_path: Path) -> None:
    golden = CASE[name]
    case = linked_copy(golden, tmp_path / "case")
    change(case)
    groups = failing_groups(case)
    assert caught in groups
    assert groups != set(GROUPS)  # not everything: the report says where to look


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("case2", set_config(use_state_string_representation=False)),
        ("case3", set_config(use_adarms=False)),
        ("case4", set_config(use_adarms=True)),
        ("case2", set_config(attention_moe=False, norm_moe=False)),
        ("case4", set_config(dim_inputs=[128, 128])),
        ("case2", set_config(dof_config={"arm": 25})),
        ("case3", set_config(state_hidden_size=90)),
        ("case2", set_config(model_type="wall_qwen35")),
    ],
)
def test_flags_that_do_not_fit_the_weights_are_refused(
    name: str, change: Callable[[Path], None], tmp_path: Path
) -> None:
    case = linked_copy(CASE[name], tmp_path / "case")
    change(case)
    with pytest.raises((CheckpointError, ConfigError)):
        verify(case)
