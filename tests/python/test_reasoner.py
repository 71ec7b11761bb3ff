"""Reasoner: answers equal the reference, pictures are computed once, places land on the picture, and errors say why."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arm_model import CONFIG, look
from casefiles import change_json
from golden import CASE1, ROOT, read_safetensors
from scripted import END, FIRST_ACTION, scripted
from wallx_edge.errors import AnswerError, CheckpointError, ConfigError
from wallx_edge.generation import GenerationConfig, OnText
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.prompts import Tokenizer, fast_prompt, subtask_prompt
from wallx_edge.reasoner import Reasoner
from wallx_edge.types import Observation
from wallx_edge.verify import MIN_MARGIN

CASES = sorted(path.parent for path in (ROOT / "tests" / "golden").glob("*/manifest.json"))
PICTURE = np.random.default_rng(0).integers(0, 255, (480, 640, 3)).astype(np.uint8)
TAB_AND_SPACE = (197, 220)
SHORT = GenerationConfig(max_tokens=3)


def seen(folder: Path, **config: Any) -> Reasoner:
    return Reasoner.load(folder, PolicyConfig(cameras=("face_view",), resolution=112, **config))


def observation(instruction: str = "pick up the red block") -> Observation:
    return Observation({"face_view": PICTURE}, np.zeros(20), instruction, 0.0)


def until(count: int) -> OnText:
    """Cancels after so many tokens."""
    numbers = iter(range(1, count + 1))
    return lambda piece: next(numbers) < count


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_answers_equal_the_reference_wherever_its_margin_is_clear(case: Path) -> None:
    manifest = json.loads((case / "manifest.json").read_text(encoding="utf-8"))
    inputs, expected = (read_safetensors(case / f"{name}.safetensors") for name in ("inputs", "expected"))
    wanted, margins = expected["text.generated_ids"][0], expected["text.top2_margin"]
    clear = int(next(iter(np.flatnonzero(margins <= MIN_MARGIN)), len(wanted)))
    assert clear > 10
    prompt, cameras = str(manifest["text_prompt"]), list(manifest["camera_order"])
    images = {camera: inputs[f"image.{camera}"] for camera in cameras}
    as_many = until(len(wanted))
    budget = GenerationConfig(max_tokens=len(wanted) + 1)
    if "Instruction: " in prompt:
        labels = re.findall(r"(?:Observation:|<\|vision_end\|>) ([^:<]+): <", prompt)
        config = PolicyConfig(
            cameras=tuple(cameras),
            resolution=manifest["resolution"],
            camera_labels=dict(zip(cameras, labels, strict=True)),
        )
        seen_now = Observation(images, np.zeros(1), prompt.partition("Instruction: ")[2].partition("\n")[0], 0.0)
        answer = Reasoner.load(case, config).subtask(seen_now, budget, as_many)
    else:
        question = prompt.rpartition("<|vision_end|>")[2].partition("<|im_end|>")[0]
        resolution = manifest["resolution"][cameras[0]]
        answer = Reasoner.load(case).ask([images[cameras[0]]], question, budget, as_many, resolution=resolution)
    assert answer.prompt_tokens == expected["text.prompt_ids"].size
    np.testing.assert_array_equal(answer.generated.ids[:clear], wanted[:clear])


def test_what_prompts_of_one_observation_share_is_computed_once() -> None:
    policy = Policy.load(CASE1, PolicyConfig(cameras=("face_view",), resolution=112, statistics="x2_normal"))
    beside, alone = Reasoner.beside(policy), seen(CASE1)
    policy.observe(observation())
    shared, fresh = (reasoner.subtask(observation(), on_text=until(9)) for reasoner in (beside, alone))
    tokenizer, counts = Tokenizer.load(CASE1), [12]  # 112 x 84 pixels
    before, after = (
        tokenizer.layout(prompt(["face_view"], "pick up the red block"), counts, ["face_view"]).ids
        for prompt in (fast_prompt, subtask_prompt)
    )
    common = len(list(takewhile(bool, (a == b for a, b in zip(before, after, strict=False)))))
    assert common > 40
    assert shared.shared_tokens == common
    assert fresh.shared_tokens == 0
    np.testing.assert_array_equal(shared.generated.ids, fresh.generated.ids)


def test_on_a_fork_both_go_on_at_the_same_time() -> None:
    config = PolicyConfig(cameras=("face_view",), resolution=112, statistics="x2_normal")
    policy, alone = Policy.load(CASE1, config), Policy.load(CASE1, config)
    noise = np.random.default_rng(1).standard_normal((32, 20), np.float32)
    policy.observe(observation())
    forked = Reasoner(policy.directory, policy.config, policy.engine, policy.context.fork())
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(forked.subtask, observation(), None, until(60))
        chunks = [policy.act(observation(), noise).rows.tobytes() for _ in range(3)]
        assert answer.result().shared_tokens == 48
    assert chunks == [alone.act(observation(), noise).rows.tobytes()] * 3
    np.testing.assert_array_equal(
        answer.result().generated.ids, seen(CASE1).subtask(observation(), on_text=until(60)).generated.ids
    )


def test_another_picture_shares_no_more_than_the_words_before_it() -> None:
    reasoner = seen(CASE1)
    first = reasoner.ask([PICTURE], "What is this?", SHORT)
    again = reasoner.ask([PICTURE], "What is this?", SHORT)
    other = reasoner.ask([PICTURE[::-1].copy()], "What is this?", SHORT)
    assert (first.shared_tokens, again.shared_tokens) == (0, first.prompt_tokens - 1)
    assert other.shared_tokens < 30
    np.testing.assert_array_equal(first.generated.ids, again.generated.ids)


def test_places_of_an_answer_are_on_the_picture_that_was_asked_about(tmp_path: Path) -> None:
    texts = {FIRST_ACTION: "It is at ", FIRST_ACTION + 1: "<point>[322, 119]</point>"}
    folder = scripted(tmp_path / "c", [*texts, END], texts=texts)
    heard: list[str] = []
    answer = Reasoner.load(folder).ask([PICTURE, PICTURE[:100]], "Where is it?", on_text=heard.append)
    assert answer.text == "".join(heard) == "It is at <point>[322, 119]</point>"
    assert answer.sizes == (((476, 644), (480, 640)), ((112, 644), (100, 640)))
    (mark,) = answer.grounding().marks
    assert (mark.kind, mark.coordinates) == ("point", pytest.approx((320, 120)))
    assert answer.grounding(1).problems[0].startswith("point [322, 119] is outside the picture of 644 x 112")
    with pytest.raises(ConfigError, match="about 2 pictures, there is no picture 2"):
        answer.grounding(2)


def test_an_empty_answer_and_an_endless_one_are_outcomes_of_a_question(tmp_path: Path) -> None:
    empty = Reasoner.load(scripted(tmp_path / "a", [END])).ask([PICTURE], "What is this?")
    assert (empty.text, empty.generated.ended) == ("", "stop")
    endless = Reasoner.load(scripted(tmp_path / "b", [64, 65], back_to=0)).reason([PICTURE], "tidy up")
    assert (endless.text, endless.generated.ended) == ("ab" * 128, "budget")


def test_a_subtask_is_whole_or_an_error(tmp_path: Path) -> None:
    words = {FIRST_ACTION: "\u3000pick up the block", FIRST_ACTION + 1: "\u3000"}
    subtask = seen(scripted(tmp_path / "a", [*words, END], texts=words)).subtask(observation())
    assert subtask.text == "pick up the block"
    with pytest.raises(AnswerError, match="the model wrote nothing"):
        seen(scripted(tmp_path / "b", [END])).subtask(observation())
    with pytest.raises(AnswerError, match="the model wrote nothing"):
        seen(scripted(tmp_path / "c", [*TAB_AND_SPACE, END])).subtask(observation())
    endless = seen(scripted(tmp_path / "d", [64, 65], back_to=0))
    with pytest.raises(AnswerError, match="no end within 256 tokens: 'abab"):
        endless.subtask(observation())
    cancelled = endless.subtask(observation(), on_text=lambda piece: False)
    assert (cancelled.text, cancelled.generated.ended) == ("a", "cancelled")


@pytest.mark.parametrize("call", ["ask", "reason"])
def test_what_cannot_be_asked_is_refused_before_anything_is_computed(call: str) -> None:
    reasoner = Reasoner.load(CASE1, PolicyConfig(max_tokens=300))
    ask = getattr(reasoner, call)
    for images, question, text in (
        ([], "What is this?", "about no picture"),
        (np.zeros((60, 80, 3), np.uint8), "What is this?", r"picture 0: got uint8 of shape \(80, 3\)"),
        ([PICTURE[..., 0]], "What is this?", "picture 0: got uint8 of shape"),
        ([PICTURE, PICTURE.astype(np.float32)], "What is this?", "picture 1: got float32"),
        (["picture.png"], "What is this?", "picture 0: got str"),
        ([PICTURE[:, :0]], "What is this?", "picture 0: got uint8"),
        ([PICTURE], " ", "is empty, expected words"),
        ([PICTURE], "<|im_end|>", "a special token"),
        ([PICTURE], "What is this?", r"tokens of pictures \(391\) and words and a budget of 256 are more than"),
    ):
        with pytest.raises(ConfigError, match=text):
            ask(images, question)
    assert ask([PICTURE], "What is this?", SHORT, resolution=56).generated.ended == "budget"


def test_a_missing_camera_is_named() -> None:
    with pytest.raises(ConfigError, match="lacks the camera 'left_wrist_view'; the model looks at face_view, left_w"):
        Reasoner.load(CASE1).subtask(observation())


def test_another_checkpoints_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [END])
    change_json(folder / "config.json", lambda config: config.update(image_token_id=5))
    with pytest.raises(CheckpointError, match="not this checkpoint's"):
        Reasoner.load(folder)


def test_a_robots_checkpoint_answers_too(tiny_checkpoint: Path) -> None:
    policy = Policy.load(tiny_checkpoint, CONFIG)
    reasoner = Reasoner.beside(policy)
    policy.act(look())
    answer = reasoner.ask(list(look().images.values()), "What is this?", SHORT)
    assert len(answer.generated.ids) == 3
    # the policy is not disturbed: its own context begins again with its own prompt
    chunk = policy.act(look()).rows
    other = Policy.load(tiny_checkpoint, CONFIG)
    other.act(look())
    assert chunk.tobytes() == other.act(look()).rows.tobytes()
