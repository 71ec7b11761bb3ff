"""Policy config: how a checkpoint is asked for actions: the user's wishes, its own files, and what is left open."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wallx_edge._core import ModelConfig
from wallx_edge.errors import CheckpointError, ConfigError
from wallx_edge.preprocess import FACTOR, MAX_PIXELS, MIN_PIXELS
from wallx_edge.prompts import PromptStyle
from wallx_edge.train_config import PADDING, TrainConfig

__all__ = ["DEFAULT_STATE_BINS", "RESOLUTIONS", "PolicyConfig", "PolicySettings"]

PUBLISHED_CAMERAS = ("face_view", "left_wrist_view", "right_wrist_view")
PUBLISHED_HORIZON = 32
DEFAULT_STATE_BINS = 256
# variant -> long side of a picture after the first resize, where config.yml does not say [px]
RESOLUTIONS: dict[str, int] = {"v1": 256, "mot-0.1": 256, "mot-0.5": 448, "mot-adarms": 256}

Attention = Literal["checkpoint", "bidirectional", "causal"]
TimeGrid = Literal["intervals", "legacy"]
RopeLayout = Literal["hf", "contiguous"]


@dataclass(frozen=True)
class PolicyConfig:
    """How a checkpoint is asked for actions. ``None``: as the checkpoint's files say, or as its variant was trained.

    Attributes:
        cameras: camera roles in the order the model was trained with; the three published ones by default.
        resolution: long side of a picture after the first resize [px], -1: as it is; one for all or one per role.
        horizon: rows of a chunk; 32 by default.
        step: time between rows [s].
        statistics: name of the statistics, see :class:`wallx_edge.statistics.Statistics`; ``None``: the only ones.
        num_steps: Euler steps (intervals, or points of the legacy grid).
        attention: how action tokens see each other. ``checkpoint``: as ``causal_action_attention_mask`` says, and where
            it says nothing (v1) ``bidirectional``, which is what the reference's own mask says, what its later code
            runs in every step but the first, and what LeRobot's port runs; ``causal`` is what its first release
            computed on its fast paths.
        time_grid: ``intervals``: N steps; ``legacy``: N - 1 steps, as the first release counted them.
        rope_layout: ``hf``, or ``contiguous`` for weights trained with the first release's CUDA extension.
        time_scale: the flow's last time point, in (0, 1].
        state_bins: into how many bins the range of a state told as text is cut; 256 by default.
        is_whole_state_told: whether a state told as text has every column, those not in use too, as in LeRobot's port.
        masked: slots of action and state that the robot lacks, beside ``action_padding``: the model is told that they
            are not in use, and neither states nor chunks have them.
        camera_labels: camera role -> what the prompt calls it.
        has_embodied_prologue: whether the prompt begins with the robot's description.
        max_tokens: bound of prompt and horizon together.
        seed: of the noise; two policies with one seed give the same chunks for the same observations.
    """

    cameras: tuple[str, ...] | None = None
    resolution: int | Mapping[str, int] | None = None
    horizon: int | None = None
    step: float = 1 / 30
    statistics: str | None = None
    num_steps: int = 10
    attention: Attention = "checkpoint"
    time_grid: TimeGrid = "intervals"
    rope_layout: RopeLayout = "hf"
    time_scale: float | None = None
    state_bins: int | None = None
    is_whole_state_told: bool = False
    masked: tuple[str, ...] = ()
    camera_labels: Mapping[str, str] | None = None
    has_embodied_prologue: bool | None = None
    max_tokens: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        if self.cameras is not None and (not self.cameras or len(set(self.cameras)) != len(self.cameras)):
            raise ConfigError(f"policy.cameras is {self.cameras!r}, expected one or more different roles")
        if self.horizon is not None and not 1 <= self.horizon <= 128:
            raise ConfigError(f"policy.horizon is {self.horizon}, expected 1 to 128 rows")
        if not 0 < self.step <= 1:
            raise ConfigError(f"policy.step is {self.step}, expected more than 0 and at most 1 s")
        each = {"": self.resolution} if isinstance(self.resolution, int) else self.resolution or {}
        for role, side in each.items():
            if not (1 <= side <= 4096 or side == -1):
                where = f"policy.resolution.{role}" if role else "policy.resolution"
                raise ConfigError(f"{where} is {side}, expected 1 to 4096 px, or -1 for no resize")
        for key, value, choices in (
            ("attention", self.attention, ("checkpoint", "bidirectional", "causal")),
            ("time_grid", self.time_grid, ("intervals", "legacy")),
            ("rope_layout", self.rope_layout, ("hf", "contiguous")),
        ):
            if value not in choices:
                raise ConfigError(f"policy.{key} is {value!r}, expected {' or '.join(choices)}")
        fewest = 2 if self.time_grid == "legacy" else 1
        if not fewest <= self.num_steps <= 1000:
            raise ConfigError(f"policy.num_steps is {self.num_steps}, expected {fewest} to 1000 ({self.time_grid})")
        if self.time_scale is not None and not 0 < self.time_scale <= 1:
            raise ConfigError(f"policy.time_scale is {self.time_scale}, expected more than 0 and at most 1")
        if self.state_bins is not None and not 2 <= self.state_bins <= 65536:
            raise ConfigError(f"policy.state_bins is {self.state_bins}, expected 2 to 65536")
        if self.seed < 0:
            raise ConfigError(f"policy.seed is {self.seed}, expected 0 or more")


@dataclass(frozen=True)
class PolicySettings:
    """A :class:`PolicyConfig` with nothing left open: how this checkpoint is asked.

    Attributes:
        cameras: roles in the model's order.
        resolution: role -> long side after the first resize [px], -1: as it is.
        min_pixels: smallest area after the second resize [px].
        max_pixels: largest area after the second resize [px].
        horizon: rows of a chunk.
        step: time between rows [s].
        num_steps: Euler steps, or points of the legacy grid.
        attention: how action tokens see each other.
        time_grid: how steps are counted.
        rope_layout: of the rotary axes.
        time_scale: the flow's last time point.
        state_bins: into how many bins the range of a state told as text is cut.
        is_whole_state_told: whether a state told as text has every column.
        masked_action: slots of the action that are not in use, beside ``action_padding``.
        masked_state: likewise of the state.
        style: of the prompts.
        max_tokens: bound of prompt and horizon together.
        seed: of the noise.
    """

    cameras: tuple[str, ...]
    resolution: Mapping[str, int]
    min_pixels: int
    max_pixels: int
    horizon: int
    step: float
    num_steps: int
    attention: Literal["bidirectional", "causal"]
    time_grid: TimeGrid
    rope_layout: RopeLayout
    time_scale: float
    state_bins: int
    is_whole_state_told: bool
    masked_action: tuple[str, ...]
    masked_state: tuple[str, ...]
    style: PromptStyle
    max_tokens: int
    seed: int

    @classmethod
    def resolve(cls, asked: PolicyConfig, train: TrainConfig, model: ModelConfig) -> PolicySettings:
        """Fills what was left open: the user's wish wins, then config.yml, then config.json, then the variant.

        Args:
            asked: by the user.
            train: the checkpoint's config.yml.
            model: the checkpoint's config.json.

        Raises:
            ConfigError: a wish that does not fit the checkpoint.
            CheckpointError: config.yml asks for something that this version does not do, or contradicts itself.
        """
        has_relative = any(name.endswith("_relative") for name, _ in model.dof)
        _refuse(train, has_relative)
        cameras = asked.cameras or train.cameras or PUBLISHED_CAMERAS
        labels = train.camera_labels if asked.camera_labels is None else asked.camera_labels
        wants_prologue = asked.has_embodied_prologue
        if train.has_embodied_prologue if wants_prologue is None else wants_prologue:
            # the reference goes by the flag in config.yml; without that file only the slots' names can tell
            is_relative = has_relative if train.path is None else train.is_relative
            style = PromptStyle(labels, "Rel EEF" if is_relative else "Abs EEF")
        else:
            style = PromptStyle(labels)
        attention = asked.attention
        if attention == "checkpoint":
            attention = "causal" if model.is_action_causal else "bidirectional"
        time_scale = asked.time_scale
        if time_scale is None and model.architecture != "v1":  # the first release knows no end of the flow but 1
            time_scale = train.time_scale
        horizon = asked.horizon or train.horizon or model.horizon or PUBLISHED_HORIZON
        if horizon > 128:
            raise CheckpointError(f"{train.path or 'config.json'}: a horizon of {horizon} rows, expected 128 at most")
        return cls(
            cameras=cameras,
            resolution=_resolution(asked, train, model, cameras),
            min_pixels=train.min_pixels or MIN_PIXELS,
            max_pixels=train.max_pixels or MAX_PIXELS,
            horizon=horizon,
            step=asked.step,
            num_steps=asked.num_steps,
            attention=attention,
            time_grid=asked.time_grid,
            rope_layout=asked.rope_layout,
            time_scale=model.time_scale if time_scale is None else time_scale,
            state_bins=asked.state_bins or train.state_bins or DEFAULT_STATE_BINS,
            is_whole_state_told=asked.is_whole_state_told,
            masked_action=_masked(asked, train, model),
            masked_state=tuple(name for name, _ in model.agent_pos if name in asked.masked),
            style=style,
            max_tokens=asked.max_tokens,
            seed=asked.seed,
        )


def _refuse(train: TrainConfig, has_relative: bool) -> None:
    if train.image_factor not in (None, FACTOR):
        raise CheckpointError(f"{train.path}: image_factor is {train.image_factor}, expected {FACTOR}")
    if (train.min_pixels or MIN_PIXELS) > (train.max_pixels or MAX_PIXELS):
        raise CheckpointError(f"{train.path}: min_pixels {train.min_pixels} is more than max_pixels {train.max_pixels}")
    if train.is_relative and not has_relative:
        raise CheckpointError(
            f"{train.path}: use_relative_action is true, but no slot of dof_config ends with _relative; taken for "
            "absolute, the rows would send the arm to the origin. Name the relative slots so"
        )


def _masked(asked: PolicyConfig, train: TrainConfig, model: ModelConfig) -> tuple[str, ...]:
    """Slots of the action that the user lacks or that the model was not trained to predict."""
    dof = [name for name, _ in model.dof]
    slots = dict.fromkeys((*dof, *(name for name, _ in model.agent_pos)))
    unknown = [name for name in asked.masked if name not in slots]
    if unknown:
        raise ConfigError(f"policy.masked: the checkpoint has no slot {unknown[0]}; it has {', '.join(slots)}")
    predicted = dof if train.predicted is None else train.predicted
    surplus = [name for name in predicted if name not in dof]
    if surplus:
        raise CheckpointError(
            f"{train.path}: predict_action_keys has {surplus[0]}, which is no slot of dof_config: {', '.join(dof)}"
        )
    return tuple(name for name in dof if name in asked.masked or (name not in predicted and name != PADDING))


def _resolution(
    asked: PolicyConfig, train: TrainConfig, model: ModelConfig, cameras: tuple[str, ...]
) -> dict[str, int]:
    default = RESOLUTIONS[model.architecture]
    if isinstance(asked.resolution, int):
        return dict.fromkeys(cameras, asked.resolution)
    wished = asked.resolution or {}
    unknown = [role for role in wished if role not in cameras]
    if unknown:
        raise ConfigError(f"policy.resolution.{unknown[0]}: no such camera; there are {', '.join(cameras)}")
    said = train.resolution or {}
    return {role: wished.get(role, said.get(role, default)) for role in cameras}
