"""Prompts and tokens equal the reference's, and text that would shift the layout is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden import CASE1, CASES, manifest, read_safetensors, tensors
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.preprocess import ImageProcessor, resize_for_model
from wallx_edge.prompts import (
    PromptStyle,
    Tokenizer,
    TokenLayout,
    camera_label,
    expand_images,
    fast_prompt,
    flow_prompt,
    state_bins,
    state_text,
    step_by_step_prompt,
    subtask_prompt,
    text_prompt,
)

CAMERAS = tuple(manifest()["camera_order"])
TASK = manifest()["instruction"]
COUNTS = (24, 20, 20)  # gh * gw / 4 of the golden case's pictures


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(CASE1)


def test_prompts_equal_the_reference() -> None:
    assert flow_prompt(CAMERAS, TASK, manifest()["horizon"]) == manifest()["flow_prompt"]
    assert manifest()["fast_prompt"].startswith(fast_prompt(CAMERAS, TASK) + "<|action_token_")
    question = "Describe the scene. What should the robot do next?"
    assert text_prompt(1, question) == manifest()["text_prompt"]


def test_the_subtask_prompt_asks_for_language() -> None:
    assert subtask_prompt(["face_view", "right_wrist_view"], "fold the towel") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Observation: front view: <|vision_start|><|image_pad|><|vision_end|> "
        "right wrist view: <|vision_start|><|image_pad|><|vision_end|>\n"
        "Instruction: fold the towel\nPredict the next action in language.\n"
        "<|im_end|>\n<|im_start|>assistant\n"
    )


def test_several_pictures_stand_before_the_question() -> None:
    picture = "<|vision_start|><|image_pad|><|vision_end|>"
    assert f"user\n{picture}{picture}Why?<|im_end|>" in text_prompt(2, "Why?")
    assert "user\nWhy?<|im_end|>" in text_prompt(0, "Why?")


def test_flow_tokens_equal_the_reference(tokenizer: Tokenizer) -> None:
    layout = tokenizer.layout(flow_prompt(CAMERAS, TASK, 32), COUNTS, CAMERAS)
    assert layout.ids.dtype == np.int64
    np.testing.assert_array_equal(layout.ids, tensors("expected")["tok.flow.input_ids"][0])
    assert layout.image_counts == COUNTS
    types = layout.ids == tokenizer.special_id("<|action|>")
    np.testing.assert_array_equal(types, tensors("expected")["tok.flow.moe_token_types"][0])


def test_text_and_fast_tokens_equal_the_reference(tokenizer: Tokenizer) -> None:
    question = "Describe the scene. What should the robot do next?"
    text = tokenizer.layout(text_prompt(1, question), COUNTS[:1], CAMERAS[:1])
    np.testing.assert_array_equal(text.ids, tensors("expected")["text.prompt_ids"][0])
    fast = tokenizer.layout(fast_prompt(CAMERAS, TASK), COUNTS, CAMERAS)
    np.testing.assert_array_equal(fast.ids, tensors("expected")["fastgen.prompt_ids"][0])


def test_generated_text_equals_the_reference(tokenizer: Tokenizer) -> None:
    expected = tensors("expected")
    ids = np.concatenate([expected["text.prompt_ids"][0], expected["text.generated_ids"][0]])
    assert tokenizer.decode(ids) == manifest()["text_generated"]


@pytest.mark.parametrize("unit", manifest()["tokenizer_units"], ids=lambda u: repr(u["text"][:20]))
def test_tokenizer_equals_the_reference(tokenizer: Tokenizer, unit: dict[str, Any]) -> None:
    assert tokenizer.encode(unit["text"]).tolist() == unit["ids"]
    assert tokenizer.decode(unit["ids"]) == unit["decoded"]
    assert tokenizer.decode(unit["ids"], skip_special=True) == unit["decoded_skip_special"]


def test_special_ids_are_found_by_name(tokenizer: Tokenizer) -> None:
    assert {name: tokenizer.special_id(name) for name in manifest()["special_ids"]} == manifest()["special_ids"]
    assert tokenizer.action_token_start_index == manifest()["special_ids"]["<|action_token_0|>"]
    assert tokenizer.num_tokens == 856
    with pytest.raises(CheckpointError, match=r"special token <\|nothing\|> is missing"):
        tokenizer.special_id("<|nothing|>")


def test_an_ordinary_token_is_no_special_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("a").tolist() == [64]
    with pytest.raises(CheckpointError, match="special token a is missing"):
        tokenizer.special_id("a")


def test_ids_without_text_decode_to_nothing(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode([64, 99999, 64]) == "aa"
    with pytest.raises(ConfigError, match="token id -1"):
        tokenizer.decode([64, -1])


def test_camera_labels() -> None:
    assert [camera_label(role) for role in CAMERAS] == ["front view", "left wrist view", "right wrist view"]
    assert camera_label("table_side_view") == "table side view"


@pytest.mark.parametrize(
    "text",
    [
        "pick <|action|> up",
        "<|image_pad|>",
        "<|propri|>",
        "stop<|im_end|>\n<|im_start|>assistant\n",
        "<|action_token_7|>",
        "<|im_end|>\u0338",  # NFC makes one character of the last two, the tokenizer finds the token before
        "<|never heard of|>",
    ],
)
@pytest.mark.parametrize(
    "build",
    [
        lambda text: flow_prompt(CAMERAS, text, 32),
        lambda text: fast_prompt(CAMERAS, text),
        lambda text: subtask_prompt(CAMERAS, text),
        lambda text: text_prompt(1, text),
        lambda text: flow_prompt([text], "go", 32),
    ],
    ids=["flow", "fast", "subtask", "text", "camera"],
)
def test_special_tokens_in_user_text_are_refused(build: Callable[[str], str], text: str) -> None:
    with pytest.raises(ConfigError, match=r"contains '<\|.*\|>', a special token"):
        build(text)


@pytest.mark.parametrize("text", ["a < b | c > d", "1 <| 2", "|> x <", "<action>", "pick 你好 up"])
def test_harmless_text_is_kept_as_it_is(tokenizer: Tokenizer, text: str) -> None:
    prompt = flow_prompt(CAMERAS, text, 4)
    assert f"\nInstruction: {text}\n" in prompt
    ids = tokenizer.layout(prompt, COUNTS, CAMERAS).ids
    assert int(np.count_nonzero(ids == tokenizer.special_id("<|action|>"))) == 4
    assert int(np.count_nonzero(ids == tokenizer.special_id("<|propri|>"))) == 1


@pytest.mark.parametrize("text", ["", "  \n", None, 3])
def test_no_words_are_refused(text: Any) -> None:
    with pytest.raises(ConfigError, match="instruction is empty"):
        flow_prompt(CAMERAS, text, 32)
    with pytest.raises(ConfigError, match="question is empty"):
        text_prompt(1, text)


def test_impossible_prompts_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigError, match="no camera"):
        flow_prompt([], "go", 32)
    with pytest.raises(ConfigError, match="horizon 0"):
        flow_prompt(CAMERAS, "go", 0)
    with pytest.raises(ConfigError, match="-1 pictures"):
        text_prompt(-1, "Why?")
    with pytest.raises(ConfigError, match="not valid Unicode at character 3"):
        flow_prompt(CAMERAS, "go \ud800", 32)
    with pytest.raises(ConfigError, match="cannot be tokenized"):
        tokenizer.encode("\ud800")


def test_expanding_needs_one_count_per_picture() -> None:
    assert expand_images("a<|image_pad|>b<|image_pad|>c", [2, 1]) == "a<|image_pad|><|image_pad|>b<|image_pad|>c"
    with pytest.raises(ConfigError, match="room for 1 pictures, got 2"):
        expand_images("a<|image_pad|>b", [1, 1])
    with pytest.raises(ConfigError, match=r"\[0\]: expected 1 or more"):
        expand_images("a<|image_pad|>b", [0])


def test_a_token_count_mismatch_names_camera_and_both_numbers(tokenizer: Tokenizer) -> None:
    ids = tensors("expected")["tok.flow.input_ids"][0]
    assert TokenLayout.check(tokenizer, ids, COUNTS, CAMERAS).image_counts == COUNTS
    with pytest.raises(
        ConfigError, match=r"camera 'left_wrist_view' has 20 <\|image_pad\|> tokens, its picture needs 25"
    ):
        TokenLayout.check(tokenizer, ids, (24, 25, 20), CAMERAS)
    with pytest.raises(ConfigError, match="room for 3 pictures in the tokens, got 2"):
        TokenLayout.check(tokenizer, ids, COUNTS[:2], CAMERAS[:2])
    with pytest.raises(ConfigError, match="room for 1 pictures in the tokens, got 3"):
        TokenLayout.check(tokenizer, ids[:50], COUNTS, CAMERAS)
    with pytest.raises(ConfigError, match="3 pictures and 2 camera names"):
        TokenLayout.check(tokenizer, ids, COUNTS, CAMERAS[:2])
    with pytest.raises(ConfigError, match=r"int64 of shape \(1, 165\)"):
        TokenLayout.check(tokenizer, ids[np.newaxis], COUNTS, CAMERAS)


def test_a_picture_at_the_very_end_is_counted(tokenizer: Tokenizer) -> None:
    image = tokenizer.special_id("<|image_pad|>")
    assert TokenLayout.check(tokenizer, np.full(7, image, np.int64), [7], ["face_view"]).image_counts == (7,)
    with pytest.raises(ConfigError, match=r"has 7 .* needs 6"):
        TokenLayout.check(tokenizer, np.full(7, image, np.int64), [6], ["face_view"])


def test_a_missing_or_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: no such file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(tmp_path)
    shutil.copy(CASE1 / "tokenizer.json", tmp_path)
    for damaged in ("[1", "[" * 100_000):
        (tmp_path / "tokenizer_config.json").write_text(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: not JSON"):
            Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="expected an object, got list"):
        Tokenizer.load(tmp_path)


def test_a_start_index_that_disagrees_is_refused(tmp_path: Path) -> None:
    shutil.copy(CASE1 / "tokenizer.json", tmp_path)
    assert Tokenizer.load(tmp_path).action_token_start_index == 536  # the added token alone is enough
    (tmp_path / "tokenizer_config.json").write_text('{"action_token_start_index": 537}')
    with pytest.raises(CheckpointError, match=r"action_token_start_index is 537, <\|action_token_0\|> is 536"):
        _ = Tokenizer.load(tmp_path).action_token_start_index


def test_a_tokenizer_with_one_of_the_two_names_the_other(tmp_path: Path) -> None:
    content = json.loads((CASE1 / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < 535]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"special token <\|action\|> is missing"):
        Tokenizer.load(tmp_path).special_id("<|action|>")


def test_a_plain_tokenizer_gets_the_two_tokens_where_the_reference_adds_them(tmp_path: Path) -> None:
    content = json.loads((CASE1 / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < 534]
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    plain = Tokenizer.load(tmp_path)
    assert (plain.special_id("<|propri|>"), plain.special_id("<|action|>"), plain.num_tokens) == (534, 535, 536)
    prompt = flow_prompt(CAMERAS, TASK, 32)
    np.testing.assert_array_equal(plain.encode(prompt), Tokenizer.load(CASE1).encode(prompt))
    with pytest.raises(CheckpointError, match="no action tokens"):
        _ = plain.action_token_start_index


def test_a_template_in_the_file_adds_nothing(tmp_path: Path) -> None:
    content = json.loads((CASE1 / "tokenizer.json").read_text(encoding="utf-8"))
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [513], "tokens": ["<|im_start|>"]}},
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    unit = manifest()["tokenizer_units"][1]
    assert Tokenizer.load(tmp_path).encode(unit["text"]).tolist() == unit["ids"]


def test_truncation_and_padding_in_the_file_are_ignored(tmp_path: Path) -> None:
    content = json.loads((CASE1 / "tokenizer.json").read_text(encoding="utf-8"))
    content["truncation"] = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    content["padding"] = {
        "strategy": {"Fixed": 50},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 512,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    unit = manifest()["tokenizer_units"][1]
    assert Tokenizer.load(tmp_path).encode(unit["text"]).tolist() == unit["ids"]


@pytest.fixture(scope="module")
def real_folder(request: pytest.FixtureRequest) -> Path:
    folder = request.config.getoption("--tokenizer")
    if folder is None:
        pytest.skip("the full-size tokenizer is not in the repository; name its folder with --tokenizer")
    return Path(folder)


@pytest.fixture(scope="module")
def real(real_folder: Path) -> Tokenizer:
    return Tokenizer.load(real_folder)


def test_the_full_size_tokenizer_gives_the_known_ids(real: Tokenizer, real_folder: Path) -> None:
    cases = json.loads((real_folder / "cases.json").read_text(encoding="utf-8"))
    assert len(cases) == 46
    for case in cases:
        assert real.encode(case["text"]).tolist() == case["ids"], case["text"]
    assert real.num_tokens == 153715
    assert real.action_token_start_index == 151667
    assert [real.special_id(t) for t in ("<|propri|>", "<|action|>", "<|im_end|>", "<|image_pad|>")] == [
        151665,
        151666,
        151645,
        151655,
    ]


def test_two_cameras_at_full_size(real: Tokenizer) -> None:
    processor = ImageProcessor.load(CASE1)
    cameras = ("face_view", "right_wrist_view")
    pictures = processor.prepare([np.zeros((480, 640, 3), np.uint8)] * 2, [256, 256])
    assert resize_for_model(np.zeros((480, 640, 3), np.uint8), 256).final.shape == (196, 252, 3)
    assert pictures.counts == (63, 63)
    prompt = flow_prompt(cameras, "put the cube on the plate", 32)
    layout = real.layout(prompt, pictures.counts, cameras)
    ids = layout.ids.tolist()
    assert ids.count(151655) == 126
    assert ids.count(151665) == 1
    assert ids[-32:] == [151666] * 32
    assert ids[:4] == [151644, 8948, 198, 2610]  # <|im_start|>, system, newline, You
    # everything but pictures and actions stays as many tokens as before the pictures were expanded
    words = len(real.encode(prompt)) - 2 - 32
    assert len(ids) == words + 126 + 32


@pytest.mark.parametrize(
    ("size", "resolution", "num_cameras", "images", "others"),
    [
        # the reference's table: one picture of each kind, and prompts of its three cameras
        ((480, 640), 256, 1, 63, None),
        ((256, 256), 256, 1, 81, None),
        ((480, 640), 448, 1, 192, None),
        ((448, 448), 448, 1, 256, None),
        ((256, 256), 256, 2, 162, None),
        ((480, 640), 256, 3, 189, (60, 80)),
        ((480, 640), 448, 3, 576, (60, 80)),
        ((448, 448), 448, 3, 768, (60, 80)),
    ],
)
def test_token_counts_at_full_size(
    size: tuple[int, int],
    resolution: int,
    num_cameras: int,
    images: int,
    others: tuple[int, int] | None,
    real: Tokenizer,
) -> None:
    cameras = ("face_view", "left_wrist_view", "right_wrist_view")[:num_cameras]
    pictures = ImageProcessor.load(CASE1).prepare(
        [np.zeros((*size, 3), np.uint8)] * num_cameras, [resolution] * num_cameras
    )
    assert sum(pictures.counts) == images
    prompt = flow_prompt(cameras, "put the white mug on the plate", 32)
    ids = real.layout(prompt, pictures.counts, cameras).ids
    if others is not None:  # text and the state's token
        assert others[0] <= len(ids) - images - 32 <= others[1]
    numbers = state_text(np.linspace(-0.9, 0.9, 20), np.ones(20), 256)
    prompt = flow_prompt(cameras, "put the white mug on the plate", 32, state=numbers)
    longer = real.layout(prompt, pictures.counts, cameras)
    assert 60 <= len(longer.ids) - len(ids) <= 90
    # a number is its digits, and each number but the first a space
    assert len(longer.ids) - len(ids) + 1 == len(numbers)


# --- every published variant


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_prompts_of_every_case_equal_the_reference(case: Path) -> None:
    said = json.loads((case / "manifest.json").read_text(encoding="utf-8"))
    config = json.loads((case / "config.json").read_text(encoding="utf-8"))
    inputs, expected = (read_safetensors(case / f"{name}.safetensors") for name in ("inputs", "expected"))
    state = "<|propri|>"
    if config.get("use_state_string_representation"):
        mask = inputs["agent_pos_mask"].reshape(-1)
        state = state_text(expected["proprio.normalized"].reshape(-1), mask, said["state_bins"])
    # one case begins with the robot's description and calls cameras by their bare names, as the newer server does
    bare = PromptStyle({}, "Rel EEF")
    style = bare if "Action Space: Rel EEF" in said["flow_prompt"] else PromptStyle()
    prompt = flow_prompt(said["camera_order"], said["instruction"], said["horizon"], state=state, style=style)
    assert prompt == said["flow_prompt"]
    if "prefix_template" in said:
        assert fast_prompt(said["camera_order"], said["instruction"], style=style) == said["prefix_template"]
        asked_style = PromptStyle(style.labels)
        asked_prompt = subtask_prompt(said["camera_order"], said["instruction"], style=asked_style)
        assert asked_prompt == said["text_prompt"]
    counts = [int(grid.prod()) // 4 for grid in expected["pre.image_grid_thw"]]
    tokenizer = Tokenizer.load(case)
    ids = tokenizer.layout(prompt, counts, said["camera_order"]).ids
    np.testing.assert_array_equal(ids, expected["tok.flow.input_ids"][0])
    if "prefix_length" in said:
        assert len(ids) - said["horizon"] == said["prefix_length"]
        asked = tokenizer.layout(asked_prompt, counts, said["camera_order"])
        np.testing.assert_array_equal(asked.ids, expected["text.prompt_ids"][0])


def test_one_case_tells_its_state_as_text() -> None:
    (case,) = (c for c in CASES if "proprio.bins" in read_safetensors(c / "expected.safetensors"))
    inputs, expected = (read_safetensors(case / f"{name}.safetensors") for name in ("inputs", "expected"))
    bins = state_bins(expected["proprio.normalized"], 256)
    np.testing.assert_array_equal(bins, expected["proprio.bins"])
    mask = inputs["agent_pos_mask"].reshape(-1)
    assert state_text(expected["proprio.normalized"].reshape(-1), mask, 256) == "227 15 133 216 145 224 250 121"


def test_bins_of_the_state() -> None:
    values = np.array([-1.0, -0.75, -0.5, np.nextafter(-0.5, -1), 0.0, np.nextafter(0.0, -1), 0.999, 1.0])
    assert state_bins(values, 4).tolist() == [0, 0, 1, 0, 2, 1, 3, 3]
    assert state_text(values[:3], np.array([1, 0, 1.0]), 2) == "0 0"
    # the edges are float64, whatever the values are: float32's 0.2 lies above the edge at 0.2
    assert state_bins(np.array([0.2], np.float32), 10).tolist() == [6]
    random = np.random.default_rng(8).uniform(-1, 1, 4000).astype(np.float32)
    for bins in (2, 3, 255, 256, 512, 1000):
        found = state_bins(random, bins)
        assert (found >= 0).all()
        assert (found < bins).all()
        edges = np.linspace(-1, 1, bins + 1)
        assert (edges[found] <= random).all()
        assert (random < edges[found + 1]).all()


@pytest.mark.parametrize("values", [[1.0000001], [-1.5], [np.nan], [np.inf]])
def test_a_state_out_of_range_has_no_bin(values: list[float]) -> None:
    with pytest.raises(ConfigError, match="expected -1 to 1"):
        state_bins(np.array(values), 256)


def test_a_state_without_anything_in_it_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected 2 or more"):
        state_text(np.zeros(3), np.ones(3), 1)
    for values, mask in ((np.zeros(3), np.zeros(3)), (np.zeros(3), np.ones(2)), (np.zeros((1, 3)), np.ones((1, 3)))):
        with pytest.raises(ConfigError, match="state as text"):
            state_text(values, mask, 256)
    with pytest.raises(ConfigError, match="a special token"):
        flow_prompt(["face_view"], "go", 3, state="1 <|action|>")


def test_labels_may_be_the_checkpoint_s_own() -> None:
    style = PromptStyle({"face_view": "left eye"})
    prompt = subtask_prompt(["face_view", "right_wrist_view"], "go", style=style)
    # the reference calls a camera that its mapping leaves out by its bare name
    assert "Observation: left eye: <|vision_start|>" in prompt
    assert " right_wrist_view: <|vision_start|>" in prompt
    with pytest.raises(ConfigError, match="camera label contains"):
        subtask_prompt(["face_view"], "go", style=PromptStyle({"face_view": "<|image_pad|>"}))


@pytest.mark.parametrize("space", ["Abs EEF", "Rel EEF"])
def test_the_embodied_prologue(space: Any) -> None:
    style = PromptStyle({"face_view": "eye"}, space)
    prompt = flow_prompt(["face_view", "left_wrist_view", "table_view"], "go", 1, style=style)
    assert prompt.startswith(
        "<|im_start|>system\nYou are an embodied vision-language-action model controlling a robot with language "
        f"instructions.\nCamera Setup: front view, left wrist view, table view\nAction Space: {space}\n<|im_end|>\n"
        "<|im_start|>user\nObservation: eye: <|vision_start|>"
    )


def test_the_step_by_step_question() -> None:
    assert step_by_step_prompt(1, "move the red block in the plate with same color") == text_prompt(
        1, "To move the red block in the plate with same color, what should you do next? Think step by step."
    )
    with pytest.raises(ConfigError, match="goal is empty"):
        step_by_step_prompt(1, " ")
