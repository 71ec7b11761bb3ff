"""RobotConfig: what a ROBOT.toml says about one robot, its cameras and the checkpoint that drives it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wallx_edge import _core
from wallx_edge.buses import BusConfig, read_bus
from wallx_edge.cameras import Camera, camera_opener
from wallx_edge.computing import DEVICES, Computing
from wallx_edge.embodiment import calibration_path
from wallx_edge.errors import ConfigError
from wallx_edge.policy import PolicyConfig
from wallx_edge.session_config import MODES, REASONS, SessionConfig
from wallx_edge.tables import Table, read_toml

__all__ = ["RobotConfig"]


@dataclass(frozen=True)
class RobotConfig:
    """One ROBOT.toml.

    ::

        [robot]
        embodiment = "so101"                # built-in name or path of a TOML file
        accept_drop = true                  # only where a drive's timeout lets a joint fall: arm it, or (false) do not
        calibration = "my_arm.json"         # LeRobot's fields; or unit = "my_arm", in the user's configuration folder

        [bus]
        kind = "serial"                     # or socketcan, slcan, udp_multicast, replay, pyserial, python-can, mailbox
        port = "/dev/ttyACM0"               # device, network interface, group, log file; an adapter's URL or channel
        baud_rate = 1000000                 # of a serial device [bit/s]; for CAN: bit_rate, data_bit_rate
        record = "my_arm.log"               # log of everything that goes over the line; kind = "replay" plays it

        [control]
        rate_hz = 200.0                     # of the control loop [1/s]

        [estop]                             # only where a button is wired to a line of this computer
        gpio_chip = "/dev/gpiochip0"
        gpio_line = 17                      # offset on the chip
        active = "low"                      # level when pressed, or when the wire is cut

        [policy]                            # with the cameras, only where a checkpoint drives the robot
        checkpoint = "wall-oss-flow"        # folder
        resolution = 256                    # long side of a picture [px]
        horizon = 32                        # rows of a chunk
        step = 0.0333                       # between rows [s]
        statistics = "so101"                # key in the checkpoint; may be left out when it has one
        num_steps = 10                      # Euler steps
        attention = "bidirectional"
        max_first_step = 0.5                # from the measured pose to a chunk's first row, at most [rad]
        execute_rows = 24                   # rows played before the next chunk takes over
        seed = 0
        precision = "int8"                  # fp32, bf16, fp16, int8, mixed, w8; by default as the folder is packed
        device = "auto"                     # or cpu
        threads = 1                         # that compute; by default one for each core
        cores = [1]                         # that they are pinned to, so that the control loop keeps its own

        [recording]                         # of every run; all of it may be left out
        enabled = true
        folder = "recordings"               # ~/.local/state/wallx-edge/recordings by default
        max_mib = 2048                      # that recordings of this file's name may take there [MiB]

        [kinematics]                        # as robot_model.RobotModel.read: for end-effector checkpoints, and keep-out

        [session]                           # as session_config.SessionConfig; all of it may be left out
        mode = "rtc"                        # or latest, ensemble, sync
        reason = "subtask"                  # or full, off
        camera_delay = {face_view = 0.05}   # [s]

        [[camera]]                          # in the order the checkpoint was trained with
        role = "face_view"
        kind = "opencv"                     # or video, folder, pattern, with their own keys
        device = 0

    Relative paths start from the file's folder.

    Attributes:
        path: of the file.
        embodiment: name or path.
        accept_drop: whether timeouts of drives that let a gravity-loaded joint fall are armed; None: not said.
        calibration: path of the unit's calibration file.
        bus: the line its motors are on.
        rate_hz: of the control loop [1/s].
        estop: of a button: chip, line on it, and whether low means pressed; None: there is none.
        policy: how to ask the checkpoint.
        session: how chunks are executed and when the Reasoner is asked; its ``execute_rows`` is policy's.
        computing: how the checkpoint is computed.
        max_first_step: from the measured pose to the first row of a chunk, of any joint, at most [rad].
        recording: folder of the recordings and how much they may take there [bytes]; None: nothing is recorded.
        cameras: role -> its checked table.
        folder: of the checkpoint; None: the file has no policy.
        kinematics: of :meth:`wallx_edge.robot_model.RobotModel.read`; None: the checkpoint speaks of joints.
    """

    path: Path
    embodiment: str
    accept_drop: bool | None
    calibration: Path
    bus: BusConfig
    rate_hz: float
    estop: tuple[str, int, bool] | None
    policy: PolicyConfig
    session: SessionConfig
    computing: Computing
    max_first_step: float
    recording: tuple[Path, int] | None
    cameras: Mapping[str, Table]
    folder: Path | None
    kinematics: Table | None = None

    @property
    def checkpoint(self) -> Path:
        """The checkpoint's folder.

        Raises:
            ConfigError: the file names none: it is enough to calibrate and to try the robot, not to run it.
        """
        if self.folder is None:
            raise ConfigError(f"{self.path}: 'policy' is missing: no checkpoint drives this robot yet")
        return self.folder

    @classmethod
    def load(cls, path: str | Path) -> RobotConfig:
        """Reads and checks the file. Opens nothing.

        Raises:
            ConfigError: names file, table, key, value and bound.
        """
        path = Path(path)
        top = Table(path, "", read_toml(path))
        driven = () if top.values.keys().isdisjoint(("policy", "camera")) else ("policy", "camera")
        top.check_keys(("robot", "bus", *driven), ("control", "estop", "session", "recording", "kinematics"))
        base = path.parent

        robot = top.table("robot")
        robot.check_keys(("embodiment",), ("calibration", "unit", "accept_drop"))
        embodiment = robot.text("embodiment")
        if embodiment.endswith(".toml") or "/" in embodiment:
            embodiment = str(base / embodiment)
        if ("calibration" in robot.values) == ("unit" in robot.values):
            raise robot.fail("calibration", "and unit: exactly one of them must be given")
        if "unit" in robot.values:
            calibration = calibration_path(Path(embodiment).stem, robot.text("unit"))
        else:
            calibration = base / robot.text("calibration")

        control = top.table("control")
        control.check_keys((), ("rate_hz",))
        rate_hz = control.number("rate_hz", 200.0)
        if not 20 <= rate_hz <= 1000:
            raise control.fail("rate_hz", f"is {rate_hz:g}, must be 20..1000")

        cameras = _cameras(top) if driven else {}
        policy = top.table("policy")
        options = ("resolution", "horizon", "step", "statistics", "num_steps", "attention", "time_grid")
        variant = (
            "time_scale",
            "state_bins",
            "masked",
            "camera_labels",
            "has_embodied_prologue",
            "is_whole_state_told",
        )
        ours = ("rope_layout", "execute_rows", "max_first_step", "seed")
        engine = ("precision", "device", "threads", "cores")
        policy.check_keys(("checkpoint",) if driven else (), (*options, *variant, *ours, *engine))
        defaults = PolicyConfig()
        step = policy.positive("step", "s", defaults.step)
        if step > 1:
            raise policy.fail("step", f"is {step:g} s, must be at most 1 s")
        time_grid = policy.choice("time_grid", ("intervals", "legacy"), defaults.time_grid)
        horizon = policy.integer("horizon", 2, 128) if "horizon" in policy.values else None
        config = PolicyConfig(
            cameras=tuple(cameras) or defaults.cameras,
            resolution=_resolution(policy, tuple(cameras)),
            horizon=horizon,
            step=step,
            statistics=policy.text("statistics") if "statistics" in policy.values else None,
            num_steps=policy.integer("num_steps", 2 if time_grid == "legacy" else 1, 1000, defaults.num_steps),
            attention=cast(
                Any, policy.choice("attention", ("checkpoint", "bidirectional", "causal"), defaults.attention)
            ),
            time_grid=cast(Any, time_grid),
            rope_layout=cast(Any, policy.choice("rope_layout", ("hf", "contiguous"), defaults.rope_layout)),
            time_scale=policy.positive("time_scale", "") if "time_scale" in policy.values else None,
            state_bins=policy.integer("state_bins", 2, 65536) if "state_bins" in policy.values else None,
            is_whole_state_told="is_whole_state_told" in policy.values and policy.flag("is_whole_state_told"),
            masked=_names(policy, "masked"),
            camera_labels=_labels(policy, tuple(cameras)),
            has_embodied_prologue=(
                policy.flag("has_embodied_prologue") if "has_embodied_prologue" in policy.values else None
            ),
            seed=policy.integer("seed", 0, 2**63 - 1, defaults.seed),
        )
        return cls(
            path=path,
            embodiment=embodiment,
            accept_drop=robot.flag("accept_drop") if "accept_drop" in robot.values else None,
            calibration=calibration,
            bus=read_bus(top.table("bus"), base, rate_hz),
            rate_hz=rate_hz,
            estop=_button(top.table("estop")) if "estop" in top.values else None,
            policy=config,
            session=_session(
                top.table("session"),
                policy.integer("execute_rows", 1, horizon or 128) if "execute_rows" in policy.values else None,
            ),
            computing=_computing(policy),
            max_first_step=policy.positive("max_first_step", "rad", 0.5),
            recording=_recording(top.table("recording"), base),
            cameras=cameras,
            folder=base / policy.text("checkpoint") if driven else None,
            kinematics=top.table("kinematics") if "kinematics" in top.values else None,
        )

    @contextmanager
    def open_cameras(self) -> Iterator[dict[str, Camera]]:
        """Opens every camera, by role; closes them at the end. Blocks until each has a frame.

        Raises:
            ConfigError: a file or folder that is not what its table says.
            DeviceError: a camera that does not open.
        """
        with ExitStack() as stack:
            cameras: dict[str, Camera] = {}
            for role, table in self.cameras.items():
                try:
                    camera = camera_opener(table)()
                except ConfigError as error:
                    raise ConfigError(f"{self.path}: {error}") from error
                cameras[role] = stack.enter_context(camera)
            yield cameras


def _recording(table: Table, base: Path) -> tuple[Path, int] | None:
    table.check_keys((), ("enabled", "folder", "max_mib"))
    max_bytes = table.integer("max_mib", 32, 1 << 20, 2048) << 20
    if "folder" in table.values:
        folder = base / table.text("folder")
    else:
        state = os.environ.get("XDG_STATE_HOME", "")
        folder = (Path(state) if Path(state).is_absolute() else Path.home() / ".local/state") / "wallx-edge/recordings"
    return (folder, max_bytes) if table.flag("enabled", True) else None


def _session(table: Table, execute_rows: int | None) -> SessionConfig:
    defaults = SessionConfig()
    seconds = ("reason_every", "max_answer_age", "stall_after", "frozen_after", "state_delay")
    numbers = (*seconds, "still", "max_guidance")
    table.check_keys((), ("mode", "reason", "roll_forward", "camera_delay", "max_tokens", "done_chunks", *numbers))
    delays = table.table("camera_delay")
    return SessionConfig(
        mode=cast(Any, table.choice("mode", MODES, defaults.mode)),
        reason=cast(Any, table.choice("reason", REASONS, defaults.reason)),
        execute_rows=execute_rows,
        roll_forward=table.flag("roll_forward") if "roll_forward" in table.values else defaults.roll_forward,
        camera_delay={role: delays.number(role) for role in delays.values},
        max_tokens=table.integer("max_tokens", 1, 4096, defaults.max_tokens),
        done_chunks=table.integer("done_chunks", 1, 1000, defaults.done_chunks),
        **{key: table.number(key, getattr(defaults, key)) for key in numbers},
    )


def _computing(policy: Table) -> Computing:
    cores = policy.values.get("cores", [])
    if not isinstance(cores, list) or not all(type(core) is int and 0 <= core < 4096 for core in cores):
        raise policy.fail("cores", f"is {cores!r:.60}, must be a list of numbers of this computer's cores")
    return Computing(
        precision=policy.choice("precision", _core.precisions()) if "precision" in policy.values else "",
        device=policy.choice("device", DEVICES, "auto"),
        threads=policy.integer("threads", 0, 256, 0),
        cores=tuple(cores),
    )


def _button(estop: Table) -> tuple[str, int, bool]:
    estop.check_keys(("gpio_chip", "gpio_line"), ("active",))
    active = estop.choice("active", ("low", "high"), "low")
    return estop.text("gpio_chip"), estop.integer("gpio_line", 0, 1023), active == "low"


def _resolution(policy: Table, cameras: tuple[str, ...]) -> int | dict[str, int] | None:
    """One number for all cameras, or a table with one per role."""

    def side(table: Table, key: str) -> int:
        value = table.integer(key, -1, 4096)
        if value == 0:
            raise table.fail(key, "is 0, must be 1..4096, or -1 for no resize")
        return value

    if "resolution" not in policy.values:
        return None
    if not isinstance(policy.values["resolution"], Mapping):
        return side(policy, "resolution")
    each = policy.table("resolution")
    each.check_keys((), cameras)
    return {role: side(each, role) for role in each.values}


def _names(table: Table, key: str) -> tuple[str, ...]:
    names = table.values.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise table.fail(key, f"is {names!r}, must be a list of slot names")
    return tuple(names)


def _labels(policy: Table, cameras: tuple[str, ...]) -> dict[str, str] | None:
    """What the prompt calls a camera, by role; an empty table: every camera by its bare role."""
    if "camera_labels" not in policy.values:
        return None
    labels = policy.table("camera_labels")
    labels.check_keys((), cameras)
    return {role: labels.text(role) for role in labels.values}


def _cameras(top: Table) -> dict[str, Table]:
    tables = top.values["camera"]
    if not isinstance(tables, list) or not tables:
        raise top.fail("camera", "must be one or more [[camera]] tables")
    cameras: dict[str, Table] = {}
    for i, values in enumerate(tables):
        table = Table(top.file, f"camera[{i}]", values if isinstance(values, Mapping) else {})
        role = table.text("role")
        if role in cameras:
            raise table.fail("role", f"is {role!r}, which another camera has")
        camera_opener(table)
        cameras[role] = table
    return cameras
