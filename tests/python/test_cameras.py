"""Cameras keep the newest frame, say when it is too old, and leave nothing open."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leaks import Snapshot
from wallx_edge.cameras import FolderCamera, OpenCvCamera, PatternCamera, VideoCamera, camera_opener, pattern
from wallx_edge.errors import ConfigError, DeviceError
from wallx_edge.tables import Table


class FakeClock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeCapture:
    """A ``cv2.VideoCapture`` whose frames the test hands out; None is a failed grab."""

    def __init__(self, *frames: Any) -> None:
        self.frames: queue.Queue[Any] = queue.Queue()
        self.asked = threading.Semaphore(0)  # one per grab that has begun
        self.is_released = False
        for frame in frames:
            self.frames.put(frame)

    def grab(self) -> bool:
        self.asked.release()
        self.frame = self.frames.get()
        if isinstance(self.frame, Exception):
            raise self.frame
        return self.frame is not None

    def retrieve(self) -> tuple[bool, Any]:
        return True, self.frame

    def release(self) -> None:
        self.is_released = True

    def hand(self, frame: Any) -> None:
        """Hands out a frame and waits until the camera has taken it and asks for the next."""
        self.frames.put(frame)
        assert self.asked.acquire(timeout=30)

    def end(self, camera: OpenCvCamera) -> None:
        """Closes the camera although its thread waits for a frame."""
        closer = threading.Thread(target=camera.close)
        closer.start()
        self.frames.put(None)
        closer.join()


def bgr(blue: int, green: int, red: int) -> Any:
    return np.full((4, 6, 3), (blue, green, red), np.uint8)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def device(clock: FakeClock) -> Iterator[tuple[OpenCvCamera, FakeCapture]]:
    """A camera that has given one frame, at 100.0 s, and waits for the next."""
    capture = FakeCapture(bgr(1, 2, 3))
    camera = OpenCvCamera("face_view", capture, clock=clock)
    for _ in range(2):
        assert capture.asked.acquire(timeout=30)
    yield camera, capture
    capture.end(camera)
    assert capture.is_released


def test_a_device_gives_rgb_and_the_time_of_capture(device: tuple[OpenCvCamera, FakeCapture], clock: FakeClock) -> None:
    clock.now = 100.4
    frame = device[0].read()
    assert frame.image[0, 0].tolist() == [3, 2, 1]
    assert frame.image.flags.c_contiguous
    assert frame.captured_at == 100.0


def test_only_the_newest_frame_is_kept(device: tuple[OpenCvCamera, FakeCapture], clock: FakeClock) -> None:
    camera, capture = device
    for i in range(5):
        clock.now += 0.1
        capture.hand(bgr(0, 0, 10 + i))
    frame = camera.read()
    assert frame.image[0, 0].tolist() == [14, 0, 0]
    assert frame.captured_at == pytest.approx(100.5)
    assert camera.read() is not None  # a frame may be read again


def test_a_silent_device_is_named_with_the_age_of_its_newest_frame(
    device: tuple[OpenCvCamera, FakeCapture], clock: FakeClock
) -> None:
    camera, capture = device
    clock.now = 100.5
    assert camera.read().captured_at == 100.0  # exactly max_age old
    clock.now = 100.75
    with pytest.raises(DeviceError, match=r"camera 'face_view': the newest frame is 0\.75 s old, max_age is 0\.5 s"):
        camera.read()
    capture.hand(bgr(0, 0, 9))  # and it may come back
    assert camera.read().captured_at == 100.75


def test_a_device_that_fails_says_why(device: tuple[OpenCvCamera, FakeCapture], clock: FakeClock) -> None:
    camera, capture = device
    capture.hand(None)
    clock.now = 101.0
    with pytest.raises(DeviceError, match=r"1\.00 s old.*gives no frame; check its cable"):
        camera.read()
    capture.hand(np.zeros((4, 6), np.uint8))
    with pytest.raises(DeviceError, match="no colour pictures"):
        camera.read()


def test_whatever_the_backend_throws_is_told_by_read(clock: FakeClock) -> None:
    capture = FakeCapture(bgr(1, 2, 3), RuntimeError("backend lost"))
    with OpenCvCamera("face_view", capture, clock=clock) as camera:
        camera._thread.join()
        clock.now = 101.0
        with pytest.raises(DeviceError, match="RuntimeError: backend lost"):
            camera.read()
    assert capture.is_released


def test_a_device_that_never_gives_a_frame_is_refused_and_released() -> None:
    capture = FakeCapture(RuntimeError("no such backend"))
    with pytest.raises(DeviceError, match=r"no first frame within 30 s: RuntimeError: no such backend"):
        OpenCvCamera("face_view", capture, first_frame=30)
    assert capture.is_released
    broken = FakeCapture(*[None] * 200)
    with pytest.raises(DeviceError, match=r"no first frame within 0\.01 s"):
        OpenCvCamera("face_view", broken, first_frame=0.01)
    assert broken.is_released


def test_a_closed_device_refuses_and_closes_again() -> None:
    capture = FakeCapture(*[bgr(1, 2, 3)] * 2, *[None] * 200)
    camera = OpenCvCamera("face_view", capture)
    camera.close()
    camera.close()
    with pytest.raises(DeviceError, match="'face_view' is closed"):
        camera.read()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames at 10 per second, grey 0, 25, 50, ... 225."""
    cv2 = pytest.importorskip("cv2")
    path = tmp_path_factory.mktemp("video") / "grey.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    assert writer.isOpened()
    for i in range(10):
        writer.write(np.full((48, 64, 3), 25 * i, np.uint8))
    writer.release()
    return path


def shade(camera: VideoCamera) -> int:
    return round(float(camera.read().image.mean()) / 25)


def test_a_video_plays_at_its_own_rate(video: Path, clock: FakeClock) -> None:
    with VideoCamera("face_view", video, clock=clock) as camera:
        assert shade(camera) == 0
        clock.now = 100.09
        assert shade(camera) == 0
        clock.now = 100.55
        assert shade(camera) == 5  # four were skipped
        assert camera.read().captured_at == pytest.approx(100.5)
        assert camera.read().image.shape == (48, 64, 3)


def test_a_video_that_ends_stops_like_a_camera(video: Path, clock: FakeClock) -> None:
    with VideoCamera("face_view", video, clock=clock) as camera:
        clock.now = 101.35
        assert shade(camera) == 9  # the last frame, still young enough
        assert camera.read().captured_at == pytest.approx(100.9)
        clock.now = 101.5
        with pytest.raises(DeviceError, match=r"'face_view': the newest frame is 0\.60 s old.*grey\.avi has ended"):
            camera.read()


def test_a_video_loops_on_request(video: Path, clock: FakeClock) -> None:
    with VideoCamera("face_view", video, loop=True, clock=clock) as camera:
        for now, expected in ((100.95, 9), (101.05, 0), (101.35, 3), (111.75, 7), (111.75, 7), (112.65, 6)):
            clock.now = now
            assert shade(camera) == expected
        assert camera.read().captured_at == pytest.approx(112.6)


def test_what_is_no_video_is_refused(tmp_path: Path, video: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file: .*missing\.avi"):
        VideoCamera("face_view", tmp_path / "missing.avi")
    (tmp_path / "text.avi").write_text("this is no video")
    with pytest.raises(ConfigError, match=r"not a video that OpenCV can read: .*text\.avi"):
        VideoCamera("face_view", tmp_path / "text.avi")
    with pytest.raises(ConfigError, match=r"10 pictures per second a frame gets older than max_age 0\.05 s"):
        VideoCamera("face_view", video, max_age=0.05)


def test_a_closed_video_lets_go_of_its_file_and_refuses(video: Path) -> None:
    before = Snapshot.take()
    camera = VideoCamera("face_view", video)
    assert any(video.name in left for left in before.left_since())
    camera.close()
    assert before.left_since() == []
    camera.close()
    with pytest.raises(DeviceError, match="'face_view' is closed"):
        camera.read()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate(("b.png", "a.png", "c.jpg")):
        Image.new("RGB", (8, 6), (0, 100 * i, 0)).save(tmp_path / name, quality=100)
    (tmp_path / ".hidden").write_text("not a picture")
    return tmp_path


def test_a_folder_shows_its_pictures_sorted_by_name(folder: Path, clock: FakeClock) -> None:
    with FolderCamera("face_view", folder, rate=10, clock=clock) as camera:
        seen = []
        for i in range(7):
            clock.now = 100.05 + 0.1 * i
            frame = camera.read()
            seen.append(round(int(frame.image[0, 0, 1]) / 100))
            assert frame.captured_at == pytest.approx(100 + 0.1 * i)
        assert seen == [1, 0, 2, 1, 0, 2, 1]


def test_a_folder_without_loop_stops_like_a_camera(folder: Path, clock: FakeClock) -> None:
    with FolderCamera("face_view", folder, rate=10, loop=False, clock=clock) as camera:
        clock.now = 100.65
        assert camera.read().image[0, 0, 1] == 200
        clock.now = 100.75
        with pytest.raises(DeviceError, match=r"'face_view': the newest frame is 0\.55 s old.*have ended"):
            camera.read()


def test_pictures_become_rgb(tmp_path: Path) -> None:
    Image.new("RGBA", (3, 2), (10, 20, 30, 0)).save(tmp_path / "a.png")
    with FolderCamera("face_view", tmp_path) as camera:
        image = camera.read().image
    assert (image.shape, image.dtype, image[0, 0].tolist()) == ((2, 3, 3), np.uint8, [10, 20, 30])


def test_a_file_that_is_no_picture_is_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(ConfigError, match=r"'face_view': .*notes\.txt is not a PNG or JPEG picture"):
        FolderCamera("face_view", folder)


def test_a_truncated_picture_is_named_when_the_camera_opens(folder: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "d.png")
    data = (folder / "d.png").read_bytes()
    (folder / "d.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match=r"d\.png is not a PNG or JPEG picture"):
        FolderCamera("face_view", folder)


def test_a_picture_of_another_depth_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ConfigError, match=r"deep\.png has the colour mode I;16, expected 8-bit RGB"):
        FolderCamera("face_view", tmp_path)


def test_an_unusable_folder_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        FolderCamera("face_view", tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no pictures in"):
        FolderCamera("face_view", tmp_path / "empty")
    with pytest.raises(ConfigError, match="raise the rate or max_age"):
        FolderCamera("face_view", folder, rate=1)
    with pytest.raises(ConfigError, match="raise the rate or max_age"):
        FolderCamera("face_view", folder, rate=float("nan"))


def test_the_pattern_is_a_pure_function() -> None:
    first = pattern(1.25, 160, 120, 3)
    assert (first.shape, first.dtype) == ((120, 160, 3), np.uint8)
    pattern(2.0, 160, 120, 3)
    np.testing.assert_array_equal(pattern(1.25, 160, 120, 3), first)


def test_the_patterns_block_moves_and_its_colours_follow_the_seed() -> None:
    first, later, other = pattern(0.0, 160, 120), pattern(1.0, 160, 120), pattern(0.0, 160, 120, 1)
    moved = (first != later).any(axis=2)
    assert 0.005 < moved.mean() < 0.2  # the block, not the table
    assert (first != other).any(axis=2).mean() > 0.01


@pytest.mark.parametrize("arguments", [(0.0, 31, 120), (0.0, 160, 5000), (0.0, 160, 120, -1), (float("nan"), 160, 120)])
def test_an_impossible_pattern_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigError, match="pattern: "):
        pattern(*arguments)


def test_the_pattern_camera_follows_the_clock(clock: FakeClock) -> None:
    with PatternCamera("face_view", width=64, height=48, clock=clock) as camera:
        clock.now = 102.5
        frame = camera.read()
    np.testing.assert_array_equal(frame.image, pattern(2.5, 64, 48))
    assert frame.captured_at == 102.5
    with pytest.raises(DeviceError, match="'face_view' is closed"):
        camera.read()


def table(values: dict[str, object], folder: Path | None = None, role: str = "face_view") -> Table:
    return Table((folder or Path()) / "robot.toml", "camera[0]", {"role": role, **values})


def test_a_table_opens_every_kind(folder: Path, video: Path, clock: FakeClock) -> None:
    tables: list[tuple[dict[str, object], type]] = [
        ({"kind": "pattern", "width": 64, "height": 48, "seed": 2}, PatternCamera),
        ({"kind": "folder", "path": str(folder), "rate": 5, "loop": False, "max_age": 0.3}, FolderCamera),
        ({"kind": "video", "path": video.name, "loop": True}, VideoCamera),
    ]
    for values, kind in tables:
        with camera_opener(table(values, video.parent, "left_wrist_view"), clock=clock)() as camera:
            assert type(camera) is kind
            assert camera.name == "left_wrist_view"
            assert camera.read().captured_at == 100.0


def test_a_table_opens_a_device(video: Path) -> None:
    # opencv treats a file like a device that gives its frames as fast as they are asked for
    with camera_opener(table({"kind": "opencv", "device": str(video), "max_age": 60}))() as camera:
        assert type(camera) is OpenCvCamera
        assert camera.read().image.shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "kind is None, must be a non-empty text"),
        ({"kind": "webcam"}, "kind is 'webcam', must be one of opencv, video, folder, pattern"),
        ({"kind": "pattern", "colour": 1}, "'colour' is not a known key; known are role, kind, width, height, seed"),
        ({"kind": "pattern", "max_age": 1.0}, "'max_age' is not a known key"),
        ({"kind": "pattern", "width": "640"}, "width is '640', must be a whole number"),
        ({"kind": "pattern", "width": True}, "width is True, must be a whole number"),
        ({"kind": "pattern", "width": 8}, "width is 8, must be 32..4096"),
        ({"kind": "folder"}, "'path' is missing"),
        ({"kind": "folder", "path": "x", "rate": 0}, "rate is 0 pictures per second, must be above 0"),
        ({"kind": "folder", "path": "x", "rate": 1}, "raise the rate or max_age"),
        ({"kind": "folder", "path": "x", "device": 0}, "'device' is not a known key"),
        ({"kind": "video", "path": "x", "max_age": float("nan")}, "max_age is nan"),
        ({"kind": "video", "path": "x", "loop": 1}, "loop is 1, must be true or false"),
        ({"kind": "opencv"}, "'device' is missing"),
        ({"kind": "opencv", "device": 1.5}, r"device is 1\.5"),
        ({"kind": "opencv", "device": 0, "fps": 0}, "fps is 0 frames per second, must be above 0"),
        ({"kind": "opencv", "device": 0, "path": "x"}, "'path' is not a known key"),
    ],
)
def test_a_wrong_table_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"robot\.toml: camera\[0\]: {message}|camera 'face_view': .*{message}"):
        camera_opener(table(values))


def test_a_missing_device_is_named() -> None:
    pytest.importorskip("cv2")
    opener = camera_opener(table({"kind": "opencv", "device": "/dev/video_none"}))
    with pytest.raises(DeviceError, match="'face_view': no such device: /dev/video_none"):
        opener()


@pytest.mark.parametrize("values", [{"kind": "opencv", "device": 0}, {"kind": "video", "path": "x.avi"}])
def test_without_opencv_the_message_says_what_to_install(
    values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    opener = camera_opener(table(values))
    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(DeviceError, match=r"pip install 'wallx-edge\[camera\]'"):
        opener()
