"""Generation: tokens one by one until the model, a stop, the budget or the caller ends it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import codecs
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import AnswerError, ConfigError
from wallx_edge.prompts import END, Tokenizer

__all__ = [
    "Generated",
    "GenerationConfig",
    "OnText",
    "QueuedText",
    "generate",
    "text_options",
    "text_stops",
    "write",
    "write_actions",
]

# called once per token with the text that it made certain, which may be empty; False cancels
OnText = Callable[[str], bool | None]


@dataclass(frozen=True)
class GenerationConfig:
    """How the model's next tokens are chosen, and when to stop.

    Attributes:
        max_tokens: the budget, the end marker included.
        temperature: divides the scores before a token is drawn; 0: always the best one (greedy), as the reference.
        top_p: a token is drawn from the smallest set of best tokens with this probability together, in (0, 1].
        seed: of the draws; the same scores and seed give the same tokens.
        stop: texts that end the answer and do not belong to it, also across the borders of tokens.
        stop_ids: tokens that end it, besides ``<|im_end|>``.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.max_tokens, int) or not 1 <= self.max_tokens <= 131_072:
            raise ConfigError(f"generation.max_tokens is {self.max_tokens}, expected 1 to 131072")
        if not 0 <= self.temperature <= 100:
            raise ConfigError(f"generation.temperature is {self.temperature}, expected 0 (greedy) to 100")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"generation.top_p is {self.top_p}, expected more than 0 and at most 1")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**64:
            raise ConfigError(f"generation.seed is {self.seed}, expected 0 to 2^64 - 1")
        if isinstance(self.stop, str) or not all(isinstance(text, str) and text for text in self.stop):
            raise ConfigError(f"generation.stop is {self.stop!r}, expected texts that are not empty")


@dataclass(frozen=True, eq=False)
class Generated:
    """What the model wrote.

    Attributes:
        ids: all its tokens, the one that ended it included, int64   (n,)
        text: without special tokens, and without the stop.
        ended: ``stop``: by the model's end marker or a stop; ``budget``: unfinished; ``cancelled``: by the caller.
        stopped_by: the end marker or the stop that ended it; empty otherwise.
        elapsed_s: from the first token's choice to the end [s]
        longest_token_s: of one token, without the callback [s]
    """

    ids: NDArray[np.int64]
    text: str
    ended: Literal["stop", "budget", "cancelled"]
    stopped_by: str
    elapsed_s: float
    longest_token_s: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second."""
        return len(self.ids) / self.elapsed_s if self.elapsed_s > 0 else math.inf


def write(
    context: _core.Context, tokenizer: Tokenizer, config: GenerationConfig, stops: Iterable[int]
) -> Iterator[int]:
    """Writes token by token after a prompt that is already in the context; each is computed when it is asked for.

    One token is one call of the engine, which computes without the GIL and whose work is bounded by the context's
    size: whoever iterates can do something else between two tokens, or stop. Only the tokenizer's own tokens are
    written; embedding rows beyond them, which some checkpoints have, are never chosen (the reference cuts them off).
    The tokens stay in the context, but for the last one.

    Args:
        context: with a prompt.
        tokenizer: of the same checkpoint.
        config: of it ``stop`` and ``stop_ids`` are not looked at.
        stops: tokens after which it ends.

    Raises:
        ConfigError: an empty context, or one without room for the budget.
    """
    decoder = _core.TextDecoder(context, **text_options(tokenizer, config, stops))
    while (number := decoder.next()) is not None:
        yield number


def text_options(tokenizer: Tokenizer, config: GenerationConfig, stops: Iterable[int]) -> dict[str, Any]:
    """What a TextDecoder, or a queue's text, is told."""
    return {
        "max_new_tokens": config.max_tokens,
        "stop_ids": list(stops),
        "temperature": config.temperature,
        "top_p": config.top_p,
        "seed": config.seed,
        "allowed_ids": (0, tokenizer.num_tokens),
    }


class QueuedText:
    """A prompt's text, computed in a queue; iterating waits for token after token. Closing it cancels the rest."""

    def __init__(
        self,
        queue: _core.InferenceQueue,
        context: _core.Context,
        prompt: _core.Prompt,
        options: Mapping[str, Any],
    ) -> None:
        """Hands the work in, without a deadline: it is background to every chunk.

        Args:
            queue: where to compute.
            context: for this text alone until it has ended.
            prompt: as ``Context.prefill`` takes it.
            options: :func:`text_options`.
        """
        self.work = queue.text(context, prompt, **options)

    def __iter__(self) -> Iterator[int]:
        """Token by token; blocks for each.

        Raises:
            ConfigError: no room for the prompt or the budget.
            WallxError: somebody cancelled it.
        """
        index = 0
        while (number := self.work.token(index)) is not None:
            yield number
            index += 1

    def close(self) -> None:
        """Cancels what is left and waits for the end, after which the context is free. Blocks for one slice."""
        self.work.cancel()
        while not self.work.wait(1.0):
            pass


def text_stops(tokenizer: Tokenizer, config: GenerationConfig) -> dict[int, str]:
    """Tokens that end a text, and what they are called.

    Raises:
        ConfigError: a stop id outside the vocabulary.
        CheckpointError: the tokenizer has no end marker.
    """
    stops = {tokenizer.special_id(END): END}
    for number in config.stop_ids:
        if not 0 <= number < tokenizer.num_tokens:
            raise ConfigError(f"generation.stop_ids has {number}, the vocabulary has {tokenizer.num_tokens} tokens")
        stops.setdefault(number, tokenizer.decode([number]))
    return stops


def generate(
    context: _core.Context,
    tokenizer: Tokenizer,
    config: GenerationConfig,
    on_text: OnText | None = None,
    tokens: Iterable[int] | None = None,
) -> Generated:
    """Writes text after a prompt that is already in the context, as :func:`write` does. Blocks until it ends.

    Args:
        context: with a prompt.
        tokenizer: of the same checkpoint.
        config: how, and when to stop.
        on_text: called on this thread after each token.
        tokens: from somewhere else, such as a :class:`QueuedText`; the context is then not looked at.

    Raises:
        ConfigError: an empty context, one without room for the budget, a stop id outside the vocabulary.
        CheckpointError: the tokenizer has no end marker.
    """
    stops = text_stops(tokenizer, config)
    text = _Text(config.stop)
    ids: list[int] = []
    is_cancelled, longest = False, 0.0
    begin = before = time.perf_counter()
    for number in write(context, tokenizer, config, stops) if tokens is None else tokens:
        ids.append(number)
        piece = "" if number in stops else text.add(tokenizer.piece(number))
        is_last = number in stops or bool(text.stopped_by) or len(ids) == config.max_tokens
        if is_last:
            piece += text.close()
        now = time.perf_counter()
        longest = max(longest, now - before)
        goes_on = on_text is None or on_text(piece) is not False
        is_cancelled = not goes_on and not is_last
        if is_last or is_cancelled:
            break
        before = time.perf_counter()
    text.close()
    stopped_by = text.stopped_by or stops.get(ids[-1], "")
    return Generated(
        ids=np.array(ids, np.int64),
        text=text.text,
        ended="cancelled" if is_cancelled else "stop" if stopped_by else "budget",
        stopped_by=stopped_by,
        elapsed_s=time.perf_counter() - begin,
        longest_token_s=longest,
    )


def write_actions(
    context: _core.Context, tokenizer: Tokenizer, config: GenerationConfig, action_ids: range
) -> NDArray[np.int64]:
    """Writes FAST action tokens up to the end marker, as :func:`write` does. Blocks until it ends.

    The reference runs to its limit and leaves out what is no action token; what does not end, or is none, would not
    decode to the actions that the model meant, so that the first such token is the end here.

    Args:
        context: with a prompt.
        tokenizer: of the same checkpoint.
        config: its stops are not looked at.
        action_ids: of the action tokens.

    Returns:
        without the end marker, int64   (n,)

    Raises:
        AnswerError: another token, or no end within the budget.
        ConfigError: an empty context, or one without room for the budget.
    """
    end = tokenizer.special_id(END)
    ids: list[int] = []
    for number in write(context, tokenizer, config, [end]):
        if number == end:
            return np.array(ids, np.int64)
        if number not in action_ids:
            raise AnswerError(
                f"FAST: after {len(ids)} action tokens the model wrote token {number} "
                f"({tokenizer.decode([number])!r}), which is none"
            )
        ids.append(number)
    raise AnswerError(f"FAST: no end marker within {len(ids)} tokens (generation.max_tokens)")


class _Text:
    """Text from pieces: whole characters only, and nothing that may still become a stop."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._given = 0  # characters already handed out
        self.text = ""
        self.stopped_by = ""

    def add(self, piece: bytes) -> str:
        """The text that is certain now and was not before."""
        return self._grow(self._bytes.decode(piece), is_end=False)

    def close(self) -> str:
        """What was held back."""
        return self._grow(self._bytes.decode(b"", final=True), is_end=True)

    def _grow(self, more: str, *, is_end: bool) -> str:
        if self.stopped_by:
            return ""
        self.text += more
        found = [(self.text.find(stop, self._given), stop) for stop in self._stops]
        found = [(at, stop) for at, stop in found if at >= 0]
        certain = len(self.text)
        if found:
            certain, self.stopped_by = min(found, key=lambda item: (item[0], -len(item[1])))
            self.text = self.text[:certain]
        elif not is_end:
            certain -= max((self._begun(stop) for stop in self._stops), default=0)
        piece = self.text[self._given : certain]
        self._given = max(self._given, certain)
        return piece

    def _begun(self, stop: str) -> int:
        """Characters at the end of the text that may be the beginning of a stop."""
        most = min(len(stop) - 1, len(self.text) - self._given)
        return next((n for n in range(most, 0, -1) if self.text.endswith(stop[:n])), 0)
