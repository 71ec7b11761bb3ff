"""Shared frames: no torn picture, a killed writer is noticed, and what is no frame file is refused."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wallx_edge.cameras import SharedCamera
from wallx_edge.errors import ConfigError, DeviceError
from wallx_edge.evaluate import make_scene
from wallx_edge.shared_frames import FrameReader, FrameWriter
from wallx_edge.sim import MirroredWorld, SimProcess
from wallx_edge.sim.so101 import SO101

CHANNELS = {"view": ((60, 80, 3), "uint8"), "state": ((9,), "float64")}

# writes pictures whose every byte is their number, as fast as it can, until it is killed
WRITER = """
import sys, numpy as np
from pathlib import Path
from wallx_edge.shared_frames import FrameWriter
writer = FrameWriter(Path(sys.argv[1]), {"view": ((60, 80, 3), "uint8")})
print("ready", flush=True)
n = 0
while True:
    n += 1
    writer.write("view", np.full((60, 80, 3), n % 256, np.uint8), n)
"""


def test_the_newest_is_read_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    writer = FrameWriter(path, CHANNELS)
    assert path.stat().st_mode & 0o777 == 0o600
    reader = FrameReader(path)
    assert reader.newest("view") is None
    for n in range(1, 8):
        writer.write("view", np.full((60, 80, 3), n, np.uint8), n * 10**9)
        writer.write("state", np.arange(9) + n / 2, n * 10**9)
        view, state = reader.newest("view"), reader.newest("state")
        assert view is not None and state is not None
        assert view.sequence == n and view.captured_at == float(n) and (view.array == n).all()
        assert np.array_equal(state.array, np.arange(9) + n / 2)
    with pytest.raises(ConfigError, match="no 'top'; there are view, state"):
        reader.newest("top")
    writer.close()
    writer.close()
    assert not path.exists()
    # what was there can still be read: its age tells
    assert reader.newest("view") is not None
    reader.close()
    with pytest.raises(DeviceError, match="start what writes them first"):
        FrameReader(path)


def test_no_picture_is_torn_and_a_killed_writers_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        reader = FrameReader(path)
        numbers = set()
        while len(numbers) < 500:
            found = reader.newest("view")
            if found is None:
                continue
            number = round(found.captured_at * 1e9)
            assert (found.array == number % 256).all(), "a torn picture"
            assert not numbers or number >= max(numbers)
            numbers.add(number)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    reader.close()
    writer = FrameWriter(path, CHANNELS)
    again = FrameReader(path)
    assert again.newest("view") is None
    again.close()
    writer.close()


def test_a_file_has_one_writer_and_is_removed_by_none_but_its_own(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    writer = FrameWriter(path, CHANNELS)
    with pytest.raises(DeviceError, match="another program writes there"):
        FrameWriter(path, CHANNELS)
    writer.write("state", np.arange(9), 1)
    path.unlink()  # somebody removed it: the next writer's is not this one's
    other = FrameWriter(path, CHANNELS)
    writer.close()
    assert path.exists()
    other.close()
    assert not list(tmp_path.iterdir())


def test_what_is_no_frame_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    for content, text in (
        (b"abc", "3 bytes are no frames"),
        (b"x" * 100, "another file"),
        (b"wallxfr1\x02\x00\x00\x00{]" + bytes(100), "damaged"),
        (b"wallxfr1\x02\x00\x00\x00[]" + bytes(100), "damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(DeviceError, match=text):
            FrameReader(path)
    writer = FrameWriter(path, CHANNELS)
    whole = path.read_bytes()
    writer.close()
    path.write_bytes(whole[:5000])
    with pytest.raises(DeviceError, match="cut short"):
        FrameReader(path)
    with pytest.raises(DeviceError, match="cannot be made"):
        FrameWriter(tmp_path / "no" / "frames", CHANNELS)


def test_a_simulated_robots_cameras_are_cameras_until_it_is_killed(tmp_path: Path) -> None:
    scene = make_scene("place_by_colour", 3)
    scene.world.write(tmp_path / "world.json")
    frames = tmp_path / "frames"
    options = ("--world", str(tmp_path / "world.json"), "--frames", str(frames), "--fps", "30")
    with SimProcess("so101", link=tmp_path / "port", options=options) as sim:
        with pytest.raises(ConfigError, match="no 'top_view'; there are face_view, wrist_view, state"):
            SharedCamera("top_view", frames)
        with pytest.raises(ConfigError, match="no pictures of that name"):
            SharedCamera("state", frames)
        camera = SharedCamera("face_view", frames)
        first = camera.read()
        assert first.image.shape == (224, 224, 3) and first.image.std() > 10
        while (second := camera.read()).captured_at == first.captured_at:
            time.sleep(0.005)
        assert 0 < second.captured_at - first.captured_at < 1
        mirror = MirroredWorld(SO101.make_world(scene.world), frames)
        assert mirror.refresh() is not None
        block = scene.goals[0].thing
        assert np.abs(mirror.world.pose(block)[0][:2] - scene.world.things[2].position).max() < 0.002
        sim.kill()
        deadline = time.monotonic() + 20
        with pytest.raises(DeviceError, match="nobody writes"):
            while time.monotonic() < deadline:
                camera.read()
                time.sleep(0.01)
        camera.close()
        mirror.close()
    with pytest.raises(DeviceError, match="is closed"):
        camera.read()
    with SimProcess("so101", link=tmp_path / "port", options=options):
        with SharedCamera("wrist_view", frames) as again:
            assert again.read().image.shape == (224, 224, 3)
    assert not frames.exists()


def test_bad_options_of_a_simulated_world(tmp_path: Path) -> None:
    for options, text in (
        (("--frames", str(tmp_path / "f")), "--world FILE is missing"),
        (("--world", str(tmp_path / "none.json")), "is no world"),
    ):
        with pytest.raises(DeviceError, match=text):
            SimProcess("so101", options=options).start()
    make_scene("reach", 0).world.write(tmp_path / "w.json")
    with pytest.raises(DeviceError, match="openarm stands in no world"):
        SimProcess("openarm", options=("--world", str(tmp_path / "w.json"))).start()
    with pytest.raises(DeviceError, match="--fps is 0, expected 1 to 240"):
        world = ("--world", str(tmp_path / "w.json"), "--frames", str(tmp_path / "f"), "--fps", "0")
        SimProcess("so101", options=world).start()
