"""Policy on every published variant: its chunks are the reference's actions, in SI and absolute."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from casefiles import change_json, linked_copy
from casefiles import replace as replace_file
from golden import CASES, read_safetensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.geometry import compose_position, compose_rotation, matrix_from_rot6d, rot6d_from_matrix
from wallx_edge.policy import Follow, Policy, PolicyConfig
from wallx_edge.types import Observation

CASE = {case.name.split("_")[0]: case for case in CASES}
EVERY_CASE = pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
ABSENT = ("head_actions", "height", "car_pose")  # what case 1's masks leave out


@cache
def said(golden: Path) -> dict[str, Any]:
    content = json.loads((golden / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@cache
def tensors(golden: Path, name: str) -> dict[str, NDArray[Any]]:
    return read_safetensors(golden / f"{name}.safetensors")


def wishes(golden: Path, **changes: Any) -> PolicyConfig:
    manifest = said(golden)
    is_case3 = "Action Space" in manifest["flow_prompt"]
    config = PolicyConfig(
        cameras=tuple(manifest["camera_order"]),
        resolution=manifest["resolution"],
        horizon=manifest["horizon"],
        statistics=manifest["robot"],
        state_bins=manifest.get("state_bins"),
        masked=ABSENT if golden == CASE["case1"] else (),
        camera_labels={} if is_case3 else None,
        has_embodied_prologue=is_case3,
    )
    return replace(config, **changes)


def look(golden: Path) -> Observation:
    inputs = tensors(golden, "inputs")
    images = {role: inputs[f"image.{role}"] for role in said(golden)["camera_order"]}
    state = inputs["state"].reshape(-1).astype(np.float64)[in_use(golden, "agent_pos_mask")]
    return Observation(images, state, said(golden)["instruction"], 1.5)


def in_use(golden: Path, mask: str) -> NDArray[np.bool_]:
    values = tensors(golden, "inputs")[mask]
    return np.asarray(values.reshape(-1, values.shape[-1])[0] != 0)


def absolute(golden: Path, rows: NDArray[Any]) -> NDArray[np.float64]:
    """The case's actions with relative slots made absolute by hand."""
    out = rows.astype(np.float64)[:, in_use(golden, "dof_mask")]
    if golden != CASE["case3"]:
        return out
    state = look(golden).state
    for start in (0, 10):
        position, turn = slice(start, start + 3), slice(start + 3, start + 9)
        out[:, position] = compose_position(rows[:, position], state[position])
        relative = matrix_from_rot6d(rows[:, turn].astype(np.float64))
        out[:, turn] = rot6d_from_matrix(compose_rotation(relative, matrix_from_rot6d(state[turn])))
    return out


@EVERY_CASE
def test_a_chunk_is_the_reference_s_action(golden: Path) -> None:
    policy = Policy.load(golden, wishes(golden))
    chunk = policy.act(look(golden), tensors(golden, "inputs")["noise"][0])
    expected = absolute(golden, tensors(golden, "expected")["flow.action"][0])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(chunk.rows, expected, rtol=0, atol=5e-5 * scale)
    assert chunk.observed_at == 1.5
    assert chunk.layout == policy.action_layout
    assert "action_padding" not in chunk.layout.names
    assert not any(name.endswith("_relative") for name in chunk.layout.names)
    assert policy.config.horizon == chunk.horizon == said(golden)["horizon"]


@EVERY_CASE
def test_the_checkpoint_itself_says_most(golden: Path) -> None:
    """Horizon, attention, slots in use and the form of the state need no wish."""
    asked = PolicyConfig(
        cameras=tuple(said(golden)["camera_order"]),
        resolution=said(golden)["resolution"],
        statistics=None if golden != CASE["case1"] else "x2_normal",
    )
    policy = Policy.load(golden, asked)
    assert policy.config.horizon == said(golden)["horizon"]
    causal = json.loads((golden / "config.json").read_text(encoding="utf-8")).get("causal_action_attention_mask", False)
    assert policy.config.attention == ("causal" if causal else "bidirectional")
    if golden == CASE["case1"]:  # its robot lacks slots of which the checkpoint knows nothing
        return
    np.testing.assert_array_equal(policy._state_mask, tensors(golden, "inputs")["agent_pos_mask"].reshape(-1))
    assert policy.statistics_source == "norm_stats.json"
    np.testing.assert_array_equal(policy._action_mask, tensors(golden, "inputs")["dof_mask"][0, 0])
    chunk = policy.act(look(golden), tensors(golden, "inputs")["noise"][0])
    if golden in (CASE["case2"], CASE["case4"]):
        expected = absolute(golden, tensors(golden, "expected")["flow.action"][0])
        np.testing.assert_allclose(chunk.rows, expected, rtol=0, atol=5e-5 * np.abs(expected).max())


@EVERY_CASE
def test_each_wish_changes_the_chunk(golden: Path) -> None:
    noise = tensors(golden, "inputs")["noise"][0]
    base = Policy.load(golden, wishes(golden)).act(look(golden), noise).rows
    flipped = "bidirectional" if golden in (CASE["case2"], CASE["case4"]) else "causal"
    changes: list[dict[str, Any]] = [
        {"attention": flipped},
        {"num_steps": 9},
        {"time_scale": 0.9},
        {"resolution": 112},
        {"camera_labels": {"face_view": "eye"}},
        {"has_embodied_prologue": not wishes(golden).has_embodied_prologue},
    ]
    if golden == CASE["case2"]:
        changes += [{"state_bins": 512}, {"is_whole_state_told": True}]
    else:
        changes.append({"rope_layout": "contiguous"})
    for change in changes:
        other = Policy.load(golden, wishes(golden, **change)).act(look(golden), noise).rows
        assert np.abs(other - base).max() > 1e-6, change


def test_masked_slots_are_in_no_chunk_and_the_model_is_told_so() -> None:
    """A joint that is masked can not be moved by mistake: there is no column to move it by."""
    golden = CASE["case4"]
    noise = tensors(golden, "inputs")["noise"][0]
    masked = ("head_actions", "height")
    policy = Policy.load(golden, wishes(golden, masked=masked))
    everything = Policy.load(golden, wishes(golden))
    kept = [c for s in everything.action_layout if s.name not in masked for c in range(20)[s.columns]]
    chunk = policy.act(replace(look(golden), state=look(golden).state[kept]), noise)
    assert set(everything.action_layout.names) - set(policy.action_layout.names) == set(masked)
    assert policy.state_layout.names == policy.action_layout.names
    assert policy.middle_state().shape == (17,)
    assert chunk.rows.shape == (32, 17)
    assert np.abs(chunk.rows - everything.act(look(golden), noise).rows[:, kept]).max() > 1e-5
    with pytest.raises(ConfigError, match="the state has 20 values, the checkpoint expects 17"):
        policy.act(look(golden), noise)
    names = tuple(everything.action_layout.names)
    with pytest.raises(ConfigError, match="every slot is padding or masked"):
        Policy.load(golden, wishes(golden, masked=names))


def test_what_relative_slots_need_cannot_be_masked() -> None:
    golden = CASE["case3"]
    arm = ("follow_left_ee_cartesian_pos", "follow_left_ee_rotation_6D")
    with pytest.raises(
        ConfigError, match=r"policy\.masked: follow_left_ee_cartesian_pos is masked, but .*_relative is"
    ):
        Policy.load(golden, wishes(golden, masked=arm[:1]))
    relative = tuple(f"{name}_relative" for name in arm)
    policy = Policy.load(golden, wishes(golden, masked=(*arm, *relative)))
    state = look(golden).state[9:]
    chunk = policy.act(replace(look(golden), state=state), tensors(golden, "inputs")["noise"][0])
    assert chunk.rows.shape == (16, 11)
    assert policy.action_layout.names[0] == "follow_left_gripper"


def test_relative_rows_follow_the_state() -> None:
    """The state moves, and with it the whole chunk, beside what the model itself makes of the other state."""
    golden = CASE["case3"]
    policy = Policy.load(golden, wishes(golden))
    state = np.pad(look(golden).state, (0, 6))
    rows = np.random.default_rng(2).standard_normal((16, 26))
    moved = state.copy()
    moved[0:3] += [0.1, -0.2, 0.3]
    difference = policy._relative.absolute(rows, moved) - policy._relative.absolute(rows, state)
    np.testing.assert_allclose(difference[:, :3], np.tile([0.1, -0.2, 0.3], (16, 1)), atol=1e-12)
    assert not difference[:, 3:].any()
    assert policy.action_layout.names[0] == "follow_left_ee_cartesian_pos"


@EVERY_CASE
def test_rows_of_the_chunk_before_are_continued_wherever_the_state_is_now(golden: Path) -> None:
    policy = Policy.load(golden, wishes(golden))
    before = policy.act(look(golden)).rows
    state = look(golden).state.copy()
    state[0:3] += [0.05, -0.02, 0.03]  # a position
    drawn = policy.act(replace(look(golden), state=state), follow=Follow(before[5:], 3)).rows
    np.testing.assert_allclose(drawn[:3], before[5:8], rtol=0, atol=2e-5 * max(1.0, np.abs(before).max()))
    free = policy.act(replace(look(golden), state=state)).rows
    assert np.abs(drawn[3:] - free[3:]).max() > 1e-3


def test_a_state_from_which_no_rotation_follows_is_refused() -> None:
    golden = CASE["case3"]
    policy = Policy.load(golden, wishes(golden))
    state = look(golden).state.copy()
    state[3:9] = 0
    with pytest.raises(ConfigError, match="follow_left_ee_rotation_6D_relative, with the state's"):
        policy.act(replace(look(golden), state=state), tensors(golden, "inputs")["noise"][0])


@pytest.mark.parametrize(
    ("text", "space"),
    [
        ("data: {use_relative_action: true}", "Rel EEF"),
        ("data: {use_relative_action: false}", "Abs EEF"),
        ("data: {num_workers: 1}", "Abs EEF"),  # as the reference: a flag that is not there is false
        (None, "Rel EEF"),
    ],
)
def test_what_the_prologue_says_of_the_action_space(text: str | None, space: str, tmp_path: Path) -> None:
    folder = linked_copy(CASE["case3"], tmp_path / "case")
    if text is not None:
        replace_file(folder / "config.yml", text)
    assert Policy.load(folder, wishes(CASE["case3"])).config.style.action_space == space


def test_the_published_form_of_the_newest_checkpoint(tmp_path: Path) -> None:
    """Slots, form and bins of the state, cameras and resolutions from config.yml; none of it in config.json."""
    golden = CASE["case2"]
    folder = linked_copy(golden, tmp_path / "case")
    config = json.loads((golden / "config.json").read_text(encoding="utf-8"))
    moved = ("dof_config", "agent_pos_config", "use_state_string_representation", "action_horizon_flow")
    train = {
        "task": {key: config[key] for key in moved},
        "data": {
            "state_bins": 256,
            "resolution": {**said(golden)["resolution"], "left_wrist_view": 448},
            "key_mappings": {"camera": {f"observation.images.{c}": c for c in said(golden)["camera_order"]}},
            "camera_name_mapping": {"face_view": "front view", "right_wrist_view": "right wrist view"},
        },
        "hyperparams": {"seed": 1},
    }
    replace_file(folder / "config.yml", yaml.safe_dump(train, sort_keys=False))
    change_json(folder / "config.json", lambda c: [c.pop(key) for key in moved])
    policy = Policy.load(folder)
    chunk = policy.act(look(golden), tensors(golden, "inputs")["noise"][0])
    expected = absolute(golden, tensors(golden, "expected")["flow.action"][0])
    np.testing.assert_allclose(chunk.rows, expected, rtol=0, atol=5e-5 * np.abs(expected).max())
    assert policy.config.cameras == ("face_view", "right_wrist_view")
    # without it there is nothing to go by
    (folder / "config.yml").unlink()
    with pytest.raises(CheckpointError, match="dof_config"):
        Policy.load(folder)


def test_a_state_layout_is_needed_even_where_the_engine_needs_none(tmp_path: Path) -> None:
    golden = CASE["case2"]
    folder = linked_copy(golden, tmp_path / "case")
    change_json(folder / "config.json", lambda c: c.pop("agent_pos_config"))
    with pytest.raises(CheckpointError, match=r"neither config\.yml nor config\.json has agent_pos_config"):
        Policy.load(folder)


def test_two_policies_of_one_seed_agree_on_every_variant() -> None:
    for golden in CASES:
        first, second = (Policy.load(golden, wishes(golden, seed=4)) for _ in range(2))
        assert first.act(look(golden)).rows.tobytes() == second.act(look(golden)).rows.tobytes()
