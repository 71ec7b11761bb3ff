"""Quality: the report says what was measured and by what; smoothing changes rounding only, and helps where it must."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from casefiles import linked_copy, write_tensors
from golden import CASE1, CASES, read_safetensors
from wallx_edge.cli import main
from wallx_edge.computing import Computing
from wallx_edge.errors import ConfigError
from wallx_edge.golden_case import GoldenCase
from wallx_edge.quantize.page import write_report
from wallx_edge.quantize.quality import Answers, Quality, compare, measure
from wallx_edge.quantize.recipe import PAIRS, Recipe, Smoothing
from wallx_edge.quantize.smoothing import observe, smooth
from wallx_edge.quantize.writer import quantize
from wallx_edge.train_config import open_quantizer
from wallx_edge.types import DofLayout
from wallx_edge.verify_reduced import residuals

# precision -> cosine of the integrated action, median and worst
TARGETS = {"mixed": (0.9995, 0.999), "int8": (0.999, 0.995)}


@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
@pytest.mark.parametrize("precision", TARGETS)
def test_integrated_actions_stay_near_fp32(precision: str, golden: Path) -> None:
    found = measure(golden, golden, computing=Computing(precision))
    median, worst = TARGETS[precision]
    assert found.reference == "fp32"
    assert len(found.cosine) == 8
    assert np.median(found.cosine) >= median
    assert min(found.cosine) >= worst
    assert 0.95 < np.median(found.jerk) < 1.05
    assert found.token_agreement > 0.75


def test_a_checkpoint_agrees_with_itself() -> None:
    found = measure(CASE1, CASE1, count=1, computing=Computing("fp32"))
    assert found.cosine == pytest.approx([1, 1])
    assert found.jerk == [1, 1]
    assert found.token_agreement == 1
    assert set(found.layers.values()) == {0.0}
    assert all(slot["largest"] == 0 for slot in found.slots.values())


def test_the_numbers_are_what_they_say() -> None:
    layout = DofLayout.from_config({"follow_left_ee_cartesian_pos": 3, "follow_left_gripper": 1})
    random = np.random.default_rng(0)
    rows = random.standard_normal((2, 1, 8, 4))
    exact = Answers(
        rows.astype(np.float32),
        rows,
        np.arange(6).reshape(2, 3),
        {"layers.0": np.ones((2, 3), np.float32)},
        layout,
        0.1,
        {},
    )
    moved = rows.copy()
    moved[..., 3] += 0.5  # a constant has no jerk
    other = replace(
        exact,
        actions=np.stack([-rows[0], rows[1]]).astype(np.float32),
        rows=moved,
        tokens=np.array([[0, 1, 2], [3, 4, 0]]),
        layers={"layers.0": np.full((2, 3), 1.1, np.float32)},
    )
    found = compare(other, exact, "fp32", False, "mine")
    assert found.cosine == pytest.approx([-1, 1])
    assert found.jerk == pytest.approx([1, 1])
    assert found.token_agreement == pytest.approx(5 / 6)
    assert found.layers["layers.0"] == pytest.approx(0.1, rel=1e-5)
    assert found.slots["follow_left_gripper"]["rms"] == pytest.approx(0.5)
    assert found.slots["follow_left_ee_cartesian_pos"] == {
        "unit": "m",
        "rms": 0,
        "largest": 0,
        "range": pytest.approx(np.ptp(rows[..., :3])),
    }
    assert np.array_equal(found.example, np.stack([rows[0, 0], moved[0, 0]]))
    twice = compare(replace(exact, rows=2 * rows), exact, "fp32", False, "mine")
    assert twice.jerk == pytest.approx([2, 2])


def report(folder: Path, *options: str) -> dict[str, Any]:
    """Runs the verb in a process of its own: matplotlib keeps fonts open."""
    words = ["quantize", str(CASE1), str(folder), "--count", "1", *options]
    code = "import sys; from wallx_edge.cli import main; sys.exit(main(sys.argv[1:]))"
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert str(folder / "quality" / "index.html") in ended.stdout
    return dict(json.loads((folder / "quality" / "report.json").read_text(encoding="utf-8")))


def test_the_page_has_plots_and_says_that_observations_were_synthetic(tmp_path: Path) -> None:
    found = report(tmp_path / "out", "--recipe", "mixed")
    assert found["observations"] == "synthetic"
    assert found["computing"]["given"]["precision"] == "mixed"
    page = (tmp_path / "out" / "quality" / "index.html").read_text(encoding="utf-8")
    assert "synthetic" in page
    assert f"{found['cosine']['worst']:.6f}" in page
    for name in ("cosine", "layers", "slots", "rows"):
        assert f'src="{name}.png"' in page
        with Image.open(tmp_path / "out" / "quality" / f"{name}.png") as picture:
            assert picture.width > 500
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 10
    assert all(layer in page for layer in found["layers"])


def test_a_page_without_matplotlib_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = measure(CASE1, CASE1, count=1, computing=Computing("int8"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert write_report(quality, tmp_path, "<title>") is False
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "wallx-edge[plot]" in page
    assert "&lt;title&gt;" in page and "<title><title>" not in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.html", "report.json"]


def write_observations(folder: Path, **changes: Any) -> Path:
    roles = ("face_view", "left_wrist_view", "right_wrist_view")
    for number, role in enumerate(roles):
        Image.new("RGB", (64, 48), (40 * number, 90, 120)).save(folder / f"{role}.png")
    item = {"images": {role: f"{role}.png" for role in roles}, "task": "wipe the table", **changes}
    path = folder / "seen.json"
    path.write_text(json.dumps([{key: value for key, value in item.items() if value is not None}]), encoding="utf-8")
    return path


def test_the_users_observations_are_used(tmp_path: Path) -> None:
    found = measure(CASE1, CASE1, write_observations(tmp_path), computing=Computing("int8"))
    assert not found.is_synthetic
    assert found.num_observations == 1
    assert found.as_json()["observations"] == "the user's"
    state = [0.0] * 20
    other = measure(CASE1, CASE1, write_observations(tmp_path, state=state), computing=Computing("int8"))
    assert other.cosine != found.cosine


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": {"face_view": "absent.png"}}, "no such file"),
        ({"images": 3}, "images"),
        ({"state": [1.0]}, "20"),
        ({"state": "none"}, "list of numbers"),
        ({"task": None}, "images, task"),
        ({"more": 1}, "nothing else"),
    ],
)
def test_a_wrong_observation_is_named(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        measure(CASE1, CASE1, write_observations(tmp_path, **changes), computing=Computing("int8"))


def test_wrong_wishes_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for wish, word in ((["--count", "0"], "--count is 0"), (["--observations", "absent.json"], "no such file")):
        assert main(["quantize", str(CASE1), str(tmp_path / "out"), *wish]) == 1
        assert word in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def with_outliers(folder: Path) -> Path:
    """Case 1, whose norms say fifty times as much in a few channels, which the layers behind take back."""
    source = linked_copy(CASE1, folder / "source")
    tensors = {name: value.copy() for name, value in read_safetensors(CASE1 / "model.safetensors").items()}
    for name in list(tensors):
        users: list[str] = []
        if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight")):
            prefix = name.rsplit(".", 2)[0]
            users = [f"{prefix}.self_attn.{part}_proj.weight" for part in "qkv"]
            if "post" in name:
                users = [f"{prefix}.moe.experts.{e}.{part}_proj.weight" for e in "01" for part in ("gate", "up")]
        elif ".norm1." in name or ".norm2." in name:
            prefix = name.rsplit(".", 2)[0]
            users = [f"{prefix}.attn.qkv.weight"]
            if "norm2" in name:
                users = [f"{prefix}.mlp.{part}_proj.weight" for part in ("gate", "up")]
        for channel in (3, 17) if users else ():
            tensors[name][channel] *= 50
            for user in users:
                tensors[user][:, channel] /= 50
    write_tensors(source / "model.safetensors", tensors)
    return source


def test_smoothing_takes_outliers_away(tmp_path: Path) -> None:
    source = with_outliers(tmp_path)
    exact = GoldenCase(source).compute("flow")["flow.v"]
    original = GoldenCase(CASE1).compute("flow")["flow.v"]
    assert residuals(exact, original)[0] < 1e-4  # the same network
    recipe = Recipe("smooth", "", "int8", smoothing=Smoothing(0.5, PAIRS))
    engine = observe(source, None, None, 2)
    scaled: list[int] = []

    def prepare(quantizer: Any) -> dict[str, str]:
        scaled.append(smooth(quantizer, engine, Smoothing(0.5, PAIRS)))
        return {}

    quantize(source, tmp_path / "smooth", recipe, prepare=prepare)
    quantize(source, tmp_path / "rough", recipe)
    noise = {
        name: residuals(GoldenCase(tmp_path / name).compute("flow")["flow.v"], exact)[0] for name in ("smooth", "rough")
    }
    assert scaled == [24]  # three of each block and layer, feed-forwards of two experts
    assert noise["rough"] > 2 * noise["smooth"]
    assert noise["smooth"] < 0.15


@pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
def test_smoothing_alone_changes_only_rounding(golden: Path, tmp_path: Path) -> None:
    """int8 as it is rounds far more than what is left when the scales cancel."""
    engine = observe(golden, None, None, 1)
    exact = GoldenCase(golden).compute("vision")["vis.out"]
    quantizer = open_quantizer(golden, "int8")
    assert smooth(quantizer, engine, Smoothing(0.5, ("vision.qkv", "vision.gate_up", "vision.down"))) > 0
    smoothing = Recipe.load("int8-smooth").smoothing
    assert smoothing is not None
    noise = []
    for name in ("smooth", "plain"):
        prepare = (lambda q: {"n": str(smooth(q, engine, smoothing))}) if name == "smooth" else None
        quantize(golden, tmp_path / name, Recipe("x", "", "int8"), prepare=prepare)
        noise.append(residuals(GoldenCase(tmp_path / name).compute("vision")["vis.out"], exact)[0])
    assert noise[0] < 1.2 * noise[1]


def test_layers_that_are_16_bit_are_not_smoothed() -> None:
    engine = observe(CASE1, None, None, 1)
    assert smooth(open_quantizer(CASE1, "bf16"), engine, Smoothing(0.5, PAIRS)) == 0
    # one of two layers behind a norm is 16-bit: the norm stays
    mixed = open_quantizer(CASE1, "int8", ["model.layers.*.experts.1.gate_up_proj"])
    assert smooth(mixed, engine, Smoothing(0.5, ("gate_up",))) == 0


def test_the_report_is_json_without_nan() -> None:
    quality = measure(CASE1, CASE1, count=1, computing=Computing("w8"))
    assert isinstance(quality, Quality)
    json.dumps(quality.as_json(), allow_nan=False)
