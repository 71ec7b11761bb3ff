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

# robot: register_robot.cpp

class JointLimits:
    """What one joint may do, in SI."""

    def __init__(
        self,
        *,
        min_position: float,
        max_position: float,
        max_velocity: float,
        max_acceleration: float,
        max_jerk: float,
    ) -> None: ...
    @property
    def min_position(self) -> float: ...  # [rad]
    @property
    def max_position(self) -> float: ...  # [rad]
    @property
    def max_velocity(self) -> float: ...  # [rad/s]
    @property
    def max_acceleration(self) -> float: ...  # [rad/s^2]
    @property
    def max_jerk(self) -> float: ...  # [rad/s^3]

class JointSpec:
    """One joint of an embodiment."""

    def __init__(
        self,
        *,
        name: str,
        id: int,
        model_numbers: list[int],
        limits: JointLimits,
        rest_position: float,
        gravity_loaded: bool,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def id(self) -> int: ...  # nominal bus id; the calibration's counts
    @property
    def model_numbers(self) -> list[int]: ...  # the drives that fit (a copy)
    @property
    def limits(self) -> JointLimits: ...
    @property
    def rest_position(self) -> float: ...  # [rad]
    @property
    def gravity_loaded(self) -> bool: ...  # falls when the torque is cut

class Embodiment:
    """The constant description of a robot model."""

    def __init__(self, *, name: str, motor_family: str, joints: list[JointSpec]) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def motor_family(self) -> str: ...
    @property
    def joints(self) -> list[JointSpec]: ...  # in the order of every joint array (a copy)

class JointCalibration:
    """Ticks <-> SI of one joint of one unit."""

    def __init__(self, *, id: int, drive_mode: int, homing_offset: int, range_min: int, range_max: int) -> None: ...
    @property
    def id(self) -> int: ...  # bus id of the servo
    @property
    def drive_mode(self) -> int: ...  # 1: the joint turns against its encoder
    @property
    def homing_offset(self) -> int: ...  # [ticks]
    @property
    def range_min(self) -> int: ...  # [ticks]
    @property
    def range_max(self) -> int: ...  # [ticks]

class Robot:
    """A robot on its bus. Python connects it; only the control loop reads and moves it."""

    @property
    def embodiment(self) -> Embodiment: ...  # limits narrowed to this unit's calibrated range
    @property
    def serial(self) -> int: ...  # unique in the process
    def connect(self) -> None:
        """Opens the bus, finds every motor, compares its registers with the calibration. Writes nothing.

        Blocks up to a second, without the GIL.

        Raises:
            BusError: the port is absent, taken or went away; BusTimeout: motors that do not answer.
            DeviceError: another kind of motor, or one in another mode.
            CalibrationError: a register differs from the calibration.
        """
    def disconnect(self) -> None:
        """Closes the bus and sends nothing. Idempotent. Not while a control loop runs."""

def make_robot(
    embodiment: Embodiment, calibration: list[JointCalibration], port: str, baud_rate: int = 1_000_000
) -> Robot:
    """A robot that is not yet connected.

    Args:
        embodiment: What it is.
        calibration: One per joint, in the embodiment's order.
        port: Serial device.
        baud_rate: [bit/s], 9600..4000000.

    Raises:
        ConfigError: unknown motor family, or a rate out of bounds.
        CalibrationError: a calibration that does not fit the embodiment.
    """
