"""Recordings: foreign readers open them, a killed writer or a full disk leaves what was flushed, nothing waits."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import base64
import errno
import io
import json
import logging
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mcap.exceptions import EndOfFile
from mcap.reader import NonSeekingReader, make_reader
from PIL import Image

from live_arm import wait_for
from wallx_edge import _core
from wallx_edge.errors import ConfigError
from wallx_edge.recording import McapWriter, Recorder, Segments, read_mcap, segments_of
from wallx_edge.recording.recorder import MAX_PICTURES, MAX_WAITING
from wallx_edge.recording.segments import MIN_BYTES
from wallx_edge.recording.topics import CHUNK, DECISION, FAULT, LOOP, OBSERVATION, loop_messages, schema
from wallx_edge.scene import pattern
from wallx_edge.types import Observation

TOPICS = (LOOP, OBSERVATION, CHUNK, DECISION, FAULT, "/camera/face_view")


def embodiment(joints: int = 2) -> _core.Embodiment:
    limits = _core.JointLimits(
        min_position=-2.0, max_position=2.0, max_velocity=3.0, max_acceleration=20.0, max_jerk=400.0
    )
    specs = [
        _core.JointSpec(
            name=f"joint{i}", id=i, model_numbers=[0], limits=limits, rest_position=0.1, gravity_loaded=False
        )
        for i in range(joints)
    ]
    return _core.Embodiment(name="two", motor_family="loopback", joints=specs)


@contextmanager
def stepped_loop() -> Iterator[_core.ControlLoop]:
    """A loop of two joints without wires, to be ticked by hand."""
    robot = _core.make_robot(embodiment(), [], _core.BusConfig(kind="loopback", port="none"))
    robot.connect()
    yield _core.ControlLoop(robot, rate_hz=100.0)
    robot.disconnect()


def tick(loop: _core.ControlLoop, count: int) -> None:
    for _ in range(count):
        wait_for(lambda: _core.monotonic() >= loop.on_grid(tick.at), "the tick")  # type: ignore[attr-defined]
        loop.tick(tick.at)  # type: ignore[attr-defined]
        tick.at += loop.period_s  # type: ignore[attr-defined]


def segments(folder: Path, max_bytes: int = MIN_BYTES) -> Segments:
    return Segments(folder, "arm", "wallx-edge", {"robot": {"name": "two"}}, TOPICS, max_bytes)


def observation(at: float = 12.5) -> Observation:
    image = pattern(0.3, 64, 48)
    return Observation({"face_view": image}, np.array([0.1, -0.2]), "follow the block", at)


def foreign(path: Path) -> list[tuple[str, int, bytes]]:
    """What another reader finds, from the front, until the file breaks off."""
    found = []
    with path.open("rb") as file:
        try:
            for _, channel, message in NonSeekingReader(file, validate_crcs=True).iter_messages(log_time_order=False):
                found.append((channel.topic, message.log_time, message.data))
        except (EndOfFile, struct.error):  # in a record, or in the length of one
            pass
    return found


def test_a_foreign_reader_opens_a_recording(tmp_path: Path) -> None:
    with stepped_loop() as loop:
        tick.at = _core.monotonic()  # type: ignore[attr-defined]
        tick(loop, 3)
        rows = np.array([[0.1, 0.2], [0.3, 1 / 3]])
        with Recorder(segments(tmp_path), loop) as recorder:
            recorder.observation(observation())
            recorder.chunk(7, rows, 12.5, 0.03, 12.5, 12.6)
            recorder.decision({"time": 12.7, "what": "subtask", "subtask": "grasp"})
            path = recorder.status.path
        assert recorder.status.error == ""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == recorder.status.messages == 3 + 4
        assert {schema.name for schema in summary.schemas.values()} >= {"wallx_edge.Tick", "foxglove.CompressedImage"}
        assert [record.name for record in reader.iter_metadata()] == ["robot"]
        found = {channel.topic: message for _, channel, message in reader.iter_messages()}
        assert len(list(reader.iter_messages(topics=[LOOP]))) == 3
    assert json.loads(found[CHUNK].data)["rows"] == rows.tolist()  # every bit
    assert found[CHUNK].log_time == 12_600_000_000
    assert json.loads(found[DECISION].data)["subtask"] == "grasp"
    assert json.loads(found[OBSERVATION].data)["state"] == [0.1, -0.2]
    shown = json.loads(found["/camera/face_view"].data)
    assert (shown["format"], shown["timestamp"]) == ("jpeg", {"sec": 12, "nsec": 500_000_000})
    with Image.open(io.BytesIO(base64.b64decode(shown["data"]))) as picture:
        assert picture.format == "JPEG"
        assert np.abs(np.asarray(picture).astype(int) - pattern(0.3, 64, 48)).mean() < 12
    last = json.loads(found[LOOP].data)
    assert last["measured"] == [0.1, 0.1]
    assert last["command"] is None
    assert [message.topic for message in read_mcap(path).messages].count(LOOP) == 3


def test_what_is_not_finite_is_null_and_not_a_word_that_readers_refuse() -> None:
    with stepped_loop() as loop:
        tick.at = _core.monotonic()  # type: ignore[attr-defined]
        tick(loop, 1)
        columns = loop.drain()
    columns["measured"][0, 1] = np.nan
    ((_, data),) = loop_messages(columns, stage="soak")
    assert json.loads(data, parse_constant=pytest.fail)["measured"] == [0.1, None]
    assert json.loads(data)["stage"] == "soak"


def write_chunks(path: Path, chunks: int = 4) -> list[int]:
    """Sizes of the file after each flushed chunk of ten messages."""
    sizes = []
    with path.open("wb", buffering=0) as file:
        writer = McapWriter(file, "wallx-edge", {})
        writer.add_channel(LOOP, *schema(LOOP))
        for chunk in range(chunks):
            for i in range(10):
                writer.add(LOOP, chunk * 10 + i, b'{"tick":%d}' % (chunk * 10 + i))
            writer.flush()
            sizes.append(writer.size)
        writer.finish()
    return sizes


def test_a_file_that_breaks_off_anywhere_keeps_every_whole_chunk(tmp_path: Path) -> None:
    sizes = write_chunks(tmp_path / "whole.mcap")
    data = (tmp_path / "whole.mcap").read_bytes()
    assert read_mcap(tmp_path / "whole.mcap").is_whole
    cut = tmp_path / "cut.mcap"
    for length in range(sizes[0], len(data) - 1, 7):
        cut.write_bytes(data[:length])
        found = read_mcap(cut)
        whole = sum(length >= size for size in sizes)
        assert len(found.messages) >= 10 * whole
        assert len(found.messages) % 10 == 0
        assert not found.is_whole or length >= len(data) - 8
        assert [m.data for m in found.messages] == [d for _, _, d in foreign(cut)]


@pytest.mark.parametrize("damage", ["head", "body", "length"])
def test_a_damaged_file_is_an_error_and_never_half_a_recording(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    write_chunks(path)
    data = bytearray(path.read_bytes())
    at = {"head": 2, "body": data.index(b'"tick":3'), "length": data.index(b"\x06", 200) + 7}[damage]
    if damage == "length":
        at = 8 + 9 + 4 + 4 + len("wallx-edge") + 7  # of the first chunk
    data[at] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"x\.mcap|checksum"):
        read_mcap(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_mcap(tmp_path / "absent.mcap")


WRITES = """
import sys, threading, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_recording as t
with t.stepped_loop() as loop:
    recorder = t.Recorder(t.segments(Path(sys.argv[1])), loop)
    number = 0
    while True:
        number += 1
        recorder.decision({"time": float(number), "what": "x" * 200})
        if recorder.status.messages > 2000:
            print(recorder.status.path, flush=True)
        time.sleep(0.0002)
"""


def test_a_killed_writer_leaves_what_it_had_flushed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITES, str(tmp_path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    found = read_mcap(path)
    assert not found.is_whole
    assert len(found.messages) > 100
    numbers = [message.json["time"] for message in found.messages]
    assert numbers == [float(i + 1) for i in range(len(numbers))], "a hole before the end"
    assert [m.data for m in found.messages] == [d for _, _, d in foreign(path)]


class SmallDisk(io.FileIO):
    """A file on a disk that has room for some bytes."""

    room = 3000

    def write(self, data: object) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        if self.tell() >= self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(view[: self.room - self.tell()])


def test_a_full_disk_takes_half_a_chunk_back_and_leaves_a_file_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    with SmallDisk(path, "wb") as file:
        writer = McapWriter(file, "wallx-edge", {})  # type: ignore[arg-type]
        writer.add_channel(LOOP, *schema(LOOP))
        flushed = 0
        with pytest.raises(OSError, match="No space"):
            for number in range(100):
                writer.add(LOOP, number, b'{"text":"%s"}' % (b"x" * 100))
                writer.flush()
                flushed += 1
        assert path.stat().st_size == writer.size <= 3000
    assert 0 < len(read_mcap(path).messages) == len(foreign(path)) == flushed


def test_a_disk_that_fills_up_stops_the_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with stepped_loop() as loop, Recorder(segments(tmp_path), loop) as recorder:
        try:
            # the system refuses every byte beyond it, as a full disk does
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
            while not recorder.status.error:
                recorder.decision({"time": 1.0, "what": "x" * 5000})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        status = recorder.status
        assert "File too large" in status.error and str(status.path) in status.error
        recorder.decision({"time": 2.0, "what": "told in vain"})
        recorder.observation(observation())
        tick.at = _core.monotonic()  # type: ignore[attr-defined]
        tick(loop, 2)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [f"recording has stopped, the run goes on: {status.error}"]
    read_mcap(status.path)


def test_a_recording_never_takes_more_than_its_bound_and_the_oldest_goes_first(tmp_path: Path) -> None:
    for name in ("arm-20200101-000000.000.mcap", "arm-20200101-000000.001.mcap"):
        (tmp_path / name).write_bytes(bytes(6 << 20))
    kept = ["other-20200101-000000.000.mcap", "arm-notes.mcap"]
    for name in kept:
        (tmp_path / name).write_bytes(b"not ours")
    writing = segments(tmp_path)
    largest = 0
    for number in range(1200):
        writing.add(DECISION, number, b'{"text":"%s"}' % (b"x" * 40_000))
        largest = max(largest, sum(size for _, size in segments_of(tmp_path, "arm")))
    writing.close()
    writing.close()
    assert MIN_BYTES / 2 < largest <= MIN_BYTES
    assert sum(size for _, size in segments_of(tmp_path, "arm")) <= MIN_BYTES
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= set(kept)
    assert not any(name.startswith("arm-2020") for name in names)
    times = [m.log_time for path, _ in segments_of(tmp_path, "arm") for m in read_mcap(path).messages]
    assert times == list(range(times[0], 1200)), "a hole between two files"
    assert all(read_mcap(path).metadata == {"robot": {"name": "two"}} for path, _ in segments_of(tmp_path, "arm"))


def test_a_second_run_in_the_same_second_gets_a_file_of_its_own(tmp_path: Path) -> None:
    first, second = segments(tmp_path), segments(tmp_path)
    assert first.path != second.path
    first.close()
    second.close()


def test_a_bound_that_is_too_small_and_a_folder_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"max_bytes is 1000, must be at least {MIN_BYTES}"):
        segments(tmp_path, 1000)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*file"):
        segments(tmp_path / "file")


class StuckDisk:
    """Segments on a disk that does not answer."""

    path = Path("stuck.mcap")

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.is_asked = threading.Event()

    def add(self, topic: str, log_time: int, data: bytes) -> None:
        self.is_asked.set()
        assert self.answers.wait(60)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_a_disk_that_does_not_answer_costs_entries_and_makes_nobody_wait() -> None:
    disk = StuckDisk()
    with stepped_loop() as loop, Recorder(disk, loop) as recorder:  # type: ignore[arg-type]
        recorder.decision({"time": 1.0, "what": "first"})
        assert disk.is_asked.wait(60)
        for _ in range(MAX_PICTURES + 3):
            recorder.observation(observation())  # would hang here if it waited
        assert recorder.status.dropped == 3
        for _ in range(MAX_WAITING):
            recorder.decision({"time": 1.0, "what": "more"})
        assert recorder.status.dropped == 3 + MAX_PICTURES
        disk.answers.set()
    assert recorder.status.error == ""
    assert recorder.status.messages == 1 + 2 * MAX_PICTURES + MAX_WAITING - MAX_PICTURES


def test_a_fault_is_kept_once_with_its_words(tmp_path: Path) -> None:
    with stepped_loop() as loop:
        tick.at = _core.monotonic()  # type: ignore[attr-defined]
        with Recorder(segments(tmp_path), loop) as recorder:
            tick(loop, 2)
            loop.estop()
            tick(loop, 40)
            wait_for(lambda: recorder.status.messages >= 43, "the fault's record")
            loop.reset()
            tick(loop, 3)
            path = recorder.status.path
    faults = [message.json for message in read_mcap(path, (FAULT,)).messages]
    assert len(faults) == 1
    assert faults[0]["reason"] == "e-stop"
    assert "e-stop" in faults[0]["message"]
