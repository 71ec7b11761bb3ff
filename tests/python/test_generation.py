"""Generation equals the reference, stops where it must, shows no half character and no stop, and can be cancelled."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from golden import CASE1, manifest, tensors
from scripted import END, scripted
from wallx_edge import _core
from wallx_edge.errors import AnswerError, ConfigError
from wallx_edge.generation import Generated, GenerationConfig, _Text, generate, write_actions
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import Tokenizer, text_prompt
from wallx_edge.verify import MIN_MARGIN

EXPECTED = tensors("expected")
TOKENIZER = Tokenizer.load(CASE1)


def prompted(folder: Path, max_tokens: int = 512) -> _core.Context:
    context = _core.Context(_core.Engine.load(str(folder)), max_tokens)
    context.prefill(Tokenizer.load(folder).encode(text_prompt(0, "What is this?")))
    return context


def told(folder: Path, config: GenerationConfig, heard: list[str] | None = None) -> Generated:
    """What a checkpoint answers; the streamed pieces are its text."""
    pieces: list[str] = [] if heard is None else heard
    answer = generate(prompted(folder), Tokenizer.load(folder), config, pieces.append)
    assert "".join(pieces) == answer.text
    assert len(pieces) == len(answer.ids)
    return answer


@pytest.fixture(scope="module")
def golden_context() -> _core.Context:
    return _core.Context(_core.Engine.load(str(CASE1)), 1024)


def prefill_golden(context: _core.Context) -> None:
    processor = ImageProcessor.load(CASE1)
    camera = manifest()["camera_order"][0]
    pictures = processor.prepare([tensors("inputs")[f"image.{camera}"]], [manifest()["resolution"][camera]])
    ids = TOKENIZER.layout(manifest()["text_prompt"], pictures.counts, [camera]).ids
    context.prefill(ids, pictures.pixel_values, pictures.grids)


def test_greedy_equals_the_reference_wherever_its_margin_is_clear(golden_context: _core.Context) -> None:
    expected, margins = EXPECTED["text.generated_ids"][0], EXPECTED["text.top2_margin"]
    prefill_golden(golden_context)
    answer = generate(golden_context, TOKENIZER, GenerationConfig(max_tokens=manifest()["max_new_tokens"]))
    unclear = np.flatnonzero(margins <= MIN_MARGIN)
    same = np.flatnonzero(answer.ids != expected)
    assert same.size == 0 or same[0] in unclear
    assert answer.text == TOKENIZER.decode(answer.ids, skip_special=True)
    assert answer.ended == "budget"
    assert answer.elapsed_s >= answer.longest_token_s > 0


@pytest.mark.parametrize("temperature", [0.7, 2.0])
def test_draws_repeat_with_the_seed_and_only_with_it(golden_context: _core.Context, temperature: float) -> None:
    def drawn(seed: int, top_p: float = 0.9) -> list[int]:
        prefill_golden(golden_context)
        config = GenerationConfig(max_tokens=20, temperature=temperature, top_p=top_p, seed=seed)
        return list(generate(golden_context, TOKENIZER, config).ids)

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    # a set of one: the best token
    assert drawn(3, 1e-9) == list(EXPECTED["text.generated_ids"][0][:20])


def test_ends_at_the_end_marker(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [*TOKENIZER.encode("block"), END])
    answer = told(folder, GenerationConfig())
    assert (answer.text, answer.ended, answer.stopped_by) == ("block", "stop", "<|im_end|>")
    assert answer.ids[-1] == END


def test_an_empty_answer_is_one(tmp_path: Path) -> None:
    answer = told(scripted(tmp_path / "c", [END]), GenerationConfig())
    assert (answer.text, answer.ended, list(answer.ids)) == ("", "stop", [END])


def test_an_answer_that_never_ends_ends_with_the_budget(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    answer = told(folder, GenerationConfig(max_tokens=100))
    assert (answer.text, answer.ended, answer.stopped_by) == ("abc" * 33 + "a", "budget", "")
    assert len(answer.ids) == 100


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_callback_cancels_after_any_token(count: int, tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    heard: list[str] = []

    def until(piece: str) -> bool:
        heard.append(piece)
        return len(heard) < count

    context, tokenizer = prompted(folder), Tokenizer.load(folder)
    answer = generate(context, tokenizer, GenerationConfig(max_tokens=50), until)
    assert (answer.ended, answer.text, len(answer.ids)) == ("cancelled", ("abc" * 5)[:count], count)
    # the context goes on where it was
    again = generate(context, tokenizer, GenerationConfig(max_tokens=3))
    assert again.text == ("abc" * 5)[count - 1 :][:3]


def test_an_error_in_the_callback_leaves_the_context_usable(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    context, tokenizer = prompted(folder), Tokenizer.load(folder)

    def broken(piece: str) -> None:
        raise RuntimeError(piece)

    with pytest.raises(RuntimeError, match="a"):
        generate(context, tokenizer, GenerationConfig(), broken)
    assert generate(context, tokenizer, GenerationConfig(max_tokens=3)).text == "abc"


@pytest.mark.parametrize(
    ("stop", "text", "by"),
    [
        (("c",), "ab", "c"),
        (("bc",), "a", "bc"),  # over a token's border
        (("bca",), "a", "bca"),
        (("xyz", "ca"), "ab", "ca"),
        (("bcd", "cab"), "ab", "cab"),  # the first begins and does not come
        (("a",), "", "a"),
        (("abcabcabcabcab",), "", "abcabcabcabcab"),
    ],
)
def test_a_stop_ends_the_text_and_is_never_shown(stop: tuple[str, ...], text: str, by: str, tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    answer = told(folder, GenerationConfig(max_tokens=100, stop=stop))
    assert (answer.text, answer.ended, answer.stopped_by) == (text, "stop", by)


def test_what_only_began_like_a_stop_is_shown_in_the_end(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    heard: list[str] = []
    answer = told(folder, GenerationConfig(max_tokens=5, stop=("abcabd",)), heard)
    assert (answer.text, answer.ended) == ("abcab", "budget")
    assert heard == ["", "", "", "", "abcab"]


def test_stop_ids_end_it(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    answer = told(folder, GenerationConfig(stop_ids=(66,)))
    assert (answer.text, answer.ended, answer.stopped_by, list(answer.ids)) == ("ab", "stop", "c", [64, 65, 66])


def bytewise(text: str) -> list[int]:
    """Tokens of one byte each."""
    spelled = {TOKENIZER.piece(i): i for i in range(256)}
    return [spelled[bytes([byte])] for byte in text.encode()]


def test_characters_are_shown_whole(tmp_path: Path) -> None:
    script = bytewise("é块🤖")
    folder = scripted(tmp_path / "c", [*script, END])
    heard: list[str] = []
    assert told(folder, GenerationConfig(), heard).text == "é块🤖"
    assert heard == ["", "é", "", "", "块", "", "", "", "🤖", ""]


def test_a_character_cut_by_the_budget_is_marked_as_the_tokenizer_does(tmp_path: Path) -> None:
    script = bytewise("é块")
    folder = scripted(tmp_path / "c", script)
    answer = told(folder, GenerationConfig(max_tokens=4))
    assert answer.text == TOKENIZER.decode(script[:4]) == "é�"


@pytest.mark.parametrize("seed", range(5))
def test_pieces_are_the_tokenizers_text_whatever_the_tokens(seed: int) -> None:
    ids = np.random.default_rng(seed).integers(0, TOKENIZER.num_tokens + 20, 400)
    text = _Text(())
    streamed = "".join(text.add(TOKENIZER.piece(int(i))) for i in ids) + text.close()
    assert streamed == TOKENIZER.decode(ids, skip_special=True)


def test_pieces_of_the_full_size_tokenizer(request: pytest.FixtureRequest) -> None:
    folder = request.config.getoption("--tokenizer")
    if folder is None:
        pytest.skip("needs --tokenizer DIR")
    tokenizer = Tokenizer.load(folder)
    ids = np.random.default_rng(0).integers(0, tokenizer.num_tokens, 20_000)
    text = _Text(())
    streamed = "".join(text.add(tokenizer.piece(int(i))) for i in ids) + text.close()
    assert streamed == tokenizer.decode(ids, skip_special=True)


@pytest.mark.parametrize("seed", range(10))
def test_no_stop_is_ever_shown(seed: int) -> None:
    """Against the plain search in the whole text, over random texts, pieces and stops."""
    generator = np.random.default_rng(seed)
    for _ in range(300):
        whole = "".join(generator.choice(list("ab"), 30))
        stops = tuple({"".join(generator.choice(list("ab"), generator.integers(1, 6))) for _ in range(2)})
        text, shown, at = _Text(stops), "", 0
        while at < len(whole) and not text.stopped_by:
            size = int(generator.integers(1, 5))
            shown += text.add(whole[at : at + size].encode())
            at += size
            assert not any(stop in shown for stop in stops)
        shown += text.close()
        assert shown == text.text
        read = whole[:at]
        first = min((read.find(stop) for stop in stops if stop in read), default=len(read))
        assert shown == read[:first]
        assert bool(text.stopped_by) == (first < len(read))


def test_embedding_rows_beyond_the_tokenizer_are_never_chosen(tmp_path: Path) -> None:
    """A model with spare rows, the best of which is the best of all."""
    folder = scripted(tmp_path / "c", [855, END])
    tokenizer = Tokenizer.load(folder)

    class Smaller(Tokenizer):
        num_tokens = 855

    smaller = Smaller(tokenizer._tokenizer, tokenizer._config, tokenizer._where)
    assert told(folder, GenerationConfig(max_tokens=2)).ids[0] == 855
    assert generate(prompted(folder), smaller, GenerationConfig(max_tokens=2)).ids[0] != 855


def test_action_tokens_end_at_the_end_marker(tmp_path: Path) -> None:
    script = [600, 536, 855]
    folder = scripted(tmp_path / "a", [*script, END])
    actions = range(536, 856)
    assert list(write_actions(prompted(folder), Tokenizer.load(folder), GenerationConfig(), actions)) == script
    empty = scripted(tmp_path / "b", [END])
    assert write_actions(prompted(empty), Tokenizer.load(empty), GenerationConfig(), actions).size == 0


def test_action_tokens_that_do_not_end_or_are_none_are_an_error(tmp_path: Path) -> None:
    actions = range(536, 856)
    endless = scripted(tmp_path / "a", [600, 601], back_to=0)
    with pytest.raises(AnswerError, match="no end marker within 20 tokens"):
        write_actions(prompted(endless), Tokenizer.load(endless), GenerationConfig(max_tokens=20), actions)
    words = scripted(tmp_path / "b", [600, 64, 65], back_to=1)
    with pytest.raises(AnswerError, match=r"after 1 action tokens the model wrote token 64 \('a'\), which is none"):
        write_actions(prompted(words), Tokenizer.load(words), GenerationConfig(), actions)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"max_tokens": 2.5}, "max_tokens is 2.5"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**64}, "seed is 18446744073709551616"),
        ({"stop": "end"}, "stop is 'end'"),
        ({"stop": ("",)}, r"stop is \('',\)"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        GenerationConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [-1, 856, 10**9])
def test_stop_ids_outside_the_vocabulary_are_refused(number: int, golden_context: _core.Context) -> None:
    prefill_golden(golden_context)
    with pytest.raises(ConfigError, match=f"stop_ids has {number}, the vocabulary has 856 tokens"):
        generate(golden_context, TOKENIZER, GenerationConfig(stop_ids=(number,)))


def test_a_budget_without_room_is_refused_before_the_first_token(tmp_path: Path) -> None:
    folder = scripted(tmp_path / "c", [64, 65, 66], back_to=0)
    context, tokenizer = prompted(folder, 64), Tokenizer.load(folder)
    room = 64 - context.length + 1
    with pytest.raises(
        ConfigError, match=f"max_new_tokens {room + 1} after a prompt of 27 tokens does not fit max_tokens 64"
    ):
        generate(context, tokenizer, GenerationConfig(max_tokens=room + 1))
    assert len(generate(context, tokenizer, GenerationConfig(max_tokens=room)).ids) == room


def test_an_empty_context_is_refused() -> None:
    context = _core.Context(_core.Engine.load(str(CASE1)), 512)
    with pytest.raises(ConfigError, match="the context is empty"):
        generate(context, TOKENIZER, GenerationConfig())
