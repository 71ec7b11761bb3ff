"""FAST: the codec equals the reference, loses nothing in silence, and what does not decode says why."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer

from casefiles import change_json, replace
from golden import CASE1, tensors
from scripted import END, scripted
from wallx_edge.errors import AnswerError, CheckpointError, ConfigError, WallxError
from wallx_edge.fast import FOLDER, FastCodec
from wallx_edge.generation import GenerationConfig
from wallx_edge.policy import Policy, PolicyConfig
from wallx_edge.types import Observation

FIRST, NUM = 536, 320
ACTIONS = tensors("inputs")["fast.action_norm"][0]
EXPECTED = tensors("expected")


@pytest.fixture(scope="module")
def codec() -> FastCodec:
    return FastCodec.load(CASE1 / FOLDER, FIRST, NUM)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in (CASE1 / FOLDER).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def test_equals_the_reference_both_ways(codec: FastCodec) -> None:
    np.testing.assert_array_equal(codec.coefficients(ACTIONS), EXPECTED["fast.dct_quant"][0])
    ids = codec.encode(ACTIONS)
    np.testing.assert_array_equal(ids, EXPECTED["fast.vocab_ids"])
    np.testing.assert_array_equal(ids - FIRST, EXPECTED["fast.ids"])
    decoded = codec.decode(ids, *ACTIONS.shape)
    np.testing.assert_allclose(decoded, EXPECTED["fast.decoded_norm"][0], rtol=0, atol=2e-7)


def test_a_decoded_chunk_encodes_to_the_same_tokens(codec: FastCodec) -> None:
    ids = codec.encode(ACTIONS)
    np.testing.assert_array_equal(codec.encode(codec.decode(ids, *ACTIONS.shape)), ids)


@pytest.mark.parametrize("horizon", [1, 2, 7, 32])
@pytest.mark.parametrize("dofs", [1, 14, 20])
def test_round_trips_are_as_close_as_the_rounding(codec: FastCodec, horizon: int, dofs: int) -> None:
    generator = np.random.default_rng(horizon * 100 + dofs)
    rows = generator.uniform(-0.3, 0.3, (horizon, dofs)).cumsum(axis=0).clip(-1, 1) * 0.5
    decoded = codec.decode(codec.encode(rows), horizon, dofs)
    # half a coefficient in each of them: orthonormal, so lengths are kept
    assert np.linalg.norm(decoded - rows, axis=0).max() <= 0.5 / codec.scale * np.sqrt(horizon) + 1e-12


def test_a_constant_has_one_frequency(codec: FastCodec) -> None:
    found = codec.coefficients(np.full((16, 2), 0.5))
    np.testing.assert_array_equal(found[0], [20, 20])  # 0.5 * sqrt(16) * 10
    assert not found[1:].any()


@pytest.mark.parametrize(
    ("ids", "text"),
    [
        ([], "no action token"),
        (EXPECTED["fast.vocab_ids"][:-1], "97 tokens stand for 223 coefficients, expected 224"),
        (np.append(EXPECTED["fast.vocab_ids"], FIRST), "expected 224"),
        ([FIRST, FIRST - 1], f"token {FIRST - 1} at place 1 of 2 is no action token; those are 536 to 855"),
        ([FIRST + NUM], "token 856 at place 0"),
        ([-1], "token -1 at place 0"),
        (EXPECTED["fastgen.generated_ids"][0], "token 498 at place 0 of 100 is no action token"),
    ],
)
def test_what_does_not_decode_says_why_and_gives_nothing(codec: FastCodec, ids: list[int], text: str) -> None:
    with pytest.raises(AnswerError, match=text) as caught:
        codec.decode(ids, 16, 14)
    assert isinstance(caught.value, WallxError)


def test_broken_characters_do_not_decode(folder: Path) -> None:
    def lead_byte_alone(tokenizer: dict[str, Any]) -> None:
        vocab = tokenizer["model"]["vocab"]
        vocab["Ä"] = vocab.pop("\x01")  # the first byte of a two-byte character; no merge has the other

    change_json(folder / "tokenizer.json", lead_byte_alone)
    broken = FastCodec.load(folder, FIRST, NUM)
    space = broken.encode(np.full((1, 1), -0.4))  # coefficient -4 is a space
    with pytest.raises(AnswerError, match="broken character at coefficient 1 of 2"):
        broken.decode([*space, FIRST + 1], 2, 1)


@pytest.mark.parametrize("shape", [(0, 14), (16, 0)])
def test_a_chunk_without_rows_or_slots_is_refused(codec: FastCodec, shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match="1 or more of both"):
        codec.decode([FIRST], *shape)
    with pytest.raises(ConfigError, match="expected a finite"):
        codec.encode(np.zeros(shape))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_no_numbers_are_refused(codec: FastCodec, bad: float) -> None:
    rows = ACTIONS.copy()
    rows[3, 3] = bad
    with pytest.raises(ConfigError, match="finite"):
        codec.encode(rows)


@pytest.mark.parametrize("factor", [4, 40, 1e300])
def test_actions_beyond_the_tokenizer_are_refused_not_cut(codec: FastCodec, factor: float) -> None:
    with pytest.raises(ConfigError, match="normalised"):
        codec.encode(ACTIONS.astype(np.float64) * factor)


def test_a_coefficient_that_training_never_saw_is_refused_not_dropped(codec: FastCodec) -> None:
    # in the range of characters, in no token
    with pytest.raises(ConfigError, match="has no token for the coefficient 400"):
        codec.encode(np.full((16, 1), 10.0))


def test_coefficients_of_the_published_range_are_characters_of_two_bytes(tmp_path: Path) -> None:
    """The published codec begins at -354: every coefficient near zero is a character beyond ASCII."""
    generator = np.random.default_rng(0)
    chunks = [generator.uniform(-1, 1, (8, 3)).cumsum(axis=0).clip(-1, 1) for _ in range(300)]
    plain = FastCodec(tokenizers.Tokenizer(BPE()), 10.0, -354, FIRST, "plain")
    texts = ["".join(chr(c + 354) for c in plain.coefficients(chunk).ravel()) for chunk in chunks]
    bpe = tokenizers.Tokenizer(BPE())
    bpe.pre_tokenizer, bpe.decoder = ByteLevel(add_prefix_space=False), ByteLevelDecoder()
    bpe.train_from_iterator(texts, BpeTrainer(vocab_size=400, show_progress=False))
    bpe.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "processor_config.json").write_text('{"scale": 10, "min_token": -354}')
    codec = FastCodec.load(tmp_path, FIRST)
    for chunk, text in zip(chunks, texts, strict=True):
        assert len(text.encode()) > 1.9 * len(text)
        ids = codec.encode(chunk)
        assert ids.size < len(text.encode())
        decoded = codec.decode(ids, 8, 3)
        np.testing.assert_array_equal(codec.coefficients(decoded), codec.coefficients(chunk))
        with pytest.raises(AnswerError):
            codec.decode(ids[:-1], 8, 3)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("scale", 0, "scale is 0"),
        ("scale", "10", "scale is '10'"),
        ("scale", None, "scale is None"),
        ("min_token", 1.5, "min_token is 1.5"),
        ("min_token", True, "min_token is True"),
        ("vocab_size", 2048, "has 320 tokens, vocab_size in processor_config.json is 2048"),
    ],
)
def test_a_wrong_configuration_is_named(folder: Path, key: str, value: object, text: str) -> None:
    change_json(folder / "processor_config.json", lambda c: c.update({key: value}))
    with pytest.raises(CheckpointError, match=text):
        FastCodec.load(folder, FIRST)


def test_a_codec_of_another_checkpoint_is_refused() -> None:
    with pytest.raises(CheckpointError, match="action_token_vocab_size is 2048; the action tokenizer is not this"):
        FastCodec.load(CASE1 / FOLDER, FIRST, 2048)


@pytest.mark.parametrize("content", [None, "", "[1]", "{"])
@pytest.mark.parametrize("file", ["processor_config.json", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(folder: Path, file: str, content: str | None) -> None:
    if content is None:
        (folder / file).unlink()
    else:
        replace(folder / file, content)
    with pytest.raises(CheckpointError, match=file):
        FastCodec.load(folder, FIRST)


MASKED = ("head_actions", "height", "car_pose")


def fast_policy(folder: Path, horizon: int = 16) -> Policy:
    config = PolicyConfig(cameras=("face_view",), resolution=56, statistics="x2_normal", horizon=horizon, masked=MASKED)
    return Policy.load(folder, config)


def seen() -> Observation:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3)).astype(np.uint8)
    return Observation({"face_view": picture}, np.zeros(14), "pick up the red block", 7.5)


def different_tokens(codec: FastCodec, count: int) -> list[int]:
    """Action tokens, each once, that stand for so many coefficients together."""
    chosen: list[int] = []
    for number in np.random.default_rng(4).permutation(codec.ids):
        length = len(codec._bpe.decode([int(number) - FIRST], skip_special_tokens=False))
        if length <= count:
            chosen.append(int(number))
            count -= length
    assert count == 0
    return chosen


def test_a_policy_acts_by_the_tokens_that_the_model_writes(codec: FastCodec, tmp_path: Path) -> None:
    tokens = different_tokens(codec, 16 * 14)
    policy = fast_policy(scripted(tmp_path / "c", [*tokens, END]))
    chunk = policy.act_fast(seen())
    low, delta = (tensors("model")[f"action_preprocessor.normalizer_action.{n}.x2_normal"] for n in ("min", "delta"))
    expected = (codec.decode(tokens, 16, 14) + 1) / 2 * delta[:14] + low[:14]
    np.testing.assert_allclose(chunk.rows, expected, rtol=1e-5, atol=1e-6)
    assert (chunk.observed_at, chunk.layout) == (7.5, policy.action_layout)
    # the same prompt again: nothing but its last token is computed
    policy.act_fast(seen())
    assert policy.shared_tokens == policy.observe(seen()) - 1


def test_what_is_no_chunk_is_an_error_and_no_chunk(codec: FastCodec, tmp_path: Path) -> None:
    tokens = different_tokens(codec, 16 * 14)
    for name, script, back_to, text in (
        ("short", [*tokens[1:], END], None, "coefficients, expected 224"),
        ("empty", [END], None, "no action token; the model wrote nothing"),
        ("endless", [600, 601, 602], 0, "no end marker within 225 tokens"),
        ("words", [600, 64, 65, END], None, "after 1 action tokens the model wrote token 64"),
    ):
        policy = fast_policy(scripted(tmp_path / name, script, back_to=back_to))
        with pytest.raises(AnswerError, match=text):
            policy.act_fast(seen())
    with pytest.raises(ConfigError, match="max_new_tokens 5000"):
        policy.act_fast(seen(), GenerationConfig(max_tokens=5000))


def test_a_policy_without_its_action_tokenizer_says_where_it_goes(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [END])
    (folder / FOLDER).unlink()
    config = PolicyConfig(cameras=("face_view",), resolution=56, statistics="x2_normal", masked=MASKED)
    with pytest.raises(CheckpointError, match=r"processor_config[.]json: no such file; FAST actions need"):
        Policy.load(folder, config).act_fast(seen())


def test_the_prompt_of_flow_actions_is_the_prompt_of_fast_ones() -> None:
    np.testing.assert_array_equal(EXPECTED["fastgen.prompt_ids"][0], EXPECTED["tok.flow.input_ids"][0][:-32])
