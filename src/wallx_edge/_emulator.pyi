"""Types of the compiled emulator."""
# SPDX-License-Identifier: Apache-2.0

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

class Fault:
    """One row of the table of faults; the same words for every motor family."""

    name: str
    scope: str  # "drive": one or every; "one drive"; "line": no id
    is_moment: bool  # happens once: there is nothing to clear
    minimum: float  # of the value
    maximum: float
    preset: float  # when no value is given
    unit: str  # empty: no value
    effect: str  # one sentence

FAULTS: tuple[Fault, ...]

class ServoSetup:
    """One servo as it leaves the bench and the link that hangs on it; every field has a default.

    Ticks are 1/4096 turn, counted as the servo reports them (Present = Actual - Offset).
    """

    name: str
    id: int
    model: int  # as it reports itself; 0: the family's most common
    firmware: int  # as it reports itself; 0: a recent one
    drive_mode: int  # Dynamixel register 10
    operating_mode: int  # Dynamixel register 11; -1: extended position
    homing_offset: int  # Feetech register 31 [ticks, -2047..2047], Dynamixel 20 [ticks]
    range_min: int  # Feetech registers 9-10, Dynamixel 52 [ticks]
    range_max: int  # Feetech registers 11-12, Dynamixel 48 [ticks]
    position: int  # where the joint stands at power-up [ticks]
    stop_min: int  # mechanical end stops [ticks]
    stop_max: int
    p_gain: int  # Feetech register 21
    max_torque: int  # Feetech registers 16-17 [0.1 %]
    protection_current: int  # Feetech registers 28-29 [6.5 mA]
    overload_threshold: int  # Feetech register 36 [%]
    inertia: float  # [kg m^2]
    damping: float  # [N m s/rad]
    friction: float  # [N m]
    gravity: float  # moment of this link and all it carries, link horizontal [N m]
    pitch_sign: int  # +1: a growing position raises the link, -1: lowers it, 0: does not pitch
    pitch: float  # pitch added to the link before it, at position 2048 [rad]
    def __init__(self, **fields: Any) -> None: ...

class WorldPlant:
    """A physics engine under the servos, by addresses; ``owner`` keeps the engine alive, and lets it alone."""

    owner: object

    def __init__(
        self,
        *,
        step: int,
        model: int,
        data: int,
        timestep: float,
        positions: int,
        velocities: int,
        forces: int,
        state_size: int,
        joints: Sequence[tuple[int, int, float]],
    ) -> None:
        """Addresses of ``mj_step``, its two arguments, and of qpos, qvel and qfrc_applied.

        ``timestep``: of the world, a whole number of 0.5 ms [s]. ``joints``: per servo the index of its position, of
        its velocity, and the reported position at its zero [ticks]. Raises ConfigError: another timestep.
        """

class ArmEmulator:
    """Emulated servos of one family on one line, stepped by the caller or running behind a pseudo-terminal.

    Stepped, it is deterministic: two runs of one seed, fed alike, are bit-equal; times are nanoseconds since
    the arm's start. After ``start`` the servos begin anew in real time (CLOCK_MONOTONIC) on threads of their
    own, and the stepping calls raise DeviceError. Everything else may be called from any thread, before and
    after, and waits for at most one wake-up of the bus.
    """

    def __init__(
        self,
        servos: Sequence[ServoSetup],
        *,
        seed: int = 0,
        baud_rate: int = 1_000_000,
        family: str = "feetech_sts",
        world: WorldPlant | None = None,
    ) -> None:
        """``world``: moves the joints; without one every servo carries a link of its own.

        Raises ConfigError: unknown family, no servo, an id twice, a value out of its range, a world of another arm.
        """

    def start(self, *, link: str = "", log: str = "") -> None:
        """Runs on a pseudo-terminal. ``link``: symbolic link to make; ``log``: file of JSON lines.

        Raises DeviceError: started before, terminal, link or log not possible.
        """

    def stop(self) -> None:
        """Ends the threads, completes the log, removes link and port. Idempotent; blocks for some 20 ms."""

    @property
    def port(self) -> str:
        """Path of the pseudo-terminal, empty before ``start``."""

    @property
    def is_realtime(self) -> bool:
        """Whether the pacing thread was given SCHED_FIFO."""

    def receive(self, data: bytes, now_ns: int) -> None:
        """Bytes the host hands to the line at ``now_ns``; they take their time on the wire."""

    def advance(self, now_ns: int) -> None:
        """Brings plant and protocol to ``now_ns``."""

    def due(self, now_ns: int) -> bytes:
        """Takes the answer bytes that have left the servos by ``now_ns``; call ``advance`` first."""

    def exchange(self, data: bytes, now_ns: int) -> tuple[bytes, int]:
        """Sends ``data`` and steps until the line is quiet; returns the answers and the time then [ns]."""

    def set_fault(self, kind: str, id: int | None = None, value: float | None = None) -> None:
        """Makes something go wrong (``FAULTS``), at one drive or every drive, with a value or the kind's preset.

        Raises:
            ConfigError: unknown kind or id, or one that this family's drives cannot do; value out of bounds.
            DeviceError: a port to be pulled is not there.
        """

    def clear_fault(self, kind: str, id: int | None = None) -> None:
        """Ends what ``set_fault`` began, at one drive or every drive. Raises as it does."""

    def hand(self, id: int, share: float | None = None) -> None:
        """A hand drags a joint to a share of its travel between the end stops [0..1]; None lets go.

        It moves at up to 3 rad/s and pushes with up to 2 N m: a limp joint follows. Raises ConfigError.
        """

    @property
    def positions(self) -> dict[int, int]:
        """Reported position by id [ticks]."""

    @property
    def goals(self) -> dict[int, int]:
        """Goal in force by id, after the servo's position limits [ticks]."""

    @property
    def torques(self) -> dict[int, int]:
        """Torque by id: 0 off, 1 on; Feetech: 2 damping."""

    def registers(self, id: int) -> bytes:
        """All registers, feedback refreshed. Raises ConfigError: no such id."""

    def world_state(self) -> tuple[int, NDArray[np.float64]]:
        """When, and the positions of everything in the world then, a copy [ns] (state_size,).

        Times are CLOCK_MONOTONIC once started. Raises ConfigError: it stands in no world.
        """

    @property
    def counters(self) -> dict[str, int]:
        """What the line carried and what was done to it; more entries once started."""

class MotorSetup:
    """One emulated Damiao motor as it leaves the bench and the link that hangs on it; every field has a default.

    Positions are the output shaft's, from the motor's own zero.
    """

    name: str
    id: int  # register 8, it listens to
    feedback_id: int  # register 7, it answers with
    mode: int  # register 10: 1 MIT, 2 position and velocity, 3 velocity, 4 position and force
    timeout: int  # register 9 [50 us], 0: off
    pmax: float  # register 21 [rad]
    vmax: float  # register 22 [rad/s]
    tmax: float  # register 23 [N m]
    peak_torque: float  # what it can really do [N m]
    software: int  # register 14
    serial: int  # register 15
    position: float  # where the joint stands at power-up [rad]
    stop_min: float  # mechanical end stops [rad]
    stop_max: float
    inertia: float  # [kg m^2]
    damping: float  # [N m s/rad]
    friction: float  # [N m]
    gravity: float  # moment of this link, link horizontal [N m]
    pitch_sign: int  # +1: a growing position raises the link, -1: lowers it, 0: does not pitch
    pitch: float  # pitch added to the link before it, at position 0 [rad]
    def __init__(self, **fields: Any) -> None: ...

class CanArmEmulator:
    """Emulated Damiao motors on one CAN line, running behind an slcan port or UDP multicast.

    After ``start`` they live in real time (CLOCK_MONOTONIC) on threads of their own. Everything may be called
    from any thread, and waits for at most one wake-up of the line.
    """

    def __init__(
        self,
        motors: Sequence[MotorSetup],
        *,
        seed: int = 0,
        bit_rate: int = 1_000_000,
        data_bit_rate: int = 5_000_000,
    ) -> None:
        """``data_bit_rate`` 0: classic CAN. Raises ConfigError: no motor, an id twice, a value out of its range."""

    def start(
        self,
        *,
        bus: str = "slcan",
        link: str = "",
        group: str = "239.74.163.2",
        interface: str = "",
        log: str = "",
    ) -> None:
        """Runs on a pseudo-terminal as an slcan adapter, or as a member of a multicast group.

        Args:
            bus: ``slcan`` or ``udp_multicast``.
            link: slcan: symbolic link to make.
            group: udp_multicast: IPv4 group, with or without a port.
            interface: udp_multicast: network interface to use; empty: as the routes say.
            log: file of JSON lines.

        Raises:
            ConfigError: unknown bus, not a group.
            DeviceError: started before; terminal, group, link or log not possible.
        """

    def stop(self) -> None:
        """Ends the threads, completes the log, closes the port. Idempotent; blocks for some 20 ms."""

    @property
    def port(self) -> str:
        """Path of the pseudo-terminal, or the group; empty before ``start``."""

    @property
    def is_realtime(self) -> bool:
        """Whether the pacing thread was given SCHED_FIFO."""

    def set_fault(self, kind: str, id: int | None = None, value: float | None = None) -> None:
        """Makes something go wrong, as ``FAULTS`` says; id None: every motor. Raises ConfigError."""

    def clear_fault(self, kind: str, id: int | None = None) -> None:
        """Ends a fault. Raises ConfigError."""

    def hand(self, id: int, share: float | None = None) -> None:
        """A hand drags a joint to a share of its travel between the end stops [0..1]; None lets go.

        It moves at up to 1.5 rad/s and pushes with up to 30 N m: a limp joint follows. Raises ConfigError.
        """

    @property
    def positions(self) -> dict[int, float]:
        """Position by id, from the motor's zero [rad]."""

    @property
    def goals(self) -> dict[int, float]:
        """Last goal taken, by id [rad]."""

    @property
    def torques(self) -> dict[int, int]:
        """1: the motor is enabled, by id."""

    @property
    def counters(self) -> dict[str, int]:
        """What the line carried and what was done to it; more entries once started."""

def draw_picture(
    *,
    kinds: ArrayLike,
    sizes: ArrayLike,
    positions: ArrayLike,
    rotations: ArrayLike,
    colours: ArrayLike,
    patterns: ArrayLike,
    eye: ArrayLike,
    axes: ArrayLike,
    fovy: float,
    width: int,
    height: int,
    samples: int = 1,
) -> NDArray[np.uint8]:
    """Casts rays at primitive shapes: RGB (height, width, 3), the same bits each time. Holds no interpreter lock.

    Args:
        kinds: MuJoCo's: 0 plane, 2 sphere, 3 capsule, 4 ellipsoid, 5 cylinder, 6 box   (n)
        sizes: half lengths, as MuJoCo has them [m]   (n x 3)
        positions: [m]   (n x 3)
        rotations: axes as columns, row-major   (n x 9)
        colours: RGBA 0..1; alpha 0 is not seen   (n x 4)
        patterns: 0 plain, 1 fine squares, 2 wood   (n)
        eye: of the camera [m]   (3)
        axes: its right, up and back as columns, row-major   (9)
        fovy: vertical field of view [rad].
        width: [pixels]
        height: [pixels]
        samples: per pixel and side, 1 to 4.

    Raises:
        ConfigError: shapes that do not fit, sizes and kinds that cannot be drawn.
    """
