"""Prompts and tokens: the reference's exact texts, their token ids, and the pictures' places in them."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from numpy.typing import NDArray

from wallx_edge.errors import CheckpointError, ConfigError

__all__ = [
    "PromptStyle",
    "TokenLayout",
    "Tokenizer",
    "camera_label",
    "expand_images",
    "fast_prompt",
    "flow_prompt",
    "state_bins",
    "state_text",
    "step_by_step_prompt",
    "subtask_prompt",
    "text_prompt",
]

IMAGE = "<|image_pad|>"
STATE = "<|propri|>"
ACTION = "<|action|>"
END = "<|im_end|>"

_VISION = f"<|vision_start|>{IMAGE}<|vision_end|>"
_SYSTEM = f"<|im_start|>system\nYou are a helpful assistant.{END}\n"
_ASSISTANT = f"{END}\n<|im_start|>assistant\n"
_CAMERA_LABELS = {
    "face_view": "front view",
    "left_wrist_view": "left wrist view",
    "right_wrist_view": "right wrist view",
}
_SPECIAL = re.compile(r"<\|[^|]*\|>")
# a byte-level tokenizer spells a byte as a printable character: itself, or the next one free from 256 on
_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(256 + i): byte for i, byte in enumerate(b for b in range(256) if b not in _PRINTABLE)
}


@dataclass(frozen=True)
class PromptStyle:
    """How a checkpoint was trained to be addressed, where that differs from the published default.

    Attributes:
        labels: camera role -> what the prompt calls it; a role that is not in it is called by its bare name, as the
            reference does with its ``camera_name_mapping``. ``None``: :func:`camera_label`.
        action_space: of the embodied prologue, the system message that describes the robot: ``Abs EEF`` or
            ``Rel EEF``. ``None``: the usual system message.
    """

    labels: Mapping[str, str] | None = None
    action_space: Literal["Abs EEF", "Rel EEF"] | None = None

    def label(self, role: str) -> str:
        """What the prompt calls a camera.

        Raises:
            ConfigError: a role or label with a special token in it.
        """
        return camera_label(role) if self.labels is None else _plain(self.labels.get(role, role), "camera label")

    def system(self, cameras: Sequence[str]) -> str:
        """The system message. The prologue names cameras by :func:`camera_label` always, as the reference does.

        Raises:
            ConfigError: a role with a special token in it.
        """
        if self.action_space is None:
            return _SYSTEM
        setup = ", ".join(camera_label(role) for role in cameras)
        return (
            "<|im_start|>system\nYou are an embodied vision-language-action model controlling a robot with language "
            f"instructions.\nCamera Setup: {setup}\nAction Space: {self.action_space}\n{END}\n"
        )


DEFAULT_STYLE = PromptStyle()


def camera_label(role: str) -> str:
    """How the prompt names a camera.

    The three published roles have the reference's labels (``face_view`` is "front view"). Any other role is
    named by its own words, underscores as spaces (``table_side_view`` is "table side view"): say so to the
    user, as no published checkpoint was trained with it.

    Raises:
        ConfigError: a role with a special token in it.
    """
    return _CAMERA_LABELS.get(role) or _plain(role, "camera role").replace("_", " ")


def flow_prompt(
    cameras: Sequence[str],
    instruction: str,
    horizon: int,
    *,
    state: str = STATE,
    style: PromptStyle = DEFAULT_STYLE,
) -> str:
    """The prompt of flow actions: pictures, instruction, state, then one ``<|action|>`` per row.

    Args:
        cameras: roles in the model's order; each picture is one ``<|image_pad|>``, see :func:`expand_images`.
        instruction: what to do.
        horizon: rows of the action chunk.
        state: the state's token, or its text from :func:`state_text`.
        style: labels and prologue.

    Raises:
        ConfigError: no camera, no instruction, a special token in it, a horizon below 1.
    """
    if horizon < 1:
        raise ConfigError(f"prompt: horizon {horizon}, expected 1 or more")
    return fast_prompt(cameras, instruction, state=state, style=style) + ACTION * horizon


def fast_prompt(
    cameras: Sequence[str], instruction: str, *, state: str = STATE, style: PromptStyle = DEFAULT_STYLE
) -> str:
    """The prompt of FAST actions, which the model writes itself: :func:`flow_prompt` without ``<|action|>``.

    Args:
        cameras: roles in the model's order.
        instruction: what to do.
        state: the state's token, or its text from :func:`state_text`.
        style: labels and prologue.

    Raises:
        ConfigError: no camera, no instruction, a special token in it.
    """
    return (
        f"{_observation(cameras, instruction, style)}Predict the next action in robot action.\n"
        f"Proprioception: {state if state == STATE else _plain(state, 'state')}\n{_ASSISTANT}"
    )


def state_text(normalized: NDArray[Any], mask: NDArray[Any], bins: int) -> str:
    """The state as text: the number of the bin that each active value falls into.

    The range [-1, 1] is cut into equal bins; a value on an edge belongs to the bin above it, 1 to the last one.
    Source: the reference's ``np.digitize(x, linspace(-1, 1, bins + 1)[:-1]) - 1``, in float64.
    Golden case: ``proprio.bins``.

    Args:
        normalized: state in the model's range [-1, 1]   (state_dim,)
        mask: not zero where the robot has the value   (state_dim,)
        bins: into how many the range is cut.

    Returns:
        such as ``227 15 133``

    Raises:
        ConfigError: fewer than two bins, no active value, another shape, or a value outside of the range.
    """
    values, active = np.asarray(normalized), np.asarray(mask).astype(bool)
    if values.ndim != 1 or values.shape != active.shape or not active.any():
        raise ConfigError(
            f"state as text: got values of shape {values.shape} and a mask of shape {active.shape} with "
            f"{int(active.sum())} active, expected (state_dim,) both and one active or more"
        )
    return " ".join(str(number) for number in state_bins(values, bins)[active])


def state_bins(normalized: NDArray[Any], bins: int) -> NDArray[np.int64]:
    """The bin of each value, 0 to ``bins - 1``; see :func:`state_text`.

    Args:
        normalized: in the model's range [-1, 1]   (...)
        bins: into how many the range is cut.

    Raises:
        ConfigError: fewer than two bins, or a value outside of the range.
    """
    if bins < 2:
        raise ConfigError(f"state bins: {bins}, expected 2 or more")
    values = np.asarray(normalized, np.float64)
    if not bool((np.abs(values) <= 1).all()):  # not a number is refused too
        raise ConfigError(f"state: values from {values.min()} to {values.max()}, expected -1 to 1")
    return (np.digitize(values, np.linspace(-1, 1, bins + 1)[:-1]) - 1).astype(np.int64)


def subtask_prompt(cameras: Sequence[str], instruction: str, *, style: PromptStyle = DEFAULT_STYLE) -> str:
    """The prompt whose answer is the next subtask in words.

    Args:
        cameras: roles in the model's order.
        instruction: what to do.
        style: labels and prologue.

    Raises:
        ConfigError: no camera, no instruction, a special token in it.
    """
    return f"{_observation(cameras, instruction, style)}Predict the next action in language.\n{_ASSISTANT}"


def step_by_step_prompt(num_images: int, goal: str) -> str:
    """The question whose answer reasons towards the next step: the reference's own example, with another goal.

    Args:
        num_images: pictures before the question.
        goal: such as "move the red block in the plate with same color".

    Raises:
        ConfigError: a negative number of pictures, no goal, a special token in it.
    """
    return text_prompt(num_images, f"To {_plain(goal, 'goal')}, what should you do next? Think step by step.")


def text_prompt(num_images: int, question: str) -> str:
    """The chat template with pictures and then a question.

    Args:
        num_images: pictures before the question.
        question: what to ask.

    Raises:
        ConfigError: a negative number of pictures, no question, a special token in it.
    """
    if num_images < 0:
        raise ConfigError(f"prompt: {num_images} pictures, expected 0 or more")
    return f"{_SYSTEM}<|im_start|>user\n{_VISION * num_images}{_plain(question, 'question')}{_ASSISTANT}"


def expand_images(prompt: str, counts: Sequence[int]) -> str:
    """Repeats the i-th ``<|image_pad|>`` of a prompt ``counts[i]`` times.

    Args:
        prompt: with one ``<|image_pad|>`` per picture.
        counts: language tokens of each picture, gh * gw / 4   (pictures,)

    Raises:
        ConfigError: another number of pictures, or a count below 1.
    """
    parts = prompt.split(IMAGE)
    if len(parts) - 1 != len(counts):
        raise ConfigError(f"prompt has room for {len(parts) - 1} pictures, got {len(counts)}")
    if any(count < 1 for count in counts):
        raise ConfigError(f"picture token counts {list(counts)}: expected 1 or more each")
    return parts[0] + "".join(IMAGE * count + part for count, part in zip(counts, parts[1:], strict=True))


def _observation(cameras: Sequence[str], instruction: str, style: PromptStyle) -> str:
    if not cameras:
        raise ConfigError("prompt: no camera, expected one role or more, in the model's order")
    pictures = " ".join(f"{style.label(role)}: {_VISION}" for role in cameras)
    task = _plain(instruction, "instruction")
    return f"{style.system(cameras)}<|im_start|>user\nObservation: {pictures}\nInstruction: {task}\n"


def _plain(text: str, what: str) -> str:
    """User text: a special token in it would shift the layout of pictures, state and actions."""
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{what} is empty, expected words")
    # the text as it is: no character becomes "<", "|" or ">" when the tokenizer normalizes to NFC
    found = _SPECIAL.search(text)
    if found:
        raise ConfigError(f"{what} contains {found.group()!r}, a special token; take it out of the text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(f"{what} is not valid Unicode at character {error.start}") from error
    return text


class Tokenizer:
    """A checkpoint's tokenizer. Calls do not block and may come from any thread."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, config: dict[str, Any], where: str) -> None:
        """Use :meth:`load`.

        Args:
            tokenizer: of the ``tokenizers`` library.
            config: content of ``tokenizer_config.json``, empty if there is none.
            where: folder, for messages.
        """
        # a prompt is never cut or filled up, whatever the file says
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._config = config
        self._where = where
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: i for i, token in added.items()}
        self._added_pieces = {i: b"" if token.special else token.content.encode() for i, token in added.items()}

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Reads ``tokenizer.json`` and, where there is one, ``tokenizer_config.json``. Blocks while reading.

        A plain Qwen tokenizer, as wall-oss-0.5 has it, gets ``<|propri|>`` and ``<|action|>`` behind its last token.

        Args:
            folder: the checkpoint's.

        Raises:
            CheckpointError: no ``tokenizer.json``, or a file that is damaged.
        """
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{path}: no such file; a checkpoint needs its tokenizer")
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{path}: not a tokenizer: {error}") from error
        if all(tokenizer.token_to_id(name) is None for name in (STATE, ACTION)):
            # wall-oss-0.5 comes with Qwen's plain tokenizer, and the reference adds the two when it loads it
            tokenizer.add_tokens([tokenizers.AddedToken(name, normalized=True) for name in (STATE, ACTION)])
        config_path = Path(folder) / "tokenizer_config.json"
        config: object = {}
        if os.path.lexists(config_path):
            try:
                config = json.loads(config_path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise CheckpointError(f"{config_path}: not JSON: {error}") from error
        if not isinstance(config, dict):
            raise CheckpointError(f"{config_path}: expected an object, got {type(config).__name__}")
        return cls(tokenizer, config, str(folder))

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids of a text; special tokens in it become their ids, none is added.

        Returns:
            int64   (n,)

        Raises:
            ConfigError: not valid Unicode.
        """
        try:
            return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        except (TypeError, UnicodeEncodeError) as error:
            raise ConfigError(f"text {text!r:.60} cannot be tokenized: {error}") from error

    def decode(self, ids: Iterable[int] | NDArray[np.int64], *, skip_special: bool = False) -> str:
        """The text of token ids; an id that the tokenizer does not know (a spare embedding row) has no text.

        Args:
            ids: int   (n,)
            skip_special: leave out special tokens such as ``<|im_end|>``; ``<|action|>`` and its like stay.

        Raises:
            ConfigError: a negative id.
        """
        numbers = [int(i) for i in ids]
        if any(i < 0 for i in numbers):
            raise ConfigError(f"token id {min(numbers)}: expected 0 or more")
        return self._tokenizer.decode(numbers, skip_special_tokens=skip_special)

    def piece(self, token_id: int) -> bytes:
        """What one token adds to a text: bytes, which may be a part of a character (UTF-8).

        Nothing for special tokens and for ids that the tokenizer does not know; :meth:`decode` of many tokens without
        the special ones is the text of their pieces in a row.

        Raises:
            ConfigError: a negative id.
        """
        if token_id < 0:
            raise ConfigError(f"token id {token_id}: expected 0 or more")
        if token_id in self._added_pieces:
            return self._added_pieces[token_id]
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        values = [_BYTES.get(character) for character in token]
        return token.encode() if None in values else bytes(v for v in values if v is not None)

    def special_id(self, name: str) -> int:
        """Id of a special token such as ``<|propri|>``.

        Raises:
            CheckpointError: the tokenizer has no such special token.
        """
        if name not in self._added:
            raise CheckpointError(
                f"{self._where}/tokenizer.json: special token {name} is missing; this is not a WALL-OSS tokenizer"
            )
        return self._added[name]

    @property
    def num_tokens(self) -> int:
        """Number of tokens, the added ones included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @property
    def action_token_start_index(self) -> int:
        """Id of the first FAST action token; ``<|action_token_0|>`` agrees with ``tokenizer_config.json``.

        Raises:
            CheckpointError: neither is there, or they disagree.
        """
        configured = self._config.get("action_token_start_index")
        added = self._added.get("<|action_token_0|>")
        if configured is None and added is None:
            raise CheckpointError(f"{self._where}: the tokenizer has no action tokens (action_token_start_index)")
        if configured is not None and added is not None and configured != added:
            raise CheckpointError(
                f"{self._where}/tokenizer_config.json: action_token_start_index is {configured}, "
                f"<|action_token_0|> is {added} in tokenizer.json"
            )
        found = added if configured is None else configured
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise CheckpointError(
                f"{self._where}/tokenizer_config.json: action_token_start_index is {found!r}, expected a token id"
            )
        return found

    @property
    def num_action_tokens(self) -> int | None:
        """FAST action tokens that ``tokenizer_config.json`` counts; ``None`` where it does not.

        Raises:
            CheckpointError: not a number.
        """
        found = self._config.get("action_token_vocab_size")
        if found is not None and (isinstance(found, bool) or not isinstance(found, int) or found < 1):
            raise CheckpointError(
                f"{self._where}/tokenizer_config.json: action_token_vocab_size is {found!r}, expected 1 or more"
            )
        return found

    def layout(self, prompt: str, counts: Sequence[int], cameras: Sequence[str]) -> TokenLayout:
        """Tokenizes a prompt for pictures of known size and checks that every picture has its place.

        Args:
            prompt: with one ``<|image_pad|>`` per picture.
            counts: language tokens of each picture, gh * gw / 4   (pictures,)
            cameras: a name for each picture, for messages.

        Raises:
            ConfigError: another number of pictures, or of tokens for one.
            CheckpointError: the tokenizer lacks a special token of pictures.
        """
        return TokenLayout.check(self, self.encode(expand_images(prompt, counts)), counts, cameras)


@dataclass(frozen=True, eq=False)
class TokenLayout:
    """Token ids whose pictures have been checked against the tokens they need.

    Attributes:
        ids: int64, read-only   (n,)
        image_counts: tokens of each picture, in order   (pictures,)
    """

    ids: NDArray[np.int64]
    image_counts: tuple[int, ...]

    @classmethod
    def check(
        cls, tokenizer: Tokenizer, ids: NDArray[np.int64], counts: Sequence[int], cameras: Sequence[str]
    ) -> TokenLayout:
        """Checks ids from anywhere: every run of ``<|image_pad|>`` must be as long as its picture needs.

        Args:
            tokenizer: that made the ids.
            ids: int64   (n,)
            counts: language tokens of each picture, gh * gw / 4   (pictures,)
            cameras: a name for each picture, for messages.

        Raises:
            ConfigError: not ids, another number of pictures, or of tokens for one; names the camera.
            CheckpointError: the tokenizer lacks a special token of pictures.
        """
        if ids.ndim != 1 or ids.dtype != np.int64:
            raise ConfigError(f"token ids: got {ids.dtype} of shape {ids.shape}, expected int64 of shape (n,)")
        if len(counts) != len(cameras):
            raise ConfigError(f"got {len(counts)} pictures and {len(cameras)} camera names, expected as many")
        is_image = np.concatenate(([False], ids == tokenizer.special_id(IMAGE), [False])).astype(np.int8)
        edges = np.flatnonzero(np.diff(is_image))
        runs = [int(end - start) for start, end in zip(edges[::2], edges[1::2], strict=True)]
        for camera, run, count in zip(cameras, runs, counts, strict=False):
            if run != count:
                raise ConfigError(
                    f"token count mismatch: camera {camera!r} has {run} {IMAGE} tokens, its picture needs {count}"
                )
        if len(runs) != len(counts):
            raise ConfigError(
                f"token count mismatch: room for {len(runs)} pictures in the tokens, got {len(counts)} "
                f"({', '.join(cameras)})"
            )
        kept = ids.copy()
        kept.flags.writeable = False
        return cls(kept, tuple(int(count) for count in counts))
