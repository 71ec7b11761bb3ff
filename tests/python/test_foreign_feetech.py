"""Programs of others drive the emulated servos: what they read and write is what the emulator says it did."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wallx_edge.sim import SimProcess, read_log, state_trace

TICK = 2 * math.pi / 4096


@contextmanager
def emulated_arm(folder: Path) -> Iterator[Path]:
    with SimProcess("so101", link=folder / "port", log=folder / "log"):
        yield folder / "port"


def test_rustypot_reads_the_pose_and_moves_a_joint(tmp_path: Path) -> None:
    rustypot = pytest.importorskip("rustypot", reason="rustypot is not installed")
    ids = [1, 2, 3, 4, 5, 6]
    with emulated_arm(tmp_path) as port:
        arm = rustypot.Sts3215PyController(serial_port=str(port), baudrate=1_000_000, timeout=0.5)
        assert [arm.ping(i) for i in (*ids, 7)] == [True] * 6 + [False]
        pose = arm.sync_read_present_position(ids)
        assert arm.read_present_voltage(1) == [120]
        arm.write_torque_enable(6, True)
        assert arm.read_torque_enable(6) == [True]
        arm.sync_write_goal_position([6], [0.3])
        deadline = time.monotonic() + 10
        while abs(arm.read_present_position(6)[0] - 0.3) > 8 * TICK:
            assert time.monotonic() < deadline, arm.read_present_position(6)
        del arm
    records = read_log(tmp_path / "log")
    first = state_trace(records).position[0]
    assert max(abs(radians / TICK + 2048 - ticks) for radians, ticks in zip(pose, first, strict=True)) <= 2
    assert [goal for r in records if (goal := r.get("goals"))] == [{"6": int(2048 + 0.3 / TICK)}]  # it cuts off


def test_the_vendors_sdk_reads_and_writes_in_groups(tmp_path: Path) -> None:
    sdk = pytest.importorskip("scservo_sdk", reason="feetech-servo-sdk is not installed")
    with emulated_arm(tmp_path) as port:
        line = sdk.PortHandler(str(port))
        assert line.openPort()
        try:
            assert line.setBaudRate(1_000_000)
            packets = sdk.PacketHandler(0)
            assert packets.ping(line, 3) == (777, sdk.COMM_SUCCESS, 0)
            assert packets.ping(line, 9)[1] == sdk.COMM_RX_TIMEOUT
            group = sdk.GroupSyncRead(line, packets, 56, 4)
            for i in range(1, 7):
                assert group.addParam(i)
            assert group.txRxPacket() == sdk.COMM_SUCCESS
            pose = [group.getData(i, 56, 2) for i in range(1, 7)]
            assert packets.write1ByteTxRx(line, 6, 40, 1) == (sdk.COMM_SUCCESS, 0)
            goals = sdk.GroupSyncWrite(line, packets, 42, 2)
            assert goals.addParam(6, [0x34, 0x08])
            assert goals.txPacket() == sdk.COMM_SUCCESS
            assert packets.read2ByteTxRx(line, 6, 42) == (0x0834, sdk.COMM_SUCCESS, 0)
        finally:
            line.closePort()
    records = read_log(tmp_path / "log")
    assert max(abs(a - b) for a, b in zip(pose, state_trace(records).position[0], strict=True)) <= 2
    assert [goal for r in records if (goal := r.get("goals"))] == [{"6": 0x0834}]
