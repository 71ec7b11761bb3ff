"""The page about variants and the table in code say the same, and every key on the page is one of the program."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from golden import CASES, ROOT
from wallx_edge import _core
from wallx_edge.policy_config import DEFAULT_STATE_BINS, RESOLUTIONS, PolicyConfig
from wallx_edge.robot_config import RobotConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = (ROOT / "docs" / "variants.md").read_text(encoding="utf-8")
ROBOT = """\
[robot]
embodiment = "so101"
calibration = "my_arm.json"
[bus]
port = "/dev/ttyACM0"
[policy]
checkpoint = "model"
{line}
[[camera]]
role = "face_view"
kind = "pattern"
"""


def table(word: str) -> list[dict[str, str]]:
    """The rows of the table with a word in its header, by column."""
    blocks = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)]
    (block,) = (block for block in blocks if f"| {word} |" in block[0])
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block)
    return [dict(zip(header, row, strict=True)) for row in rows]


def keys(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_rows_are_those_of_the_code() -> None:
    assert [keys(row["variant"])[0] for row in table("flow ends at")] == [v.name for v in _core.variants()]
    for row, variant in zip(table("flow ends at"), _core.variants(), strict=True):
        assert row["published checkpoint"] == (variant.checkpoints or "none")
        assert row["attention and norms"] == ("per expert" if variant.has_expert_attention else "shared")
        assert row["norms of the action expert"] == ("follow the time" if variant.has_adaptive_norms else "plain")
        state = "text" if variant.is_state_text else "token"
        assert row["state"] == ("as its flag says" if variant.has_adaptive_norms else state)
        assert row["flow ends at"] == ("`noise_scheduler.s`" if variant.is_time_scaled else "1")
        assert row["dims not in use"] == ("to zero" if variant.does_pad_masked_dims else "free")
        assert ", ".join(keys(row["left open"])) == variant.open_choices


def test_each_golden_case_is_of_its_row() -> None:
    rows = {keys(row["golden case"])[0]: keys(row["variant"])[0] for row in table("golden case")}
    assert rows == {str(case.relative_to(ROOT)): _core.ModelConfig.load(str(case)).architecture for case in CASES}


def test_every_open_choice_is_explained_once() -> None:
    explained = [keys(row["key"])[0] for row in table("change it to")]
    assert len(set(explained)) == len(explained)
    assert set(explained) == {key for v in _core.variants() for key in v.open_choices.split(", ")}
    assert set(explained) <= {field.name for field in fields(PolicyConfig)}


@pytest.mark.parametrize("row", table("change it to"), ids=lambda row: row["key"])
def test_defaults_and_changes_are_those_of_the_program(row: dict[str, str], tmp_path: Path) -> None:
    key, other = keys(row["key"])[0], keys(row["change it to"])[0]
    default: Any = getattr(PolicyConfig(), key)
    if default is not None:
        assert keys(row["default"]) == [json.dumps(default)]
    if key == "state_bins":
        assert row["default"].startswith(f"{DEFAULT_STATE_BINS},")
    if key == "resolution":
        assert row["default"].startswith(f"{RESOLUTIONS['mot-0.5']},")
        assert {v for name, v in RESOLUTIONS.items() if name != "mot-0.5"} == {int(other)}
    path = tmp_path / "robot.toml"
    path.write_text(ROBOT.format(line=f"{key} = {other}"), encoding="utf-8")
    policy = RobotConfig.load(path).policy
    assert getattr(policy, key) == tomllib.loads(f"value = {other}")["value"]
    assert getattr(policy, key) != default


def test_every_variant_has_a_resolution() -> None:
    assert set(RESOLUTIONS) == {v.name for v in _core.variants()}
