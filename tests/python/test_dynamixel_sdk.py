"""ROBOTIS's own SDK against ours: it talks to the emulated servos, and its frames are what our codec makes."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import dynamixel_sdk as sdk
import pytest

from wallx_edge._core import dynamixel_frame
from wallx_edge.sim import ArmEmulator, ServoSetup

PWM, CURRENT, POSITION, GOAL, WATCHDOG = 100, 102, 132, 116, 98
ACCELERATION = 108


class Wire(sdk.PortHandler):  # type: ignore[misc]
    """The SDK's port on an emulated line in lock-step: what is written is answered at once; everything is kept."""

    def __init__(self, arm: ArmEmulator) -> None:
        super().__init__("lock-step")
        self.arm = arm
        self.now_ns = 0
        self.answers = b""
        self.sent: list[bytes] = []
        self.is_open = True

    def clearPort(self) -> None:  # noqa: N802
        self.answers = b""

    def readPort(self, length: int) -> bytes:  # noqa: N802
        taken, self.answers = self.answers[:length], self.answers[length:]
        return taken

    def writePort(self, packet: Sequence[int]) -> int:  # noqa: N802
        self.sent.append(bytes(packet))
        answers, self.now_ns = self.arm.exchange(bytes(packet), self.now_ns)
        self.answers += answers
        return len(packet)

    def setPacketTimeout(self, packet_length: int) -> None:  # noqa: N802
        pass

    def setPacketTimeoutMillis(self, msec: float) -> None:  # noqa: N802
        pass

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return not self.answers  # nothing more can come


class Handler(sdk.Protocol2PacketHandler):  # type: ignore[misc]
    """The SDK's protocol with its stuffing in force: as of 4.1.0 it stuffs a copy and sends the original."""

    def addStuffing(self, packet: list[int]) -> list[int]:  # noqa: N802
        packet[:] = super().addStuffing(packet)
        return packet


@pytest.fixture
def wire() -> Wire:
    servos = [ServoSetup(name=f"joint{i}", id=i, position=1000 + 100 * i) for i in (1, 2, 5)]
    return Wire(ArmEmulator(servos, family="dynamixel_x"))


@pytest.fixture
def handler() -> Iterator[sdk.Protocol2PacketHandler]:
    yield Handler()


def test_it_pings_reads_and_writes(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    assert handler.ping(wire, 2) == (1200, sdk.COMM_SUCCESS, 0)
    assert handler.read4ByteTxRx(wire, 2, POSITION) == (1200, sdk.COMM_SUCCESS, 0)
    assert handler.write4ByteTxRx(wire, 2, GOAL, 0x00FDFFFF & 0xFFFF) == (sdk.COMM_SUCCESS, 0)
    assert handler.write4ByteTxRx(wire, 2, ACCELERATION, 0x00FDFFFF) == (sdk.COMM_SUCCESS, 0)  # stuffed both ways
    assert handler.read4ByteTxRx(wire, 2, ACCELERATION) == (0x00FDFFFF, sdk.COMM_SUCCESS, 0)
    assert handler.write1ByteTxRx(wire, 2, 64, 2) == (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_RANGE)
    assert handler.write2ByteTxRx(wire, 2, 0, 7) == (sdk.COMM_SUCCESS, sdk.ERRNUM_ACCESS)
    assert handler.ping(wire, 3)[1] == sdk.COMM_RX_TIMEOUT
    assert wire.sent[:2] == [dynamixel_frame("ping", id=2), dynamixel_frame("read", id=2, address=POSITION, size=4)]
    assert wire.sent[3] == dynamixel_frame("write", id=2, address=ACCELERATION, data=bytes.fromhex("FFFFFD00"))


def test_it_finds_every_servo(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    found, result = handler.broadcastPing(wire)
    assert (sorted(found), result) == ([1, 2, 5], sdk.COMM_SUCCESS)
    assert found[5] == [1200, 52]


def test_its_sync_writes_arrive_and_are_our_frames(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    group = sdk.GroupSyncWrite(wire, handler, GOAL, 4)
    goals = {1: 1500, 2: 1600, 5: 0xFDFF}
    for id, goal in goals.items():
        assert group.addParam(id, list(goal.to_bytes(4, "little")))
    assert group.txPacket() == sdk.COMM_SUCCESS
    assert wire.arm.goals == goals
    data = b"".join(goal.to_bytes(4, "little") for goal in goals.values())
    assert wire.sent == [dynamixel_frame("sync_write", ids=[1, 2, 5], address=GOAL, size=4, data=data)]


@pytest.mark.parametrize("is_fast", [False, True])
def test_its_sync_reads_are_answered_and_are_our_frames(
    wire: Wire, handler: sdk.Protocol2PacketHandler, is_fast: bool
) -> None:
    group = sdk.GroupSyncRead(wire, handler, POSITION, 4)
    for id in (1, 2, 5):
        assert group.addParam(id)
    assert (group.fastSyncRead() if is_fast else group.txRxPacket()) == sdk.COMM_SUCCESS
    assert [group.getData(id, POSITION, 4) for id in (1, 2, 5)] == [1100, 1200, 1500]
    verb = "fast_sync_read" if is_fast else "sync_read"
    assert wire.sent == [dynamixel_frame(verb, ids=[1, 2, 5], address=POSITION, size=4)]


def test_its_bulk_writes_and_reads_are_answered(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    writes = sdk.GroupBulkWrite(wire, handler)
    assert writes.addParam(1, PWM, 2, [100, 0])
    assert writes.addParam(5, ACCELERATION, 4, [7, 0, 0, 0])
    assert writes.txPacket() == sdk.COMM_SUCCESS
    for is_fast in (False, True):
        reads = sdk.GroupBulkRead(wire, handler)
        assert reads.addParam(1, PWM, 2) and reads.addParam(5, ACCELERATION, 4)
        assert (reads.fastBulkRead() if is_fast else reads.txRxPacket()) == sdk.COMM_SUCCESS
        assert (reads.getData(1, PWM, 2), reads.getData(5, ACCELERATION, 4)) == (100, 7)


def test_it_reboots_and_clears_turns(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    assert handler.write1ByteTxRx(wire, 1, 64, 1) == (sdk.COMM_SUCCESS, 0)
    assert handler.write1ByteTxRx(wire, 1, 11, 3) == (sdk.COMM_SUCCESS, sdk.ERRNUM_ACCESS)  # EEPROM under torque
    assert handler.reboot(wire, 1) == (sdk.COMM_SUCCESS, 0)
    assert wire.sent[-1] == dynamixel_frame("reboot", id=1)
    assert handler.ping(wire, 1)[1] == sdk.COMM_RX_TIMEOUT
    wire.now_ns += 300_000_000
    assert handler.read1ByteTxRx(wire, 1, 64) == (0, sdk.COMM_SUCCESS, 0)
    assert handler.clearMultiTurn(wire, 1) == (sdk.COMM_SUCCESS, 0)


def test_random_frames_are_the_same_byte_for_byte(wire: Wire, handler: sdk.Protocol2PacketHandler) -> None:
    """Writes and sync writes whose data is full of what must be stuffed."""
    draw = random.Random(20261121)

    def some(size: int) -> list[int]:
        return [draw.choice((0xFF, 0xFF, 0xFD, 0xFD, draw.randrange(256))) for _ in range(size)]

    for _ in range(300):
        id, address, size = draw.randrange(253), draw.randrange(200), draw.randrange(1, 20)
        data = some(size)
        handler.writeTxOnly(wire, id, address, size, data)
        assert wire.sent[-1] == dynamixel_frame("write", id=id, address=address, data=bytes(data))
        ids = draw.sample(range(253), draw.randrange(1, 12))
        group = sdk.GroupSyncWrite(wire, handler, address, size)
        rows = [some(size) for _ in ids]
        for id, row in zip(ids, rows, strict=True):
            group.addParam(id, row)
        group.txPacket()
        together = b"".join(bytes(row) for row in rows)
        frame = dynamixel_frame("sync_write", ids=ids, address=address, size=size, data=together)
        assert wire.sent[-1] == frame


def test_it_talks_to_a_running_emulator_over_a_terminal() -> None:
    arm = ArmEmulator([ServoSetup(name="one", id=1, position=1234)], family="dynamixel_x")
    arm.start()
    port = sdk.PortHandler(arm.port)
    try:
        assert port.openPort()
        port.ser.timeout = 0.2
        handler = sdk.PacketHandler(2.0)
        for _ in range(20):  # the SDK gives an answer some 20 ms, which a busy computer may miss
            position, result, error = handler.read4ByteTxRx(port, 1, POSITION)
            if result == sdk.COMM_SUCCESS:
                break
        assert (position, result, error) == (1234, sdk.COMM_SUCCESS, 0)
    finally:
        port.closePort()
        arm.stop()
