"""Types of the compiled core."""
# SPDX-License-Identifier: Apache-2.0

from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

# --- errors

class WallxError(Exception): ...
class ConfigError(WallxError, ValueError): ...
class CheckpointError(WallxError): ...
class DeviceError(WallxError): ...
class BusError(WallxError): ...
class BusTimeout(BusError, TimeoutError): ...
class CalibrationError(WallxError): ...
class SafetyStop(WallxError): ...

# --- engine

class VisionConfig:
    depth: int
    hidden_size: int
    num_heads: int
    intermediate_size: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int
    window_size: int
    full_attention_blocks: list[int]

class ModelConfig:
    architecture: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    expert_sizes: list[int]
    mrope_section: list[int]
    is_head_tied: bool
    image_token_id: int
    vision_start_token_id: int
    vision: VisionConfig
    dof: list[tuple[str, int]]
    agent_pos: list[tuple[str, int]]
    unknown_keys: list[str]
    @property
    def action_dim(self) -> int: ...
    @property
    def state_dim(self) -> int: ...
    @staticmethod
    def load(directory: str) -> ModelConfig: ...

class Engine:
    @staticmethod
    def load(directory: str) -> Engine: ...
    @property
    def config(self) -> ModelConfig: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def tensor_names(self) -> list[str]: ...
    @property
    def mapped_bytes(self) -> int: ...
    @property
    def widened_bytes(self) -> int: ...
    def tensor(self, name: str) -> NDArray[np.float32]: ...

Trace = dict[str, NDArray[np.float32]]

class Context:
    def __init__(
        self, engine: Engine, max_tokens: int = 2048, rope_layout: Literal["hf", "contiguous"] = "hf"
    ) -> None: ...
    @property
    def length(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @overload
    def prefill(
        self,
        ids: ArrayLike,
        pixels: ArrayLike = ...,
        grids: ArrayLike = ...,
        state_token_id: int = -1,
        state: ArrayLike = ...,
        state_mask: ArrayLike = ...,
        *,
        trace: Literal[False] = False,
    ) -> None: ...
    @overload
    def prefill(
        self,
        ids: ArrayLike,
        pixels: ArrayLike = ...,
        grids: ArrayLike = ...,
        state_token_id: int = -1,
        state: ArrayLike = ...,
        state_mask: ArrayLike = ...,
        *,
        trace: Literal[True],
    ) -> Trace: ...
    @overload
    def denoise(
        self,
        noise: ArrayLike,
        dof_mask: ArrayLike,
        num_steps: int = 10,
        attention: str = "bidirectional",
        time_grid: str = "intervals",
        *,
        trace: Literal[False] = False,
    ) -> NDArray[np.float32]: ...
    @overload
    def denoise(
        self,
        noise: ArrayLike,
        dof_mask: ArrayLike,
        num_steps: int = 10,
        attention: str = "bidirectional",
        time_grid: str = "intervals",
        *,
        trace: Literal[True],
    ) -> tuple[NDArray[np.float32], Trace]: ...
    def logits(self) -> NDArray[np.float32]: ...
    def decode(self, id: int) -> None: ...

def mrope_positions(
    ids: ArrayLike, mask: ArrayLike, grids: ArrayLike, config: ModelConfig
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def window_order(grids: ArrayLike, config: ModelConfig) -> tuple[NDArray[np.int64], NDArray[np.int32]]: ...
def rotary_tables(
    positions: ArrayLike, config: ModelConfig, rope_layout: str = "hf"
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def apply_rotary(x: ArrayLike, cos: ArrayLike, sin: ArrayLike) -> NDArray[np.float32]: ...
def time_embedding(time: float, width: int) -> NDArray[np.float32]: ...
def read_safetensors(path: str) -> dict[str, NDArray[Any]]: ...
