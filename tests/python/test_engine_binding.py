"""The engine as Python sees it: errors with names and numbers, shapes, types, and whose lock is held."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import copy
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from casefiles import change_json, linked_copy, replace, write_tensors
from golden import CASE1, read_safetensors, tensors
from wallx_edge import _core
from wallx_edge.errors import CheckpointError, ConfigError

MODEL = tensors("model")
IMAGE = 524
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return linked_copy(CASE1, tmp_path / "checkpoint")


@pytest.fixture(scope="module")
def engine() -> _core.Engine:
    return _core.Engine.load(str(CASE1))


def refused(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        _core.Engine.load(str(folder))
    assert str(folder) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", sorted(n for n in MODEL if "normalizer" not in n)[::7])
def test_a_missing_tensor_is_named_with_its_shape(name: str, folder: Path) -> None:
    write_tensors(folder / "model.safetensors", {k: v for k, v in MODEL.items() if k != name})
    message = refused(folder)
    assert f"tensor {name}: missing" in message
    assert str(list(MODEL[name].shape)) in message


def test_a_surplus_tensor_is_named(folder: Path) -> None:
    write_tensors(folder / "model.safetensors", MODEL | {"model.layers.7.spare": np.zeros((2, 3), np.float32)})
    assert "1 surplus tensors" in (message := refused(folder))
    assert "model.layers.7.spare [2, 3]" in message


def test_a_wrong_shape_names_both_shapes(folder: Path) -> None:
    write_tensors(folder / "model.safetensors", MODEL | {NORM: np.ones(127, np.float32)})
    assert f"tensor {NORM}: expected shape [128], found [127]" in refused(folder)


@pytest.mark.parametrize("dtype", [np.int32, np.float64, np.uint8, bool])
def test_a_wrong_type_is_named(dtype: type, folder: Path) -> None:
    write_tensors(folder / "model.safetensors", MODEL | {NORM: np.ones(128, dtype)})
    assert f"tensor {NORM}: expected F32, BF16 or F16, found" in refused(folder)


@pytest.mark.parametrize("kept", [0, 7, 8, 1000, -4, -1])
def test_a_truncated_file_is_refused(kept: int, folder: Path) -> None:
    replace(folder / "model.safetensors", (CASE1 / "model.safetensors").read_bytes()[:kept])
    assert "model.safetensors: truncated" in refused(folder) or "ends at byte" in refused(folder)


def test_bytes_behind_the_last_tensor_are_refused(folder: Path) -> None:
    replace(folder / "model.safetensors", (CASE1 / "model.safetensors").read_bytes() + b"\0" * 8)
    assert "8 bytes after the last tensor" in refused(folder)


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    write_tensors(folder / "model-00002-of-00002.safetensors", {NORM: MODEL[NORM]})
    assert f"tensor {NORM} stands in more than one file" in refused(folder)


def test_shards_are_one_checkpoint(folder: Path) -> None:
    names = sorted(MODEL)
    (folder / "model.safetensors").unlink()
    for i, part in enumerate((names[::2], names[1::2])):
        write_tensors(folder / f"model-0000{i + 1}-of-00002.safetensors", {n: MODEL[n] for n in part})
    assert _core.Engine.load(str(folder)).tensor_names == names


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(file: str, folder: Path) -> None:
    (folder / file).unlink()
    assert file in refused(folder)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"attention_moe": True}, "norm_moe: no known variant"),
        ({"norm_moe": True, "mot_opt": True}, "norm_moe: no known variant"),
        ({"use_adarms": True}, "use_adarms: no known variant"),
        ({"use_x_pred": True}, "use_x_pred: no known variant"),
        ({"model_type": "llama"}, "unknown architecture 'llama'"),
        ({"mlp_moe": False}, "mlp_moe"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "hidden_act: 'gelu' is not supported, expected 'silu'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: 3 does not divide num_attention_heads 4"),
        ({"dof_config": {}}, "dof_config: is empty"),
        ({"dof_config": {"a": 0}}, "dof_config: a has width 0"),
        ({"dim_inputs": [128, 64]}, "experts[1].hidden_size: 128, expected 64 as in dim_inputs"),
        ({"num_experts": 3}, "experts"),
    ],
)
def test_flags_that_no_variant_has_are_refused_by_name(changes: dict[str, Any], text: str, folder: Path) -> None:
    change_json(folder / "config.json", lambda config: config.update(changes))
    assert text in refused(folder)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value, the containers themselves too."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inside for place in [(*path, key), *places(item, (*path, key))]]


@pytest.mark.parametrize("bad", [None, True, -1, 0, 1.5, 10**30, "x", [], [1], {}, {"a": 1}], ids=repr)
def test_any_damaged_config_is_a_checkpoint_error_or_loads(bad: Any, folder: Path) -> None:
    """Every place of config.json in turn: the error is of the tree and names the file, and nothing crashes."""
    good = json.loads((CASE1 / "config.json").read_text())
    loaded = []
    for place in places(good):
        config = copy.deepcopy(good)
        at = config
        for key in place[:-1]:
            at = at[key]
        at[place[-1]] = bad
        replace(folder / "config.json", json.dumps(config))
        try:
            _core.Engine.load(str(folder))
            loaded.append(place[0])
        except CheckpointError as error:
            assert str(folder) in str(error), place
    # what decides the computation never takes such a value
    assert not {"hidden_size", "num_hidden_layers", "num_attention_heads", "dof_config", "experts"} & set(loaded)


def test_config_and_weights_can_be_read(engine: _core.Engine) -> None:
    config = engine.config
    assert (config.hidden_size, config.num_layers, config.num_heads, config.head_dim) == (128, 3, 4, 32)
    assert (config.action_dim, config.state_dim) == (20, 20)
    assert config.dof[0] == ("follow_left_ee_cartesian_pos", 3)
    assert config.mrope_section == [4, 6, 6]
    assert config.unknown_keys == []
    assert engine.vocab_size == 856
    assert engine.tensor_names == sorted(MODEL)
    for name in (NORM, "visual.patch_embed.proj.weight"):
        assert np.array_equal(engine.tensor(name), MODEL[name])
        assert engine.tensor(name).dtype == np.float32
    assert engine.widened_bytes == 0
    used = sum(v.nbytes for k, v in MODEL.items() if "normalizer" not in k)
    # its columns for the action and for the time are layers of their own
    split = MODEL["action_preprocessor.w2.weight"].nbytes
    assert (engine.mapped_bytes, engine.packed_bytes) == (used - split, split)
    with pytest.raises(CheckpointError, match="tensor nope: missing"):
        engine.tensor("nope")


def test_unknown_keys_of_a_published_file_are_reported(folder: Path) -> None:
    change_json(folder / "config.json", lambda config: config.update(novelty=1))
    assert _core.Engine.load(str(folder)).config.unknown_keys == ["novelty"]


def test_read_safetensors_equals_a_reader_in_numpy() -> None:
    for name in ("inputs", "expected"):
        path = CASE1 / f"{name}.safetensors"
        ours, theirs = _core.read_safetensors(str(path)), read_safetensors(path)
        assert ours.keys() == theirs.keys()
        for key, value in theirs.items():
            assert ours[key].dtype == value.dtype
            assert ours[key].shape == value.shape
            assert ours[key].tobytes() == value.tobytes()


@pytest.mark.parametrize("path", ["none.safetensors", "."])
def test_read_safetensors_names_a_file_that_is_none(path: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot open|not a regular file") as caught:
        _core.read_safetensors(str(tmp_path / path))
    assert str(tmp_path) in str(caught.value)


def test_shapes_and_types_of_a_context(engine: _core.Engine) -> None:
    context = _core.Context(engine, 64)
    assert (context.length, context.max_tokens) == (0, 64)
    pixels = np.zeros((4, 1176), np.float32)
    assert context.prefill([521, IMAGE, 522, 5], pixels, [[1, 2, 2]]) == 0
    assert context.length == 4
    scores = context.logits()
    assert (scores.shape, scores.dtype) == ((856,), np.float32)
    context.decode(int(scores.argmax()))
    assert context.length == 5
    noise = np.zeros((3, 20), np.float32)
    actions, trace = context.denoise(noise, np.ones_like(noise), 4, trace=True)
    assert (actions.shape, actions.dtype) == ((3, 20), np.float32)
    assert (trace["x"].shape, trace["v"].shape, trace["t"].shape) == ((5, 3, 20), (4, 3, 20), (4,))
    assert np.array_equal(trace["x"][-1], actions)
    assert not noise.any()
    assert context.length == 5


ACT = np.zeros((4, 20), np.float32)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.prefill([]), "the prompt has 0 tokens"),
        (lambda c: c.prefill([1] * 65), "the prompt has 65 tokens, this context holds 1 to 64"),
        (lambda c: c.prefill([1, 856]), r"token id 856 is outside the vocabulary \[0, 856\)"),
        (lambda c: c.prefill([-1]), "token id -1 is outside"),
        (lambda c: c.prefill([1, IMAGE]), "token-count mismatch"),
        (lambda c: c.prefill([IMAGE], np.zeros((4, 1176)), [[1, 2, 2], [1, 2, 2]]), "pixels has 4704 values"),
        (lambda c: c.prefill([1], np.zeros((4, 1176)), [[1, 2, 2]]), "1 pictures given, the prompt uses 0"),
        (lambda c: c.prefill([IMAGE], np.zeros((3, 1176)), [[1, 2, 2]]), "pixels has 3528 values, expected 4704"),
        (lambda c: c.prefill([IMAGE], np.zeros((6, 1176)), [[1, 3, 2]]), r"picture grid \(1, 3, 2\)"),
        (lambda c: c.prefill([IMAGE], np.zeros((4, 1176)), [1, 2, 2]), r"grids must have shape \(pictures, 3\)"),
        (lambda c: c.prefill([534], [], [], 534), "1 state tokens, expected none"),
        (lambda c: c.prefill([1], [], [], 534, np.zeros(20), np.ones(20)), "0 state tokens, expected one"),
        (lambda c: c.prefill([534], [], [], 534, np.zeros(19), np.ones(20)), "state has 19 values, expected 20"),
        (lambda c: c.prefill([534], [], [], 534, np.full(20, np.nan), np.ones(20)), r"state\[0\] is"),
        (lambda c: c.denoise(np.zeros(80), ACT), "noise must have shape"),
        (lambda c: c.denoise(np.zeros((4, 19)), ACT), "noise has 76 values, expected 80"),
        (lambda c: c.denoise(ACT, np.ones((3, 20))), "dof_mask has 60 values, expected 80"),
        (lambda c: c.denoise(np.full((4, 20), np.inf), ACT), r"noise\[0\] is inf"),
        (lambda c: c.denoise(np.zeros((63, 20)), np.ones((63, 20))), "horizon 63 after a prompt of 2 tokens"),
        (lambda c: c.denoise(np.zeros((0, 20)), np.ones((0, 20))), "horizon 0"),
        (lambda c: c.denoise(ACT, ACT, 0), "num_steps is 0, expected 1 to 1000"),
        (lambda c: c.denoise(ACT, ACT, 1, time_grid="legacy"), "num_steps is 1, expected 2 to 1000"),
        (lambda c: c.denoise(ACT, ACT, attention="both"), "attention is 'both'"),
        (lambda c: c.denoise(ACT, ACT, time_grid="log"), "time_grid is 'log'"),
        (lambda c: c.decode(856), "token id 856"),
        # a conversion that would lose the value is refused, not done
        (lambda c: c.prefill([1.7, 2.2]), "ids has dtype float64, expected whole numbers"),
        (lambda c: c.prefill(np.array([1, 2], complex)), "ids has dtype complex128"),
        (lambda c: c.prefill(["a"]), "ids has dtype <U1"),
        (lambda c: c.prefill(None), "ids has dtype object"),
        (lambda c: c.prefill([IMAGE], np.zeros((4, 1176)), np.array([[1.0, 2.0, 2.0]])), "grids has dtype float64"),
        (lambda c: c.denoise(ACT.astype(complex), ACT), "noise has dtype complex128, expected floats"),
        (lambda c: c.denoise(ACT, [["a"]]), "dof_mask has dtype <U1, expected floats"),
    ],
)
def test_bad_arguments_are_refused_with_numbers(
    call: Callable[[_core.Context], object], text: str, engine: _core.Engine
) -> None:
    context = _core.Context(engine, 64)
    context.prefill([1, 2])
    with pytest.raises(ConfigError, match=text):
        call(context)
    # and the context works on
    context.prefill([1, 2])
    assert context.length == 2


@pytest.mark.parametrize("call", [lambda c: c.logits(), lambda c: c.decode(1), lambda c: c.denoise(ACT, ACT)])
def test_an_empty_context_is_refused(call: Callable[[_core.Context], object], engine: _core.Engine) -> None:
    context = _core.Context(engine, 64)
    with pytest.raises(ConfigError, match="the context is empty; call prefill first"):
        call(context)
    context.prefill([1])
    with pytest.raises(ConfigError):
        context.prefill([900])
    with pytest.raises(ConfigError, match="call prefill first"):
        call(context)


def test_a_full_context_is_refused(engine: _core.Engine) -> None:
    context = _core.Context(engine, 2)
    context.prefill([1, 2])
    with pytest.raises(ConfigError, match="the context is full"):
        context.decode(3)
    for size in (0, -1, 10**9):
        with pytest.raises(ConfigError, match="max_tokens is"):
            _core.Context(engine, size)
    with pytest.raises(ConfigError, match="rope_layout is 'x'"):
        _core.Context(engine, 8, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.uint64])
def test_whole_numbers_of_any_type_are_ids(dtype: type, engine: _core.Engine) -> None:
    def scores(ids: Any) -> NDArray[np.float32]:
        context = _core.Context(engine, 8)
        context.prefill(ids)
        return context.logits()

    assert np.array_equal(scores(np.array([1, 2, 3], dtype)), scores([1, 2, 3]))
    assert np.array_equal(scores(np.array([1, 9, 2, 9, 3, 9], dtype)[::2]), scores([1, 2, 3]))


def test_floats_of_any_type_and_order_are_noise(engine: _core.Engine) -> None:
    context = _core.Context(engine, 64)
    context.prefill([1, 2])
    noise = np.linspace(-1, 1, 80, dtype=np.float32).reshape(4, 20)
    wanted = context.denoise(noise, np.ones_like(noise))
    for other in (noise.astype(np.float64), np.asfortranarray(noise), noise.tolist()):
        assert np.array_equal(context.denoise(other, np.ones((4, 20), bool)), wanted)


def test_index_arithmetic_refuses_wrong_shapes(engine: _core.Engine) -> None:
    config = engine.config
    with pytest.raises(ConfigError, match=r"\(batch, tokens\)"):
        _core.mrope_positions([1, 2], [1, 1], [], config)
    with pytest.raises(ConfigError, match=r"\(batch, tokens\)"):
        _core.mrope_positions([[1, 2]], [[1]], [], config)
    with pytest.raises(ConfigError, match=r"\(3, tokens\)"):
        _core.rotary_tables([[1, 2]], config)
    with pytest.raises(ConfigError, match="head_dim"):
        _core.apply_rotary(np.zeros((2, 1, 32)), np.zeros((2, 32)), np.zeros((3, 32)))
    with pytest.raises(ConfigError, match="width is 5"):
        _core.time_embedding(0.5, 5)
    with pytest.raises(ConfigError, match="whole numbers"):
        _core.window_order([[1.0, 2.0, 2.0]], config)


def test_computing_lets_other_threads_run(engine: _core.Engine) -> None:
    """With a switch interval of an hour, another thread runs only while this one has let go of the lock."""
    count, stop = [0], threading.Event()

    def spin() -> None:
        while not stop.is_set():
            count[0] += 1
            time.sleep(0)

    context = _core.Context(engine, 256)
    ids = np.arange(200)
    noise, mask = np.zeros((32, 20), np.float32), np.ones((32, 20), np.float32)
    calls: list[Callable[[], object]] = [
        lambda: context.prefill(ids, reuse=False),
        lambda: _core.TextDecoder(context, max_new_tokens=1).next(),
        lambda: context.denoise(noise, mask),
        lambda: _core.Engine.load(str(CASE1)),
    ]
    interval = sys.getswitchinterval()
    thread = threading.Thread(target=spin)
    sys.setswitchinterval(3600)
    try:
        thread.start()
        for call in calls:
            for _ in range(500):
                before = count[0]
                call()
                if count[0] > before:
                    break
            else:
                pytest.fail("no other thread ran during 500 calls")
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        thread.join()
