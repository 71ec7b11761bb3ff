"""Robot: a live, connected robot and the control loop that alone writes to its motors."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import atexit
import logging
import os
import time
import weakref
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from wallx_edge import _core
from wallx_edge.buses import Adapter
from wallx_edge.calibrate import check_signature
from wallx_edge.embodiment import JointMode, load_calibration, load_embodiment, with_drops
from wallx_edge.errors import BusTimeout, ConfigError, DeviceError, SafetyStop
from wallx_edge.robot_config import RobotConfig
from wallx_edge.robot_model import RobotModel
from wallx_edge.safe_stop import Watcher, estop_socket_path, write_stop_file

__all__ = ["Robot", "lateness_us"]

log = logging.getLogger(__name__)

ENABLE_TIMEOUT = 1.0  # for torque on and the first feedback [s]
RESET_TIMEOUT = 10.0  # for braking to rest, and what follows [s]
POLL = 0.002  # between looks at the loop's state [s]

_connected: weakref.WeakSet[Robot] = weakref.WeakSet()


@atexit.register
def _disconnect_all() -> None:
    """A program that ends without disconnecting brakes all the same, while its threads still run."""
    for robot in list(_connected):
        if robot._process == os.getpid():  # the loop of a forked child is its parent's
            robot.disconnect()


class Robot:
    """Connected is readable; only inside :meth:`enabled` is it movable, and leaving that holds.

    A thread of the C++ core runs the control loop from :meth:`connect` to :meth:`disconnect`.
    """

    def __init__(
        self,
        robot: _core.Robot,
        loop: _core.ControlLoop,
        stop_file: Path | None = None,
        max_first_step: float = 0.5,
        adapter: Adapter | None = None,
        dropping: Collection[str] = (),
    ) -> None:
        """Use :meth:`connect`.

        Args:
            robot: connected.
            loop: running on it.
            stop_file: what ``safe-stop`` must know to watch over it; without one nobody watches.
            max_first_step: from the measured pose to the first row of a chunk, of any joint, at most [rad].
            adapter: what moves its frames when it is on a mailbox.
            dropping: joints that fall when this computer falls silent, as ``accept_drop`` allows.
        """
        self._process = os.getpid()
        self._adapter = adapter
        self._stop_file = stop_file
        self.max_first_step = max_first_step
        self.model: RobotModel | None = None
        self._watcher: Watcher | None = None
        self._estop: _core.EstopListener | None = None  # listens as long as it is there
        self._robot = robot
        self.loop = loop
        self._is_enabled = False
        self._dropping = dropping  # until it has been said
        self.embodiment = robot.embodiment
        self.joint_names = tuple(joint.name for joint in self.embodiment.joints)

    @classmethod
    def connect(cls, config: RobotConfig | str | Path) -> Robot:
        """Opens the bus, checks every motor against the calibration and starts reading. Moves nothing, torque as found.

        From then on an e-stop is heard: from :meth:`estop`, from ``wallx-edge estop ROBOT.toml`` (a socket that only
        this user may write to), and from the line under [estop], if there is one. Blocks up to about two seconds.

        Args:
            config: a ROBOT.toml, or its path.

        Raises:
            ConfigError, CalibrationError: a file is wrong, or does not fit the motors.
            BusError: the port is absent or taken; BusTimeout: a motor does not answer.
            DeviceError: another kind of motor than expected.
        """
        if not isinstance(config, RobotConfig):
            config = RobotConfig.load(config)
        embodiment, dropping = with_drops(load_embodiment(config.embodiment), config.accept_drop)
        calibration = load_calibration(config.calibration, embodiment)
        by_joint = dict(zip((joint.name for joint in embodiment.joints), calibration, strict=True))
        check_signature(config.calibration, embodiment, by_joint, config.bus)
        model = RobotModel.read(config.kinematics, embodiment) if config.kinematics else None
        adapter = Adapter(config.bus) if config.bus.adapter else None
        core = _core.make_robot(embodiment, calibration, adapter.config if adapter else config.bus.core())
        # a row may be as far again by the time it is due: the chunk took its time
        loop = _core.ControlLoop(core, rate_hz=config.rate_hz, max_first_step=2 * config.max_first_step)
        stop_file = write_stop_file(embodiment, calibration, config.bus)
        robot = cls(core, loop, stop_file, config.max_first_step, adapter, dropping)
        robot.model = model
        _connected.add(robot)
        try:
            if adapter:
                adapter.open()
            core.connect()
            chip, line, is_active_low = config.estop or ("", 0, True)
            robot._estop = _core.EstopListener(
                socket=str(estop_socket_path(config.bus.port)),
                gpio_chip=chip,
                gpio_line=line,
                is_active_low=is_active_low,
            )
            loop.start()
            robot._wait_for_feedback()
        except BaseException:
            robot.disconnect()
            raise
        return robot

    def disconnect(self) -> None:
        """Brakes to rest along the limits, stops the loop, closes the bus; the motors keep their torque. Idempotent."""
        _connected.discard(self)
        try:
            self.loop.stop()
        finally:
            self._unwatch()
            self._estop = None
            self._robot.disconnect()
            if self._adapter:
                self._adapter.close()

    def __enter__(self) -> Robot:
        """The robot itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnects."""
        self.disconnect()

    @contextmanager
    def enabled(self) -> Iterator[Robot]:
        """Torque on, at the measured pose. Leaving brakes along the limits and holds the last command.

        Where a drive has no timeout of its own, ``safe-stop --watch`` is started first, and watches until
        :meth:`disconnect`. Where one would let a joint fall, a warning names it, the first time.

        Raises:
            SafetyStop: the motors could not be enabled.
            DeviceError: ``safe-stop`` cannot be started, or cannot reach the wheels of this robot.
        """
        self._watch()
        if self._dropping:
            log.warning(
                "accept_drop: %s will fall when this computer falls silent: their drives let go",
                ", ".join(self._dropping),
            )
            self._dropping = ()
        try:
            # from the first request on, whatever interrupts: leaving holds
            self.loop.resume() if self.loop.state == "hold" else self.loop.enable()
            self._wait_for_state(("armed", "ramp", "run", "hold", "fault"), "the motors were not enabled")
            self.check()
            self._is_enabled = True
            yield self
        finally:
            self._is_enabled = False
            self.loop.hold()
            if self.loop.is_running:
                self._wait_for_state(("calibrated", "hold", "off", "fault"), "the loop did not take up the hold")

    def state(self) -> tuple[NDArray[np.float64], float]:
        """The newest measured joint positions [rad] (joints,) and when the oldest of them was taken [s].

        Raises:
            SafetyStop: the loop has stopped the robot.
        """
        self.check()
        record = self.loop.snapshot()
        if record is None:
            raise BusTimeout("no feedback from the robot yet")
        return np.array(record["measured"]), record["time"] - float(np.max(record["sample_age"]))

    def play(self, rows: NDArray[np.float64], start: float, step: float, generation: int) -> int:
        """Hands joint rows to the loop; the newest plan wins. Does not wait for them to be played.

        Args:
            rows: joint positions [rad]   (rows, joints)
            start: when the first row is due, CLOCK_MONOTONIC [s]; rows already due are skipped.
            step: between rows [s].
            generation: ``loop.generation`` when their observation was taken: rows from before a stop are dropped.

        Returns:
            the plan's number, or 0 when it was dropped.

        Raises:
            ConfigError: wrong shape, or a value that is not finite.
            SafetyStop: not inside :meth:`enabled`, or the loop has stopped the robot.
        """
        self.check()
        if not self._is_enabled:
            raise SafetyStop("rows can be played only inside enabled()")
        return self.loop.submit(rows, start, step, generation)

    def check(self) -> None:
        """Raises the loop's fault or e-stop, if there is one; while enabled also when ``safe-stop`` has ended.

        Raises:
            SafetyStop: with the last records of the loop as ``records``.
        """
        report = self.loop.fault_report()
        if report is not None:
            error = SafetyStop("; ".join([report["message"], *self._about_the_bus(report["cause"]["reason"])]))
            error.records = report["records"]
            raise error
        if self._is_enabled and self._watcher is not None and not self._watcher.is_running:
            raise SafetyStop("safe-stop has ended: nothing would stop the robot if this program died; enable it again")

    def estop(self) -> None:
        """Brakes along the limits, then holds at a low torque limit, until :meth:`reset`. Does not wait."""
        self.loop.estop()

    def reset(self) -> None:
        """Takes back a fault or an e-stop, once the robot is at rest; moves nothing. Blocks until then. Logged.

        Raises:
            SafetyStop: it is not at rest in time, or the reason is still there: a button that is still pressed, a bus
                that is closed.
        """
        report = self.loop.fault_report()
        if report is None:
            return
        if report["cause"]["reason"] == "bus closed":
            raise SafetyStop("the bus is closed and does not come back by itself: disconnect, then connect again")
        if self._estop is not None and self._estop.is_pressed:
            raise SafetyStop("the e-stop's button is still pressed, or its wire is cut: release it, then reset")
        log.warning("reset after: %s", report["message"])
        self._unwatch()  # it may have taken the bus over; the next enabled() starts another
        self.loop.reset()
        self._wait_for_state(("identify", "calibrated"), "the fault was not reset", RESET_TIMEOUT)

    @property
    def falling_joints(self) -> tuple[str, ...]:
        """The joints that fall when the torque goes."""
        return tuple(joint.name for joint in self.embodiment.joints if joint.gravity_loaded)

    def release(self, falling: Collection[str]) -> None:
        """Torque off, once the robot is at rest. Blocks until then. A fault or e-stop stays latched.

        Args:
            falling: every joint that will fall, as :attr:`falling_joints` lists them: who lets go must know what falls.

        Raises:
            ConfigError: other joints were named; nothing happens.
            SafetyStop: the torque did not go off in time.
        """
        if set(falling) != set(self.falling_joints):
            raise ConfigError(
                f"release() was told that {', '.join(falling) or 'nothing'} will fall, but it is "
                f"{', '.join(self.falling_joints) or 'nothing'}: support the arm, then name these joints"
            )
        log.warning("releasing: torque off, %s will fall", ", ".join(self.falling_joints) or "nothing")
        self.loop.hold()
        self.loop.release()
        deadline = time.monotonic() + RESET_TIMEOUT

        def is_off() -> bool:
            record = self.loop.snapshot()
            return record is not None and record["state"] in ("off", "fault") and not record["is_enabled"]

        while not is_off():
            if time.monotonic() > deadline:
                raise SafetyStop(f"the torque did not go off within {RESET_TIMEOUT:g} s")
            time.sleep(POLL)

    def _about_the_bus(self, reason: str) -> Iterator[str]:
        """What a fault's message cannot know."""
        if self._adapter and self._adapter.error:
            yield f"the adapter said: {self._adapter.error}"
        if reason != "bus closed":
            return
        if self._robot.bus_trouble:
            yield f"on its bus: {self._robot.bus_trouble}"
        wheels = [joint.name for joint in self.embodiment.joints if joint.mode == JointMode.velocity]
        if wheels and self._stop_file is not None:
            yield (
                f"{', '.join(wheels)} may still turn, as last told, until the robot is enabled again or "
                f"`safe-stop {self._stop_file}` has run"
            )

    def _watch(self) -> None:
        if self._watcher is not None and not self._watcher.is_running:
            self._unwatch()
        alone = [joint for joint in self.embodiment.joints if joint.drive_timeout == 0]
        if self._watcher is not None or self._stop_file is None or not alone:
            return
        bus = self._robot.bus_descriptor
        if bus < 0:
            wheels = ", ".join(repr(joint.name) for joint in alone if joint.mode == JointMode.velocity)
            if wheels:
                raise DeviceError(
                    f"nothing would stop {wheels} if this program died: the drives have no timeout, and safe-stop "
                    "cannot inherit this kind of bus; use a serial device"
                )
            return
        self._watcher = Watcher(self._stop_file, bus, self.loop.heartbeat_descriptor)

    def _unwatch(self) -> None:
        if self._watcher is not None:
            self._watcher.leave()
            self._watcher = None

    def _wait_for_state(self, states: Collection[str], otherwise: str, timeout: float = ENABLE_TIMEOUT) -> None:
        deadline = time.monotonic() + timeout
        while self.loop.state not in states:
            if time.monotonic() > deadline:
                raise SafetyStop(f"{otherwise} within {timeout:g} s")
            time.sleep(POLL)

    def _wait_for_feedback(self) -> None:
        deadline = time.monotonic() + ENABLE_TIMEOUT
        while True:
            self.check()
            record = self.loop.snapshot()
            if record is not None and record["state"] == "calibrated" and record["read"]["code"] == "ok":
                return
            if time.monotonic() > deadline:
                silent = record["read"]["joint"] if record else -1
                name = self.joint_names[silent] if silent >= 0 else "the robot"
                raise BusTimeout(
                    f"no feedback from {name} within {ENABLE_TIMEOUT:g} s; check power and wiring, "
                    "or lower control.rate_hz if the bus is too slow for it"
                )
            time.sleep(POLL)


def lateness_us(histogram: NDArray[np.uint64], share: float) -> float:
    """A percentile of the loop's lateness [us]: the upper edge of its 1 us bucket; the last bucket is open."""
    total = np.cumsum(histogram)
    if total.size == 0 or total[-1] == 0:
        return 0.0
    return float(np.searchsorted(total, share * total[-1]) + 1)
