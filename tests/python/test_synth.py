"""Synth: equal seeds give equal bytes, and the arm it moves stays within its limits and follows the pictures."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arm_model import CONFIG, REST_POSE, SO101, look, write
from golden import read_safetensors
from wallx_edge import _core
from wallx_edge.action_map import ActionMap
from wallx_edge.errors import ConfigError, WallxError
from wallx_edge.policy import Follow, Policy
from wallx_edge.prompts import Tokenizer, flow_prompt
from wallx_edge.synth import HORIZON, SIZES, SPREAD, VARIANTS, Size, synth, write_safetensors
from wallx_edge.synth.weights import action_head, network
from wallx_edge.synth.writer import Normal, num_bytes
from wallx_edge.types import DofLayout

TIMES = (0.0, 2.0, 4.5, 7.0, 11.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("synth") / "model")


def test_one_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again, other = write(tmp_path / "again"), write(tmp_path / "other", seed=1)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert not any(name.endswith(".part") for name in names)
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)
    assert (folder / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()


def test_it_names_the_robots_joints_and_their_range(folder: Path) -> None:
    engine = _core.Engine.load(str(folder))
    assert engine.config.unknown_keys == []
    for slots in (engine.config.dof, engine.config.agent_pos):
        layout = DofLayout.from_config(dict(slots))
        assert layout.names == tuple(REST_POSE)
        assert layout.is_joint_space
    rest = np.array(list(REST_POSE.values()))
    for kind in ("action", "propri"):
        low = engine.tensor(f"action_preprocessor.normalizer_{kind}.min.so101")
        delta = engine.tensor(f"action_preprocessor.normalizer_{kind}.delta.so101")
        assert np.allclose(low, rest - SPREAD, atol=1e-6)
        assert np.allclose(delta, 2 * SPREAD, atol=1e-6)
    assert Tokenizer.load(folder).num_tokens <= engine.vocab_size


def test_the_arm_stays_within_its_limits_and_moves_smoothly(folder: Path) -> None:
    policy = Policy.load(folder, CONFIG)
    low = np.array([joint.limits.min_position for joint in SO101.joints])
    high = np.array([joint.limits.max_position for joint in SO101.joints])
    chunks = [policy.act(look(t)).rows for t in TIMES]
    for rows in chunks:
        assert (rows >= low).all() and (rows <= high).all()
        assert np.abs(np.diff(rows, axis=0)).max() < 0.01
        assert np.abs(rows - list(REST_POSE.values())).max() < 2 * SPREAD
    # the pictures move every joint, by more than the noise does
    by_picture = np.ptp(np.stack([rows.mean(axis=0) for rows in chunks]), axis=0)
    by_noise = np.ptp(np.stack([policy.act(look()).rows.mean(axis=0) for _ in TIMES]), axis=0)
    assert (by_picture > 0.005).all()
    assert (by_picture > 5 * by_noise).all()


@pytest.mark.parametrize(("dtype", "bound"), [("bf16", 0.02), ("f16", 0.005)])
def test_half_width_files_give_close_chunks(dtype: Any, bound: float, folder: Path, tmp_path: Path) -> None:
    half = write(tmp_path / "half", dtype=dtype)
    assert (half / "model.safetensors").stat().st_size < 0.6 * (folder / "model.safetensors").stat().st_size
    difference = Policy.load(half, CONFIG).act(look()).rows - Policy.load(folder, CONFIG).act(look()).rows
    assert 0 < np.abs(difference).max() < bound


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": "huge"}, "unknown size 'huge'; there are: tiny, small, medium"),
        ({"dtype": "int8"}, "unknown dtype 'int8'; there are: f32, bf16, f16"),
        ({"rest_pose": {}}, "no joint"),
        ({"rest_pose": {f"joint{i}": 0.0 for i in range(29)}}, "29 joints are too many"),
        ({"rest_pose": {"hinge": float("nan")}}, "rest position of hinge is nan"),
        ({"statistics": ""}, "the statistics need a name"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_arguments_are_refused_and_leave_nothing(values: dict[str, Any], text: str, tmp_path: Path) -> None:
    out = tmp_path / "model"
    arguments = {"size": "tiny", "out": out, "rest_pose": REST_POSE, "statistics": "so101"} | values
    with pytest.raises(ConfigError) as caught:
        synth(**arguments)
    assert text in str(caught.value)
    assert not out.exists()


def test_a_folder_in_use_is_left_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    for out in (tmp_path, file):
        with pytest.raises(ConfigError, match="is not an empty folder"):
            write(out)
    with pytest.raises(ConfigError, match="cannot be made"):
        write(file / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert file.read_text() == "mine"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    assert (write(tmp_path) / "model.safetensors").is_file()


def test_every_size_has_room_for_its_own_heads() -> None:
    for size in SIZES.values():
        assert size.hidden % size.heads == 0
        assert size.heads % size.kv_heads == 0
        assert size.vision_hidden % size.vision_heads == 0


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_written_tensors_are_read_back(dtype: Any, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wanted = {
        "matrix": random.standard_normal((3, 5), np.float32),
        "turned": random.standard_normal((4, 6), np.float32).T,
        "scalar": np.array(1.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }
    path = tmp_path / "t.safetensors"
    write_safetensors(path, wanted, dtype)
    for got in (_core.read_safetensors(str(path)), read_safetensors(path)):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            assert got[name].shape == value.shape
            assert np.array_equal(got[name], value.astype(np.float16 if dtype == "f16" else np.float32))
    assert [p.name for p in tmp_path.iterdir()] == ["t.safetensors"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_published_variant_drives_the_arm(variant: Any, tmp_path: Path) -> None:
    folder = write(tmp_path / "model", variant=variant)
    policy = Policy.load(folder, CONFIG)
    assert policy.engine.config.architecture == variant
    assert policy.engine.config.unknown_keys == []
    # nothing but joints: the session finds every one of them
    action_map = ActionMap(policy.action_layout, policy.state_layout, SO101)
    low = np.array([joint.limits.min_position for joint in SO101.joints])
    high = np.array([joint.limits.max_position for joint in SO101.joints])
    chunks = [action_map.joint_rows(policy.act(look(t))) for t in TIMES]
    for rows in chunks:
        assert (rows >= low).all() and (rows <= high).all()
        assert np.abs(rows - list(REST_POSE.values())).max() < 2 * SPREAD
        assert np.abs(np.diff(rows, axis=0)).max() < 0.1
    by_picture = np.ptp(np.stack([rows.mean(axis=0) for rows in chunks]), axis=0)
    by_noise = np.ptp(np.stack([policy.act(look()).rows.mean(axis=0) for _ in TIMES]), axis=0)
    assert (by_picture > 0.005).all()
    assert (by_picture > 5 * by_noise).all()
    # its flow is straight: a chunk that is drawn toward other rows lies between those and its own
    free, joints = policy.act(look()).rows, len(REST_POSE)
    other = policy.act(look(4.5)).rows
    drawn = policy.act(look(), follow=Follow(other, 4, 10.0)).rows
    outside = np.maximum(np.minimum(free, other) - drawn, drawn - np.maximum(free, other))[:, :joints]
    assert outside.max() < 0.02
    assert np.abs(drawn - other)[:6, :joints].max() < 0.5 * np.abs(free - other)[:6, :joints].max()
    # and the state reaches the chunk
    moved = replace(look(), state=look().state + 0.1)
    noise = np.zeros((CONFIG.horizon or 0, policy._action.width), np.float32)
    assert np.abs(policy.act(moved, noise).rows - policy.act(look(), noise).rows).max() > 1e-5


def test_the_files_are_those_of_the_published_variant(tmp_path: Path) -> None:
    old, new = write(tmp_path / "old", variant="mot-0.1"), write(tmp_path / "new", variant="mot-0.5")
    assert Policy.load(old, CONFIG).statistics == "so101"
    assert not (old / "config.yml").exists()
    policy = Policy.load(new, replace(CONFIG, horizon=None))
    assert policy.config.horizon == HORIZON
    assert (policy.statistics, policy.statistics_source) == ("norm_stats", "norm_stats.json")
    assert policy.engine.config.action_dim == policy.engine.config.state_dim == 26
    assert policy.action_layout.names == policy.state_layout.names == tuple(REST_POSE)
    assert np.allclose(policy.middle_state(), list(REST_POSE.values()), atol=1e-6)


def test_a_variant_nobody_published_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown variant 'mot-adarms'; there are: v1"):
        write(tmp_path / "model", variant="mot-adarms")  # type: ignore[arg-type]
    joints = {f"joint{i}": 0.0 for i in range(13)}
    with pytest.raises(ConfigError, match="13 joints are too many for a hidden size of 32"):
        synth("tiny", tmp_path / "model", joints, "many", variant="mot-0.5")


# the published widths' shape in small: streamed, padded vectors, a head that is not fitted
SMALL = Size(64, 2, 4, 2, 128, 64, 32, 9, 2, 64, 1024, 20, "bf16", True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(SIZES, "small", SMALL)
    return "small"


def num_weights(size: Size, columns: int) -> int:
    tensors = dict(network(size, 6, columns, "v1")) | dict(
        action_head(size.hidden, 6, columns, np.random.default_rng(0))
    )
    return sum(int(np.prod(value.shape)) for value in tensors.values())


def test_the_full_size_has_as_many_weights_as_the_published_checkpoint() -> None:
    size = SIZES["wall-oss"]
    assert num_weights(size, size.num_columns("v1", 6)) == 4_224_038_912
    assert size.full_attention_blocks == [7, 15, 23, 31]
    mini = SIZES["wall-oss-mini"]
    widths = ("hidden", "heads", "ffn", "action_ffn", "vision_hidden", "vision_heads", "vision_ffn", "vocab", "columns")
    assert all(getattr(mini, name) == getattr(size, name) for name in widths)


def test_a_streamed_checkpoint_drives_the_arm(small: str, tmp_path: Path) -> None:
    written: list[tuple[int, int]] = []
    folder = tmp_path / "model"
    synth(small, folder, REST_POSE, "so101", on_bytes=lambda done, total: written.append((done, total)))
    assert written[-1][0] == written[-1][1] == (folder / "model.safetensors").stat().st_size - header(folder)
    policy = Policy.load(folder, CONFIG)
    assert policy.engine.config.action_dim == policy.engine.config.state_dim == 20
    assert policy.action_layout.names == policy.state_layout.names == tuple(REST_POSE)
    assert policy.engine.config.vision.full_attention_blocks == [7, 8]
    low = np.array([joint.limits.min_position for joint in SO101.joints])
    high = np.array([joint.limits.max_position for joint in SO101.joints])
    for t in TIMES:
        rows = policy.act(look(t)).rows
        assert (rows >= low).all() and (rows <= high).all()
    assert {tensor.dtype for tensor in (policy.engine.tensor("model.embed_tokens.weight"),)} == {np.dtype(np.float32)}
    assert abs(float(policy.engine.tensor("model.embed_tokens.weight").std()) - 1) < 0.02


def header(folder: Path) -> int:
    """Bytes before the tensors."""
    with (folder / "model.safetensors").open("rb") as file:
        return 8 + int.from_bytes(file.read(8), "little")


def test_streamed_weights_are_the_same_for_a_seed(small: str, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synth(small, tmp_path / name, REST_POSE, "so101", seed=seed)
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_what_is_drawn_in_pieces_is_normal(dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallx_edge.synth.writer.PIECE", 1 << 14)
    gain = np.tile([2.0, 0.0], 128)
    tensors = {"w": Normal((256, 400), gain), "b": np.arange(5, dtype=np.float32), "d": Normal((256, 400), 2.0)}
    write_safetensors(tmp_path / "t.safetensors", tensors, dtype, seed=3)
    assert (tmp_path / "t.safetensors").stat().st_size - num_bytes(tensors, dtype) < 1000
    engine_reads = (
        read_safetensors(tmp_path / "t.safetensors") if dtype != "bf16" else widened(tmp_path / "t.safetensors")
    )
    w, d = engine_reads["w"].astype(np.float64), engine_reads["d"].astype(np.float64)
    assert np.array_equal(engine_reads["b"], np.arange(5))
    assert (w[1::2] == 0).all()
    assert not np.array_equal(w[::2], d[::2])
    for values in (w[::2], d):
        z = values / (2 / np.sqrt(400))
        assert abs(z.mean()) < 0.02 and abs(z.std() - 1) < 0.02
        assert abs((z**4).mean() - 3) < 0.2
    # rows of different pieces are independent
    assert abs(np.corrcoef(d[0], d[200])[0, 1]) < 0.25


def widened(path: Path) -> dict[str, Any]:
    """bf16 tensors, which numpy has no type for."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    entries = json.loads(raw[8 : 8 + length])
    found = {}
    for name, entry in entries.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            bits = np.frombuffer(raw[8 + length + begin : 8 + length + end], np.uint16).astype(np.uint32) << 16
            found[name] = bits.view(np.float32).reshape(entry["shape"])
    return found


def test_the_words_of_a_prompt_are_tokens_of_the_larger_sizes(small: str, tmp_path: Path) -> None:
    synth(small, tmp_path / "model", REST_POSE, "so101")
    tokenizer = Tokenizer.load(tmp_path / "model")
    text = "put the cube on the plate"
    assert tokenizer.encode(text).size == len(text.split()) + 2  # the first word has no space before it
    prompt = flow_prompt(("face_view", "left_wrist_view"), text, 1)
    ids = tokenizer.encode(prompt)
    assert tokenizer.decode(ids) == prompt
    assert ids.size < 75  # as with the published tokenizer: about 60 and the action
    assert tokenizer.num_tokens <= min(size.vocab for name, size in SIZES.items() if name.startswith("wall-oss"))


def test_too_little_room_is_said_before_anything_is_written(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=66 << 20)
    monkeypatch.setattr("wallx_edge.synth.shutil.disk_usage", lambda path: free)
    with pytest.raises(ConfigError, match=r"model: 8\.42 GB to write, 0\.07 GB free"):
        synth("wall-oss", tmp_path / "model", REST_POSE, "so101")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wallx_edge.synth._available_memory", lambda: 300 << 20)
    with pytest.raises(WallxError, match=r"synth needs 1\.\d\d GB of memory, 0\.31 GB are available"):
        synth("medium", tmp_path / "model", REST_POSE, "so101")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("was_there", [False, True])
def test_a_full_disk_leaves_nothing(
    small: str, was_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    if was_there:
        out.mkdir()

    def fail(written: int, total: int) -> None:
        if written > total // 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        synth(small, out, REST_POSE, "so101", on_bytes=fail)
    assert list(tmp_path.iterdir()) == ([out] if was_there else [])
    assert not was_there or list(out.iterdir()) == []


def test_what_a_killed_process_left_is_made_again(small: str, tmp_path: Path) -> None:
    part = tmp_path / "model" / ".part"
    part.mkdir(parents=True)
    (part / "model.safetensors.part").write_bytes(b"half")
    synth(small, tmp_path / "model", REST_POSE, "so101")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_a_process_that_is_ended_takes_its_half_with_it(tmp_path: Path) -> None:
    program = (
        "import sys; from wallx_edge.synth import writer; from wallx_edge.cli import main\n"
        "encode = writer._encode\n"
        "def slow(*args):\n"
        "    print('drawing', flush=True); import time; time.sleep(0.05); return encode(*args)\n"
        "writer._encode = slow\n"
        "sys.exit(main(['synth', 'wall-oss-mini', sys.argv[1]]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "model")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "drawing\n"
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
