"""A checkpoint's config.yml: what is read of it, from where, and what is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from golden import CASE1
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.policy_config import PolicyConfig, PolicySettings
from wallx_edge.train_config import TrainConfig, load_engine

# the sections that the reference's 0.5 training writes, with the values of its LIBERO example
TYPED = """\
model_type: qwen2_5
task:
  dof_config: {action_padding: 19, master_right_ee_cartesian_pos: 3, master_right_ee_rotation: 3,
               master_right_gripper: 1}
  agent_pos_config: {follow_right_ee_cartesian_pos: 3, follow_right_ee_rotation: 3, follow_right_gripper: 2,
                     action_padding: 18}
  action_horizon: 32
  action_horizon_flow: 10
  use_state_string_representation: true
  noise_scheduler: {beta_alpha: 1.5, s: 0.999}
hyperparams: {seed: 10222}
data:
  state_bins: 512
  max_length: 1024
  min_pixels: 3136
  max_pixels: 12845056
  image_factor: 28
  key_mappings:
    camera: {observation.images.faceImg: face_view, observation.images.rightImg: right_wrist_view}
    state: observation.state
  camera_name_mapping: {face_view: front view}
  resolution: {face_view: 256, right_wrist_view: 448}
  use_embodied_system_prompt_ratio: 0.3
  use_relative_action: false
  predict_action_keys: [master_right_ee_cartesian_pos, master_right_ee_rotation, master_right_gripper]
  num_workers: 4
"""
# as the first releases write it
FLAT = """\
model_type: qwen2_5
use_fast_tokenizer: False
dof_config:
  follow_left_ee_cartesian_pos: 3
  follow_left_gripper: 1
agent_pos_config:
  follow_left_ee_cartesian_pos: 3
  follow_left_gripper: 1
data:
  lerobot_config: {tolerance_s: 1e-4}
  action_horizon: 32
  resolution: {face_view: 256, top_view: -1}
"""


def load(folder: Path, text: str, name: str = "config.yml") -> TrainConfig:
    (folder / name).write_text(text, encoding="utf-8")
    return TrainConfig.load(folder)


def test_the_newer_layout(tmp_path: Path) -> None:
    config = load(tmp_path, TYPED)
    assert config.path == tmp_path / "config.yml"
    assert config.dof == {
        "master_right_ee_cartesian_pos": 3,
        "master_right_ee_rotation": 3,
        "master_right_gripper": 1,
        "action_padding": 19,
    }
    assert config.agent_pos is not None
    assert list(config.dof)[-1] == list(config.agent_pos)[-1] == "action_padding"
    assert (config.horizon, config.time_scale, config.is_state_text, config.state_bins) == (10, 0.999, True, 512)
    assert config.max_length == 1024
    assert (config.min_pixels, config.max_pixels, config.image_factor) == (3136, 12845056, 28)
    assert config.resolution == {"face_view": 256, "right_wrist_view": 448}
    assert config.camera_labels == {"face_view": "front view"}
    assert config.cameras == ("face_view", "right_wrist_view")
    assert config.has_embodied_prologue
    assert config.is_relative is False
    assert config.predicted == ("master_right_ee_cartesian_pos", "master_right_ee_rotation", "master_right_gripper")
    assert config.ignored == ("data.num_workers", "hyperparams", "model_type")


def test_the_older_layout(tmp_path: Path) -> None:
    config = load(tmp_path, FLAT, "config.yaml")
    assert config.dof == config.agent_pos == {"follow_left_ee_cartesian_pos": 3, "follow_left_gripper": 1}
    assert config.horizon == 32
    assert config.resolution == {"face_view": 256, "top_view": -1}
    assert config.is_state_text is None
    assert config.state_bins is None
    assert config.ignored == ("data.lerobot_config", "model_type", "use_fast_tokenizer")


def test_a_checkpoint_without_the_file_says_nothing(tmp_path: Path) -> None:
    assert TrainConfig.load(tmp_path) == TrainConfig()
    assert TrainConfig.load(tmp_path).as_json() == {"has_embodied_prologue": False, "ignored": ()}


def test_which_place_counts(tmp_path: Path) -> None:
    text = "state_bins: 100\naction_horizon: 5\ndata: {state_bins: 200, action_horizon: 6}\ntask: {action_horizon: 7}\n"
    config = load(tmp_path, text)
    assert (config.state_bins, config.horizon) == (100, 7)
    # nothing is no value
    config = load(tmp_path, text.replace("7", "null").replace("100", "null"))
    assert (config.state_bins, config.horizon) == (200, 5)
    assert load(tmp_path, "data:\n_raw_data: {max_length: 9, other: 1}").max_length == 9
    assert load(tmp_path, "data: {action_horizon: 3}\n").horizon == 3


def test_tuples_of_the_reference_s_writer_are_lists(tmp_path: Path) -> None:
    text = "data:\n  betas: !!python/tuple [0.9, 0.95]\n  predict_action_keys: !!python/tuple\n  - arm\n"
    assert load(tmp_path, text).predicted == ("arm",)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch canary']",
        "a: !!python/object/new:os.system ['touch canary']",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
        "a: !!python/object:wallx_edge.errors.ConfigError {}",
        "a: !!python/tuple {b: 1}",
        "a: [",
        "a: b: c",
        "\x00",
        "a: *b",
        "a: &a {b: 1}\nc: {<<: *a}",
        "{" * 5000,
    ],
)
def test_anything_but_plain_values_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.yml: not YAML of plain values: "):
        load(tmp_path, text)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("text", ["", "3", "- a", "text"])
def test_what_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.yml: expected a mapping"):
        load(tmp_path, text)


def test_a_large_file_and_an_unreadable_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected 1048576 at most"):
        load(tmp_path, "a: " + "b" * 1024 * 1024)
    (tmp_path / "config.yml").write_bytes(b"a: \xff")
    with pytest.raises(CheckpointError, match="not YAML"):
        TrainConfig.load(tmp_path)
    (tmp_path / "config.yml").unlink()
    (tmp_path / "config.yml").mkdir()
    with pytest.raises(CheckpointError, match=r"config\.yml: cannot be read"):
        TrainConfig.load(tmp_path)


def test_values_that_refer_to_each_other_a_million_times_do_no_harm(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    text = "\n".join([*lines, "task: {dof_config: {arm: *a29}}"])
    with pytest.raises(CheckpointError, match=r"dof_config\.arm is \[\[.*, expected a number of columns"):
        load(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: 3", "task is 3, expected a mapping"),
        ("data: [1]", "data is [1], expected a mapping"),
        ("dof_config: 7", "dof_config is 7, expected a mapping of names"),
        ("dof_config: {3: 4}", "dof_config is {3: 4}, expected a mapping of names"),
        ("dof_config: {}", "dof_config is {}, expected slot names"),
        ("dof_config: {arm: 0}", "dof_config.arm is 0, expected a number of columns"),
        ("dof_config: {arm: true}", "dof_config.arm is True"),
        ("dof_config: {arm: 1.0}", "dof_config.arm is 1.0"),
        ("state_bins: 1", "state_bins is 1, expected a whole number, 2 or more"),
        ("state_bins: '256'", "state_bins is '256'"),
        ("state_bins: true", "state_bins is True"),
        ("task: {action_horizon: 0}", "action_horizon is 0, expected a whole number, 1 or more"),
        ("use_state_string_representation: 1", "use_state_string_representation is 1, expected true or false"),
        ("data: {resolution: 256}", "resolution is 256, expected a mapping"),
        ("data: {resolution: {a: 0}}", "resolution.a is 0, expected the long side"),
        ("data: {camera_name_mapping: {a: 3}}", "camera_name_mapping is {'a': 3}, expected a text for each"),
        ("data: {key_mappings: {camera: [a]}}", "key_mappings.camera is ['a'], expected a mapping"),
        ("data: {predict_action_keys: arm}", "predict_action_keys is 'arm', expected a list of names"),
        ("data: {predict_action_keys: [1]}", "predict_action_keys is [1]"),
        (
            "data: {use_embodied_system_prompt_ratio: yes}",
            "use_embodied_system_prompt_ratio is True, expected a number",
        ),
        ("task: {noise_scheduler: {s: .nan}}", "noise_scheduler.s is nan, expected a number"),
        ("task: {noise_scheduler: 1}", "noise_scheduler is 1, expected a mapping"),
    ],
)
def test_an_impossible_value_is_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "config.yml" in str(caught.value)


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    source = random.Random(5)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(600):
        data = bytearray((TYPED if source.random() < 0.5 else FLAT).encode())
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data))
            if source.random() < 0.5:
                data[at] = source.choice(b"{}[]:,&*!|>'\"%@`-# \n0a\xff\x00")
            else:
                del data[at : at + source.randint(1, 20)]
        (tmp_path / "config.yml").write_bytes(bytes(data))
        try:
            TrainConfig.load(tmp_path)
            outcomes["read"] += 1
        except CheckpointError as error:
            assert "config.yml" in str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 50


# --- what becomes of it


def settings(config: TrainConfig, **wishes: Any) -> PolicySettings:
    return PolicySettings.resolve(PolicyConfig(**wishes), config, load_engine(CASE1).config)


SLOTS = dict(load_engine(CASE1).config.dof)


def test_the_user_s_wish_wins_then_the_file_then_the_variant() -> None:
    nothing = settings(TrainConfig())
    assert nothing.cameras == ("face_view", "left_wrist_view", "right_wrist_view")
    assert nothing.resolution == dict.fromkeys(nothing.cameras, 256)
    assert (nothing.horizon, nothing.state_bins, nothing.attention, nothing.time_scale) == (32, 256, "bidirectional", 1)
    assert nothing.style.label("face_view") == "front view"
    assert nothing.style.action_space is None
    said = TrainConfig(
        path=Path("config.yml"),
        horizon=10,
        state_bins=512,
        resolution={"face_view": 448, "elsewhere": 1},
        cameras=("face_view", "right_wrist_view"),
        camera_labels={"face_view": "eye"},
        has_embodied_prologue=True,
        time_scale=0.999,
    )
    got = settings(said)
    assert got.cameras == ("face_view", "right_wrist_view")
    assert got.resolution == {"face_view": 448, "right_wrist_view": 256}
    assert (got.horizon, got.state_bins) == (10, 512)
    assert got.time_scale == 1  # the first release's flow ends at 1 whatever its scheduler says
    assert [got.style.label(role) for role in got.cameras] == ["eye", "right_wrist_view"]
    assert got.style.action_space == "Abs EEF"
    got = settings(
        said,
        horizon=7,
        state_bins=64,
        cameras=("face_view",),
        resolution={"face_view": -1},
        camera_labels={},
        has_embodied_prologue=False,
        attention="causal",
        time_scale=0.5,
    )
    assert (got.horizon, got.state_bins, got.attention, got.time_scale) == (7, 64, "causal", 0.5)
    assert got.resolution == {"face_view": -1}
    assert got.style.label("face_view") == "face_view"
    assert got.style.action_space is None


def test_what_contradicts_itself_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"use_relative_action is true, but no slot .* ends with _relative"):
        settings(TrainConfig(is_relative=True))
    with pytest.raises(CheckpointError, match="image_factor is 14, expected 28"):
        settings(TrainConfig(image_factor=14))
    with pytest.raises(CheckpointError, match="min_pixels 99999999 is more than"):
        settings(TrainConfig(min_pixels=99999999))
    with pytest.raises(CheckpointError, match="predict_action_keys has arm, which is no slot of dof_config"):
        settings(TrainConfig(predicted=("arm",)))
    with pytest.raises(CheckpointError, match="a horizon of 500 rows"):
        settings(TrainConfig(horizon=500))


def test_slots_not_in_use() -> None:
    assert settings(TrainConfig()).masked_action == ()
    got = settings(TrainConfig(predicted=tuple(name for name in SLOTS if name != "height")), masked=("car_pose",))
    assert got.masked_action == ("height", "car_pose")
    assert got.masked_state == ("car_pose",)
    with pytest.raises(ConfigError, match=r"policy\.masked: the checkpoint has no slot tail; it has follow_left"):
        settings(TrainConfig(), masked=("tail",))
    with pytest.raises(ConfigError, match=r"policy\.resolution\.top_view: no such camera"):
        settings(TrainConfig(), resolution={"top_view": 3})


def test_a_link_to_nowhere_is_not_a_checkpoint_without_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.yml").symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=r"config\.yml: cannot be read: No such file"):
        TrainConfig.load(tmp_path)
