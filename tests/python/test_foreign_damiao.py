"""A Damiao driver of others on python-can moves the emulated motors, and finds in them what their makers document."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import time
from pathlib import Path

import can
import pytest

from wallx_edge.sim import SimProcess

ELBOW = 4  # of the OpenArm: a DM4340
PATIENCE = 20.0  # generous so that a busy computer does not matter [s]


def test_a_motor_is_found_read_and_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("damiao_motor", reason="damiao-motor is not installed")
    make_bus = can.interface.Bus

    def slcan(channel: str, bustype: str) -> can.BusABC:
        return make_bus(channel, bustype, bitrate=1_000_000, tty_baudrate=1_000_000, sleep_after_open=0)

    monkeypatch.setattr(can.interface, "Bus", slcan)
    with SimProcess("openarm", link=tmp_path / "port"):
        controller = theirs.DaMiaoController(str(tmp_path / "port"), "slcan")
        try:
            motor = controller.add_motor(ELBOW, 16 + ELBOW, "4340")
            assert [motor.get_register(row) for row in (7, 8, 10)] == [16 + ELBOW, ELBOW, 1]
            assert [motor.get_register(row) for row in (21, 22, 23)] == [12.5, 10.0, 28.0]  # its type's ranges
            motor.enable()
            start = motor.get_states()["pos"] if motor.get_states() else 0.0
            deadline = time.monotonic() + PATIENCE
            while abs(motor.get_states().get("pos", start) - 0.3) > 0.02:
                assert time.monotonic() < deadline, motor.get_states()
                motor.send_cmd_mit(0.3, 0.0, 60.0, 2.0, 0.0)
                time.sleep(0.005)
            assert motor.get_states()["status"] == "ENABLED"
            assert motor.get_states()["arbitration_id"] == 16 + ELBOW
            motor.disable()
            while motor.get_states()["status"] != "DISABLED":
                assert time.monotonic() < deadline, motor.get_states()
                time.sleep(0.005)
        finally:
            controller.shutdown()
