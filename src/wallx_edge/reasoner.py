"""Reasoner: questions about pictures, reasoning and the next subtask, in words, from the weights that also act."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.errors import AnswerError, CheckpointError, ConfigError
from wallx_edge.generation import (
    Generated,
    GenerationConfig,
    OnText,
    QueuedText,
    generate,
    text_options,
    text_stops,
)
from wallx_edge.grounding import Grounding, parse_grounding
from wallx_edge.policy_config import PolicyConfig, PolicySettings
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import IMAGE, Tokenizer, step_by_step_prompt, subtask_prompt, text_prompt
from wallx_edge.train_config import TrainConfig
from wallx_edge.types import Observation, check_image

if TYPE_CHECKING:
    from wallx_edge.policy import Policy

__all__ = ["Answer", "Reasoner"]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said to a prompt.

    Attributes:
        text: without special tokens and without white space around it; may be empty.
        marked: the text with its special tokens, where some checkpoints put places.
        generated: tokens, why it ended, how long it took.
        prompt_tokens: of pictures and words.
        shared_tokens: of them, those that were in the context already, from the prompt before.
        prefill_s: time to compute the others, and the pictures [s]
        sizes: height and width of each picture as the model saw it, and before any resize [px]   (pictures)
    """

    text: str
    marked: str
    generated: Generated
    prompt_tokens: int
    shared_tokens: int
    prefill_s: float
    sizes: tuple[tuple[tuple[int, int], tuple[int, int]], ...]

    def grounding(self, picture: int = 0) -> Grounding:
        """Boxes and points that the answer names, on one of its pictures before any resize.

        Args:
            picture: which; an answer does not say which one it means.

        Raises:
            ConfigError: no such picture.
        """
        if not 0 <= picture < len(self.sizes):
            raise ConfigError(f"the answer is about {len(self.sizes)} pictures, there is no picture {picture}")
        return parse_grounding(self.marked, *self.sizes[picture])


class Reasoner:
    """A checkpoint ready to answer. Not for use by two threads at once.

    Made :meth:`beside` a policy, it shares weights and context with it: what the prompts of one observation have in
    common, always the pictures, is computed once. Both must then stay on one thread; with a fork of the policy's
    context (``Reasoner(policy.directory, policy.config, policy.engine, policy.context.fork())``) it may have a thread
    of its own and still begins with what the policy had computed. :meth:`load` makes one that stands alone.

    Attributes:
        config: how the checkpoint is asked; cameras, resolution and style of it are for :meth:`subtask`.
        engine: its weights.
        directory: its folder.
        queue: where it computes; ``None``: on the calling thread.
    """

    def __init__(
        self,
        directory: str | Path,
        config: PolicySettings,
        engine: _core.Engine,
        context: _core.Context | None = None,
    ) -> None:
        """Use :meth:`load` or :meth:`beside`.

        Args:
            directory: the checkpoint's folder.
            config: how to ask it.
            engine: its weights.
            context: to share; one of its own by default.

        Raises:
            CheckpointError: tokenizer or preprocessor files are missing, damaged, or not this checkpoint's.
        """
        self.config = config
        self.engine = engine
        self.directory = Path(directory)
        self._tokenizer = Tokenizer.load(directory)
        image_id = self._tokenizer.special_id(IMAGE)
        if image_id != engine.config.image_token_id or self._tokenizer.num_tokens > engine.vocab_size:
            raise CheckpointError(
                f"{directory}: tokenizer.json has {self._tokenizer.num_tokens} tokens and {IMAGE} at {image_id}, the "
                f"embedding {engine.vocab_size} rows and config.json says {engine.config.image_token_id}; "
                "the tokenizer is not this checkpoint's"
            )
        self._processor = ImageProcessor.load(directory)
        self._context = context or _core.Context(engine, config.max_tokens, config.rope_layout)
        self.queue: _core.InferenceQueue | None = None
        self._text: QueuedText | None = None

    def cancel(self) -> None:
        """Ends what is being written in a queue, from another thread: the call raises WallxError. Does not wait."""
        text = self._text
        if text is not None:
            text.work.cancel()

    @property
    def context(self) -> _core.Context:
        """The engine's state of its conversation; set one to go on with what that holds, such as a policy's fork."""
        return self._context

    @context.setter
    def context(self, context: _core.Context) -> None:
        self._context = context

    @classmethod
    def load(
        cls, directory: str | Path, config: PolicyConfig | None = None, computing: Computing | None = None
    ) -> Reasoner:
        """Maps a checkpoint folder in the published layout. Blocks while it reads. Needs no statistics.

        Args:
            directory: with config.json, model*.safetensors, tokenizer and preprocessor files.
            config: how to ask it; its defaults when not given.
            computing: how it is computed; its defaults when not given.

        Raises:
            CheckpointError: something is missing, damaged, surplus, or of a variant that does not run.
            ConfigError: a wish that does not fit the checkpoint.
        """
        engine = (computing or Computing()).load(directory)
        settings = PolicySettings.resolve(config or PolicyConfig(), TrainConfig.load(directory), engine.config)
        return cls(directory, settings, engine)

    @classmethod
    def beside(cls, policy: Policy) -> Reasoner:
        """One that shares a policy's weights and context, on the same thread.

        Args:
            policy: of the checkpoint.
        """
        return cls(policy.directory, policy.config, policy.engine, policy.context)

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        question: str,
        config: GenerationConfig | None = None,
        on_text: OnText | None = None,
        *,
        resolution: int = -1,
    ) -> Answer:
        """Asks a question about pictures, in the chat template. Blocks until the answer ends.

        Args:
            images: one or more, uint8 RGB, each   (height, width, 3)
            question: words.
            config: how to write; greedy, with a budget of 256 tokens, when not given.
            on_text: called on this thread after each token with the text that it made certain; ``False`` cancels.
            resolution: long side of each picture after the first resize [px]; -1, as the reference asks questions:
                the picture's own, which for a large picture are many tokens.

        Returns:
            the answer, which may be empty, or unfinished when the budget ended it: see ``generated.ended``.

        Raises:
            ConfigError: no picture, one that is none, no question, or more tokens than the context holds.
        """
        if len(images) == 0:  # also one bare picture, whose rows are then refused as pictures
            raise ConfigError("a question about no picture; give one or more")
        return self._ask(images, [resolution] * len(images), text_prompt(len(images), question), config, on_text)

    def reason(
        self,
        images: Sequence[NDArray[np.uint8]],
        goal: str,
        config: GenerationConfig | None = None,
        on_text: OnText | None = None,
        *,
        resolution: int = -1,
    ) -> Answer:
        """Asks what to do next towards a goal, step by step: :meth:`ask` with the reference's own question.

        Args:
            images: one or more, uint8 RGB, each   (height, width, 3)
            goal: such as ``move the red block in the plate with same color``.
            config: as for :meth:`ask`.
            on_text: as for :meth:`ask`.
            resolution: as for :meth:`ask`.

        Raises:
            ConfigError: as for :meth:`ask`.
        """
        if len(images) == 0:
            raise ConfigError("reasoning about no picture; give one or more")
        return self._ask(images, [resolution] * len(images), step_by_step_prompt(len(images), goal), config, on_text)

    def subtask(
        self, observation: Observation, config: GenerationConfig | None = None, on_text: OnText | None = None
    ) -> Answer:
        """Says what to do next for the observation's instruction; ``text`` can be the instruction of an action.

        Args:
            observation: with a picture for each of the config's cameras; its state is not looked at.
            config: as for :meth:`ask`.
            on_text: as for :meth:`ask`.

        Returns:
            a subtask that is finished, or was cancelled.

        Raises:
            AnswerError: the model wrote nothing, or did not come to an end.
            ConfigError: a camera is missing, no instruction, or more tokens than the context holds.
        """
        cameras = self.config.cameras
        missing = [role for role in cameras if role not in observation.images]
        if missing:
            raise ConfigError(
                f"the observation lacks the camera {missing[0]!r}; the model looks at {', '.join(cameras)}, the "
                f"observation has {', '.join(observation.images)}"
            )
        answer = self._ask(
            [observation.images[role] for role in cameras],
            [self.config.resolution[role] for role in cameras],
            subtask_prompt(cameras, observation.instruction, style=self.config.style),
            config,
            on_text,
        )
        if answer.generated.ended == "budget":
            raise AnswerError(f"subtask: no end within {len(answer.generated.ids)} tokens: {answer.text!r:.80}")
        if not answer.text and answer.generated.ended != "cancelled":
            raise AnswerError("subtask: the model wrote nothing; the instruction stays as it is")
        return answer

    def _ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        resolutions: Sequence[int],
        prompt: str,
        config: GenerationConfig | None,
        on_text: OnText | None,
    ) -> Answer:
        for number, image in enumerate(images):
            check_image(image, f"picture {number}")
        pictures = self._processor.prepare(
            images, resolutions, min_pixels=self.config.min_pixels, max_pixels=self.config.max_pixels
        )
        ids = self._tokenizer.layout(prompt, pictures.counts, [f"picture {i}" for i in range(len(images))]).ids
        config = config or GenerationConfig()
        needed = ids.size + config.max_tokens - 1
        if needed > self._context.max_tokens:
            raise ConfigError(
                f"{ids.size} tokens of pictures ({sum(pictures.counts)}) and words and a budget of "
                f"{config.max_tokens} are more than the context holds, {self._context.max_tokens} "
                "(policy.max_tokens); ask with a lower resolution, fewer pictures or a smaller budget"
            )
        shared, prefill_s, generated = self._write(ids, pictures.pixel_values, pictures.grids, config, on_text)
        side = self._processor.patch_size
        return Answer(
            text=generated.text.strip(),
            marked=self._tokenizer.decode(generated.ids),
            generated=generated,
            prompt_tokens=ids.size,
            shared_tokens=shared,
            prefill_s=prefill_s,
            sizes=tuple(
                ((int(grid[1]) * side, int(grid[2]) * side), (image.shape[0], image.shape[1]))
                for grid, image in zip(pictures.grids, images, strict=True)
            ),
        )

    def _write(
        self,
        ids: NDArray[np.int64],
        pixels: NDArray[np.float32],
        grids: NDArray[np.int64],
        config: GenerationConfig,
        on_text: OnText | None,
    ) -> tuple[int, float, Generated]:
        """Tokens of the prompt that were there, time of its prefill [s], and what was written."""
        if self.queue is None:
            begin = time.perf_counter()
            shared = self._context.prefill(ids, pixels, grids)
            prefill_s = time.perf_counter() - begin
            return shared, prefill_s, generate(self._context, self._tokenizer, config, on_text)
        nothing = np.empty(0, np.float32)
        options = text_options(self._tokenizer, config, text_stops(self._tokenizer, config))
        self._text = text = QueuedText(self.queue, self._context, (ids, pixels, grids, -1, nothing, nothing), options)
        try:
            generated = generate(self._context, self._tokenizer, config, on_text, text)
        finally:
            text.close()
        return text.work.num_shared, text.work.prefill_s, generated
