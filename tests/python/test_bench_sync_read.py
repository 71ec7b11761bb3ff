"""The sync-read bench reads what it says it reads; how fast is for the bench itself to tell."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pytest

from wallx_edge import _core
from wallx_edge.bench.sync_read import IDS, WIRE_SECONDS, bench_codecs, bench_sync_read
from wallx_edge.errors import BusError, ConfigError
from wallx_edge.sim import ArmEmulator, ServoSetup


def test_a_read_takes_the_time_of_its_bytes_on_the_wire() -> None:
    """The emulator, in lock-step, has the same opinion."""
    arm = ArmEmulator([ServoSetup(name=f"joint{id}", id=id) for id in IDS])
    request = bytes([0xFF, 0xFF, 0xFE, 4 + len(IDS), 0x82, 56, 8, *IDS])
    request += bytes([~sum(request[2:]) & 0xFF])
    answers, end_ns = arm.exchange(request, 0)
    assert len(answers) == len(IDS) * 14
    assert end_ns == round(WIRE_SECONDS * 1e9)


def test_both_readers_read_every_servo() -> None:
    found = bench_sync_read(reads=10, blocks=1)
    assert set(found["readers"]) == {"wallx", "lerobot_style"}
    for row in found["readers"].values():
        assert 0 < row["wire_share"] <= 1  # nobody reads faster than the wire
        assert row["cpu_us"] > 0
        assert row["failed"] <= 2
    assert found["cpu_ratio"] > 0


def test_the_codecs_decode_what_they_encode() -> None:
    assert set(bench_codecs(rounds=100, blocks=1)) == {"feetech_sts", "dynamixel_x", "damiao"}


def test_a_line_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(BusError):
        _core.sync_read_times(_core.BusConfig(port="/dev/absent"), [1], 1)
    with pytest.raises(ConfigError, match=r"1\.\.31 servos"):
        _core.sync_read_times(_core.BusConfig(port="/dev/absent"), [], 1)
