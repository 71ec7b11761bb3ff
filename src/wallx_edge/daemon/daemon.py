"""Daemon: owns bus, loop, policy, recording and socket of one robot for as long as it runs."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from types import TracebackType
from typing import Any, ClassVar

from wallx_edge import __version__
from wallx_edge.cameras import Camera
from wallx_edge.daemon.notify import Notifier
from wallx_edge.daemon.server import Handler, Reply, Server
from wallx_edge.errors import ConfigError, SafetyStop, WallxError
from wallx_edge.policy import Policy
from wallx_edge.recording import Description, Recorder, Segments
from wallx_edge.recording.topics import CAMERA, CHUNK, DECISION, FAULT, LOOP, OBSERVATION
from wallx_edge.robot import Robot, lateness_us
from wallx_edge.robot_config import RobotConfig
from wallx_edge.safe_stop import daemon_socket_path, stop_file_path
from wallx_edge.session import Moment, Session, SessionStatus
from wallx_edge.session.recorded import tell_recorder

__all__ = ["Daemon"]

log = logging.getLogger(__name__)

TICK = 0.05  # between looks at an idle robot [s]
ASK_TIMEOUT = 30.0  # for an answer [s]


class Daemon(Handler):
    """Everything that runs while a robot is connected. A context manager: entering connects, leaving holds.

    :meth:`run` is one session in the foreground; :meth:`serve` waits for tasks, and outlives faults that can be reset.
    """

    verbs: ClassVar = {
        "status": False,
        "task": True,
        "subtask": None,
        "ask": True,
        "pause": False,
        "resume": False,
        "reset": False,
        "stop": False,
    }
    moving: ClassVar = frozenset({"task", "subtask", "ask", "resume", "reset"})

    def __init__(self, config: RobotConfig, owner: str = "", notifier: Notifier | None = None) -> None:
        """Opens nothing yet.

        Args:
            config: of the robot.
            owner: who has control of the socket from the start, such as a console; empty: the first client that asks.
            notifier: of the service manager.
        """
        self._config = config
        self._owner = owner
        self._notifier = notifier or Notifier({})
        self._stack = ExitStack()
        self._begin = time.monotonic()
        self._lock = threading.Lock()
        self._task: str | None = None  # given, not begun
        self._session: Session | None = None  # the newest
        self._is_running = False
        self._error = ""  # of the last session
        self._is_over = threading.Event()
        self._news = threading.Event()
        self._worker: threading.Thread | None = None
        self._is_leaving = threading.Event()

    def __enter__(self) -> Daemon:
        """Loads the policy, opens cameras, connects the robot, records and listens. Moves nothing. Blocks.

        Raises:
            ConfigError, CheckpointError, CalibrationError: a file is wrong.
            BusError, DeviceError: robot, camera or socket cannot be opened.
        """
        config, stack = self._config, self._stack
        try:
            self.policy = Policy.load(config.checkpoint, config.policy, **asdict(config.computing))
            self.cameras: dict[str, Camera] = stack.enter_context(config.open_cameras())
            self.robot = stack.enter_context(Robot.connect(config))
            self.recorder = self._record()
            if self.recorder is not None:
                stack.enter_context(self.recorder)
            stack.callback(self._join_worker)
            self.server = Server(daemon_socket_path(config.bus.port), self, self._owner)
            stack.enter_context(self.server)
            self._link_stop_file()
            heart = threading.Thread(target=self._beat, name="heart")
            heart.start()
            stack.callback(heart.join)
            stack.callback(self._is_leaving.set)
        except BaseException:
            stack.close()
            raise
        self._notifier.ready("connected, waiting for a task")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Brakes to rest, closes everything, joins every thread. Blocks."""
        self._notifier.stopping()
        self._stack.close()

    def stop(self) -> None:
        """Ends :meth:`run` or :meth:`serve`: the robot brakes at once and holds. From any thread or signal handler."""
        self._is_over.set()
        self._news.set()
        session = self._session
        if session is not None:
            session.stop()

    def run(
        self, task: str, duration: float | None = None, on_tick: Callable[[SessionStatus], None] | None = None
    ) -> bool:
        """One session: acts until the time is over or :meth:`stop`. Blocks.

        Args:
            task: the instruction.
            duration: how long to ask for new chunks [s]; without it, until :meth:`stop`.
            on_tick: called about every 50 ms on this thread.

        Returns:
            whether the time was used up.

        Raises:
            WallxError: as :meth:`wallx_edge.session.Session.run`; the robot holds.
        """
        return self._play(task, duration, on_tick)

    def serve(self) -> None:
        """Waits for tasks and does them until :meth:`stop`. Blocks.

        A session that ends by an error leaves the robot holding and the daemon waiting; :attr:`status` has the error.
        After a fault or an e-stop, ``reset`` must come before another task.

        Raises:
            SafetyStop: the bus is closed: there is nothing left to own.
        """
        while not self._is_over.is_set():
            self._news.wait(TICK)
            self._news.clear()
            with self._lock:
                task, self._task = self._task, None
            try:
                if task is None:
                    self._check()
                elif not self._is_over.is_set():
                    self._play(task, None, None)
                    self._error = ""
            except WallxError as error:
                self._error = str(error)
                log.error("%s", self._error)
                self._check()

    def infer(self, task: str) -> Session:
        """A session for a dry run: it is not run, and moves nothing."""
        return self._make_session(task)

    @property
    def status(self) -> dict[str, Any]:
        """What it does now, in types of JSON. Does not wait."""
        report = self.robot.loop.fault_report()
        counters, lateness = self.robot.loop.counters(), self.robot.loop.lateness_histogram()
        recording = self.recorder.status if self.recorder else None
        session = self._session
        told = session.status().as_json() if session is not None else None
        return {
            "version": __version__,
            "pid": os.getpid(),
            "robot": self.robot.embodiment.name,
            "file": str(self._config.path),
            "state": self._state(told, report is not None),
            "uptime": time.monotonic() - self._begin,
            "error": report["message"] if report else self._error,
            **self.server.status,
            "loop": {
                "state": self.robot.loop.state,
                "ticks": counters["ticks"],
                "overruns": counters["overruns"],
                "late_p50_us": lateness_us(lateness, 0.5),
                "late_p99_us": lateness_us(lateness, 0.99),
                "limited_ticks": counters["limited_ticks"],
            },
            "session": told,
            "recording": None
            if recording is None
            else {
                "path": str(recording.path),
                "messages": recording.messages,
                "dropped": recording.dropped,
                "error": recording.error,
            },
        }

    def handle(self, verb: str, text: str, reply: Reply) -> Mapping[str, Any] | None:
        """See :class:`~wallx_edge.daemon.server.Handler`; the verbs are told in docs/daemon.md."""
        if verb == "status":
            return self.status
        if verb == "stop":
            self.stop()
            return {}
        if verb == "reset":
            self._later(verb, self._reset, reply)
            return None
        if verb == "task":
            return self._give(text)
        session = self._session
        if session is None or not self._is_running:
            raise ConfigError(f"{verb}: no session runs; give a task first")
        if verb == "pause":
            session.pause()
        elif verb == "resume":
            session.resume()
        elif verb == "subtask":
            session.set_subtask(text or None)
        elif verb == "ask":
            self._later(verb, lambda: {"answer": session.ask(text, ASK_TIMEOUT)}, reply)
            return None
        return {}

    def _give(self, task: str) -> dict[str, Any]:
        report = self.robot.loop.fault_report()
        if report is not None:
            raise SafetyStop(f"{report['message']}; reset it first")
        session = self._session
        if session is not None and self._is_running:
            session.set_task(task)
            return {}
        if self._is_over.is_set():
            raise ConfigError("the daemon is stopping")
        with self._lock:
            self._task = task
        self._news.set()
        return {}

    def _reset(self) -> dict[str, Any]:
        if self._is_running:
            raise ConfigError("reset: a session runs; there is nothing to take back")
        self.robot.reset()
        self._error = ""
        return {}

    def _later(self, verb: str, work: Callable[[], Mapping[str, Any]], reply: Reply) -> None:
        """Does what takes its time on a thread of its own, one at a time."""
        if self._worker is not None and self._worker.is_alive():
            raise ConfigError(f"{verb}: another question or reset is not done yet")

        def run() -> None:
            try:
                reply(work())
            except WallxError as error:
                reply({"error": str(error)})

        self._worker = threading.Thread(target=run, name=verb)
        self._worker.start()

    def _join_worker(self) -> None:
        if self._worker is not None:
            self._worker.join()

    def _make_session(self, task: str) -> Session:
        return Session(self.policy, self.robot, self.cameras, task, config=self._config.session)

    def _play(self, task: str, duration: float | None, on_tick: Callable[[SessionStatus], None] | None) -> bool:
        session = self._make_session(task)
        forget = session.subscribe(self._keep)
        self._session, self._is_running = session, True
        try:
            if self._is_over.is_set():  # a stop between two lines
                session.stop()
            return session.run(duration, on_tick)
        finally:
            self._is_running = False
            forget()

    def _keep(self, moment: Moment) -> None:
        """Tells the recorder, which never waits."""
        if self.recorder is not None:
            tell_recorder(self.recorder, moment)

    def _record(self) -> Recorder | None:
        if self._config.recording is None:
            return None
        folder, max_bytes = self._config.recording
        topics = (LOOP, OBSERVATION, CHUNK, DECISION, FAULT, *(CAMERA + role for role in self.cameras))
        description = Description.of(self.robot.embodiment, self._config.rate_hz, 2 * self._config.max_first_step)
        metadata = description.metadata(
            {
                "version": __version__,
                "robot_toml": self._config.path.read_text(encoding="utf-8"),
                "checkpoint": str(self._config.checkpoint),
            }
        )
        segments = Segments(folder, self._config.path.stem, f"wallx-edge {__version__}", metadata, topics, max_bytes)
        return Recorder(segments, self.robot.loop)

    def _link_stop_file(self) -> None:
        """Names the stop file after the robot's file, for the unit's ExecStopPost."""
        stop_file = stop_file_path(self._config.bus.port)
        link = stop_file.with_name(f"{self._config.path.stem}.stop.json")
        part = link.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        part.symlink_to(stop_file.name)
        part.replace(link)

    def _check(self) -> None:
        """Raises when the robot cannot come back: a reset helps against any other fault."""
        report = self.robot.loop.fault_report()
        if report is not None and report["cause"]["reason"] == "bus closed":
            self.robot.check()

    def _state(self, session: Mapping[str, Any] | None, has_fault: bool) -> str:
        if self._is_over.is_set():
            return "stopping"
        if has_fault:
            return "fault"
        return str(session["state"]) if session and self._is_running else "idle"

    def _beat(self) -> None:
        """Feeds the service manager's watchdog while the loop counts."""
        notifier = self._notifier
        if notifier.period is None:
            return
        while not self._is_leaving.wait(notifier.period / 4):
            notifier.feed(self.robot.loop.counters()["ticks"])
