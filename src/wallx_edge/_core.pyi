"""Types of the compiled core."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypedDict, overload

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

class SafetyStop(WallxError):
    records: LoopColumns | None  # the loop's last states and commands

# --- engine

class Variant:
    """One published form of the network; the table that ``architecture`` names a row of."""

    name: str
    checkpoints: str  # published names, with commas; empty: none is known
    has_expert_attention: bool
    has_adaptive_norms: bool
    is_state_text: bool
    is_time_scaled: bool
    does_pad_masked_dims: bool
    open_choices: str  # what the reference leaves ambiguous: keys of PolicyConfig, with commas; see docs/variants.md

def variants() -> list[Variant]: ...

Slots = list[tuple[str, int]]  # name, width; in model order

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
    expert_widths: list[int]  # residual stream of the text (hidden_size) and the action expert
    expert_sizes: list[int]
    action_width: int  # of the action head
    state_width: int  # of the state token's projection
    condition_width: int  # of the time's embedding that adaptive norms follow; 0: none
    has_expert_attention: bool
    has_adaptive_norms: bool
    is_state_text: bool  # the state is text in the prompt; there is no state token
    is_action_causal: bool  # the checkpoint's own attention among action tokens
    does_project_mask: bool
    does_predict_actions: bool
    does_pad_masked_dims: bool  # denoise needs padding_action where dof_mask has zeros
    time_scale: float  # the flow's last time point
    time_shift: float
    horizon: int  # rows of a chunk that config.json names; 0: it names none
    mrope_section: list[int]
    is_head_tied: bool
    image_token_id: int
    vision_start_token_id: int
    vision: VisionConfig
    dof: Slots  # empty where config.json has none and none was given (wall-oss-0.5)
    agent_pos: Slots
    unknown_keys: list[str]
    @property
    def action_dim(self) -> int: ...
    @property
    def state_dim(self) -> int: ...
    @staticmethod
    def load(
        directory: str, dof: Slots = ..., agent_pos: Slots = ..., is_state_text: bool | None = None
    ) -> ModelConfig: ...

class Engine:
    @staticmethod
    def load(
        directory: str,
        dof: Slots = ...,
        agent_pos: Slots = ...,
        is_state_text: bool | None = None,
        precision: str = "",
        threads: int = 0,
        cores: list[int] = ...,
        kernels: str = "",
        does_observe: bool = False,
    ) -> Engine:
        """Loads a checkpoint folder, or one that `quantize` wrote. Blocks while it reads and packs, without the GIL.

        Args:
            precision: of :func:`precisions`; empty: as the folder is packed, else fp32.
            threads: that compute, the caller's included; 0: one for each core that this process may use.
            cores: that the others are pinned to, in turn; empty: not pinned.
            kernels: of :func:`kernels`; empty: the fastest.
            does_observe: whether the largest inputs of fp32 layers are kept, see :attr:`input_maxima`.
        """
    @property
    def input_maxima(self) -> dict[str, NDArray[np.float32]]: ...  # weight's name -> largest magnitudes   (in,)
    @property
    def precision(self) -> str: ...  # as asked for, or as the folder is packed
    @property
    def backend(self) -> str: ...  # what computes it, such as "cpu avx512"
    @property
    def num_threads(self) -> int: ...  # that compute
    @property
    def is_bf16_native(self) -> bool: ...  # whether the kernels multiply bf16 as such, else as fp32
    @property
    def packed_bytes(self) -> int: ...  # made while loading
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
    @property
    def metadata(self) -> dict[str, str]: ...  # what `quantize` says of the folder; empty for other folders

class Quantizer:
    """What a checkpoint becomes when its layers are packed, step by step: packed layers, then other tensors.

    Args:
        wide: patterns, as of a shell, of layers that stay bf16 whatever the precision says.
    """

    def __init__(
        self,
        directory: str,
        dof: Slots,
        agent_pos: Slots,
        is_state_text: bool | None,
        precision: str,
        wide: list[str] = ...,
    ) -> None: ...
    def __len__(self) -> int: ...
    @property
    def config(self) -> ModelConfig: ...
    def name(self, step: int) -> str: ...
    def format(self, step: int) -> str: ...  # f32, bf16, int8 or w8
    def is_layer(self, step: int) -> bool: ...
    def tensors(self, step: int) -> list[tuple[str, str, list[int]]]: ...  # name, dtype, shape
    def make(self, step: int) -> NDArray[np.uint8]:
        """A step's tensors, one after the other. Blocks while it packs on all cores, without the GIL.

        Raises:
            CheckpointError: a weight that is not finite.
        """
    def scale_inputs(self, layer: str, scale: ArrayLike) -> None:
        """What the columns of a layer's weights are multiplied with   (in,)"""
    def scale_outputs(self, layer: str, scale: ArrayLike) -> None:
        """What the rows of a layer's weights and its bias, or the numbers of a vector, are multiplied with   (out,)"""

def precisions() -> list[str]: ...
def kernels() -> list[str]:
    """Sets of kernels that this processor can run, the fastest first."""

def cuda_status() -> str:
    """One line: the first GPU's name and capability, or why there is none. Loads the driver, where there is one."""

Trace = dict[str, NDArray[np.float32]]

class Timings:
    """How long the parts of a context's last calls took [s]."""

    vision: float  # pictures to tokens; 0 where they were known
    prefill: float  # tokens to keys and values
    steps: list[float]  # of the flow
    decode: float  # one token's state
    logits: float

class Context:
    """The engine's state of one conversation. One call at a time; forks are contexts of their own."""

    def __init__(
        self, engine: Engine, max_tokens: int = 2048, rope_layout: Literal["hf", "contiguous"] = "hf"
    ) -> None: ...
    @property
    def length(self) -> int: ...  # [tokens]
    @property
    def max_tokens(self) -> int: ...
    @property
    def timings(self) -> Timings: ...
    @property
    def cache_bytes(self) -> int: ...  # blocks shared with forks included
    @property
    def num_pictures(self) -> int: ...  # computed by the vision tower; those it knew are not counted
    def fork(self) -> Context:
        """Another context that holds the same tokens and goes on by itself; what is computed is shared, not copied."""
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
        reuse: bool = True,
    ) -> int:
        """Goes on with a prompt; keeps what the context already holds of it. Blocks while it computes, without the GIL.

        Returns:
            number of tokens that were kept, not computed; with ``trace`` what was computed, and nothing is kept.
        """
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
        reuse: bool = True,
    ) -> Trace: ...
    @overload
    def denoise(
        self,
        noise: ArrayLike,
        dof_mask: ArrayLike,
        num_steps: int = 10,
        attention: str = "checkpoint",
        time_grid: str = "intervals",
        *,
        padding_action: ArrayLike | None = None,
        time_scale: float | None = None,
        time_shift: float | None = None,
        previous: ArrayLike | None = None,
        guidance: ArrayLike | None = None,
        num_frozen: int = 0,
        max_guidance: float = 10.0,
        trace: Literal[False] = False,
    ) -> NDArray[np.float32]:
        """Integrates noise to a normalised chunk. Blocks while it computes, without the GIL.

        Args:
            noise: where the flow starts   (horizon, action_dim)
            dof_mask: 1 where the dim is in use   (horizon, action_dim)
            num_steps: Euler steps.
            attention: ``checkpoint`` (as config.json says), ``bidirectional`` or ``causal``.
            time_grid: ``intervals`` or ``legacy``.
            padding_action: the normalised zero of each dim, to which dims that are not in use move; needed where
                the mask has zeros and ``config.does_pad_masked_dims``   (action_dim,)
            time_scale: the last time point; the checkpoint's own by default.
            time_shift: k of k t / (1 + (k - 1) t); the checkpoint's own by default.
            previous: rows that the chunk is drawn toward, normalised, row by row   (horizon, action_dim)
            guidance: how much each row follows them, 0..1   (horizon,)
            num_frozen: rows at the start that come out as they are in ``previous``, exactly.
            max_guidance: bound of the guidance's gain.
            trace: also return what was computed: ``t``, ``times``, ``x``, ``v``, ``v_raw``, with adaptive norms
                ``condition``, the first step's layers, the second's and the last's final norm as ``step1.norm`` and
                ``last.norm``. Rows of action tokens are ``config.expert_widths[1]`` wide.
        """
    @overload
    def denoise(
        self,
        noise: ArrayLike,
        dof_mask: ArrayLike,
        num_steps: int = 10,
        attention: str = "checkpoint",
        time_grid: str = "intervals",
        *,
        padding_action: ArrayLike | None = None,
        time_scale: float | None = None,
        time_shift: float | None = None,
        previous: ArrayLike | None = None,
        guidance: ArrayLike | None = None,
        num_frozen: int = 0,
        max_guidance: float = 10.0,
        trace: Literal[True],
    ) -> tuple[NDArray[np.float32], Trace]: ...
    def logits(self) -> NDArray[np.float32]: ...
    def decode(self, id: int) -> None: ...

class TextDecoder:
    """Chooses one token after another; the caller may stop, or do something else, between any two."""

    def __init__(
        self,
        context: Context,
        *,
        max_new_tokens: int = 100,
        stop_ids: list[int] = ...,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        allowed_ids: tuple[int, int] | None = None,
    ) -> None:
        """Begins a text behind what the context holds.

        Args:
            context: after a prefill; prefill or decode on it in between end the right to go on.
            max_new_tokens: budget, the stop token included.
            stop_ids: each ends the text, and is its last token.
            temperature: 0 is greedy.
            top_p: choose among the fewest tokens with this much probability together.
            seed: of the choices; equal scores and seeds give equal texts on every machine.
            allowed_ids: first id and the id behind the last; only these and stop ids are chosen.

        Raises:
            ConfigError: an empty context, an option out of its bounds, no room for the budget.
        """
    def next(self) -> int | None:
        """The next token; None when the text has ended. Blocks for one token, without the GIL.

        Raises:
            ConfigError: the context has changed since.
            WallxError: the network's scores are not finite.
        """
    @property
    def end(self) -> Literal["none", "stop", "budget"]: ...

class Work:
    """One piece of work in an InferenceQueue; every call may come from any thread."""

    def cancel(self) -> None:
        """Ends it at its next pause, or before it begins. Does not wait."""
    def wait(self, timeout_s: float) -> bool:
        """Blocks, without the GIL, until it has ended or the time is over; whether it has ended."""
    def check(self) -> None:
        """Raises what it failed with; WallxError when it was cancelled."""
    @property
    def state(self) -> Literal["queued", "running", "done", "cancelled", "failed"]: ...
    @property
    def waited_s(self) -> float: ...  # from its submission to its first slice [s]
    @property
    def computed_s(self) -> float: ...  # without what went first in between [s]
    @property
    def longest_slice_s(self) -> float: ...  # between two pauses of it [s]

class ChunkWork(Work):
    """One chunk: prefill, then denoising."""

    def actions(self) -> NDArray[np.float32]:
        """The normalised chunk (horizon, action_dim). Raises as ``check``, and WallxError before it is done."""
    @property
    def num_shared(self) -> int: ...  # tokens of the prompt that were in the context already

class TextWork(Work):
    """One text: prefill, then token by token."""

    def token(self, index: int) -> int | None:
        """Token ``index``; None: the text ended before it. Blocks, without the GIL. Raises as ``check``."""
    @property
    def num_shared(self) -> int: ...  # once there is a token
    @property
    def prefill_s(self) -> float: ...  # once there is a token [s]

# (ids, pixels, grids, state_token_id, state, state_mask), as Context.prefill takes them
Prompt = tuple[ArrayLike, ArrayLike, ArrayLike, int, ArrayLike, ArrayLike]

class InferenceQueue:
    """One thread that computes in order of deadline; without a deadline, behind everything that has one.

    Between two blocks of the network and between two tokens more urgent work goes first, to its end, if it is on
    another context. ``close`` joins the thread; at the program's end it is called for every queue.
    """

    def __init__(self) -> None: ...
    def chunk(
        self,
        context: Context,
        prompt: Prompt,
        noise: ArrayLike,
        dof_mask: ArrayLike,
        *,
        deadline_s: float | None = None,
        num_steps: int = 10,
        attention: str = "checkpoint",
        time_grid: str = "intervals",
        padding_action: ArrayLike | None = None,
        time_scale: float | None = None,
        time_shift: float | None = None,
        previous: ArrayLike | None = None,
        guidance: ArrayLike | None = None,
        num_frozen: int = 0,
        max_guidance: float = 10.0,
    ) -> ChunkWork:
        """Hands in a prefill and a denoising as one piece of work; does not wait for it.

        Args are those of ``Context.prefill`` and ``Context.denoise``; what does not fit is raised by the work's
        ``check``. ``deadline_s``: CLOCK_MONOTONIC [s].

        Raises:
            ConfigError: arrays of the wrong kind; WallxError: the queue is closed.
        """
    def text(
        self,
        context: Context,
        prompt: Prompt,
        *,
        deadline_s: float | None = None,
        max_new_tokens: int = 100,
        stop_ids: list[int] = ...,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        allowed_ids: tuple[int, int] | None = None,
    ) -> TextWork:
        """Hands in a prefill and a text as one piece of work; does not wait for it. Args: as TextDecoder's."""
    def begin_generation(self) -> int:
        """Cancels everything that was handed in before; the new generation. Does not wait."""
    @property
    def generation(self) -> int: ...
    def close(self) -> None:
        """Cancels everything and joins the thread. Blocks for one slice at most. Idempotent."""
    @property
    def slice_s(self) -> float: ...  # how long a block of a prefill may take, from measured times [s]
    def counters(self) -> dict[str, int]:
        """``done``, ``cancelled``, ``failed``; ``let_first``: times that work went first amid another's pass."""

def guidance_weights(start: int, end: int, horizon: int) -> NDArray[np.float32]:
    """1 up to ``start`` rows, falling to 0 at ``end`` (Black et al. 2025, the exponential mask)   (horizon,)"""

def guidance_gain(time: float, max_guidance: float = 10.0) -> float: ...
def guide_velocity(
    velocity: ArrayLike,
    x: ArrayLike,
    time: float,
    previous: ArrayLike,
    guidance: ArrayLike,
    max_guidance: float = 10.0,
) -> NDArray[np.float32]:
    """A flow's velocity at a time, drawn toward ``previous``: the step that ``Context.denoise`` makes.

    Args:
        velocity: of the field   (horizon, action_dim)
        x: where it is   (horizon, action_dim)
        time: 0 noise, 1 data.
        previous: rows to follow   (horizon, action_dim)
        guidance: weights   (horizon,)
        max_guidance: bound of the gain.
    """

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

# buses: register_bus.cpp

class CanFrame:
    """One CAN data frame; raises ConfigError for one that cannot exist."""

    def __init__(
        self,
        id: int,
        data: bytes = b"",
        *,
        is_extended: bool = False,
        is_fd: bool = False,
        is_bit_rate_switched: bool = False,
    ) -> None: ...
    @property
    def id(self) -> int: ...
    @property
    def data(self) -> bytes: ...
    @property
    def is_extended(self) -> bool: ...
    @property
    def is_fd(self) -> bool: ...
    @property
    def is_bit_rate_switched(self) -> bool: ...
    @property
    def received_at(self) -> float: ...  # CLOCK_MONOTONIC [s]; 0: it was not received

class ByteMailbox:
    """A loop's bytes, to and from an adapter. One thread delivers, one collects."""

    def __init__(self, max_age_s: float = 0.02) -> None: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...  # the bus is closed from now on, and waits end
    def deliver(self, data: bytes) -> None: ...
    def collect(self, timeout_s: float) -> bytes: ...  # blocks; raises BusError once disconnected
    @property
    def num_dropped(self) -> int: ...

class CanMailbox:
    """A loop's frames, to and from an adapter. One thread delivers, one collects."""

    def __init__(self, max_age_s: float = 0.02) -> None: ...
    def connect(self) -> None: ...
    def disconnect(self) -> None: ...  # the bus is closed from now on, and waits end
    def deliver(self, frames: list[CanFrame]) -> None: ...
    def collect(self, timeout_s: float) -> list[CanFrame]: ...  # blocks; raises BusError once disconnected
    @property
    def num_dropped(self) -> int: ...

class SteppedLine:
    """An emulated line of bytes on a simulated clock, for a loop that is ticked by hand."""

    def __init__(self, exchange: Callable[[bytes, int], tuple[bytes, int]], now_ns: int) -> None:
        """``exchange``: bytes sent at a time [ns] -> what is answered, and when the line is quiet again [ns]."""
    def advance(self, now_ns: int) -> None:
        """Lets its time pass; never goes back."""

class BusConfig:
    """Which line a robot's motors are on."""

    def __init__(
        self,
        *,
        kind: str = "serial",
        port: str = "",
        baud_rate: int = 1_000_000,
        bit_rate: int = 1_000_000,
        data_bit_rate: int = 0,
        interface: str = "",
        record: str = "",
        byte_mailbox: ByteMailbox | None = None,
        can_mailbox: CanMailbox | None = None,
        stepped_line: SteppedLine | None = None,
    ) -> None: ...
    @property
    def kind(self) -> str: ...
    @property
    def port(self) -> str: ...  # device, network interface, group address or file
    @property
    def baud_rate(self) -> int: ...  # of a serial device [bit/s]
    @property
    def bit_rate(self) -> int: ...  # of CAN arbitration [bit/s]
    @property
    def data_bit_rate(self) -> int: ...  # of CAN FD data; 0: classic CAN [bit/s]
    @property
    def interface(self) -> str: ...  # udp_multicast: network interface; replay: channel in the log
    @property
    def record(self) -> str: ...  # log of everything that goes over the line; empty: none

class Bus:
    """A line of bytes, for set-up, measurements and tests; a robot's loop has its own."""

    def open(self) -> None: ...  # blocks briefly; raises BusError
    def close(self) -> None: ...  # idempotent
    def discard_input(self) -> None: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def name(self) -> str: ...
    def transmit(self, data: bytes, timeout_s: float = 1.0) -> None: ...  # blocks; raises BusTimeout, BusError
    def receive(self, timeout_s: float) -> bytes: ...  # blocks; nothing in time: empty; raises BusError

class CanBus:
    """A line of CAN frames, for set-up, measurements and tests; a robot's loop has its own."""

    def open(self) -> None: ...  # blocks briefly; raises BusError
    def close(self) -> None: ...  # idempotent
    def discard_input(self) -> None: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_fd(self) -> bool: ...
    @property
    def name(self) -> str: ...
    @property
    def num_ignored(self) -> int: ...  # what arrived and was no data frame
    def transmit(self, frames: list[CanFrame], timeout_s: float = 1.0) -> None: ...  # blocks; BusTimeout, BusError
    def receive(self, timeout_s: float) -> list[CanFrame]: ...  # blocks; nothing in time: empty; raises BusError

def make_bus(config: BusConfig) -> Bus: ...  # opens nothing; raises ConfigError
def make_can_bus(config: BusConfig) -> CanBus: ...  # opens nothing; raises ConfigError

# motor registers: register_motor_registers.cpp

class MotorRegisters:
    """Named registers of the motors on one line, for setting up and calibrating; moves nothing.

    Names are those of ``drivers/motors/<family>/register_table.hpp``. Every call blocks, up to 150 ms for a motor that
    is silent, without the GIL.
    """

    def open(self) -> None:
        """Takes the port exclusively. Raises BusError, ConfigError."""
    def close(self) -> None:
        """Gives the port back. Idempotent."""
    def ping(self, id: int) -> bool:
        """Whether the motor answers. Raises BusError."""
    def read(self, id: int, name: str) -> int:
        """The register's own number, without its scale.

        Raises:
            BusTimeout: no answer; BusError: the port went away; ConfigError: no such register.
        """
    def value(self, id: int, name: str) -> float:
        """The register in its table's unit; the only way to one that holds a fraction. Raises as :meth:`read`."""
    def write(self, id: int, name: str, value: int) -> None:
        """Writes and reads back; what survives a power cycle is unlocked for it and locked again.

        Raises:
            DeviceError: the motor has torque (only torque_enable = 0 is written then), or reads back another value.
            BusTimeout, BusError, ConfigError: as :meth:`read`; or a value the register cannot hold.
        """

def make_motor_registers(motor_family: str, bus: BusConfig) -> MotorRegisters:
    """The registers of one line's motors, not yet open. Raises ConfigError: unknown family or bus."""

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

class JointMode:
    position: ClassVar[JointMode]
    velocity: ClassVar[JointMode]
    @property
    def name(self) -> str: ...

class DriveAction:
    holds: ClassVar[DriveAction]
    brakes: ClassVar[DriveAction]
    lets_go: ClassVar[DriveAction]
    @property
    def name(self) -> str: ...

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
        mode: JointMode = ...,
        max_following_error: float = 0.5,
        static_sag: float = 0.05,
        grips: bool = False,
        drive_timeout: float = 0.0,
        drive_action: DriveAction = ...,
        drive: dict[str, float] = ...,
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
    @property
    def mode(self) -> JointMode: ...  # what its drive is told
    @property
    def max_following_error(self) -> float: ...  # beyond it an obstacle is assumed [rad]
    @property
    def static_sag(self) -> float: ...  # what its load alone makes of that at rest [rad]
    @property
    def grips(self) -> bool: ...  # meeting an obstacle is its work
    @property
    def drive_timeout(self) -> float: ...  # silence after which the drive acts by itself; 0: never [s]
    @property
    def drive_action(self) -> DriveAction: ...  # what it does then
    @property
    def drive(self) -> dict[str, float]: ...  # settings that only the motor family knows (a copy)

class Embodiment:
    """The constant description of a robot model."""

    def __init__(
        self, *, name: str, motor_family: str, joints: list[JointSpec], accepts_drop: bool = False
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def motor_family(self) -> str: ...
    @property
    def joints(self) -> list[JointSpec]: ...  # in the order of every joint array (a copy)
    @property
    def accepts_drop(self) -> bool: ...  # a drive's timeout may let a gravity-loaded joint fall

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
    def bus_descriptor(self) -> int: ...  # file descriptor of the open bus; -1: it has none
    @property
    def bus_trouble(self) -> str: ...  # what went wrong on its bus beyond a code; empty: nothing
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

def dynamixel_frame(
    instruction: str,
    *,
    id: int = 0,
    address: int = 0,
    size: int = 0,
    ids: list[int] = ...,
    data: bytes = b"",
) -> bytes:
    """The request that the Dynamixel driver sends: ping, reboot, read, write, sync_read, fast_sync_read or sync_write.

    Raises ConfigError: unknown instruction, or more than a frame holds.
    """

def sync_read_times(bus: BusConfig, ids: list[int], num_reads: int) -> dict[str, float]:
    """Reads registers 56..63 of Feetech STS servos again and again, on a thread of its own. Blocks; no GIL.

    Returns num_reads, num_failed, wall_s [s] and cpu_s of the reading thread [s].

    Raises BusError, ConfigError.
    """

class Peak(TypedDict):
    rate: float  # of all threads: operations, a multiply-add being two, or bytes per second; clock: [Hz]
    instruction: str  # that was issued
    width: int  # operations of a core in a cycle; 0: not known

# kind: int8, bf16, fp32, read, clock
def measure_peak(kind: str, threads: int, seconds: float) -> Peak:
    """What this computer can do at most, by loops that neither memory nor a dependency slows down.

    Thread i runs on the i-th processor that this one may run on. Blocks for `seconds` and, for ``read``, what its
    buffer takes; without the GIL.

    Raises:
        ConfigError: threads not 1 to those processors, seconds not above 0 and at most 60, a kind that this processor
            has no instruction for, or another word.
        WallxError: no memory for the buffer.
    """

def codec_times(rounds: int) -> dict[str, float]:
    """Time to encode the goal of one motor and to decode its state, by motor family [s]. Blocks; no GIL."""

def make_robot(embodiment: Embodiment, calibration: list[JointCalibration], bus: BusConfig) -> Robot:
    """A robot that is not yet connected.

    Args:
        embodiment: What it is.
        calibration: One per joint, in the embodiment's order.
        bus: The line its motors are on.

    Raises:
        ConfigError: unknown motor family or bus, a bus the family cannot use, or a rate out of bounds.
        CalibrationError: a calibration that does not fit the embodiment.
    """

# -- control: the loop ---------------------------------------------------------------------------------------

LoopStateName = Literal["boot", "identify", "calibrated", "armed", "ramp", "run", "hold", "off", "fault"]
LOOP_STATES: tuple[str, ...]  # names of LoopColumns["state"]
LOOP_REASONS: tuple[str, ...]  # names of LoopColumns["reason"]
MAX_ROWS: int  # of one plan

class BareLoopRun(TypedDict):
    lateness: NDArray[np.uint64]  # wake-ups per 1 us of lateness, the last bucket open (4096)
    ticks: int
    is_fifo: bool

def bare_loop(rate_hz: float, duration_s: float, priority: int = 80) -> BareLoopRun:
    """Wakes a thread that does nothing else, `rate_hz` times a second; what the control loop is compared to.

    Blocks for `duration_s`, without the GIL.

    Raises:
        ConfigError: rate_hz not 1..10000, duration_s not above 0 and at most 3600, priority not 0..99.
    """

def monotonic() -> float: ...  # CLOCK_MONOTONIC, the loop's clock [s]
def estop_all() -> None: ...  # e-stop of every loop of the process; safe in a signal handler
def estop_on_signal(signal_number: int) -> None: ...  # installs a C handler that calls estop_all
def send_estop(socket: str) -> None: ...  # raises DeviceError: nobody listens there

class EstopListener:
    """A thread that turns a datagram, a key or an input line into an e-stop of every loop of the process.

    It listens until it is deleted.

    Raises:
        ConfigError: the path is too long, or another program listens there.
        DeviceError: the system refuses a source.
    """

    def __init__(
        self,
        *,
        socket: str = "",  # path of a Unix datagram socket, made for this user alone
        gpio_chip: str = "",  # like /dev/gpiochip0
        gpio_line: int = 0,
        is_active_low: bool = True,
        key_descriptor: int = -1,  # of a terminal that hands over single keys; a space is the e-stop
        key_sink: int = -1,  # of a socket that is sent every key; while a command that began with / is typed,
        # until Enter or Esc, only a second space after a space is the e-stop
    ) -> None: ...
    @property
    def is_pressed(self) -> bool: ...  # the line, now; or it was lost

class LoopResult(TypedDict):
    code: str
    joint: int  # -1: none in particular
    detail: int  # errno, drive error bits, ...

class LoopFinding(TypedDict):
    verdict: Literal["ok", "hold", "fault"]
    reason: str
    joint: int  # -1: none in particular

class LoopRecord(TypedDict):
    tick: int
    time: float  # the tick's place on the grid, CLOCK_MONOTONIC [s]
    lateness_us: float
    read_us: float
    state: LoopStateName
    requests: int  # taken up by this tick: 1 enable, 2 hold, 4 resume, 8 reset, 16 e-stop, 32 release
    is_enabled: bool  # torque is on, commands are sent
    finding: LoopFinding  # the watchdog's, this tick
    cause: LoopFinding  # why the loop is in hold or fault
    plan_sequence: int  # 0: no plan in force
    generation: int
    row: int  # last row that was due, -1: no plan in force
    is_on_row: bool  # the target is exactly that row
    has_command: bool  # a command was sent
    is_exact: bool  # every joint's command is its target, bit for bit
    read: LoopResult
    send: LoopResult
    command: NDArray[np.float64]  # (num_joints) [rad]
    target: NDArray[np.float64]  # (num_joints) [rad]
    measured: NDArray[np.float64]  # (num_joints) [rad]
    sample_age: NDArray[np.float32]  # (num_joints) [s]
    torque_share: NDArray[np.float32]  # torque limit in force (num_joints) [0..1]
    reasons: NDArray[np.uint16]  # LimitReason bits (num_joints)
    drive_error: NDArray[np.uint8]  # (num_joints)

class LoopColumns(TypedDict):
    """Records by column: the first axis counts the records, oldest first."""

    tick: NDArray[np.uint64]
    time: NDArray[np.float64]  # [s]
    lateness_us: NDArray[np.float32]
    read_us: NDArray[np.float32]
    state: NDArray[np.uint8]  # index into LOOP_STATES
    requests: NDArray[np.uint8]
    is_enabled: NDArray[np.bool_]
    verdict: NDArray[np.uint8]  # 0 ok, 1 hold, 2 fault
    reason: NDArray[np.uint8]  # index into LOOP_REASONS
    plan_sequence: NDArray[np.uint64]
    generation: NDArray[np.uint32]
    row: NDArray[np.int32]
    is_on_row: NDArray[np.bool_]
    has_command: NDArray[np.bool_]
    is_exact: NDArray[np.bool_]
    read_code: NDArray[np.uint8]  # 0: every joint answered
    read_joint: NDArray[np.int16]
    send_code: NDArray[np.uint8]  # 0: sent
    command: NDArray[np.float64]  # (num_records, num_joints) [rad]
    target: NDArray[np.float64]  # (num_records, num_joints) [rad]
    measured: NDArray[np.float64]  # (num_records, num_joints) [rad]
    sample_age: NDArray[np.float32]  # (num_records, num_joints) [s]
    torque_share: NDArray[np.float32]  # (num_records, num_joints) [0..1]
    reasons: NDArray[np.uint16]  # (num_records, num_joints)
    drive_error: NDArray[np.uint8]  # (num_records, num_joints)

class LoopCounters(TypedDict):
    ticks: int
    overruns: int
    skipped_periods: int
    stale_ticks: int
    send_failures: int
    holds: int
    resets: int
    refused_plans: int
    dropped_records: int
    limited_ticks: dict[str, int]  # per reason: position, velocity, acceleration, jerk, ...

class RealTimeStatus(TypedDict):
    is_fifo: bool
    is_memory_locked: bool
    shortfalls: list[str]  # what the system refused, and where to permit it

class LoopFaultReport(TypedDict):
    message: str
    cause: LoopFinding
    read: LoopResult
    send: LoopResult
    time: float  # [s]
    records: LoopColumns  # the last 64 ticks

class ControlLoop:
    """The only writer of a robot's motors; its thread never takes the GIL. Any thread may call any method."""

    def __init__(
        self,
        robot: Robot,
        *,
        rate_hz: float = 200.0,
        stale_hold_s: float = 0.0,  # 0: three periods
        stale_fault_s: float = 0.0,  # 0: 0.1 s, or six periods if that is longer
        ramp_share: float = 0.25,
        estop_torque_share: float = 0.5,
        max_first_step: float = 1.0,  # from the command to a plan's row that takes over [rad]
        priority: int = 80,  # SCHED_FIFO; 0: do not ask for it
        cpu: int = -1,
        ring_capacity: int = 8192,
        origin_s: float | None = None,  # of the tick grid, for a simulated clock
    ) -> None: ...
    def start(self) -> None: ...  # raises DeviceError: already running
    def stop(self) -> None: ...  # blocks until the robot rests, at most max_stop_time_s and some periods
    @property
    def is_running(self) -> bool: ...
    @property
    def period_s(self) -> float: ...
    @property
    def max_stop_time_s(self) -> float: ...
    @property
    def state(self) -> LoopStateName: ...
    @property
    def generation(self) -> int: ...  # what a new plan must carry; rises with every stop
    @property
    def real_time(self) -> RealTimeStatus: ...
    def submit(self, rows: NDArray[np.float64], start_s: float, step_s: float, generation: int) -> int:
        """Hands joint rows (num_rows, num_joints) [rad] to the loop; `start_s` is moved up to the tick grid.

        Returns:
            The plan's sequence number, or 0: the generation is over and the plan was dropped.

        Raises:
            ConfigError: wrong shape, too many rows, a value that is not finite, a generation to come.
        """

    # requests: taken up by the next tick
    def enable(self) -> None: ...
    def hold(self) -> None: ...
    def resume(self) -> None: ...
    def reset(self) -> None: ...
    def estop(self) -> None: ...
    @property
    def heartbeat_descriptor(self) -> int: ...  # of the shared memory that a watcher looks at
    def release(self) -> None: ...  # torque off, once at rest; gravity-loaded joints fall
    def on_grid(self, time_s: float) -> float: ...  # first tick time at or after time_s [s]
    def tick(self, now_s: float) -> LoopRecord: ...  # one tick by hand; raises DeviceError while running
    def snapshot(self) -> LoopRecord | None: ...  # newest record; None: no tick yet
    def drain(self, max: int = 8192) -> LoopColumns: ...  # records since the last call
    def counters(self) -> LoopCounters: ...
    def lateness_histogram(self) -> NDArray[np.uint64]: ...  # 1 us wide buckets, the last one open (4096)
    def fault_report(self) -> LoopFaultReport | None: ...  # while in fault, until reset
