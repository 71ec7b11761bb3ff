"""Verify passes on the golden case, fails on any changed value, and computes nothing from what it compares with."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from casefiles import change_json, linked_copy, replace, write_tensors
from golden import CASE1, CASES, read_safetensors, tensors
from wallx_edge import verify as module
from wallx_edge.cli import main
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.golden_case import GoldenCase
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.types import Observation
from wallx_edge.verify import GROUPS, OPTIONAL, TOLERANCES, Comparison, Report, verify

EXPECTED = tensors("expected")
COMPUTE = GoldenCase.compute


@cache
def expected_of(case: Path) -> dict[str, NDArray[Any]]:
    return read_safetensors(case / "expected.safetensors")


GROUPS_OF = {case: [g for g in GROUPS if any(module._group_of(n) == g for n in expected_of(case))] for case in CASES}
EVERY_CASE = pytest.mark.parametrize("golden", CASES, ids=lambda c: c.name)
EVERY_TENSOR = pytest.mark.parametrize(
    ("golden", "name"), [pytest.param(c, n, id=f"{c.name}-{n}") for c in CASES for n in sorted(expected_of(c))]
)


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return linked_copy(CASE1, tmp_path / "case")


@cache
def computed(group: str, golden: Path = CASE1) -> dict[str, NDArray[Any]]:
    return COMPUTE(GoldenCase(golden), group)


@pytest.fixture
def computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skips what does not depend on the expected values; ``computes_nothing_from_what_is_expected`` shows that."""
    by_name = {golden.name: golden for golden in CASES}
    monkeypatch.setattr(GoldenCase, "compute", lambda self, group: computed(group, by_name[self.name]))


def changed(value: NDArray[Any]) -> NDArray[Any]:
    """A copy with one of its larger elements changed by 1 %, or by 1."""
    out = value.copy()
    at = int(np.argsort(np.abs(out.astype(np.float64)), axis=None)[out.size * 9 // 10])
    if out.dtype.kind == "f":
        out.flat[at] *= out.dtype.type(1.01)
    else:
        out.flat[at] += -1 if out.flat[at] == np.iinfo(out.dtype).max else 1
    assert not np.array_equal(out, value)
    return out


def of_group(group: str, golden: Path = CASE1) -> dict[str, NDArray[Any]]:
    return {name: value for name, value in expected_of(golden).items() if module._group_of(name) == group}


def failures(report: Report) -> list[str]:
    return [c.name for c in report.comparisons if not c.is_ok]


@EVERY_CASE
def test_passes_in_all_groups(golden: Path) -> None:
    report = verify(golden)
    assert failures(report) == []
    assert report.is_ok
    assert sorted(c.name for c in report.comparisons) == sorted(expected_of(golden))
    assert {c.group for c in report.comparisons} == set(GROUPS_OF[golden])
    assert set(GROUPS) - set(GROUPS_OF[golden]) <= set(OPTIONAL)
    assert report.not_run == {}
    assert not any(c.note for c in report.comparisons)


def test_the_cases_have_every_group_between_them() -> None:
    assert len(CASES) >= 4
    assert {group for groups in GROUPS_OF.values() for group in groups} == set(GROUPS)


@pytest.mark.parametrize(
    ("golden", "group"), [pytest.param(c, g, id=f"{c.name}-{g}") for c, groups in GROUPS_OF.items() for g in groups]
)
def test_passes_each_group_alone(golden: Path, group: str) -> None:
    report = verify(golden, [group])
    assert report.is_ok
    assert {c.group for c in report.comparisons} == {group}
    assert sum(report.not_run.values()) + len(report.comparisons) == len(expected_of(golden))


@EVERY_TENSOR
@pytest.mark.usefixtures("computed_once")
def test_one_changed_value_fails_and_is_named(
    golden: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = linked_copy(golden, tmp_path / "case")
    group = str(module._group_of(name))
    write_tensors(case / "expected.safetensors", of_group(group, golden) | {name: changed(expected_of(golden)[name])})
    assert main(["verify", str(case), "--json", "--groups", group]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"]
    assert [t["name"] for t in report["tensors"] if not t["ok"]] == [name]


@pytest.mark.parametrize("name", ["pre.pixel_values", "rope.sin", "vis.block1", "flow.step0.norm", "flow_causal.v"])
def test_one_changed_value_fails_in_a_whole_run(name: str, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tensors(case / "expected.safetensors", EXPECTED | {name: changed(EXPECTED[name])})
    group = module._group_of(name)
    assert main(["verify", str(case), "--groups", str(group)]) == 1
    out = capsys.readouterr().out
    assert f"{name}: error" in out
    assert "1 differ" in out


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["vis.block0", "flow.v", "norm.roundtrip", "flow_causal.step0_v_diff_max"])
@pytest.mark.usefixtures("computed_once")
def test_a_value_that_is_no_number_fails(name: str, bad: float, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = EXPECTED[name].copy()
    value.flat[value.size // 2] = bad
    write_tensors(case / "expected.safetensors", EXPECTED | {name: value})
    report = verify(case)
    assert failures(report) == [name]
    # no NaN or Infinity in the output: they are not JSON
    json.loads(json.dumps(report.as_json(), allow_nan=False))
    assert main(["verify", str(case)]) == 1
    assert name in capsys.readouterr().out


# 58 and 71 are close calls of the golden text; a reference may choose the other token there, but no third one
@pytest.mark.parametrize("at", [0, 10, 57, 58, 59, 70, 71, 72, 99])
def test_a_changed_token_fails_even_after_a_close_call(at: int, case: Path) -> None:
    tokens = EXPECTED["text.generated_ids"].copy()
    tokens[0, at] += 1
    write_tensors(case / "expected.safetensors", EXPECTED | {"text.generated_ids": tokens})
    assert failures(verify(case, ["text"])) == ["text.generated_ids"]


@pytest.mark.parametrize(("at", "fails"), [(58, False), (71, False), (57, True)])
@pytest.mark.usefixtures("computed_once")
def test_texts_may_part_where_two_tokens_are_equally_good(at: int, fails: bool, case: Path) -> None:
    tokens, margins = EXPECTED["text.generated_ids"].copy(), EXPECTED["text.top2_margin"].copy()
    tokens[0, at] = computed("text")["text.runner_up"][at]
    tokens[0, at + 1 :] = 7
    margins[at + 1 :] = 3
    # the other text may also end earlier
    tokens, margins = tokens[:, :90], margins[:90]
    changes = {"text.generated_ids": tokens, "text.top2_margin": margins}
    write_tensors(case / "expected.safetensors", EXPECTED | changes)
    report = verify(case, ["text"])
    if fails:
        assert failures(report) == ["text.generated_ids", "text.top2_margin"]
        return
    assert failures(report) == []
    notes = {c.name: c.note for c in report.comparisons if c.note}
    assert notes == {
        "text.generated_ids": f"compared up to a close call, {at} of 90",
        "text.top2_margin": f"compared up to a close call, {at + 1} of 90",
    }
    margins = margins.copy()
    margins[at] = 0.5
    write_tensors(case / "expected.safetensors", EXPECTED | changes | {"text.top2_margin": margins})
    assert failures(verify(case, ["text"])) == ["text.top2_margin"]


@pytest.mark.parametrize("name", ["flow.surprise", "vis.block9", "text.more", "tok.flow.other", "norm.x2"])
@pytest.mark.usefixtures("computed_once")
def test_an_expected_tensor_that_nobody_computes_fails(name: str, case: Path) -> None:
    write_tensors(case / "expected.safetensors", EXPECTED | {name: np.zeros(3, np.float32)})
    assert failures(verify(case)) == [name]
    assert failures(verify(case, [str(module._group_of(name))])) == [name]


@pytest.mark.usefixtures("computed_once")
def test_an_expected_tensor_of_no_group_fails_a_full_run(case: Path) -> None:
    write_tensors(case / "expected.safetensors", EXPECTED | {"novel.tensor": np.zeros(3, np.float32)})
    report = verify(case)
    assert failures(report) == ["novel.tensor"]
    assert "no group computes" in next(c.note for c in report.comparisons if not c.is_ok)


@EVERY_TENSOR
@pytest.mark.usefixtures("computed_once")
def test_a_missing_tensor_fails_and_is_named(golden: Path, name: str, tmp_path: Path) -> None:
    case = linked_copy(golden, tmp_path / "case")
    group = str(module._group_of(name))
    write_tensors(case / "expected.safetensors", {k: v for k, v in of_group(group, golden).items() if k != name})
    report = verify(case, [group])
    assert failures(report) == [name]
    assert "missing" in next(c.note for c in report.comparisons if not c.is_ok)


@pytest.mark.usefixtures("computed_once")
def test_a_group_without_tensors_fails(case: Path) -> None:
    kept = {k: v for k, v in EXPECTED.items() if module._group_of(k) != "vision"}
    write_tensors(case / "expected.safetensors", kept)
    change_json(case / "manifest.json", lambda m: m.pop("expected"))
    assert set(failures(verify(case))) == {"vision"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("flow.v", EXPECTED["flow.v"][:9]),
        ("flow.v", EXPECTED["flow.v"][:0]),
        ("text.top2_margin", np.zeros((), np.float32)),
        ("text.generated_ids", EXPECTED["text.generated_ids"][0]),
        ("tok.flow.input_ids", EXPECTED["tok.flow.input_ids"][0]),
        ("tok.flow.input_ids", EXPECTED["tok.flow.input_ids"].astype(np.float32) + np.float32(0.25)),
    ],
)
@pytest.mark.usefixtures("computed_once")
def test_a_wrong_shape_or_type_fails(name: str, value: NDArray[Any], case: Path) -> None:
    write_tensors(case / "expected.safetensors", EXPECTED | {name: value})
    assert failures(verify(case)) == [name]


@pytest.mark.parametrize("fill", [np.nan, 0.0])
@EVERY_CASE
def test_computes_nothing_from_what_is_expected(
    golden: Path, fill: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = linked_copy(golden, tmp_path / "case")
    blank = {k: np.full_like(v, fill if v.dtype.kind == "f" else 0) for k, v in expected_of(golden).items()}
    write_tensors(case / "expected.safetensors", blank)
    seen: dict[str, dict[str, NDArray[Any]]] = {}

    def spy(self: Any, group: str) -> dict[str, NDArray[Any]]:
        seen[group] = COMPUTE(self, group)
        return seen[group]

    monkeypatch.setattr(GoldenCase, "compute", spy)
    assert not verify(case).is_ok
    assert list(seen) == GROUPS_OF[golden]
    for group in GROUPS_OF[golden]:
        assert seen[group].keys() == computed(group, golden).keys()
        for name, value in computed(group, golden).items():
            assert value.tobytes() == seen[group][name].tobytes(), name


@EVERY_CASE
def test_group_order_does_not_matter(golden: Path) -> None:
    case = GoldenCase(golden)
    for group in reversed(GROUPS_OF[golden]):
        for name, value in case.compute(group).items():
            assert value.tobytes() == computed(group, golden)[name].tobytes(), name


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        (["nonsense"], "unknown group 'nonsense'"),
        (["flow", "dllm"], "unknown group 'dllm'"),
        ([], "no group chosen"),
    ],
)
def test_refuses_groups_it_cannot_compute(groups: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text) as caught:
        verify(CASE1, groups)
    assert "preprocess" in str(caught.value)


@pytest.mark.usefixtures("computed_once")
def test_a_group_named_twice_is_compared_once() -> None:
    names = [c.name for c in verify(CASE1, ["text", "text"]).comparisons]
    assert len(names) == len(set(names))


def test_json_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(CASE1), "--json", "--groups", "tokens, normalizer"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["case"] == "case1_flow_v1"
    assert report["ok"] is True
    wanted = [name for name in sorted(EXPECTED) if module._group_of(name) in ("tokens", "normalizer")]
    assert sorted(t["name"] for t in report["tensors"]) == wanted
    for tensor in report["tensors"]:
        assert set(tensor) == {"name", "group", "ok", "error", "tolerance", "note"}
        assert 0 <= tensor["error"] <= tensor["tolerance"]
    assert sum(report["not_run"].values()) == len(EXPECTED) - len(wanted)


@EVERY_CASE
def test_tolerances_are_no_wider_than_the_case_allows(golden: Path) -> None:
    velocities = ("flow.action", "flow_causal.", "flow_legacy9.", "flow_nocache.", "flow.v", "flow.x", "flow.t")
    for comparison in verify(golden).comparisons:
        name, value = comparison.name, expected_of(golden)[comparison.name]
        if value.dtype.kind != "f":
            bound = 0.0  # integer tensors exact; resized images exact
        elif name.startswith("pre."):
            bound = 1e-5
        elif name.startswith("geom."):
            bound = 1e-8  # float64 on both sides
        elif name.startswith(velocities):
            bound = 1e-3 if "embed" not in name else 2e-4 * float(np.abs(value).max())
        elif name.startswith(("norm.", "proprio.normalized", "fast.", "fastgen.gt_action", "flow.padding_action")):
            bound = 1e-3
        else:
            bound = 2e-4 * float(np.abs(value).max())
        assert comparison.tolerance <= bound, name
        assert comparison.tolerance == 0 if bound == 0 else comparison.tolerance > 0, name


def test_every_tolerance_is_in_the_table_and_narrow() -> None:
    assert all(0 < share <= 5e-5 or most <= 1e-4 for share, most in TOLERANCES.values())
    floats = {n for golden in CASES for n, v in expected_of(golden).items() if v.dtype.kind == "f"}
    assert all(any(name.startswith(prefix) for prefix in TOLERANCES) for name in floats)


@pytest.mark.parametrize("group", OPTIONAL)
def test_a_group_that_a_case_has_inputs_of_is_not_left_out(group: str, tmp_path: Path) -> None:
    golden = next(c for c in CASES if group in GROUPS_OF[c])
    case = linked_copy(golden, tmp_path / "case")
    kept = {k: v for k, v in expected_of(golden).items() if module._group_of(k) != group}
    write_tensors(case / "expected.safetensors", kept)
    change_json(case / "manifest.json", lambda m: m.pop("expected"))
    report = verify(case)
    assert failures(report) == [group]
    other = next(c for c in CASES if group not in GROUPS_OF[c])
    assert failures(verify(other, [group])) == [group]


def test_an_infinite_tolerance_does_not_excuse_an_infinite_error() -> None:
    assert not Comparison("a", "flow", np.inf, np.inf).is_ok
    assert not Comparison("a", "flow", np.nan, np.inf).is_ok
    assert not Report("empty", (), {}, {}).is_ok


@pytest.mark.parametrize("file", ["manifest.json", "inputs.safetensors", "expected.safetensors", "model.safetensors"])
def test_a_missing_or_damaged_file_is_named(file: str, case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replace(case / file, (CASE1 / file).read_bytes()[:-9])
    assert main(["verify", str(case)]) == 1
    assert file in capsys.readouterr().err
    (case / file).unlink()
    assert main(["verify", str(case)]) == 1
    err = capsys.readouterr().err
    assert file in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("case", "flow"),
        ("camera_order", "preprocess"),
        ("resolution", "preprocess"),
        ("instruction", "tokens"),
        ("horizon", "flow"),
        ("robot", "normalizer"),
        ("text_prompt", "text"),
        ("max_new_tokens", "text"),
        ("normalizer_names_for_norm_test", "normalizer"),
    ],
)
def test_a_missing_manifest_entry_is_named(key: str, group: str, case: Path) -> None:
    change_json(case / "manifest.json", lambda m: m.pop(key))
    with pytest.raises(CheckpointError, match=f"manifest.json: {key} is missing"):
        verify(case, [group])


def test_a_camera_without_resolution_is_named(case: Path) -> None:
    change_json(case / "manifest.json", lambda m: m["resolution"].pop("left_wrist_view"))
    with pytest.raises(CheckpointError, match=r"resolution\.left_wrist_view is missing"):
        verify(case, ["preprocess"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("camera_order", []),
        ("camera_order", [1]),
        ("expected", [1]),
        ("horizon", float("nan")),
        ("instruction", 3),
        ("max_new_tokens", 0),
        ("num_inference_timesteps", 1e300),
        ("resolution", {"face_view": "x"}),
        ("state_bins", 2**70),
    ],
)
def test_an_impossible_manifest_entry_is_named(key: str, value: object, case: Path) -> None:
    change_json(case / "manifest.json", lambda m: m.update({key: value}))
    with pytest.raises(CheckpointError, match=rf"manifest\.json: {key} is .*expected"):
        verify(case)


def test_an_entry_of_null_is_one_that_is_not_there(case: Path) -> None:
    change_json(case / "manifest.json", lambda m: m.update(state_bins=None, num_inference_timesteps=None))
    assert verify(case, ["flow", "normalizer"]).is_ok


def test_a_manifest_without_end_is_refused(case: Path) -> None:
    replace(case / "manifest.json", b"[" * 100_000)
    with pytest.raises(CheckpointError, match=r"manifest\.json: not JSON"):
        verify(case)


def test_a_manifest_that_is_no_object_is_refused(case: Path) -> None:
    replace(case / "manifest.json", "[1]")
    with pytest.raises(CheckpointError, match="expected an object, got list"):
        verify(case)


@pytest.mark.parametrize(("name", "group"), [("noise", "flow"), ("state", "flow"), ("image.face_view", "preprocess")])
def test_a_missing_input_is_named(name: str, group: str, case: Path) -> None:
    kept = {k: v for k, v in tensors("inputs").items() if k != name}
    write_tensors(case / "inputs.safetensors", kept)
    with pytest.raises(CheckpointError, match=f"inputs.safetensors: tensor {name} is missing"):
        verify(case, [group])


def test_a_case_of_other_shape_agrees_with_the_policy(case: Path) -> None:
    """One camera, fewer rows, other steps: verify and the policy compute the same chunk by separate ways."""
    horizon, steps = 7, 5
    inputs = dict(tensors("inputs"))
    inputs["noise"] = inputs["noise"][:, :horizon]
    inputs["dof_mask"] = np.ones_like(inputs["noise"])
    inputs["agent_pos_mask"] = np.ones_like(inputs["agent_pos_mask"])
    write_tensors(case / "inputs.safetensors", inputs)

    def shrink(manifest: dict[str, Any]) -> None:
        manifest["camera_order"] = ["right_wrist_view"]
        manifest["flow_prompt"] = "Observation: right wrist view: <|vision_start|>"  # it tells the labels
        manifest["horizon"] = horizon
        manifest["num_inference_timesteps"] = steps

    change_json(case / "manifest.json", shrink)
    config = {
        "cameras": ("right_wrist_view",),
        "resolution": 140,
        "horizon": horizon,
        "statistics": "x2_normal",
        "num_steps": steps,
    }
    images = {"right_wrist_view": inputs["image.right_wrist_view"]}
    state = inputs["state"].reshape(-1).astype(np.float64)
    instruction = "pick up the red block and place it in the bowl"
    observation = Observation(images, state, instruction, 0.0)
    expected = {}
    for kind, options in (
        ("flow", {}),
        ("flow_causal", {"attention": "causal"}),
        ("flow_legacy9", {"time_grid": "legacy"}),
    ):
        policy = Policy.load(CASE1, PolicyConfig(**config, **options))  # type: ignore[arg-type]
        chunk = policy.act(observation, noise=inputs["noise"][0])
        expected[f"{kind}.action"] = chunk.rows.astype(np.float32)[np.newaxis]
    assert not np.allclose(expected["flow.action"], expected["flow_causal.action"], atol=1e-4)
    assert not np.allclose(expected["flow.action"], expected["flow_legacy9.action"], atol=1e-4)
    write_tensors(case / "expected.safetensors", EXPECTED | expected)
    report = verify(case, ["flow"])
    by_name = {c.name: c for c in report.comparisons}
    assert all(by_name[name].is_ok for name in expected)
    assert not by_name["flow.v"].is_ok  # of the whole case, with another shape
