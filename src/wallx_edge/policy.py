"""Policy: an Observation in, an ActionChunk out; knows prompts, units and statistics."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.normalizer import Kind, Normalizer
from wallx_edge.preprocess import ImageProcessor
from wallx_edge.prompts import ACTION, IMAGE, STATE, Tokenizer, flow_prompt
from wallx_edge.types import ActionChunk, DofLayout, Observation

__all__ = ["Policy", "PolicyConfig"]


@dataclass(frozen=True)
class PolicyConfig:
    """How a checkpoint is asked for actions: what its files do not say.

    Attributes:
        cameras: camera roles in the order the model was trained with.
        resolution: long side of a picture after the first resize [px]; -1: as it is.
        horizon: rows of a chunk.
        step: time between rows [s].
        statistics: key of the normalizer's statistics in the checkpoint; ``None``: the only one it has.
        num_steps: Euler steps (intervals, or points of the legacy grid).
        attention: how action tokens see each other. ``bidirectional`` is what the reference's own mask says, what its
            later code runs in every step but the first, and what LeRobot's port runs; ``causal`` is what its first
            release computed on its fast paths.
        time_grid: ``intervals``: N steps; ``legacy``: N - 1 steps, as the first release counted them.
        rope_layout: ``hf``, or ``contiguous`` for weights trained with the first release's CUDA extension.
        max_tokens: bound of prompt and horizon together.
        seed: of the noise; two policies with one seed give the same chunks for the same observations.
    """

    cameras: tuple[str, ...] = ("face_view", "left_wrist_view", "right_wrist_view")
    resolution: int = 256
    horizon: int = 32
    step: float = 1 / 30
    statistics: str | None = None
    num_steps: int = 10
    attention: Literal["bidirectional", "causal"] = "bidirectional"
    time_grid: Literal["intervals", "legacy"] = "intervals"
    rope_layout: Literal["hf", "contiguous"] = "hf"
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.cameras or len(set(self.cameras)) != len(self.cameras):
            raise ConfigError(f"policy.cameras is {self.cameras!r}, expected one or more different roles")
        if not 1 <= self.horizon <= 128:
            raise ConfigError(f"policy.horizon is {self.horizon}, expected 1 to 128 rows")
        if not 0 < self.step <= 1:
            raise ConfigError(f"policy.step is {self.step}, expected more than 0 and at most 1 s")
        if not (1 <= self.resolution <= 4096 or self.resolution == -1):
            raise ConfigError(f"policy.resolution is {self.resolution}, expected 1 to 4096 px, or -1 for no resize")
        for key, value, choices in (
            ("attention", self.attention, ("bidirectional", "causal")),
            ("time_grid", self.time_grid, ("intervals", "legacy")),
            ("rope_layout", self.rope_layout, ("hf", "contiguous")),
        ):
            if value not in choices:
                raise ConfigError(f"policy.{key} is {value!r}, expected {' or '.join(choices)}")
        fewest = 2 if self.time_grid == "legacy" else 1
        if not fewest <= self.num_steps <= 1000:
            raise ConfigError(f"policy.num_steps is {self.num_steps}, expected {fewest} to 1000 ({self.time_grid})")
        if self.seed < 0:
            raise ConfigError(f"policy.seed is {self.seed}, expected 0 or more")


class Policy:
    """A checkpoint ready to act. Not for use by two threads at once; two policies may share one engine."""

    def __init__(self, directory: str | Path, config: PolicyConfig, engine: _core.Engine) -> None:
        """Use :meth:`load`.

        Args:
            directory: the checkpoint's folder.
            config: how to ask it.
            engine: its weights.
        """
        self.config = config
        self.engine = engine
        self.directory = Path(directory)
        model = engine.config
        self.action_layout = DofLayout.from_config(dict(model.dof))
        self.state_layout = DofLayout.from_config(dict(model.agent_pos))
        self._tokenizer = Tokenizer.load(directory)
        if self._tokenizer.num_tokens > engine.vocab_size:
            raise CheckpointError(
                f"{directory}: tokenizer.json has {self._tokenizer.num_tokens} tokens, the embedding only "
                f"{engine.vocab_size} rows; the tokenizer is not this checkpoint's"
            )
        self._processor = ImageProcessor.load(directory)
        self._state_id = self._tokenizer.special_id(STATE)
        self._tokenizer.special_id(ACTION)
        image_id = self._tokenizer.special_id(IMAGE)
        if image_id != model.image_token_id:
            raise CheckpointError(
                f"{directory}: {IMAGE} is token {image_id} in tokenizer.json, config.json says "
                f"{model.image_token_id}; the tokenizer is not this checkpoint's"
            )
        names = [n for n in engine.tensor_names if n.startswith("action_preprocessor.normalizer_")]
        tensors = {name: engine.tensor(name) for name in names}
        self.statistics = config.statistics or self._only(Normalizer.keys(tensors, "action"))
        self._action = self._normalizer(tensors, "action", model.action_dim)
        self._state = self._normalizer(tensors, "propri", model.state_dim)
        self._context = _core.Context(engine, config.max_tokens, config.rope_layout)
        self._random = np.random.default_rng(config.seed)

    @classmethod
    def load(cls, directory: str | Path, config: PolicyConfig | None = None) -> Policy:
        """Maps a checkpoint folder in the published layout. Blocks while it reads.

        Args:
            directory: with config.json, model*.safetensors, tokenizer and preprocessor files.
            config: how to ask it; defaults as in :class:`PolicyConfig`.

        Raises:
            CheckpointError: something is missing, damaged, surplus, or of a variant that does not run.
            ConfigError: the statistics key is not in the checkpoint.
        """
        return cls(directory, config or PolicyConfig(), _core.Engine.load(str(directory)))

    def act(self, observation: Observation, noise: NDArray[np.float32] | None = None) -> ActionChunk:
        """Computes one chunk. Blocks while it computes, without the GIL in the engine.

        Args:
            observation: with a picture for each of the policy's cameras and a state in ``state_layout``'s order, SI.
            noise: where the flow starts, float32 (horizon, dof); drawn from the seed when not given.

        Returns:
            the chunk, in ``action_layout``'s order, SI.

        Raises:
            ConfigError: a camera or the state does not fit.
        """
        self.observe(observation)
        if noise is None:
            noise = self._random.standard_normal((self.config.horizon, self._action.width), np.float32)
        normalized = self._context.denoise(
            noise,
            np.ones((self.config.horizon, self._action.width), np.float32),
            self.config.num_steps,
            self.config.attention,
            self.config.time_grid,
        )
        rows = self._action.unnormalize(normalized).astype(np.float64)
        outside = float(np.mean(np.abs(normalized) > 1))
        return ActionChunk(rows, self.config.step, observation.captured_at, self.action_layout, outside)

    def observe(self, observation: Observation) -> int:
        """Computes the prefix of an observation: pictures, text and state. :meth:`act` calls it.

        Args:
            observation: as for :meth:`act`.

        Returns:
            tokens in the context.

        Raises:
            ConfigError: a camera or the state does not fit.
        """
        missing = [role for role in self.config.cameras if role not in observation.images]
        if missing:
            raise ConfigError(
                f"the observation lacks the camera {missing[0]!r}; the policy looks at "
                f"{', '.join(self.config.cameras)}, the observation has {', '.join(observation.images)}"
            )
        if observation.state.size != self._state.width:
            raise ConfigError(
                f"the state has {observation.state.size} values, the checkpoint expects {self._state.width} "
                f"({', '.join(self.state_layout.names)})"
            )
        images = [observation.images[role] for role in self.config.cameras]
        pictures = self._processor.prepare(images, [self.config.resolution] * len(images))
        prompt = flow_prompt(self.config.cameras, observation.instruction, self.config.horizon)
        ids = self._tokenizer.layout(prompt, pictures.counts, self.config.cameras).ids
        self._context.prefill(
            ids[: -self.config.horizon],
            pictures.pixel_values,
            pictures.grids,
            self._state_id,
            self._state.normalize(observation.state),
            np.ones(self._state.width, np.float32),
        )
        return self._context.length

    def middle_state(self) -> NDArray[np.float64]:
        """The state in the middle of the statistics, SI   (state_dim,)"""
        return self._state.unnormalize(np.zeros(self._state.width, np.float32)).astype(np.float64)

    def _normalizer(self, tensors: dict[str, NDArray[np.float32]], kind: Kind, width: int) -> Normalizer:
        return Normalizer.from_statistics(tensors, kind, self.statistics, width)

    def _only(self, keys: Sequence[str]) -> str:
        if len(keys) != 1:
            raise ConfigError(
                f"{self.directory}: the checkpoint has statistics for {', '.join(keys) or 'no robot'}; "
                "name one as policy.statistics"
            )
        return keys[0]
