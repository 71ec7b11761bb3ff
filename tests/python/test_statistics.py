"""Statistics are found in every published place, chosen by name, and never guessed."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import casefiles
from golden import CASES, read_safetensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.statistics import NORM_STATS, Statistics, sources

Tensors = dict[str, NDArray[Any]]
TORCH = ("normalizer_action.pth", "normalizer_propri.pth")
WITH_FILES = [case for case in CASES if (case / "norm_stats.json").exists()]


def weights(case: Path) -> Tensors:
    return {k: v for k, v in read_safetensors(case / "model.safetensors").items() if ".normalizer_" in k}


def made(robots: Mapping[str, int]) -> Tensors:
    """Statistics of some robots, each recognisable by its minimum."""
    out: Tensors = {}
    for i, (robot, width) in enumerate(robots.items()):
        for kind in ("action", "propri"):
            out[f"action_preprocessor.normalizer_{kind}.min.{robot}"] = np.full(width, -i, np.float32)
            out[f"action_preprocessor.normalizer_{kind}.delta.{robot}"] = np.ones(width, np.float32)
    return out


def norm_stats(path: Path, width: int, low: float = -1.0, **changes: Any) -> None:
    entry = {"q01": [low] * width, "q99": [1.0] * width, "mean": [0.0] * width}
    sets = {"action": entry, "observation.state": dict(entry)} | changes
    path.write_text(json.dumps({"norm_stats": sets}), encoding="utf-8")


@pytest.mark.parametrize("case", WITH_FILES, ids=lambda c: c.name)
@pytest.mark.parametrize("place", ["norm_stats.json", TORCH[0], "the weights"])
def test_every_place_gives_the_reference_s_numbers(case: Path, place: str, tmp_path: Path) -> None:
    inputs = read_safetensors(case / "inputs.safetensors")
    folder = casefiles.linked_copy(case, tmp_path / "case")
    for file in ("norm_stats.json", *TORCH):
        if file != place and not (file in TORCH and place in TORCH):
            (folder / file).unlink()
    width = inputs["norm.action_min"].size
    robot = json.loads((case / "manifest.json").read_text(encoding="utf-8"))["robot"]
    tensors = weights(case) if place == "the weights" else {}
    for key in (None, NORM_STATS if place == "norm_stats.json" else robot):
        found = Statistics.load(folder, tensors, key, width, width)
        assert place in found.source
        for kind, normalizer in (("action", found.action), ("propri", found.state)):
            assert normalizer.minimum.tobytes() == inputs[f"norm.{kind}_min"].tobytes()
            assert normalizer.delta.tobytes() == inputs[f"norm.{kind}_delta"].tobytes()


def test_three_cases_have_files() -> None:
    assert len(WITH_FILES) == 3


def test_the_first_place_counts(tmp_path: Path) -> None:
    case = WITH_FILES[0]
    folder = casefiles.linked_copy(case, tmp_path / "case")
    tensors = made({"libero_all": 26})

    def source() -> str:
        return Statistics.load(folder, tensors, None, 26, 26).source

    assert [s.name for s in sources(folder, tensors)] == ["norm_stats.json", ", ".join(TORCH), "the weights"]
    assert source() == "norm_stats.json"
    (folder / "norm_stats.json").unlink()
    assert source() == ", ".join(TORCH)
    for name in TORCH:
        (folder / name).unlink()
    assert source() == "the weights"
    tensors.clear()
    with pytest.raises(ConfigError, match=r"statistics for no robot: no norm_stats\.json"):
        source()


def test_places_that_disagree_are_reported(tmp_path: Path) -> None:
    case = WITH_FILES[0]
    folder = casefiles.linked_copy(case, tmp_path / "case")

    def differing(tensors: Tensors) -> tuple[str, ...]:
        return Statistics.load(folder, tensors, None, 26, 26).differing

    same = weights(case)
    assert differing(same) == ()
    assert differing(same | made({"other": 26})) == ()  # two sets: none of them is meant
    # statistics of another model that were left in the weights do no harm, and are reported
    assert differing(made({"pretraining": 20})) == ("the weights",)
    name = "action_preprocessor.normalizer_propri.delta.libero_all"
    assert differing(same | {name: same[name] * np.float32(1.001)}) == ("the weights",)
    casefiles.change_json(folder / "norm_stats.json", lambda c: c["norm_stats"]["action"]["q99"].append(1.0))
    casefiles.change_json(folder / "norm_stats.json", lambda c: c["norm_stats"]["action"]["q01"].append(0.5))
    assert differing(same) == (", ".join(TORCH), "the weights")


def test_a_name_is_looked_for_in_every_place(tmp_path: Path) -> None:
    norm_stats(tmp_path / "norm_stats.json", 7)
    tensors = made({"desk": 7, "x2_normal": 7})
    assert Statistics.load(tmp_path, tensors, None, 7, 7).name == NORM_STATS
    found = Statistics.load(tmp_path, tensors, "x2_normal", 7, 7)
    assert (found.name, found.source) == ("x2_normal", "the weights")
    assert found.action.minimum.tolist() == [-1.0] * 7


def test_a_name_may_be_the_beginning_of_one_only(tmp_path: Path) -> None:
    tensors = made({"x2_normal": 3, "x2_normal_v3": 3, "libero_all": 3, "libero": 3, "arx_a": 3, "arx_b": 3})

    def name(key: str) -> str:
        return Statistics.load(tmp_path, tensors, key, 3, 3).name

    assert name("x2_normal") == "x2_normal"  # exactly, although another begins so
    assert name("libero") == "libero"
    assert name("x2_normal_v3") == "x2_normal_v3"
    del tensors["action_preprocessor.normalizer_action.min.libero"]
    del tensors["action_preprocessor.normalizer_action.delta.libero"]
    assert name("libero") == "libero_all"
    with pytest.raises(ConfigError, match=r"'arx', which arx_a, arx_b begin with .* write the whole name"):
        name("arx")
    for key in ("ar", "x2_norma", "", "so101"):
        with pytest.raises(ConfigError, match=rf"no statistics for robot '{key}' .* it has the weights: arx_a"):
            name(key)


def test_the_only_set_is_not_taken_for_another_name(tmp_path: Path) -> None:
    """The reference would; another robot's statistics move an arm to other places."""
    with pytest.raises(ConfigError, match="no statistics for robot 'mine'"):
        Statistics.load(tmp_path, made({"theirs": 3}), "mine", 3, 3)


def test_several_sets_need_a_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"statistics for a, b \(the weights\); name one as policy\.statistics"):
        Statistics.load(tmp_path, made({"b": 3, "a": 3}), None, 3, 3)


def test_a_short_row_is_filled_up_at_its_end(tmp_path: Path) -> None:
    norm_stats(tmp_path / "norm_stats.json", 7)
    found = Statistics.load(tmp_path, {}, None, 26, 9)
    assert (found.num_action_columns, found.num_state_columns) == (7, 7)
    assert found.action.minimum.tolist() == [-1.0] * 7 + [0.0] * 19
    assert found.action.delta.tolist() == [2.0] * 7 + [1.0] * 19
    assert found.state.width == 9


def test_a_long_row_and_a_short_one_of_the_weights_are_refused(tmp_path: Path) -> None:
    norm_stats(tmp_path / "norm_stats.json", 7)
    with pytest.raises(CheckpointError, match=r"propri\.norm_stats \(norm_stats\.json\) has 7 columns, .* has 6"):
        Statistics.load(tmp_path, {}, None, 7, 6)
    for width in (6, 8, 1):
        with pytest.raises(CheckpointError, match=rf"action\.a \(the weights\) has 7 columns, .* has {width}"):
            Statistics.load(tmp_path, made({"a": 7}), "a", width, 7)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not JSON"),
        ("[" * 100000, "not JSON"),
        ("[]", "norm_stats is missing"),
        ('{"norm_stats": {}}', "norm_stats.action is missing, expected q01 and q99"),
    ],
)
def test_a_file_that_is_no_statistics_is_refused(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "norm_stats.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"norm_stats\.json: ") as caught:
        sources(tmp_path, {})
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"q01": [1.0]}, r"norm_stats\.action\.q99 is None, expected a row of numbers"),
        ({"q01": "1", "q99": [1.0]}, r"q01 is '1'"),
        ({"q01": ["1"], "q99": [1.0]}, r"q01 is \['1'\]"),
        ({"q01": [True], "q99": [1.0]}, r"q01 is \[True\]"),
        ({"q01": [], "q99": []}, r"q01 is \[\]"),
        ({"q01": [[1.0], [1.0, 2.0]], "q99": [1.0]}, "expected a row of numbers"),
        ({"q01": [1.0], "q99": [1.0, 2.0]}, r"q01 has shape \(1,\), q99 \(2,\)"),
        ({"q01": [[0.0] * 3] * 2, "q99": [[1.0] * 3] * 2}, r"min has shape \(2, 3\): statistics per step"),
        ({"q01": [1.0] * 3, "q99": [0.0] * 3}, r"delta\[0\] is -1\.0, expected 0 or more"),
        ({"q01": [float("nan")] * 3, "q99": [0.0] * 3}, r"min\[0\] is nan"),
        ({"q01": [0.0] * 3, "q99": [1e39] * 3}, r"delta\[0\] is inf"),
    ],
)
def test_numbers_that_are_no_statistics_are_refused(entry: dict[str, Any], text: str, tmp_path: Path) -> None:
    norm_stats(tmp_path / "norm_stats.json", 3, action=entry)
    with pytest.raises(CheckpointError, match=text):
        Statistics.load(tmp_path, {}, None, 3, 3)


def test_half_of_anything_is_refused(tmp_path: Path) -> None:
    tensors = made({"a": 3, "b": 3})
    whole = dict(tensors)
    for name in whole:
        tensors = {k: v for k, v in whole.items() if k != name}
        with pytest.raises(CheckpointError, match=r"tensor (min|delta)\.[ab] is missing, its other half"):
            sources(tmp_path, tensors)
    only_action = {k: v for k, v in whole.items() if "_action." in k}
    with pytest.raises(CheckpointError, match=r"no robot has statistics for both action \(a, b\) and state \(none\)"):
        sources(tmp_path, only_action)
    folder = casefiles.linked_copy(WITH_FILES[0], tmp_path / "case")
    (folder / TORCH[1]).unlink()
    with pytest.raises(CheckpointError, match=r"normalizer_propri\.pth: cannot be read"):
        sources(folder, {})


def test_a_damaged_file_is_refused_even_where_another_place_counts(tmp_path: Path) -> None:
    folder = casefiles.linked_copy(WITH_FILES[0], tmp_path / "case")
    casefiles.replace(folder / TORCH[0], b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="not a zip archive"):
        Statistics.load(folder, {}, None, 26, 26)


@pytest.mark.parametrize("name", ["norm_stats.json", "normalizer_action.pth"])
def test_a_link_to_nowhere_is_not_a_checkpoint_without_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(tmp_path / "gone")
    with pytest.raises(CheckpointError, match=f"{name}: cannot be read: No such file"):
        Statistics.load(tmp_path, {}, None, 3, 3)
