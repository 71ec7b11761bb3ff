"""Our CAN buses and python-can's understand each other to the byte: slcan, UDP multicast, logs, SocketCAN."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from itertools import pairwise
from pathlib import Path

import can
import msgpack
import pytest
from can.interfaces.slcan import slcanBus
from can.interfaces.udp_multicast.utils import pack_message

from can_lines import PATIENCE, every_kind, exchange, fields, pty_wire, receive, to_frame
from wallx_edge import _core
from wallx_edge.errors import BusError
from wallx_edge.sim import SimProcess

GROUP = "239.74.163.2"
VCAN = "vcan0"


def test_slcan_both_ways() -> None:
    with pty_wire() as (near, far):
        config = _core.BusConfig(kind="slcan", port=near, bit_rate=1_000_000, data_bit_rate=5_000_000)
        ours = _core.make_can_bus(config)
        ours.open()
        theirs = slcanBus(far, tty_baudrate=1_000_000, bitrate=1_000_000, sleep_after_open=0)
        try:
            # python-can commands the adapter that we are to it: no frames
            assert ours.receive(0.1) == []
            exchange(ours, theirs, every_kind())
        finally:
            theirs.shutdown()
            ours.close()


def udp_port() -> int:
    return 20_000 + os.getpid() % 40_000


def has_multicast() -> bool:
    """Whether a frame of python-can's finds its way back to this computer, by the routes as they are."""
    try:
        buses = [can.Bus(interface="udp_multicast", channel=GROUP, port=udp_port()) for _ in range(2)]
    except (can.CanError, OSError):
        return False
    try:
        buses[0].send(can.Message(arbitration_id=1))
        return buses[1].recv(1.0) is not None
    except (can.CanError, OSError):
        return False
    finally:
        for bus in buses:
            bus.shutdown()


@pytest.fixture
def group() -> str:
    if not has_multicast():
        pytest.skip(f"no route for IPv4 multicast here; try `ip route add {GROUP}/32 dev lo`")
    return f"{GROUP}:{udp_port()}"


def test_udp_multicast_both_ways(group: str) -> None:
    ours = _core.make_can_bus(_core.BusConfig(kind="udp_multicast", port=group, data_bit_rate=5_000_000))
    ours.open()
    theirs = can.Bus(interface="udp_multicast", channel=GROUP, port=udp_port(), fd=True)
    try:
        for message in every_kind():
            theirs.send(message)
            assert [fields(frame) for frame in receive(ours, 1)] == [fields(message)]
            theirs.recv(PATIENCE)  # it hears itself; we do not hear us
            ours.transmit([to_frame(message)])
            back = theirs.recv(PATIENCE)
            assert back is not None and fields(back) == fields(message)
        assert ours.num_ignored == 0
    finally:
        theirs.shutdown()
        ours.close()


def test_udp_multicast_datagrams_are_python_cans_to_the_byte(group: str) -> None:
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ours = _core.make_can_bus(_core.BusConfig(kind="udp_multicast", port=group, data_bit_rate=5_000_000))
    try:
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            listener.setsockopt(socket.SOL_SOCKET, option, 1)
        listener.bind((GROUP, udp_port()))
        membership = socket.inet_aton(GROUP) + struct.pack("@I", socket.INADDR_ANY)
        listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        listener.settimeout(PATIENCE)
        ours.open()
        for message in every_kind():
            ours.transmit([to_frame(message)])
            datagram = listener.recv(4096)
            message.timestamp = msgpack.unpackb(datagram)["timestamp"]
            assert datagram == pack_message(message)
    finally:
        ours.close()
        listener.close()


def test_a_log_of_python_can_is_replayed(tmp_path: Path) -> None:
    path = tmp_path / "talk.log"
    messages = every_kind()
    with can.CanutilsLogWriter(path) as writer:
        for i, message in enumerate(messages):
            message.timestamp = 100.0 + i * 1e-4
            message.is_rx = i % 3 != 0
            writer(message)
    ours = _core.make_can_bus(_core.BusConfig(kind="replay", port=str(path)))
    ours.open()
    for message in messages:
        if message.is_rx:
            frames: list[_core.CanFrame] = []
            while not frames:
                frames = ours_next(ours)
            assert fields(frames[0]) == fields(message)
        else:
            ours.transmit([to_frame(message)])
    with pytest.raises(BusError, match="bus closed"):
        ours.receive(PATIENCE)
    ours.close()


def test_python_can_reads_what_we_record(tmp_path: Path) -> None:
    messages = every_kind()
    with pty_wire() as (near, far):
        record = str(tmp_path / "talk.log")
        config = _core.BusConfig(kind="slcan", port=near, data_bit_rate=5_000_000, record=record)
        ours = _core.make_can_bus(config)
        ours.open()
        theirs = slcanBus(far, tty_baudrate=1_000_000, bitrate=1_000_000, sleep_after_open=0)
        try:
            assert ours.receive(0.1) == []
            exchange(ours, theirs, messages)
        finally:
            theirs.shutdown()
            ours.close()
    read = list(can.LogReader(record))
    assert [message.is_rx for message in read] == [way for _ in messages for way in (True, False)]
    assert [fields(message) for message in read] == [fields(message) for message in messages for _ in range(2)]
    assert all(a.timestamp <= b.timestamp for a, b in pairwise(read))


_pending: list[_core.CanFrame] = []


def ours_next(bus: _core.CanBus) -> list[_core.CanFrame]:
    """The next frame alone: two may be due at once."""
    if not _pending:
        _pending.extend(bus.receive(PATIENCE))
    return [_pending.pop(0)] if _pending else []


@pytest.mark.skipif(not Path(f"/sys/class/net/{VCAN}").exists(), reason=f"no {VCAN} here; `make test-can` has one")
def test_socketcan_both_ways() -> None:
    ours = _core.make_can_bus(_core.BusConfig(kind="socketcan", port=VCAN, data_bit_rate=5_000_000))
    ours.open()
    theirs = can.Bus(interface="socketcan", channel=VCAN, fd=True)
    try:
        exchange(ours, theirs, every_kind())
    finally:
        theirs.shutdown()
        ours.close()


@pytest.mark.skipif(
    not Path("/sys/module/slcan").exists() or os.geteuid() != 0,
    reason="the kernel's slcan is not loaded here; `make test-can` has it",
)
def test_socketcan_reaches_the_emulated_motors_through_the_kernels_slcan(tmp_path: Path) -> None:
    line_discipline, set_it, get_interface = 17, 0x5423, 0x8910  # N_SLCAN, TIOCSETD, SIOCGIFNAME
    refresh = bytes([4, 0, 0xCC, 0, 0, 0, 0, 0])  # motor 4 is asked for its state
    # an emulated computer may take minutes to start Python
    with SimProcess("openarm", link=tmp_path / "port", options=["--classic"], deadline=300.0) as sim:
        line = os.open(sim.port, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(line, b"S8\rO\r")  # as slcand does
            fcntl.ioctl(line, set_it, struct.pack("i", line_discipline))
            interface = fcntl.ioctl(line, get_interface, bytes(16)).split(b"\0")[0].decode()
            subprocess.run(["ip", "link", "set", interface, "up"], check=True)
            ours = _core.make_can_bus(_core.BusConfig(kind="socketcan", port=interface))
            ours.open()
            ours.transmit([_core.CanFrame(0x7FF, refresh)])
            answer = receive(ours, 1)[0]
            ours.close()
            with can.Bus(interface="socketcan", channel=interface) as theirs:
                theirs.send(can.Message(arbitration_id=0x7FF, data=refresh, is_extended_id=False))
                message = theirs.recv(PATIENCE)
            assert message is not None and fields(message) == fields(answer)
            assert (answer.id, answer.data[0] & 15) == (0x14, 4)
        finally:
            os.close(line)
