"""Computing: what is asked and what is given are told apart, by every verb and for a robot."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import arm_model
from golden import CASE1
from wallx_edge import _core, computing
from wallx_edge.cli import main
from wallx_edge.computing import Computing
from wallx_edge.errors import ConfigError
from wallx_edge.policy import Policy
from wallx_edge.quantize.recipe import Recipe
from wallx_edge.quantize.writer import quantize
from wallx_edge.robot_config import RobotConfig

ROBOT = """
[robot]
embodiment = "so101"
calibration = "arm.json"
[bus]
port = "/dev/null"
[policy]
checkpoint = "checkpoint"
{more}
[[camera]]
role = "face_view"
kind = "pattern"
"""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "front.png")
    return tmp_path / "front.png"


def test_a_policy_is_loaded_in_each_precision(tiny_checkpoint: Path) -> None:
    exact = Policy.load(tiny_checkpoint, arm_model.CONFIG)
    noise = exact.noise()
    rows = exact.act(arm_model.look(), noise).rows
    for precision in _core.precisions():
        policy = Policy.load(tiny_checkpoint, arm_model.CONFIG, precision=precision, device="cpu", threads=1)
        assert policy.engine.precision == precision
        assert policy.engine.num_threads == 1
        difference = np.abs(policy.act(arm_model.look(), noise).rows - rows).max()
        assert (difference == 0) == (precision == "fp32")
        assert difference < 0.05


def test_a_packed_folder_acts_as_the_checkpoint_does_in_its_precision(tiny_checkpoint: Path, tmp_path: Path) -> None:
    quantize(tiny_checkpoint, tmp_path / "int8", Recipe.load("int8"))
    ours = Policy.load(tmp_path / "int8", arm_model.CONFIG)
    theirs = Policy.load(tiny_checkpoint, arm_model.CONFIG, precision="int8")
    assert np.array_equal(ours.act(arm_model.look()).rows, theirs.act(arm_model.look()).rows)
    with pytest.raises(ConfigError, match="packed as int8 and cannot be loaded as bf16"):
        Policy.load(tmp_path / "int8", arm_model.CONFIG, precision="bf16")


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"precision": "int4"}, "int4.*fp32, bf16"),
        ({"device": "cuda"}, "cuda.*auto or cpu"),
        ({"threads": -1}, "-1"),
        ({"kernels": "mmx"}, "mmx"),
    ],
)
def test_what_cannot_be_is_refused(wish: dict[str, object], words: str, tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        Policy.load(tiny_checkpoint, arm_model.CONFIG, **wish)  # type: ignore[arg-type]


def test_asked_and_given_are_apart(tiny_checkpoint: Path) -> None:
    asked = Computing(threads=1, kernels="plain")
    report = asked.report(asked.load(tiny_checkpoint))
    assert report["asked"] == {"precision": "as the folder says", "device": "auto", "kernels": "plain", "threads": 1}
    assert report["given"]["precision"] == "fp32"
    assert report["given"]["kernels"] == "cpu plain"
    assert report["given"]["mapped_bytes"] > 10 * report["given"]["packed_bytes"]
    for kernels in _core.kernels():
        asked = Computing("bf16", kernels=kernels)
        said = asked.report(asked.load(tiny_checkpoint))["given"]["arithmetic"]
        assert ("multiplied as fp32" in said) == (kernels != "avx512" and kernels != "i8mm")


def test_too_little_memory_is_said_before_packing(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quantize(tiny_checkpoint, tmp_path / "int8", Recipe.load("int8"))
    monkeypatch.setattr(computing, "free_memory", lambda: 1_000_000)
    with pytest.raises(ConfigError, match=r"packing it as int8 needs \d+ MB of memory, .* 1 MB available"):
        Policy.load(tiny_checkpoint, arm_model.CONFIG, precision="int8")
    Policy.load(tiny_checkpoint, arm_model.CONFIG)  # fp32 is mapped
    Policy.load(tmp_path / "int8", arm_model.CONFIG, precision="int8")  # so is a packed folder


def test_infer_and_ask_say_what_was_asked_and_given(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--precision", "fp16", "--threads", "1"]
    infer = ["infer", str(CASE1), "--image", f"face_view={picture}", "--task", "x", "--statistics", "x2_normal"]
    assert main([*infer, *words]) == 0
    out = capsys.readouterr().out
    assert "asked: fp16" in out
    assert "in place of fp16" in out
    assert main([*infer, *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["computing"]["given"]["threads"] == 1
    ask = ["ask", str(picture), "what?", "--checkpoint", str(CASE1), "--max-tokens", "2", "--json"]
    assert main([*ask, "--precision", "int8"]) == 0
    assert json.loads(capsys.readouterr().out)["computing"]["given"]["precision"] == "int8"


def test_bench_says_in_what_it_measured(tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "engine", "--checkpoint", str(tiny_checkpoint), "--precision", "int8", "--threads", "1"]) == 0
    assert "engine, int8 on cpu " in capsys.readouterr().out


def robot(folder: Path, more: str) -> RobotConfig:
    (folder / "robot.toml").write_text(ROBOT.format(more=more), encoding="utf-8")
    return RobotConfig.load(folder / "robot.toml")


def test_a_robots_file_says_how_its_checkpoint_is_computed(tmp_path: Path) -> None:
    assert robot(tmp_path, "").computing == Computing()
    said = robot(tmp_path, 'precision = "mixed"\ndevice = "cpu"\nthreads = 1\ncores = [1]').computing
    assert said == Computing("mixed", "cpu", 1, (1,))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('precision = "int4"', "precision is 'int4'.*mixed"),
        ('device = "cuda"', "device is 'cuda'"),
        ("threads = -1", "threads is -1"),
        ("cores = [true]", "cores is"),
        ("cores = 1", "cores is 1"),
    ],
)
def test_a_wrong_wish_in_a_robots_file_is_named(more: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        robot(tmp_path, more)
