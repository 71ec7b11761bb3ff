"""Policy: an Observation in, an ActionChunk out; knows prompts, units and statistics."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.computing import Computing
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.fast import FOLDER as FAST_FOLDER
from wallx_edge.fast import FastCodec
from wallx_edge.generation import GenerationConfig, write_actions
from wallx_edge.policy_config import PolicyConfig, PolicySettings
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import ACTION, IMAGE, STATE, Tokenizer, flow_prompt, state_text
from wallx_edge.relative import RelativeActions
from wallx_edge.statistics import Statistics
from wallx_edge.train_config import PADDING, TrainConfig
from wallx_edge.types import ActionChunk, DofLayout, Observation

__all__ = ["Follow", "Policy", "PolicyConfig"]

WAIT = 1.0  # between looks at work in a queue, so that a signal is heard [s]


@dataclass(frozen=True, eq=False)
class Follow:
    """Rows of the chunk before, which a new one is drawn toward (real-time chunking).

    Attributes:
        rows: in ``action_layout``'s order, SI; the first is due with the new chunk's first; at most horizon, no row
            more than is still to come   (rows, dof)
        num_frozen: of them, those that will have been played before the new chunk arrives: they come out exactly.
        max_guidance: bound of the guidance's gain.
    """

    rows: NDArray[np.float64]
    num_frozen: int
    max_guidance: float = 10.0


class Policy:
    """A checkpoint ready to act. Not for use by two threads at once; two policies may share one engine.

    Attributes:
        config: how the checkpoint is asked, nothing left open.
        engine: its weights.
        directory: its folder.
        state_layout: what the state of an observation means; without ``action_padding`` and masked slots.
        action_layout: what the columns of a chunk mean, likewise; absolute, whatever the model says relative to the
            state.
        statistics: name of the matched statistics.
        statistics_source: file they are from.
        shared_tokens: of the last observation's prompt, those that were in the context already.
        queue: where :meth:`act` computes; ``None``: on the calling thread.
        waited_s: how long the last one waited there before it began [s].
    """

    def __init__(self, directory: str | Path, config: PolicyConfig, engine: _core.Engine) -> None:
        """Use :meth:`load`.

        Args:
            directory: the checkpoint's folder.
            config: how to ask it.
            engine: its weights, from :meth:`wallx_edge.computing.Computing.load`.
        """
        self.engine = engine
        self.directory = Path(directory)
        model = engine.config
        self.config = PolicySettings.resolve(config, TrainConfig.load(directory), model)
        if not model.dof or not model.agent_pos:
            missing = "agent_pos_config" if model.dof else "dof_config"
            raise CheckpointError(f"{directory}: neither config.yml nor config.json has {missing}, the vector's slots")
        action, state = (DofLayout.from_config(dict(slots)) for slots in (model.dof, model.agent_pos))
        self._relative = RelativeActions(action, state)
        self._action_mask, self._state_mask = (
            _mask(action, self.config.masked_action),
            _mask(state, self.config.masked_state),
        )
        self.action_layout = _in_use(self._relative.layout, self._action_mask, f"{directory}: dof_config")
        self.state_layout = _in_use(state, self._state_mask, f"{directory}: agent_pos_config")
        for slot, source in self._relative.sources.items():
            if self._action_mask[action.slices[slot].start] and source not in self.state_layout.names:
                raise ConfigError(f"policy.masked: {source} is masked, but {slot} is relative to it")
        self._tokenizer = Tokenizer.load(directory)
        if self._tokenizer.num_tokens > engine.vocab_size:
            raise CheckpointError(
                f"{directory}: tokenizer.json has {self._tokenizer.num_tokens} tokens, the embedding only "
                f"{engine.vocab_size} rows; the tokenizer is not this checkpoint's"
            )
        self._processor = ImageProcessor.load(directory)
        self._state_id = -1 if model.is_state_text else self._tokenizer.special_id(STATE)
        self._tokenizer.special_id(ACTION)
        image_id = self._tokenizer.special_id(IMAGE)
        if image_id != model.image_token_id:
            raise CheckpointError(
                f"{directory}: {IMAGE} is token {image_id} in tokenizer.json, config.json says "
                f"{model.image_token_id}; the tokenizer is not this checkpoint's"
            )
        found = Statistics.of(engine, directory, config.statistics)
        self.statistics, self.statistics_source = found.name, found.source
        self._action, self._state = found.action, found.state
        zero = np.zeros(self._action.width, np.float32)
        self._padding = self._action.normalize(zero) if model.does_pad_masked_dims else None
        self._context = _core.Context(engine, config.max_tokens, config.rope_layout)
        self._codec: FastCodec | None = None  # read when it is first used
        self.shared_tokens = 0
        self.queue: _core.InferenceQueue | None = None
        self.waited_s = 0.0
        self._work: _core.ChunkWork | None = None
        self._random = np.random.default_rng(config.seed)

    @classmethod
    def load(
        cls,
        directory: str | Path,
        config: PolicyConfig | None = None,
        *,
        precision: str = "",
        device: str = "auto",
        threads: int = 0,
        cores: Sequence[int] = (),
        kernels: str = "",
    ) -> Policy:
        """Maps a checkpoint folder, in the published layout or as ``quantize`` writes it. Blocks while it reads.

        Args:
            directory: with config.json, model*.safetensors, tokenizer and preprocessor files, and where the checkpoint
                has them config.yml, norm_stats.json and normalizer_*.pth.
            config: how to ask it; defaults as in :class:`PolicyConfig`.
            precision: ``fp32``, ``bf16``, ``fp16``, ``int8``, ``mixed`` or ``w8``; when empty as the folder is packed,
                else fp32. A folder in the published layout is packed while it is loaded.
            device: ``auto`` or ``cpu``.
            threads: that compute, the calling one included; 0: one for each core that this process may use.
            cores: that the others are pinned to, in turn; none: not pinned.
            kernels: of :func:`wallx_edge._core.kernels`; when empty the fastest.

        Raises:
            CheckpointError: something is missing, damaged, surplus, or of a variant that does not run.
            ConfigError: the statistics are not in the checkpoint, the folder is packed in another precision, or another
                wish does not fit.
        """
        computing = Computing(precision, device, threads, tuple(cores), kernels)
        return cls(directory, config or PolicyConfig(), computing.load(directory))

    def act(
        self,
        observation: Observation,
        noise: NDArray[np.float32] | None = None,
        *,
        follow: Follow | None = None,
        deadline: float | None = None,
    ) -> ActionChunk:
        """Computes one chunk. Blocks while it computes, without the GIL in the engine.

        Args:
            observation: with a picture for each of the policy's cameras and a state in ``state_layout``'s order, SI.
            noise: where the flow starts, float32 (horizon, dof); drawn from the seed when not given.
            follow: rows of the chunk before.
            deadline: in the queue's order, CLOCK_MONOTONIC [s]; without one behind everything that has one.

        Returns:
            the chunk, in ``action_layout``'s order, SI; what the model says relative to the state is absolute in it, at
            the state of ``observation``.

        Raises:
            ConfigError: a camera or the state does not fit, or the model says a rotation that is none.
            WallxError: :meth:`cancel` ended it.
        """
        prompt = self.prompt(observation)
        if noise is None:
            noise = self.noise()
        options = self.flow()
        if follow is not None and len(follow.rows):
            options |= self._guidance(follow, observation.state)
        if self.queue is None:
            self.shared_tokens = self._context.prefill(*prompt)
            normalized = self._context.denoise(noise, **options)
        else:
            self._work = work = self.queue.chunk(self._context, prompt, noise, deadline_s=deadline, **options)
            while not work.wait(WAIT):
                pass
            normalized, self.shared_tokens, self.waited_s = work.actions(), work.num_shared, work.waited_s
        chunk = self.chunk(normalized, observation)
        if follow is None or not follow.num_frozen:
            return chunk
        # the model's range has fewer digits than SI
        rows = chunk.rows.copy()
        rows[: follow.num_frozen] = follow.rows[: follow.num_frozen]
        return ActionChunk(rows, chunk.step, chunk.observed_at, chunk.layout, chunk.outside)

    def cancel(self) -> None:
        """Ends an :meth:`act` that computes in a queue, from another thread. Does not wait."""
        work = self._work
        if work is not None:
            work.cancel()

    def noise(self) -> NDArray[np.float32]:
        """Where the next flow starts, drawn from the seed   (horizon, dof)"""
        return self._random.standard_normal((self.config.horizon, self._action.width), np.float32)

    def flow(self) -> dict[str, Any]:
        """What :meth:`wallx_edge._core.Context.denoise` is told beside the noise."""
        return {
            "dof_mask": np.tile(self._action_mask, (self.config.horizon, 1)),
            "num_steps": self.config.num_steps,
            "attention": self.config.attention,
            "time_grid": self.config.time_grid,
            "time_scale": self.config.time_scale,
            "padding_action": self._padding,
        }

    def act_fast(self, observation: Observation, config: GenerationConfig | None = None) -> ActionChunk:
        """Computes one chunk from FAST tokens, which the model writes up to its end marker. Blocks until then.

        The mode of wall-oss-fast. Needs the checkpoint's own action tokenizer, a folder ``fast_tokenizer``.

        Args:
            observation: as for :meth:`act`.
            config: how to write; when not given greedy, with a budget of one token for every number of the chunk.

        Returns:
            as :meth:`act`.

        Raises:
            AnswerError: what the model wrote is no chunk; nothing was computed from it.
            CheckpointError: no action tokenizer, or another checkpoint's.
            ConfigError: as :meth:`act`, or no room for the budget.
        """
        if self._codec is None:
            folder, tokenizer = self.directory / FAST_FOLDER, self._tokenizer
            self._codec = FastCodec.load(folder, tokenizer.action_token_start_index, tokenizer.num_action_tokens)
        self.observe(observation)
        active = np.flatnonzero(self._action_mask)
        budget = config or GenerationConfig(max_tokens=self.config.horizon * active.size + 1)
        ids = write_actions(self._context, self._tokenizer, budget, self._codec.ids)
        normalized = np.zeros((self.config.horizon, self._action.width), np.float32)
        normalized[:, active] = self._codec.decode(ids, self.config.horizon, active.size)
        return self.chunk(normalized, observation)

    def observe(self, observation: Observation) -> int:
        """Computes the prefix of an observation: pictures, text and state. :meth:`act` calls it.

        Args:
            observation: as for :meth:`act`.

        Returns:
            tokens in the context; of them, ``shared_tokens`` were there already from the prompt before.

        Raises:
            ConfigError: a camera or the state does not fit.
        """
        self.shared_tokens = self._context.prefill(*self.prompt(observation))
        return self._context.length

    def prompt(self, observation: Observation) -> _core.Prompt:
        """What :meth:`wallx_edge._core.Context.prefill` is told of an observation: ids, pictures, state.

        Raises:
            ConfigError: a camera or the state does not fit.
        """
        settings = self.config
        missing = [role for role in settings.cameras if role not in observation.images]
        if missing:
            raise ConfigError(
                f"the observation lacks the camera {missing[0]!r}; the policy looks at "
                f"{', '.join(settings.cameras)}, the observation has {', '.join(observation.images)}"
            )
        if observation.state.size != self.state_layout.width:
            raise ConfigError(
                f"the state has {observation.state.size} values, the checkpoint expects {self.state_layout.width} "
                f"({', '.join(self.state_layout.names)})"
            )
        pictures = self._processor.prepare(
            [observation.images[role] for role in settings.cameras],
            [settings.resolution[role] for role in settings.cameras],
            min_pixels=settings.min_pixels,
            max_pixels=settings.max_pixels,
        )
        state = self._state.normalize(self._whole(observation.state))
        is_text = self.engine.config.is_state_text
        shown = np.ones_like(self._state_mask) if settings.is_whole_state_told else self._state_mask
        prompt = flow_prompt(
            settings.cameras,
            observation.instruction,
            settings.horizon,
            state=state_text(state, shown, settings.state_bins) if is_text else STATE,
            style=settings.style,
        )
        ids = self._tokenizer.layout(prompt, pictures.counts, settings.cameras).ids[: -settings.horizon]
        nothing = np.empty(0, np.float32)
        tokens = (-1, nothing, nothing) if is_text else (self._state_id, state, self._state_mask)
        return (ids, pictures.pixel_values, pictures.grids, *tokens)

    def _guidance(self, follow: Follow, state: NDArray[np.float64]) -> dict[str, Any]:
        """What the engine is told of the rows to follow, in the model's range, row by row, at a state (state_dim,)."""
        horizon, rows = self.config.horizon, follow.rows
        if rows.ndim != 2 or rows.shape[1] != self.action_layout.width or len(rows) > horizon:
            raise ConfigError(
                f"rows to follow have shape {rows.shape}, expected at most {horizon} rows of {self.action_layout.width}"
            )
        if not 0 <= follow.num_frozen <= len(rows):
            raise ConfigError(f"{follow.num_frozen} frozen rows of {len(rows)} to follow")
        whole = np.zeros((horizon, self._action.width))
        # what no longer has a row before it is not drawn anywhere, but must be a number: the last one
        whole[:, self._action_mask != 0] = rows[np.minimum(np.arange(horizon), len(rows) - 1)]
        # what was relative to the state of the chunk before is relative to this one's now
        whole = self._relative.relative(whole, self._whole(state), self._action_mask != 0)
        return {
            "previous": self._action.normalize(whole, is_clamped=False),
            "guidance": _core.guidance_weights(follow.num_frozen, len(rows), horizon),
            "num_frozen": follow.num_frozen,
            "max_guidance": follow.max_guidance,
        }

    @property
    def context(self) -> _core.Context:
        """The engine's state of this policy's conversation; for one thread at a time."""
        return self._context

    def middle_state(self) -> NDArray[np.float64]:
        """The state in the middle of the statistics, SI   (state_dim,)"""
        middle = self._state.unnormalize(np.zeros(self._state.width, np.float32)).astype(np.float64)
        return np.asarray(middle[self._state_mask != 0], np.float64)

    def drawn_state(self, random: np.random.Generator) -> NDArray[np.float64]:
        """A state anywhere in the range of the statistics, SI   (state_dim,)"""
        drawn = self._state.unnormalize(random.uniform(-1, 1, self._state.width).astype(np.float32))
        return np.asarray(drawn.astype(np.float64)[self._state_mask != 0], np.float64)

    @property
    def columns_in_use(self) -> NDArray[np.bool_]:
        """Of what the model says   (dof,)"""
        return np.asarray(self._action_mask != 0)

    def _whole(self, state: NDArray[np.float64]) -> NDArray[np.float64]:
        """A state with zeros for what is not in use, as the reference fills up   (model's state_dim,)"""
        whole = np.zeros(self._state.width)
        whole[self._state_mask != 0] = state
        return whole

    def chunk(self, normalized: NDArray[np.float32], observation: Observation) -> ActionChunk:
        """What the model says in its own range   (horizon, dof), absolute, in SI, and only what is in use."""
        rows = self._action.unnormalize(normalized).astype(np.float64)
        rows = self._relative.absolute(rows, self._whole(observation.state), self._action_mask != 0)
        used = np.ascontiguousarray(rows[:, self._action_mask != 0])
        outside = float(np.mean(np.abs(normalized[:, self._action_mask != 0]) > 1))
        return ActionChunk(used, self.config.step, observation.captured_at, self.action_layout, outside)


def _in_use(layout: DofLayout, mask: NDArray[np.float32], what: str) -> DofLayout:
    """The slots whose columns are in use."""
    slots = {slot.name: slot.width for slot in layout if mask[slot.start]}
    if not slots:
        raise ConfigError(f"{what}: every slot is padding or masked; there is nothing to move or to tell")
    return DofLayout.from_config(slots)


def _mask(layout: DofLayout, masked: tuple[str, ...]) -> NDArray[np.float32]:
    """1 for columns in use, 0 for those of padding and of masked slots   (width,)"""
    mask = np.ones(layout.width, np.float32)
    for slot in layout:
        if slot.name == PADDING or slot.name in masked:
            mask[slot.columns] = 0
    return mask
