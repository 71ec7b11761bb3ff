"""Sim: the emulated SO-101 in lock-step, as a process behind a port, and its log."""
# SPDX-License-Identifier: Apache-2.0

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wallx_edge.errors import CalibrationError, ConfigError, DeviceError
from wallx_edge.sim import SimProcess, make_arm, read_log, so101, state_trace

PING_1 = bytes.fromhex("ffff010201fb")
PONG_1 = bytes.fromhex("ffff010200fc")
TORQUE_ON_1 = bytes.fromhex("ffff01040328 01ce")
WRITTEN_1 = PONG_1
STEP_NS = 5_000_000


def exchange(port: str, request: bytes, size: int, patience: float = 10.0) -> bytes:
    """Writes a request and reads up to ``size`` bytes; ``patience`` [s] only bounds a failure."""
    file = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(file, request)
        answer = b""
        while len(answer) < size and select.select([file], [], [], patience)[0]:
            answer += os.read(file, 64)
        return answer
    finally:
        os.close(file)


def children() -> set[int]:
    path = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return {int(word) for word in path.read_text().split()}


def test_rests_without_torque_and_holds_with_it() -> None:
    arm = make_arm()
    at_rest = arm.positions
    arm.advance(3_000_000_000)
    moved = [abs(arm.positions[i] - at_rest[i]) for i in at_rest]
    assert max(moved) <= 2
    now = 3_000_000_000
    for servo in range(1, 7):
        body = bytes([servo, 4, 3, 40, 1])
        answer, now = arm.exchange(b"\xff\xff" + body + bytes([~sum(body) & 0xFF]), now)
        assert answer[4] == 0
    # stretched out: the worst load
    goals = {2: 2047 + 1000, 3: 2048 - 950, 4: 2047}
    for servo, goal in goals.items():
        body = bytes([servo, 5, 3, 42, goal & 0xFF, goal >> 8])
        _, now = arm.exchange(b"\xff\xff" + body + bytes([~sum(body) & 0xFF]), now)
    arm.advance(now + 4_000_000_000)
    assert arm.goals | goals == arm.goals
    sag = [abs(arm.positions[i] - goals[i]) * 360 / 4096 for i in goals]
    assert max(sag) < 0.6
    body = bytes([0xFE, 4, 3, 40, 0])
    _, now = arm.exchange(b"\xff\xff" + body + bytes([~sum(body) & 0xFF]), now + 4_000_000_000)
    arm.advance(now + 3_000_000_000)
    assert abs(arm.positions[2] - goals[2]) > 50  # it fell


def test_registers_equal_the_calibration() -> None:
    arm = make_arm()
    for fields in so101.default_calibration().values():
        registers = arm.registers(fields["id"])
        raw = int.from_bytes(registers[31:33], "little")
        offset = -(raw & 0x7FF) if raw & 0x800 else raw
        assert offset == fields["homing_offset"]
        assert int.from_bytes(registers[9:11], "little") == fields["range_min"]
        assert int.from_bytes(registers[11:13], "little") == fields["range_max"]
        assert (registers[21], registers[22], registers[23]) == (16, 32, 0)
        position = int.from_bytes(registers[56:58], "little")
        assert fields["range_min"] <= position <= fields["range_max"]


def test_lock_step_is_repeatable_and_keeps_wire_time() -> None:
    def run(seed: int) -> list[tuple[bytes, int]]:
        arm = make_arm(seed=seed)
        arm.set_fault("drop", None, 0.2)
        arm.set_fault("corrupt", None, 0.1)
        request = bytes.fromhex("fffffe0a8238040102030405 0624")
        return [arm.exchange(request, cycle * STEP_NS) for cycle in range(100)]

    assert run(1) == run(1)
    assert run(1) != run(2)
    answer, end = make_arm().exchange(bytes.fromhex("fffffe0a8238040102030405 0624"), 0)
    assert len(answer) == 60
    assert end == 740_000


def test_misuse_is_told() -> None:
    arm = make_arm()
    with pytest.raises(ConfigError, match="no emulated servo has the id 9"):
        arm.set_fault("silent", 9)
    with pytest.raises(ConfigError, match=r"the fault 'drop' takes 0\.\.1 chance, got 1\.5"):
        arm.set_fault("drop", None, 1.5)
    with pytest.raises(ConfigError, match="the emulated feetech_sts drives cannot do the fault 'bus_off'"):
        arm.set_fault("bus_off")
    with pytest.raises(ConfigError, match="the fault 'wrong_id' needs the id of one drive"):
        arm.set_fault("wrong_id")
    with pytest.raises(ConfigError, match="unknown fault 'dance'; known are drop, corrupt"):
        arm.set_fault("dance")
    with pytest.raises(DeviceError, match="only a started arm has a port to pull"):
        arm.set_fault("unplug")
    arm.start()
    try:
        with pytest.raises(DeviceError, match="keeps its own time"):
            arm.advance(0)
        with pytest.raises(DeviceError, match="already runs"):
            arm.start()
        assert exchange(arm.port, PING_1, 6) == PONG_1
        assert arm.counters["pings"] == 1
    finally:
        arm.stop()


def test_calibration_files(tmp_path: Path) -> None:
    path = tmp_path / "unit.json"
    so101.write_calibration(path)
    assert so101.read_calibration(path) == so101.default_calibration()
    assert list(json.loads(path.read_text())["gripper"]) == [
        "id",
        "drive_mode",
        "homing_offset",
        "range_min",
        "range_max",
    ]
    content = so101.default_calibration()
    content["gripper"]["homing_offset"] = 1.5  # type: ignore[assignment]
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match=r"gripper: homing_offset must be a whole number, is 1\.5"):
        so101.read_calibration(path)
    del content["gripper"]
    path.write_text(json.dumps(content))
    with pytest.raises(CalibrationError, match="expected the joints"):
        so101.read_calibration(path)
    with pytest.raises(CalibrationError, match="cannot read"):
        so101.read_calibration(tmp_path / "absent.json")


def test_process_answers_takes_commands_and_logs(tmp_path: Path) -> None:
    before = children()
    log, link = tmp_path / "log.jsonl", tmp_path / "arm"
    with SimProcess(link=link, log=log, seed=3) as sim:
        assert exchange(sim.port, PING_1, 6) == PONG_1
        assert exchange(str(link), TORQUE_ON_1, 6) == WRITTEN_1
        sim.fault("silent", 3)
        sim.fault("drop", 2)
        # servo 2 hears and keeps quiet, servo 3 does not hear
        assert exchange(sim.port, bytes.fromhex("fffffe07823802010203 38"), 8)[:3] == b"\xff\xff\x01"
        sim.clear("drop")
        sim.clear("silent", 3)
        assert len(exchange(sim.port, bytes.fromhex("fffffe07823802010203 38"), 24)) == 24
        for command in ("fault corrupt all 0.05", "fault block 2", "clear block 2", "fault wrong_id 1 7"):
            sim.send(command)
        sim.fault("brown_out", 4)
        assert exchange(sim.port, PING_1, 6)[2] == 7
        with pytest.raises(ConfigError, match="unknown command 'dance'"):
            sim.send("dance")
        with pytest.raises(ConfigError, match="fault takes 1 to 3 words"):
            sim.send("fault")
        with pytest.raises(ConfigError, match=r"takes 0\.\.1 chance, got 7"):
            sim.fault("drop", value=7)
        assert sim.is_running
    assert not sim.is_running
    assert sim.returncode == 0
    assert children() == before
    assert not link.is_symlink()

    records = read_log(log)
    kinds = {record["kind"] for record in records}
    assert {"start", "instruction", "fault", "state", "end"} <= kinds
    assert records[0]["names"] == list(so101.JOINT_NAMES)
    assert records[-1]["kind"] == "end"
    assert records[-1]["counters"]["sync_reads"] == 2
    torque = next(r for r in records if "torque" in r and r["kind"] == "instruction")
    assert torque["ids"] == [1]
    assert torque["torque"] == {"1": 1}
    faults = [(r["fault"], r["action"], r["id"]) for r in records if r["kind"] == "fault"]
    assert [f for f in faults if f[:2] != ("corrupt", "hit")] == [
        ("silent", "set", 3),
        ("drop", "set", 2),
        ("drop", "hit", 2),
        ("drop", "cleared", -1),
        ("silent", "cleared", 3),
        ("corrupt", "set", -1),
        ("block", "set", 2),
        ("block", "cleared", 2),
        ("wrong_id", "set", 1),
        ("brown_out", "set", 4),
    ]
    trace = state_trace(records)
    assert trace.position.shape == (len(trace.t), 6)
    assert trace.torque[-1, 0] == 1
    assert (trace.t[1:] > trace.t[:-1]).all()


def test_killed_process_leaves_a_log_and_no_port(tmp_path: Path) -> None:
    before = children()
    log = tmp_path / "log.jsonl"
    sim = SimProcess(log=log)
    sim.start()
    port = sim.port
    file = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(file, PING_1)
        # wait for the ping in the file, as a watcher would
        end = time.monotonic() + 20
        while not any(r.get("name") == "ping" for r in read_log(log)):
            assert time.monotonic() < end
        sim.kill()
        assert sim.returncode == -signal.SIGKILL
        with pytest.raises(OSError):
            while os.read(file, 64):
                pass
            raise OSError("end of file")  # either way a reader notices
    finally:
        os.close(file)
    assert children() == before
    assert not Path(port).exists()
    assert read_log(log)[-1]["kind"] != "end"
    with pytest.raises(DeviceError, match="ended with code -9"):
        sim.clear("drop")
    sim.stop()


def test_a_pulled_adapter_hangs_up_and_comes_back_under_its_link(tmp_path: Path) -> None:
    link = tmp_path / "arm"
    with SimProcess(link=link, log=tmp_path / "log.jsonl") as sim:
        file = os.open(link, os.O_RDWR | os.O_NOCTTY)
        try:
            sim.fault("unplug")
            assert not link.is_symlink()
            with pytest.raises(OSError):
                os.write(file, PING_1)
        finally:
            os.close(file)
        sim.clear("unplug")
        assert exchange(str(link), PING_1, 6) == PONG_1
    faults = [(r["fault"], r["action"]) for r in read_log(tmp_path / "log.jsonl") if r["kind"] == "fault"]
    assert faults == [("unplug", "set"), ("unplug", "cleared")]


def test_a_hand_moves_a_limp_arm(tmp_path: Path) -> None:
    arm = make_arm()
    start = arm.positions
    arm.hand(1, 1.0)
    arm.advance(3_000_000_000)
    assert abs(arm.positions[1] - so101.default_calibration()["shoulder_pan"]["range_max"]) <= 4
    assert all(abs(arm.positions[id] - start[id]) <= 20 for id in (2, 3, 4, 5, 6))
    with pytest.raises(ConfigError, match="share of the travel"):
        arm.hand(1, 2.0)


def test_a_cut_last_line_is_left_out_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"t":1,"kind":"start"}\n{"t":2,"ki')
    assert read_log(log) == [{"t": 1, "kind": "start"}]
    log.write_text('{"t":1,"ki\n{"t":2,"kind":"end"}\n')
    with pytest.raises(DeviceError, match="line 1, is damaged"):
        read_log(log)
    with pytest.raises(DeviceError, match="no start line"):
        state_trace([])


def test_failure_to_start_is_told_with_its_reason(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(DeviceError, match=r"ended with code 1 .*cannot read the calibration"):
        SimProcess(calibration=tmp_path / "absent.json").start()
    with pytest.raises(DeviceError, match="cannot create the emulator's log"):
        SimProcess(log=tmp_path / "absent" / "log").start()
    assert children() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_in_order(tmp_path: Path, number: signal.Signals) -> None:
    log = tmp_path / "log.jsonl"
    command = [sys.executable, "-m", "wallx_edge.sim", "so101", "--log", str(log)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert "so101 is ready on /dev/" in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 0
    assert read_log(log)[-1]["kind"] == "end"


def test_it_ends_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from wallx_edge.sim import SimProcess\n"
        f"sim = SimProcess(log={str(tmp_path / 'log.jsonl')!r})\n"
        "sim.start()\n"
        "print(sim.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        int(parent.stdout.readline())
        parent.kill()
        parent.wait()
    # the orphan is not ours to wait for: its log's last line says that it ended in order
    end = time.monotonic() + 30
    while read_log(tmp_path / "log.jsonl")[-1]["kind"] != "end":
        assert time.monotonic() < end


def test_what_was_written_before_a_stop_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with SimProcess("so101", log=log) as sim:
        line = os.open(sim.port, os.O_RDWR | os.O_NOCTTY)
        try:
            for _ in range(20):
                os.write(line, bytes.fromhex("FFFFFE0A832A0201000802000439"))
            sim.stop()
        finally:
            os.close(line)
    assert sum("goals" in record for record in read_log(log)) == 20
