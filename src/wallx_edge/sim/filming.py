"""Filming: shows a running emulated arm's world to other processes: its cameras' pictures, and where everything is."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

from wallx_edge._emulator import ArmEmulator
from wallx_edge.errors import ConfigError
from wallx_edge.shared_frames import FrameReader, FrameWriter
from wallx_edge.sim.world import World

__all__ = ["STATE", "Filming", "MirroredWorld"]

STATE = "state"  # the channel of everything's positions, beside one for each camera's role


class Filming:
    """Draws what the cameras see, at a rate, on a thread of its own; a picture that takes longer delays the next.

    Attributes:
        error: what ended the thread; it has sent SIGTERM to its process then.
    """

    def __init__(self, arm: ArmEmulator, shown: World, path: Path, rate_hz: float) -> None:
        """Makes the file of the frames and starts.

        Args:
            arm: started, in a world of the same spec.
            shown: a copy of that world, which this thread alone uses from now on.
            path: of the frames, see :class:`FrameWriter`.
            rate_hz: of the pictures [1/s].

        Raises:
            ConfigError: a rate out of its bounds.
            DeviceError: the file cannot be made.
        """
        if not 1 <= rate_hz <= 240:
            raise ConfigError(f"--fps is {rate_hz:g}, expected 1 to 240 pictures a second")
        channels = {c.role: ((c.height, c.width, 3), "uint8") for c in shown.spec.cameras}
        self._writer = FrameWriter(path, {**channels, STATE: ((int(shown.model.nq),), "float64")})
        self._arm, self._shown, self._period = arm, shown, 1 / rate_hz
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="filming")
        self._thread.start()

    def close(self) -> None:
        """Ends the thread and removes the file."""
        self._stop.set()
        self._thread.join()
        self._writer.close()

    def _work(self) -> None:
        try:
            self._film()
        except Exception as error:  # said by whoever closes it; a robot without eyes is none to go on with
            self.error = error
            os.kill(os.getpid(), signal.SIGTERM)

    def _film(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            at_ns, state = self._arm.world_state()
            self._shown.show(state)
            self._writer.write(STATE, state, at_ns)
            for camera in self._shown.spec.cameras:
                self._writer.write(camera.role, self._shown.picture(camera), at_ns)
            due = max(due + self._period, time.monotonic())
            self._stop.wait(max(0.0, due - time.monotonic()))


class MirroredWorld:
    """A copy of a world that lives in another process, as it was filmed last."""

    def __init__(self, world: World, path: Path) -> None:
        """Maps the frames.

        Args:
            world: of the same spec; only this uses it from now on.
            path: of the frames.

        Raises:
            DeviceError: nobody writes there.
        """
        self.world = world
        self._reader = FrameReader(path)

    def refresh(self) -> float | None:
        """Puts everything where it was filmed last; its time [s], ``None`` before the first."""
        found = self._reader.newest(STATE)
        if found is None:
            return None
        self.world.show(found.array)
        return found.captured_at

    def close(self) -> None:
        """Lets go of the frames."""
        self._reader.close()
