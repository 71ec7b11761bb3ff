"""Types of the compiled core."""
# SPDX-License-Identifier: Apache-2.0

from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

class WallxError(Exception): ...
class ConfigError(WallxError, ValueError): ...
class CheckpointError(WallxError): ...
class DeviceError(WallxError): ...
class BusError(WallxError): ...
class BusTimeout(BusError, TimeoutError): ...
class CalibrationError(WallxError): ...
class SafetyStop(WallxError): ...

# -- control: the loop ---------------------------------------------------------------------------------------

LoopStateName = Literal["idle", "ramp", "run", "hold", "estop", "fault"]
LOOP_STATES: tuple[str, ...]  # names of LoopColumns["state"]
LOOP_REASONS: tuple[str, ...]  # names of LoopColumns["reason"]
MAX_ROWS: int  # of one plan

def monotonic() -> float: ...  # CLOCK_MONOTONIC, the loop's clock [s]
def estop_all() -> None: ...  # e-stop of every loop of the process; safe in a signal handler
def estop_on_signal(signal_number: int) -> None: ...  # installs a C handler that calls estop_all

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
    finding: LoopFinding  # the watchdog's, this tick
    cause: LoopFinding  # why the loop is in hold, estop or fault
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
    reasons: NDArray[np.uint8]  # LimitReason bits (num_joints)
    drive_error: NDArray[np.uint8]  # (num_joints)

class LoopColumns(TypedDict):
    """Records by column: the first axis counts the records, oldest first."""

    tick: NDArray[np.uint64]
    time: NDArray[np.float64]  # [s]
    lateness_us: NDArray[np.float32]
    read_us: NDArray[np.float32]
    state: NDArray[np.uint8]  # index into LOOP_STATES
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
    reasons: NDArray[np.uint8]  # (num_records, num_joints)
    drive_error: NDArray[np.uint8]  # (num_records, num_joints)

class LoopCounters(TypedDict):
    ticks: int
    overruns: int
    skipped_periods: int
    stale_ticks: int
    send_failures: int
    holds: int
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
    """The only writer of a robot's motors. Its thread never takes the GIL; any thread may call any method."""

    def __init__(
        self,
        robot: Robot,
        *,
        rate_hz: float = 200.0,
        stale_hold_s: float = 0.0,  # 0: three periods
        stale_fault_s: float = 0.1,
        ramp_share: float = 0.25,
        estop_torque_share: float = 0.5,
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
    def on_grid(self, time_s: float) -> float: ...  # first tick time at or after time_s [s]
    def tick(self, now_s: float) -> LoopRecord: ...  # one tick by hand; raises DeviceError while running
    def snapshot(self) -> LoopRecord | None: ...  # newest record; None: no tick yet
    def drain(self, max: int = 8192) -> LoopColumns: ...  # records since the last call
    def counters(self) -> LoopCounters: ...
    def lateness_histogram(self) -> NDArray[np.uint64]: ...  # 1 us wide buckets, the last one open (4096)
    def fault_report(self) -> LoopFaultReport | None: ...  # while in fault, until reset
