"""Adapters behind the mailbox: pyserial and python-can move a loop's bytes and frames; what fails is told."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import threading
import tty
from collections.abc import Iterator
from multiprocessing import resource_tracker
from pathlib import Path

import can
import numpy as np
import pytest
import serial

from can_lines import PATIENCE, every_kind, exchange, pty_wire
from live_arm import LiveArm
from wallx_edge import _core
from wallx_edge.bench.bus import bench_bus
from wallx_edge.buses import Adapter, BusConfig
from wallx_edge.calibrate.unit import Unit
from wallx_edge.embodiment import load_embodiment
from wallx_edge.errors import BusError, ConfigError
from wallx_edge.robot import Robot
from wallx_edge.sim import so101

# the first process that multiprocessing spawns brings a helper that stays, with its pipe: no leak of a test
resource_tracker.ensure_running()


@pytest.fixture
def channel(request: pytest.FixtureRequest) -> Iterator[str]:
    """A virtual CAN channel of this test alone."""
    yield f"wallx-{os.getpid()}-{request.node.name}"


def virtual(channel: str) -> BusConfig:
    return BusConfig("mailbox", channel, data_bit_rate=5_000_000, interface="virtual", adapter="python-can")


def wait_until_closed(bus: _core.CanBus | _core.Bus) -> None:
    with pytest.raises(BusError, match="bus closed"):
        while True:
            bus.receive(PATIENCE)


def test_python_can_frames_both_ways(channel: str) -> None:
    theirs = can.Bus(interface="virtual", channel=channel)
    adapter = Adapter(virtual(channel))
    adapter.open()
    try:
        ours = _core.make_can_bus(adapter.config)
        ours.open()
        exchange(ours, theirs, every_kind())
        assert adapter.num_dropped == 0
        assert adapter.error is None
    finally:
        adapter.close()
        theirs.shutdown()
    wait_until_closed(ours)


def test_remote_and_error_frames_do_not_reach_the_loop(channel: str) -> None:
    theirs = can.Bus(interface="virtual", channel=channel)
    adapter = Adapter(virtual(channel))
    adapter.open()
    try:
        ours = _core.make_can_bus(adapter.config)
        ours.open()
        theirs.send(can.Message(arbitration_id=1, is_remote_frame=True))
        theirs.send(can.Message(is_error_frame=True))
        theirs.send(can.Message(arbitration_id=3, is_extended_id=False))
        assert [frame.id for frame in ours.receive(PATIENCE)] == [3]
    finally:
        adapter.close()
        theirs.shutdown()


def test_pyserial_bytes_both_ways() -> None:
    with pty_wire() as (near, far):
        adapter = Adapter(BusConfig("mailbox", near, adapter="pyserial"))
        adapter.open()
        theirs = serial.Serial(far, 1_000_000, timeout=PATIENCE)
        try:
            ours = _core.make_bus(adapter.config)
            ours.open()
            every_byte = bytes(range(256))
            ours.transmit(every_byte)
            assert theirs.read(256) == every_byte
            theirs.write(every_byte)
            received = b""
            while len(received) < 256:
                received += ours.receive(PATIENCE)
            assert received == every_byte
        finally:
            theirs.close()
            adapter.close()


def test_pyserial_and_our_serial_bus_hear_each_other() -> None:
    with pty_wire() as (near, far):
        ours = _core.make_bus(_core.BusConfig(port=near, baud_rate=1_000_000))
        ours.open()
        with serial.Serial(far, 1_000_000, timeout=PATIENCE) as theirs:
            ours.transmit(bytes(range(256)))
            assert theirs.read(256) == bytes(range(256))
            theirs.write(b"\x00\xff\r\n\x11\x13")
            received = b""
            while len(received) < 6:
                received += ours.receive(PATIENCE)
            assert received == b"\x00\xff\r\n\x11\x13"
        ours.close()


def test_an_adapter_that_is_unplugged_closes_the_bus_and_says_why() -> None:
    master, slave = os.openpty()
    tty.setraw(slave)
    adapter = Adapter(BusConfig("mailbox", os.ttyname(slave), adapter="pyserial"))
    adapter.open()
    os.close(slave)
    try:
        ours = _core.make_bus(adapter.config)
        ours.open()
        unplug = threading.Thread(target=os.close, args=(master,))
        unplug.start()
        wait_until_closed(ours)
        unplug.join()
        with pytest.raises(BusError):
            ours.transmit(b"x")
    finally:
        adapter.close()
    assert adapter.error is not None
    # and the bus does not come back by itself
    ours.close()
    with pytest.raises(BusError, match="no adapter is connected"):
        ours.open()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (BusConfig("mailbox", "/dev/no-such-port", adapter="pyserial"), BusError, "pyserial cannot open /dev/no-such"),
        (BusConfig("mailbox", "nonsense://", adapter="pyserial"), ConfigError, "pyserial refuses nonsense://"),
        (BusConfig("mailbox", "0", interface="nonsense", adapter="python-can"), ConfigError, "python-can.*nonsense"),
        (
            BusConfig("mailbox", "no-such0", interface="socketcan", adapter="python-can"),
            BusError,
            "cannot open socketcan",
        ),
        (BusConfig("serial", "/dev/null"), ConfigError, "adapter is '', must be pyserial or python-can"),
    ],
)
def test_what_cannot_be_opened_is_named(config: BusConfig, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Adapter(config).open()


def test_the_wrong_sort_of_adapter_is_refused(channel: str) -> None:
    with pytest.raises(ConfigError, match="has no mailbox for bytes"):
        _core.make_bus(Adapter(virtual(channel)).config)


def test_an_adapter_opens_once_and_again_after_it_was_closed(channel: str) -> None:
    theirs = can.Bus(interface="virtual", channel=channel)
    adapter = Adapter(virtual(channel))
    ours = _core.make_can_bus(adapter.config)
    try:
        for _ in range(2):
            adapter.open()
            with pytest.raises(BusError, match="already open"):
                adapter.open()
            ours.open()
            exchange(ours, theirs, every_kind()[:3])
            adapter.close()
            adapter.close()
            wait_until_closed(ours)
            ours.close()
    finally:
        adapter.close()
        theirs.shutdown()


@pytest.mark.parametrize(
    ("id", "data", "flags"),
    [
        (0x800, b"", {}),
        (0x20000000, b"", {"is_extended": True}),
        (1, bytes(9), {}),
        (1, bytes(13), {"is_fd": True}),
        (1, bytes(65), {"is_fd": True}),
        (1, b"", {"is_bit_rate_switched": True}),
    ],
)
def test_frames_that_cannot_exist_cannot_be_made(id: int, data: bytes, flags: dict[str, bool]) -> None:
    with pytest.raises(ConfigError, match="CAN frame"):
        _core.CanFrame(id, data, **flags)


def test_a_robot_is_read_through_pyserial(arm: LiveArm) -> None:
    path = arm.config.path
    path.write_text(path.read_text().replace("rate_hz = 200.0", "rate_hz = 50.0"))
    config = arm.edit("[bus]", '[bus]\nkind = "pyserial"')
    assert config.bus.adapter == "pyserial"
    with Robot.connect(config) as robot:
        position, taken_at = robot.state()
        assert np.isfinite(position).all()
        assert taken_at > 0


def test_a_log_without_the_answer_says_so(tmp_path: Path) -> None:
    calibration = so101.default_calibration()
    embodiment = load_embodiment("so101")
    units = [_core.JointCalibration(**calibration[joint.name]) for joint in embodiment.joints]
    log = tmp_path / "line.log"
    for text, message in (
        ("(0.0) tty FFFF010201FB T\n(0.001) tty FFFF010200FC R\n", "servo 2 was asked; the log ends here"),
        ("(0.0) tty FFFF020201FA T\n", "servo 1 was asked; the log has another command in line 1 than was sent"),
    ):
        log.write_text(text)
        robot = _core.make_robot(embodiment, units, _core.BusConfig(kind="replay", port=str(log)))
        with pytest.raises(BusError, match=message):
            robot.connect()
        assert robot.bus_trouble.startswith("the log")


def test_calibration_reads_a_unit_through_pyserial(arm: LiveArm) -> None:
    so101 = load_embodiment("so101")
    bus = BusConfig("mailbox", arm.config.bus.port, adapter="pyserial")
    with Unit(so101, {joint.name: joint.id for joint in so101.joints}, bus) as unit:
        assert [motor["id"] for motor in unit.identity().values()] == [1, 2, 3, 4, 5, 6]


def test_the_benchmark_measures_what_is_there_and_says_what_is_not() -> None:
    rows = {row["transport"]: row for row in bench_bus(blocks=2, round_trips=5)}
    for name in ("serial, pty", "slcan, pty", "mailbox of pyserial, pty", "python-can slcan, pty"):
        assert 0 < rows[name]["p50_us"] <= rows[name]["p99_us"]
    for row in rows.values():
        assert ("p50_us" in row) != bool(row.get("left_out"))
