"""Policy: equal seeds give equal chunks, threads do not disturb each other, and what does not fit is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from numpy.typing import NDArray

import casefiles
from arm_model import CAMERAS, CONFIG, REST_POSE, look, write
from golden import CASE1, tensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.synth import write_safetensors
from wallx_edge.types import Observation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("policy") / "model")


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return Policy.load(folder, CONFIG)


def test_one_seed_gives_one_chunk(folder: Path) -> None:
    first, second = Policy.load(folder, CONFIG), Policy.load(folder, CONFIG)
    other = Policy.load(folder, replace(CONFIG, seed=1))
    for t in (0.0, 3.0):
        chunk = first.act(look(t))
        assert chunk.rows.tobytes() == second.act(look(t)).rows.tobytes()
        assert chunk.rows.tobytes() != other.act(look(t)).rows.tobytes()


def test_given_noise_leaves_the_seed_alone(folder: Path) -> None:
    noise = np.random.default_rng(3).standard_normal((16, 6), np.float32)
    first, second = Policy.load(folder, CONFIG), Policy.load(folder, CONFIG)
    assert first.act(look(), noise).rows.tobytes() == first.act(look(), noise).rows.tobytes()
    assert first.act(look()).rows.tobytes() == second.act(look()).rows.tobytes()


def test_a_chunk_is_in_si_and_knows_its_observation(policy: Policy) -> None:
    chunk = policy.act(look(2.5))
    assert chunk.rows.shape == (16, 6)
    assert chunk.rows.dtype == np.float64
    assert chunk.layout.names == tuple(REST_POSE)
    assert set(chunk.layout.units) == {"rad"}
    assert chunk.observed_at == 2.5
    assert chunk.step == CONFIG.step
    assert policy.statistics == "so101"
    assert np.allclose(policy.middle_state(), list(REST_POSE.values()), atol=1e-6)


def test_attention_and_grid_matter(folder: Path) -> None:
    noise = np.random.default_rng(3).standard_normal((16, 6), np.float32)
    kinds: list[dict[str, Any]] = [{}, {"attention": "causal"}, {"time_grid": "legacy"}, {"rope_layout": "contiguous"}]
    rows = [Policy.load(folder, replace(CONFIG, **kind)).act(look(), noise).rows for kind in kinds]
    for other in rows[1:]:
        assert np.abs(rows[0] - other).max() > 1e-7


def golden_chunk(folder: Path) -> NDArray[np.float64]:
    config = PolicyConfig(cameras=("face_view",), resolution=168, horizon=8, statistics="x2_normal")
    inputs = tensors("inputs")
    state = inputs["state"].reshape(-1).astype(np.float64)
    observation = Observation({"face_view": inputs["image.face_view"]}, state, "pick up the red block", 0.0)
    return Policy.load(folder, config).act(observation, inputs["noise"][0, :8]).rows


@pytest.mark.parametrize(("dtype", "share"), [("bf16", 0.05), ("f16", 0.01), ("f32", 0.0)])
def test_half_width_weights_give_close_chunks(dtype: Any, share: float, tmp_path: Path) -> None:
    folder = casefiles.linked_copy(CASE1, tmp_path / "half")
    (folder / "model.safetensors").unlink()
    write_safetensors(folder / "model.safetensors", tensors("model"), dtype)
    rows, wanted = golden_chunk(folder), golden_chunk(CASE1)
    span = tensors("model")["action_preprocessor.normalizer_action.delta.x2_normal"]
    error = np.abs((rows - wanted) / span).max()
    assert error <= share
    assert share == 0 or error > 0


def test_state_and_pictures_must_fit(policy: Policy) -> None:
    good = look()
    with pytest.raises(ConfigError, match=r"the state has 5 values, the checkpoint expects 6 \(shoulder_pan"):
        policy.act(replace(good, state=good.state[:5]))
    with pytest.raises(ConfigError, match=r"lacks the camera 'wrist_view'.*the observation has face_view"):
        policy.act(replace(good, images={"face_view": good.images["face_view"]}))
    with pytest.raises(ConfigError, match=r"observation state: got nan at \[2\]"):
        state = good.state.copy()
        state[2] = np.nan
        policy.act(replace(good, state=state))
    with pytest.raises(ConfigError, match="instruction is empty"):
        policy.act(replace(good, instruction=" "))
    with pytest.raises(ConfigError, match="a special token"):
        policy.act(replace(good, instruction="look <|action|> there"))
    for shape in ((16, 5), (15, 6), (96,)):
        with pytest.raises(ConfigError, match=r"noise|dof_mask"):
            policy.act(good, np.zeros(shape, np.float32))
    # after all that the policy still works
    assert np.isfinite(policy.act(good).rows).all()


def test_a_picture_nobody_asked_for_changes_nothing(folder: Path) -> None:
    extra = replace(look(), images={**look().images, "spare": look(9.0).images["face_view"]})
    assert (
        Policy.load(folder, CONFIG).act(look()).rows.tobytes() == Policy.load(folder, CONFIG).act(extra).rows.tobytes()
    )


def test_a_prompt_that_does_not_fit_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        Policy.load(folder, replace(CONFIG, max_tokens=100)).act(look())


def test_the_tokenizer_must_fit_the_embedding(folder: Path, tmp_path: Path) -> None:
    copy = casefiles.linked_copy(folder, tmp_path / "copy")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens([f"word{i}" for i in range(384 - tokenizer.get_vocab_size() + 1)])
    casefiles.replace(copy / "tokenizer.json", tokenizer.to_str())
    with pytest.raises(CheckpointError, match=r"tokenizer\.json has 385 tokens, the embedding only 384 rows"):
        Policy.load(copy, CONFIG)


def test_statistics_are_chosen_by_name() -> None:
    config = PolicyConfig(cameras=("face_view",))
    with pytest.raises(ConfigError, match=r"statistics for DobbE, x2_normal \(the weights\); name one as policy\.stat"):
        Policy.load(CASE1, config)
    with pytest.raises(ConfigError, match=r"robot 'mine'.*DobbE, x2_normal"):
        Policy.load(CASE1, replace(config, statistics="mine"))
    assert Policy.load(CASE1, replace(config, statistics="DobbE")).statistics == "DobbE"


def test_statistics_of_another_width_are_refused(folder: Path, tmp_path: Path) -> None:
    copy = casefiles.linked_copy(CASE1, tmp_path / "copy")
    name = "action_preprocessor.normalizer_propri.min.DobbE"
    casefiles.write_tensors(copy / "model.safetensors", tensors("model") | {name: np.zeros(19, np.float32)})
    with pytest.raises(CheckpointError, match=r"propri.DobbE \(the weights\): min has 19 columns, delta has 20"):
        Policy.load(copy, PolicyConfig(statistics="DobbE"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"cameras": ()}, "policy.cameras"),
        ({"cameras": ("a", "a")}, "policy.cameras"),
        ({"horizon": 0}, "policy.horizon is 0, expected 1 to 128"),
        ({"horizon": 129}, "policy.horizon is 129"),
        ({"step": 0.0}, "policy.step is 0.0"),
        ({"step": float("nan")}, "policy.step is nan"),
        ({"resolution": 0}, "policy.resolution is 0"),
        ({"resolution": -2}, "policy.resolution is -2"),
        ({"attention": "both"}, "policy.attention is 'both', expected checkpoint or bidirectional or causal"),
        ({"time_grid": "log"}, "policy.time_grid is 'log'"),
        ({"rope_layout": "x"}, "policy.rope_layout is 'x'"),
        ({"num_steps": 0}, "policy.num_steps is 0, expected 1 to 1000"),
        ({"num_steps": 1, "time_grid": "legacy"}, "policy.num_steps is 1, expected 2 to 1000"),
        ({"seed": -1}, "policy.seed is -1"),
    ],
)
def test_a_bad_setting_is_refused_before_anything_loads(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PolicyConfig(**values)
    assert text in str(caught.value)


def test_two_threads_on_one_engine_get_the_chunks_they_get_alone(folder: Path, policy: Policy) -> None:
    configs = [CONFIG, replace(CONFIG, seed=7, attention="causal")]
    times = [0.0, 1.0, 2.0, 3.0]

    def chunks(each: Policy) -> list[bytes]:
        return [each.act(look(t)).rows.tobytes() for t in times]

    alone = [chunks(Policy(folder, config, policy.engine)) for config in configs]
    shared = [Policy(folder, config, policy.engine) for config in configs]
    found: list[list[bytes]] = [[], []]
    start = threading.Barrier(2)

    def work(i: int) -> None:
        start.wait()
        found[i] = chunks(shared[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == alone
    assert alone[0] != alone[1]
    assert set(CAMERAS) == set(look().images)
