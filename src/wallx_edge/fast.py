"""FAST: action chunks as tokens, and back: a cosine transform over time, rounded and byte-pair encoded."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import tokenizers
from numpy.typing import NDArray

from wallx_edge.errors import AnswerError, CheckpointError, ConfigError

__all__ = ["FOLDER", "FastCodec"]

FOLDER = "fast_tokenizer"  # of the codec's files, inside a checkpoint
_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class FastCodec:
    """A checkpoint's own FAST tokenizer. Calls do not block and may come from any thread.

    A chunk of normalised actions becomes the DCT-II (orthonormal) of each column, times ``scale``, rounded; the
    coefficients in row order, less ``min_token``, are the characters of a text, which a byte-level BPE shortens.
    Source: ``UniversalActionProcessor`` of physical-intelligence/fast, as the reference calls it; unlike there, what
    the tokenizer cannot express and what does not decode are errors. Golden case: ``fast.*``.
    """

    def __init__(self, bpe: tokenizers.Tokenizer, scale: float, min_token: int, first_id: int, where: str) -> None:
        """Use :meth:`load`.

        Args:
            bpe: of the ``tokenizers`` library.
            scale: coefficients per unit of the normalised action.
            min_token: the coefficient that character 0 stands for.
            first_id: of the action tokens in the main vocabulary.
            where: folder, for messages.
        """
        self.scale = scale
        self.min_token = min_token
        self.first_id = first_id
        self.num_tokens = bpe.get_vocab_size(with_added_tokens=True)
        self._bpe = bpe
        self._where = where

    @classmethod
    def load(cls, folder: str | Path, first_id: int, num_tokens: int | None = None) -> FastCodec:
        """Reads ``processor_config.json`` and ``tokenizer.json``. Blocks while reading.

        Args:
            folder: of the codec, usually :data:`FOLDER` in the checkpoint.
            first_id: id of ``<|action_token_0|>`` in the main vocabulary.
            num_tokens: action tokens of the main vocabulary, if it says so.

        Raises:
            CheckpointError: a file is missing, damaged, or does not fit the main vocabulary.
        """
        path = Path(folder) / "processor_config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CheckpointError(
                f"{path}: no such file; FAST actions need the checkpoint's own action tokenizer, a folder with "
                "processor_config.json and tokenizer.json"
            ) from error
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: not JSON: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{path}: expected an object, got {type(config).__name__}")
        scale, min_token = config.get("scale"), config.get("min_token")
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale < math.inf:
            raise CheckpointError(f"{path}: scale is {scale!r}, expected a finite number above 0")
        if isinstance(min_token, bool) or not isinstance(min_token, int) or abs(min_token) > 1_000_000:
            raise CheckpointError(f"{path}: min_token is {min_token!r}, expected a whole number")
        try:
            bpe = tokenizers.Tokenizer.from_file(str(path.with_name("tokenizer.json")))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path.with_name('tokenizer.json')}: not a tokenizer: {error}") from error
        bpe.no_truncation()
        bpe.no_padding()
        codec = cls(bpe, float(scale), min_token, first_id, str(folder))
        for what, expected in (
            ("vocab_size in processor_config.json", config.get("vocab_size")),
            ("the main tokenizer's action_token_vocab_size", num_tokens),
        ):
            if expected is not None and expected != codec.num_tokens:
                raise CheckpointError(
                    f"{folder}: tokenizer.json has {codec.num_tokens} tokens, {what} is {expected!r}; "
                    "the action tokenizer is not this checkpoint's"
                )
        return codec

    @property
    def ids(self) -> range:
        """The action tokens in the main vocabulary."""
        return range(self.first_id, self.first_id + self.num_tokens)

    def coefficients(self, normalized: NDArray[np.floating]) -> NDArray[np.int64]:
        """What the tokens stand for: the scaled, rounded cosine transform.

        Args:
            normalized: active slots only   (horizon, dofs)

        Returns:
            (horizon, dofs), lowest frequency first.

        Raises:
            ConfigError: not a finite matrix.
        """
        rows = np.asarray(normalized, np.float64)
        if rows.ndim != 2 or rows.size == 0 or not np.isfinite(rows).all():
            raise ConfigError(f"FAST: actions of shape {rows.shape}, expected a finite (horizon, dofs)")
        # beyond any character, and far beyond any normalised action
        return np.rint(np.clip(_dct(rows.shape[0]) @ rows * self.scale, -(2**40), 2**40)).astype(np.int64)

    def encode(self, normalized: NDArray[np.floating]) -> NDArray[np.int64]:
        """Tokens of a chunk, as ids of the main vocabulary.

        Args:
            normalized: active slots only   (horizon, dofs)

        Returns:
            int64   (n,)

        Raises:
            ConfigError: not a finite matrix, or a coefficient that the action tokenizer has no token for.
        """
        wanted = self.coefficients(normalized)
        codes = wanted.ravel() - self.min_token
        lowest, highest = int(codes.min()), int(codes.max())
        # the range of characters without surrogates
        if lowest < 0 or highest >= 0xD800:
            worst = lowest if lowest < 0 else highest
            raise ConfigError(
                f"FAST: coefficient {worst + self.min_token} is outside [{self.min_token}, "
                f"{0xD7FF + self.min_token}] of {self._where}; are the actions normalised to [-1, 1]?"
            )
        ids = self._bpe.encode("".join(map(chr, codes)), add_special_tokens=False).ids
        # a byte-level BPE drops, without a word, what was not in its training
        text = self._bpe.decode(ids, skip_special_tokens=False)
        if text != "".join(map(chr, codes)):
            missing = sorted({int(c) for c in codes} - {ord(c) for c in text})
            raise ConfigError(
                f"FAST: {self._where} has no token for the coefficient "
                f"{missing[0] + self.min_token if missing else '(lost in a merge)'}; are the actions normalised "
                "to [-1, 1]?"
            )
        return np.array(ids, np.int64) + self.first_id

    def decode(self, ids: Iterable[int] | NDArray[np.int64], horizon: int, dofs: int) -> NDArray[np.float64]:
        """The chunk that tokens stand for.

        Args:
            ids: of the main vocabulary, without the end marker   (n,)
            horizon: rows expected.
            dofs: active slots expected.

        Returns:
            normalised actions   (horizon, dofs)

        Raises:
            AnswerError: no token, one that is no action token, bytes that are no character, or another number of
                coefficients than ``horizon * dofs``.
            ConfigError: a horizon or number of slots below 1.
        """
        if horizon < 1 or dofs < 1:
            raise ConfigError(f"FAST: {horizon} rows of {dofs} slots, expected 1 or more of both")
        numbers = [int(i) for i in ids]
        if not numbers:
            raise AnswerError("FAST: no action token; the model wrote nothing before the end marker")
        for place, number in enumerate(numbers):
            if number not in self.ids:
                raise AnswerError(
                    f"FAST: token {number} at place {place} of {len(numbers)} is no action token; those are "
                    f"{self.ids[0]} to {self.ids[-1]}"
                )
        text = self._bpe.decode([n - self.first_id for n in numbers], skip_special_tokens=False)
        if _UNDECODABLE in text:
            raise AnswerError(
                f"FAST: the {len(numbers)} tokens are no text: broken character at coefficient "
                f"{text.index(_UNDECODABLE)} of {horizon * dofs}"
            )
        if len(text) != horizon * dofs:
            raise AnswerError(
                f"FAST: the {len(numbers)} tokens stand for {len(text)} coefficients, expected {horizon * dofs} "
                f"({horizon} rows of {dofs} slots)"
            )
        values = np.array([ord(c) for c in text], np.float64).reshape(horizon, dofs) + self.min_token
        rows: NDArray[np.float64] = _dct(horizon).T @ (values / self.scale)
        return rows


@cache
def _dct(length: int) -> NDArray[np.float64]:
    """DCT-II, orthonormal, as a matrix from samples to frequencies   (length, length)"""
    samples = np.arange(length)
    matrix = np.cos(np.pi / length * np.outer(samples, samples + 0.5)) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    matrix.flags.writeable = False
    return matrix
