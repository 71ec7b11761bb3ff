"""Cameras: the newest picture of a device, a video file, a folder of pictures or a drawn scene."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wallx_edge.errors import ConfigError, DeviceError
from wallx_edge.scene import PATTERN_SIDE, pattern
from wallx_edge.shared_frames import FrameReader
from wallx_edge.tables import Table

__all__ = [
    "Camera",
    "FolderCamera",
    "Frame",
    "OpenCvCamera",
    "PatternCamera",
    "SharedCamera",
    "VideoCamera",
    "camera_opener",
    "pattern",
]

MAX_AGE = 0.5  # a frame older than this is not what the robot sees   [s]
FIRST_FRAME = 5.0  # how long a device may take to its first frame    [s]
RETRY = 0.05  # pause of the device's thread after a failed frame     [s]

Clock = Callable[[], float]
_C = TypeVar("_C", bound="Camera")


class Frame(NamedTuple):
    """One picture."""

    image: NDArray[np.uint8]  # RGB   (height, width, 3)
    captured_at: float  # CLOCK_MONOTONIC [s]


class Camera(Protocol):
    """Where pictures come from; a context manager that closes it. One thread at a time calls it.

    Attributes:
        name: for messages, by habit the camera's role.
    """

    name: str

    @abstractmethod
    def read(self) -> Frame:
        """The newest frame.

        Raises:
            DeviceError: the newest frame is older than the camera's ``max_age``, or the camera is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Lets go of device, file and thread; may be called again."""

    def __enter__(self: _C) -> _C:
        """The camera itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()


def _fresh(name: str, frame: Frame, now: float, max_age: float, reason: str) -> Frame:
    age = now - frame.captured_at
    if age > max_age:
        raise DeviceError(f"camera {name!r}: the newest frame is {age:.2f} s old, max_age is {max_age} s: {reason}")
    return frame


def _closed(name: str) -> DeviceError:
    return DeviceError(f"camera {name!r} is closed")


class OpenCvCamera(Camera):
    """A device that OpenCV opens; its own thread keeps the newest frame; ``read`` never waits."""

    def __init__(
        self,
        name: str,
        capture: Any,
        *,
        max_age: float = MAX_AGE,
        first_frame: float = FIRST_FRAME,
        clock: Clock = time.monotonic,
    ) -> None:
        """Starts the thread and blocks until the first frame.

        Args:
            name: for messages.
            capture: an open ``cv2.VideoCapture``; the camera owns it from now on.
            max_age: oldest frame that ``read`` returns [s]
            first_frame: longest wait for the first frame [s]
            clock: CLOCK_MONOTONIC [s]

        Raises:
            DeviceError: no frame in time.
        """
        self.name = name
        self._capture = capture
        self._max_age = max_age
        self._clock = clock
        self._lock = threading.Lock()
        self._newest: Frame | None = None
        self._reason = "the device is silent"
        self._answered = threading.Event()  # the first frame, or the end of the thread
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"camera {name}", daemon=True)
        self._thread.start()
        self._answered.wait(first_frame)
        with self._lock:
            newest, reason = self._newest, self._reason
        if newest is None:
            self.close()
            raise DeviceError(f"camera {name!r}: no first frame within {first_frame} s: {reason}")

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                reason = self._take()
                with self._lock:
                    self._reason = reason or "the device is silent"
                if reason:
                    self._stop.wait(RETRY)  # a device may come back; do not spin until it does
        except Exception as error:  # whatever a capture backend throws is read()'s to tell
            with self._lock:
                self._reason = f"{type(error).__name__}: {error}"
        self._answered.set()

    def _take(self) -> str:
        """Takes one frame from the device; says what was wrong, if anything was."""
        if not self._capture.grab():
            return "the device gives no frame; check its cable"
        captured_at = self._clock()
        ok, image = self._capture.retrieve()
        if not ok or image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            return "the device gives frames that are no colour pictures"
        frame = Frame(np.ascontiguousarray(image[:, :, ::-1]), captured_at)  # opencv gives BGR
        with self._lock:
            self._newest = frame
        self._answered.set()
        return ""

    def read(self) -> Frame:
        """The newest frame. Does not wait for the device.

        Raises:
            DeviceError: the newest frame is older than ``max_age``, or the camera is closed.
        """
        if self._stop.is_set():
            raise _closed(self.name)
        with self._lock:
            frame, reason = self._newest, self._reason
        assert frame is not None  # the constructor waited for it
        return _fresh(self.name, frame, self._clock(), self._max_age, reason)

    def close(self) -> None:
        """Ends the thread and releases the device; waits for the call under way (up to 10 s with V4L2)."""
        self._stop.set()
        self._thread.join()
        self._capture.release()


class VideoCamera(Camera):
    """A video file, played at its own rate from the moment it is opened; frames not asked for are skipped."""

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        loop: bool = False,
        max_age: float = MAX_AGE,
        clock: Clock = time.monotonic,
    ) -> None:
        """Opens the file and decodes its first frame. Blocks for that.

        Args:
            name: for messages.
            path: the video.
            loop: whether it begins again at its end; otherwise it stops like a camera that stops.
            max_age: oldest frame that ``read`` returns [s]
            clock: CLOCK_MONOTONIC [s]

        Raises:
            ConfigError: no such file, not a video, or a rate too low for ``max_age``.
            DeviceError: OpenCV is not installed.
        """
        self.name = name
        self._path = Path(path)
        self._loop = loop
        self._max_age = max_age
        self._clock = clock
        self._cv2 = _import_cv2(name)
        if not self._path.is_file():
            raise ConfigError(f"camera {name!r}: no such file: {self._path}")
        self._capture = self._cv2.VideoCapture(str(self._path))
        try:
            self._rate = float(self._capture.get(self._cv2.CAP_PROP_FPS))
            if not self._capture.grab() or not math.isfinite(self._rate) or self._rate <= 0:
                raise ConfigError(f"camera {name!r}: not a video that OpenCV can read: {self._path}")
            _check_rate(name, self._rate, max_age)
            self._position = 0  # number in the file of the frame grabbed last
            self._length: int | None = None  # frames in the file, known once its end was seen
            self._shown = (0, self._decode())
            self._started = clock()
        except BaseException:
            self._capture.release()
            raise
        self._is_closed = False

    def read(self) -> Frame:
        """The frame that is due now. Blocks while the file is decoded up to it.

        Raises:
            DeviceError: the video ended more than ``max_age`` ago, it is damaged, or the camera is closed.
        """
        if self._is_closed:
            raise _closed(self.name)
        now = self._clock()
        due = self._seek(math.floor((now - self._started) * self._rate))
        if self._position != self._shown[0]:
            self._shown = (self._position, self._decode())
        frame = Frame(self._shown[1], self._started + due / self._rate)
        return _fresh(self.name, frame, now, self._max_age, f"{self._path} has ended")

    def _seek(self, due: int) -> int:
        """Grabs the frame that is due, counted from the start; where the video has ended, the last one."""
        while True:
            target = due
            if self._length is not None:
                due = due if self._loop else min(due, self._length - 1)
                target = due % self._length
            if target < self._position:
                self._rewind()
            while self._position < target and self._capture.grab():
                self._position += 1
            if self._position == target:
                return due
            self._length = self._position + 1
            self._position = self._length  # nothing is grabbed now: wherever it goes on, from the start

    def _rewind(self) -> None:
        # opened again, because seeking is not exact in every container
        self._capture.release()
        self._capture = self._cv2.VideoCapture(str(self._path))
        if not self._capture.grab():
            raise DeviceError(f"camera {self.name!r}: cannot be read again: {self._path}")
        self._position = 0

    def _decode(self) -> NDArray[np.uint8]:
        ok, image = self._capture.retrieve()
        if not ok or image is None or image.ndim != 3:
            raise DeviceError(f"camera {self.name!r}: frame {self._position} of {self._path} is damaged")
        return np.ascontiguousarray(image[:, :, ::-1])

    def close(self) -> None:
        """Closes the file; may be called again."""
        self._is_closed = True
        self._capture.release()


class FolderCamera(Camera):
    """The PNG and JPEG pictures of a folder, sorted by name, at a given rate."""

    def __init__(
        self,
        name: str,
        path: str | Path,
        *,
        rate: float = 10.0,
        loop: bool = True,
        max_age: float = MAX_AGE,
        clock: Clock = time.monotonic,
    ) -> None:
        """Looks at every picture once, so that a damaged one is found now. Blocks for that.

        Args:
            name: for messages.
            path: the folder; files whose names begin with a dot are passed over.
            rate: pictures per second [1/s]
            loop: whether the first follows the last; otherwise it stops like a camera that stops.
            max_age: oldest frame that ``read`` returns [s]
            clock: CLOCK_MONOTONIC [s]

        Raises:
            ConfigError: no folder, nothing in it, a file that is no picture, a rate too low for ``max_age``.
        """
        self.name = name
        self._path = Path(path)
        self._rate = rate
        self._loop = loop
        self._max_age = max_age
        self._clock = clock
        _check_rate(name, rate, max_age)
        if not self._path.is_dir():
            raise ConfigError(f"camera {name!r}: no such folder: {self._path}")
        self._files = sorted(file for file in self._path.iterdir() if not file.name.startswith("."))
        if not self._files:
            raise ConfigError(f"camera {name!r}: no pictures in {self._path}")
        for file in reversed(self._files):
            image = _load_picture(name, file)
        self._shown = (0, image)
        self._is_closed = False
        self._started = clock()

    def read(self) -> Frame:
        """The picture that is due now. Blocks while it is decoded.

        Raises:
            ConfigError: the picture was damaged since the camera was opened.
            DeviceError: the pictures ended more than ``max_age`` ago, or the camera is closed.
        """
        if self._is_closed:
            raise _closed(self.name)
        now = self._clock()
        due = math.floor((now - self._started) * self._rate)
        if not self._loop:
            due = min(due, len(self._files) - 1)
        index = due % len(self._files)
        if index != self._shown[0]:
            self._shown = (index, _load_picture(self.name, self._files[index]))
        frame = Frame(self._shown[1], self._started + due / self._rate)
        return _fresh(self.name, frame, now, self._max_age, f"the pictures of {self._path} have ended")

    def close(self) -> None:
        """Nothing is open; ``read`` refuses from now on."""
        self._is_closed = True


class PatternCamera(Camera):
    """The drawn scene of :func:`pattern`, by the clock."""

    def __init__(
        self,
        name: str,
        *,
        width: int = 640,
        height: int = 480,
        seed: int = 0,
        clock: Clock = time.monotonic,
    ) -> None:
        """Draws its first picture, to find an impossible size now.

        Args:
            name: for messages.
            width: [pixels]
            height: [pixels]
            seed: of the colours.
            clock: CLOCK_MONOTONIC [s]

        Raises:
            ConfigError: a size that cannot be drawn.
        """
        self.name = name
        self._size = (width, height)
        self._seed = seed
        self._clock = clock
        self._started = clock()
        self._is_closed = False
        pattern(0.0, width, height, seed)

    def read(self) -> Frame:
        """The scene as it is now. Blocks while it is drawn.

        Raises:
            DeviceError: the camera is closed.
        """
        if self._is_closed:
            raise _closed(self.name)
        now = self._clock()
        return Frame(pattern(now - self._started, *self._size, self._seed), now)

    def close(self) -> None:
        """Nothing is open; ``read`` refuses from now on."""
        self._is_closed = True


class SharedCamera(Camera):
    """Pictures that another process writes to shared memory, such as a simulated robot's."""

    def __init__(self, name: str, path: Path, *, max_age: float = MAX_AGE, clock: Clock = time.monotonic) -> None:
        """Blocks until the first picture, for up to 5 s.

        Args:
            name: the channel's, by habit the camera's role.
            path: file of the frames.
            max_age: oldest frame that ``read`` returns [s]
            clock: CLOCK_MONOTONIC [s]

        Raises:
            ConfigError: what is written there is no picture of this name.
            DeviceError: nobody writes there.
        """
        self.name = name
        self._path = path
        self._max_age = max_age
        self._clock = clock
        self._reader = FrameReader(path)
        try:
            shape = self._reader.shape(name)
            if len(shape) != 3 or shape[2] != 3:
                raise ConfigError(f"camera {name!r}: {path} has no pictures of that name, but an array of {shape}")
            deadline = clock() + FIRST_FRAME
            while self._reader.newest(name) is None:
                if clock() > deadline:
                    raise DeviceError(f"camera {name!r}: {path} had no picture within {FIRST_FRAME:g} s")
                time.sleep(0.005)
        except BaseException:
            self._reader.close()
            raise
        self._is_closed = False

    def read(self) -> Frame:
        """The newest picture. Does not wait.

        Raises:
            DeviceError: it is older than ``max_age``, or the camera is closed.
        """
        if self._is_closed:
            raise _closed(self.name)
        found = self._reader.newest(self.name)
        assert found is not None  # the constructor waited for it
        frame = Frame(found.array, found.captured_at)
        return _fresh(self.name, frame, self._clock(), self._max_age, f"nobody writes to {self._path} any more")

    def close(self) -> None:
        """Lets go of the memory; may be called again."""
        self._is_closed = True
        self._reader.close()


def camera_opener(table: Table, *, clock: Clock = time.monotonic) -> Callable[[], Camera]:
    """Checks a ``[[camera]]`` table of a configuration file, and opens nothing.

    ========= ==================================================================================
    kind      keys (and their values when left out)
    ========= ==================================================================================
    opencv    device: number or path; width, height [pixels], fps [1/s]: asked of the device;
              max_age (0.5) [s]
    video     path; loop (false); max_age (0.5) [s]
    folder    path; rate (10.0) [1/s]; loop (true); max_age (0.5) [s]
    pattern   width (640), height (480) [pixels]; seed (0)
    shared    path: of the frames that a simulated robot writes, by role; max_age (0.5) [s]
    ========= ==================================================================================

    Args:
        table: with ``role`` and ``kind``; a relative path starts from the folder of the table's file.
        clock: CLOCK_MONOTONIC [s]

    Returns:
        what opens the camera and blocks until its first frame. It raises ConfigError for a file or folder that is
        not usable, and DeviceError for a device that does not open, or when OpenCV is not installed.

    Raises:
        ConfigError: unknown kind or key, a value of the wrong type or out of its bounds.
    """
    role = table.text("role")
    kind = table.choice("kind", tuple(_KEYS))
    required, optional = _KEYS[kind]
    table.check_keys(("role", "kind", *required), optional)
    max_age = table.positive("max_age", "s", MAX_AGE)
    if kind == "opencv":
        device = table.values["device"]
        if isinstance(device, str):
            device = table.text("device")
        else:
            device = table.integer("device", 0, 255)
        wanted = {
            key: table.positive(key, unit)
            for key, unit in (("width", "pixels"), ("height", "pixels"), ("fps", "frames per second"))
            if key in table.values
        }
        return partial(_open_device, role, device, wanted, max_age, clock)
    if kind == "pattern":
        return partial(
            PatternCamera,
            role,
            width=table.integer("width", *PATTERN_SIDE, 640),
            height=table.integer("height", *PATTERN_SIDE, 480),
            seed=table.integer("seed", 0, 2**63 - 1, 0),
            clock=clock,
        )
    path = table.file.parent / table.text("path")
    if kind == "video":
        return partial(VideoCamera, role, path, loop=table.flag("loop", False), max_age=max_age, clock=clock)
    if kind == "shared":
        return partial(SharedCamera, role, path, max_age=max_age, clock=clock)
    rate = table.positive("rate", "pictures per second", 10.0)
    _check_rate(role, rate, max_age)
    return partial(FolderCamera, role, path, rate=rate, loop=table.flag("loop", True), max_age=max_age, clock=clock)


# kind -> keys it needs, keys it may have
_KEYS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "opencv": (("device",), ("width", "height", "fps", "max_age")),
    "video": (("path",), ("loop", "max_age")),
    "folder": (("path",), ("rate", "loop", "max_age")),
    "pattern": ((), ("width", "height", "seed")),
    "shared": (("path",), ("max_age",)),
}


def _open_device(name: str, device: int | str, wanted: Mapping[str, float], max_age: float, clock: Clock) -> Camera:
    cv2 = _import_cv2(name)
    if isinstance(device, str) and not Path(device).exists():
        raise DeviceError(f"camera {name!r}: no such device: {device}")
    capture = cv2.VideoCapture(device)
    if not capture.isOpened():
        capture.release()
        raise DeviceError(f"camera {name!r}: device {device!r} does not open; is it connected and not in use?")
    properties = {
        "width": cv2.CAP_PROP_FRAME_WIDTH,
        "height": cv2.CAP_PROP_FRAME_HEIGHT,
        "fps": cv2.CAP_PROP_FPS,
    }
    for key, value in wanted.items():
        capture.set(properties[key], value)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not the oldest of a queue
    return OpenCvCamera(name, capture, max_age=max_age, clock=clock)


def _check_rate(name: str, rate: float, max_age: float) -> None:
    if not rate > 0 or 1 / rate > max_age:
        raise ConfigError(
            f"camera {name!r}: at {rate:g} pictures per second a frame gets older than max_age {max_age} s "
            "before the next one comes; raise the rate or max_age"
        )


def _load_picture(name: str, file: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as picture:
            if picture.mode not in ("RGB", "RGBA", "L", "LA", "P", "1"):
                raise ConfigError(f"camera {name!r}: {file} has the colour mode {picture.mode}, expected 8-bit RGB")
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ConfigError(f"camera {name!r}: {file} is not a PNG or JPEG picture: {error}") from error


def _import_cv2(name: str) -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise DeviceError(
            f"camera {name!r}: this kind of camera needs OpenCV: pip install 'wallx-edge[camera]'"
        ) from error
