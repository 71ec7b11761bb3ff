"""Types of the compiled core."""
# SPDX-License-Identifier: Apache-2.0

class WallxError(Exception): ...
class ConfigError(WallxError, ValueError): ...
class CheckpointError(WallxError): ...
class DeviceError(WallxError): ...
class BusError(WallxError): ...
class BusTimeout(BusError, TimeoutError): ...
class CalibrationError(WallxError): ...
class SafetyStop(WallxError): ...

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

    def __init__(
        self, *, id: int, drive_mode: int, homing_offset: int, range_min: int, range_max: int
    ) -> None: ...
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
