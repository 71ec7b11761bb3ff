"""The daemon on an emulated arm: tasks over its socket, faults, its console, and what SIGKILL of each part leaves."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from daemons import PROGRAM, DaemonProcess, daemon
from live_arm import DEADLINE, LiveArm, wait_for
from wallx_edge.cli import main
from wallx_edge.cli.operator import COMMANDS, Operator
from wallx_edge.daemon import Daemon, tell
from wallx_edge.errors import ConfigError, DeviceError
from wallx_edge.recording import read_mcap, segments_of
from wallx_edge.recording.replay import replay
from wallx_edge.safe_stop import daemon_socket_path
from wallx_edge.sim import read_log

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def recordings(tmp_path: Path) -> list[Path]:
    return [path for path, _ in segments_of(tmp_path / "state" / "wallx-edge" / "recordings", "robot")]


def is_moving(running: DaemonProcess) -> bool:
    return running.chunks() >= 2


def goals(arm: LiveArm) -> int:
    return sum("goals" in record for record in read_log(arm.log))


def test_nothing_moves_before_a_task_and_every_verb_does_what_it_says(arm: LiveArm, tmp_path: Path) -> None:
    with daemon(arm, os.environ) as running:
        assert running.status()["loop"]["state"] == "calibrated"
        assert goals(arm) == 0
        for verb, text in (("pause", ""), ("resume", ""), ("subtask", "grasp"), ("ask", "what?")):
            with pytest.raises(DeviceError, match="no session runs; give a task first"):
                running.tell(verb, text)
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        assert running.status()["session"]["task"] == "follow the block"
        running.tell("pause")
        wait_for(lambda: running.status()["loop"]["state"] == "hold", "the hold")
        assert running.status()["state"] == "paused"
        running.tell("task", "another one")
        before = running.chunks()
        running.tell("resume")
        wait_for(lambda: running.chunks() >= before + 2, "motion after the pause")
        assert running.status()["session"]["task"] == "another one"
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0, running.log.read_text()
    assert not running.path.exists()
    arm.story().check_held()
    (path,) = recordings(tmp_path)
    found = read_mcap(path)
    assert found.is_whole
    topics = {message.topic for message in found.messages}
    assert topics >= {"/loop", "/chunk", "/decision", "/observation", "/camera/face_view", "/camera/wrist_view"}
    kinds = [message.json["kind"] for message in found.messages if message.topic == "/decision"]
    assert {"observe", "chunk", "pause", "resume", "task"} <= set(kinds)


def test_a_recorded_run_is_replayed_to_the_bit(arm: LiveArm, tmp_path: Path, capsys: Capture) -> None:
    command = ["run", str(arm.config.path), "--task", "follow the block", "--duration", "1.5"]
    assert main(command) == 0
    (path,) = recordings(tmp_path)
    check_replay(path)
    capsys.readouterr()
    code = main(["replay", str(path), "--check", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == int(found["equal"] != found["compared"])
    assert found["chunks"] >= 2
    assert found["is_whole"]
    # a recording that was tampered with is not replayed
    data = path.read_bytes()
    at = data.index(b'"rows":[[') + 13
    changed = tmp_path / "changed.mcap"
    other = bytearray(data)
    other[at] = ord("9") if other[at : at + 1] != b"9" else ord("8")
    changed.write_bytes(other)
    with pytest.raises(ConfigError, match="checksum"):
        replay([changed])
    arm.story()


def check_replay(path: Path) -> None:
    """Every command comes out again, bit for bit, until the arm's answers were late, which is not played again."""
    again = replay([path])
    late = [m.json["tick"] for m in read_mcap(path, ("/loop",)).messages if m.json["reason"] == "stale feedback"]
    assert again.equal > 20
    if late:
        assert again.first_difference is None or again.first_difference >= late[0]
    else:
        assert again.equal == again.compared


def test_a_dry_run_records_nothing_and_a_run_may_be_told_not_to(arm: LiveArm, tmp_path: Path, capsys: Capture) -> None:
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--dry-run"]) == 0
    assert not (tmp_path / "state").exists()
    text = arm.config.path.read_text()
    arm.config.path.write_text(text + "\n[recording]\nenabled = false\n")
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--duration", "0.3"]) == 0
    assert not (tmp_path / "state").exists()
    arm.config.path.write_text(text + '\n[recording]\nfolder = "kept"\nmax_mib = 32\n')
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--duration", "0.3"]) == 0
    assert len(segments_of(arm.config.path.parent / "kept", "robot")) == 1
    arm.story()


def test_status_is_for_people_and_for_programs(arm: LiveArm, capsys: Capture) -> None:
    assert main(["status", str(arm.config.path)]) == 1
    assert "nobody answers" in capsys.readouterr().err
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        assert main(["status", str(arm.config.path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["pid"], found["state"]) == (running.process.pid, "running")
        assert found["recording"]["messages"] > 0
        assert main(["status", str(arm.config.path)]) == 0
        shown = capsys.readouterr().out
        for word in ("so101", "running", "follow the block", "ControlLoop", "Policy", "Reasoner", "recording"):
            assert word in shown
        assert main(["tell", str(arm.config.path), "pause"]) == 0
        assert capsys.readouterr().out == "pause: done\n"
        assert main(["tell", str(arm.config.path), "task"]) == 1
        assert "'task' needs a text" in capsys.readouterr().err


def test_an_estop_is_latched_and_outlived_by_the_daemon(arm: LiveArm) -> None:
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        assert main(["estop", str(arm.config.path)]) == 0
        wait_for(lambda: running.status()["state"] == "fault", "the fault")
        assert "e-stop" in running.status()["error"]
        wait_for(lambda: running.status()["session"]["state"] != "running", "the session's end")
        with pytest.raises(DeviceError, match=r"e-stop.*reset it first"):
            running.tell("task", "go on")
        wait_for(lambda: is_reset(running), "the reset")
        wait_for(lambda: running.status()["state"] == "idle", "idle")
        running.tell("task", "go on")
        wait_for(lambda: running.status()["session"]["task"] == "go on" and is_moving(running), "motion")
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0
    arm.story().check_held()


def is_reset(running: DaemonProcess) -> bool:
    """The session may not have come to its end yet."""
    try:
        running.tell("reset")
    except DeviceError as error:
        assert "a session runs" in str(error)
        return False
    return True


def test_clients_that_flood_or_die_do_not_disturb_the_loop(arm: LiveArm) -> None:
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        before = running.status()["loop"]
        is_over = threading.Event()

        def flood(line: bytes) -> None:
            while not is_over.is_set():
                try:
                    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                        client.settimeout(1.0)
                        client.connect(str(running.path))
                        while not is_over.is_set():
                            client.sendall(line)
                except OSError:
                    time.sleep(0.01)

        lines = (b'{"verb": "pa', b'{"verb": "status"}\n' * 10, b"\xff" * 5000, b"\n\n\n")
        floods = [threading.Thread(target=flood, args=(line,)) for line in lines]
        for thread in floods:
            thread.start()
        try:
            before_chunks = running.chunks()
            wait_for(lambda: running.chunks() >= before_chunks + 3, "chunks beside the flood")
        finally:
            is_over.set()
            for thread in floods:
                thread.join()
        after = running.status()
        assert after["loop"]["state"] in ("ramp", "run", "hold")
        assert after["state"] == "running"
        assert after["loop"]["ticks"] > before["ticks"]
        # a client that is killed with half a request: control is free again
        killed = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import socket, sys, time\n"
                "s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)\n"
                "s.connect(sys.argv[1])\n"
                's.sendall(b\'{"verb": "task", "text": "mine"}\\n{"verb"\')\n'
                "s.recv(100); print('sent', flush=True); time.sleep(60)",
                str(running.path),
            ],
            stdout=subprocess.PIPE,
        )
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"sent\n"
        with pytest.raises(DeviceError, match=f"process {killed.pid} has control"):
            running.tell("task", "ours")
        killed.kill()
        killed.communicate()
        wait_for(lambda: running.status()["control"] == "", "control to be free")
        running.tell("task", "ours")
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0
    arm.story().check_held()


def test_a_killed_daemon_leaves_the_arm_holding_its_recording_readable_and_the_port_free(
    arm: LiveArm, tmp_path: Path
) -> None:
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        time.sleep(1.0)  # so that something is flushed
        running.send(signal.SIGKILL)
        running.process.wait(DEADLINE)
        wait_for(lambda: "has died" in running.log.read_text(), "safe-stop's message")
        with pytest.raises(DeviceError, match="nobody answers"):
            running.status()
        assert running.path.exists()  # left behind, and no obstacle
    (path,) = recordings(tmp_path)
    found = read_mcap(path)
    assert not found.is_whole
    assert {"/loop", "/chunk"} <= {message.topic for message in found.messages}
    check_replay(path)
    with daemon(arm, os.environ) as running:
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0
    arm.story().check_held()


def test_a_killed_arm_ends_the_daemon_with_an_error(arm: LiveArm) -> None:
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        arm.sim.kill()
        assert running.process.wait(DEADLINE) == 1
        said = running.log.read_text()
        assert "error: " in said and "closed" in said
        assert "Traceback" not in said


# the policy's thread dies as a thread can: its code raises what nobody expects
BROKEN_POLICY = """
from wallx_edge.policy import Policy
act, calls = Policy.act, iter(range(100))
def broken(self, *args, **options):
    if next(calls) == 4:
        raise MemoryError("the policy has died")
    return act(self, *args, **options)
Policy.act = broken
"""


def test_a_policy_that_dies_leaves_a_holding_arm(arm: LiveArm) -> None:
    with daemon(arm, os.environ, BROKEN_POLICY) as running:
        running.tell("task", "follow the block")
        assert running.process.wait(DEADLINE) == 1
        assert "the policy has died" in running.log.read_text()
    arm.story().check_held()


# a thread that holds the interpreter's lock and never gives it back
HOLDS_THE_LOCK = """
import ctypes, threading, time
def hang():
    while not __import__("pathlib").Path(FLAG).exists():
        time.sleep(0.01)
    ctypes.PyDLL(None).sleep(3600)
threading.Thread(target=hang, daemon=True).start()
"""


def test_the_estop_works_while_python_hangs(arm: LiveArm, tmp_path: Path) -> None:
    flag = tmp_path / "hang"
    with daemon(arm, os.environ, HOLDS_THE_LOCK.replace("FLAG", repr(str(flag)))) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        flag.touch()

        def hangs() -> bool:
            try:
                tell(running.path, "status", timeout=0.5)
            except DeviceError as error:
                return "no answer" in str(error)
            return False

        wait_for(hangs, "the interpreter to hang")
        assert main(["estop", str(arm.config.path)]) == 0
        # the loop, which needs no Python, lowers the torque limits once the arm rests
        wait_for(lambda: has_low_torque(arm), "the e-stop's torque limit")
    arm.story().check_held()


def has_low_torque(arm: LiveArm) -> bool:
    """Whether every servo was told half of its torque limit, register 48."""
    lows = [r for r in read_log(arm.log) if r.get("address") == 48 and "f401" in r.get("data", "")]
    return {servo for record in lows for servo in record["ids"]} == {1, 2, 3, 4, 5, 6}


def test_an_estop_sent_to_a_stopped_process_is_taken_when_it_goes_on(arm: LiveArm) -> None:
    with daemon(arm, os.environ) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: is_moving(running), "motion")
        running.send(signal.SIGSTOP)
        wait_for(lambda: "has stalled" in running.log.read_text(), "safe-stop's message")
        count = goals(arm)
        assert main(["estop", str(arm.config.path)]) == 0  # waits in the socket
        running.send(signal.SIGCONT)
        wait_for(lambda: running.status()["state"] == "fault", "the fault")
    arm.story().check_held()
    assert goals(arm) == count, "a command after the watcher had taken the bus"


LIMITED = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
# a file system of its own for the recordings, seen by this process alone, with room for some chunks
SMALL = """
import ctypes, os, pathlib
c = ctypes.CDLL(None, use_errno=True)
folder = pathlib.Path(os.environ["XDG_STATE_HOME"]) / "wallx-edge" / "recordings"
folder.mkdir(parents=True, exist_ok=True)
private = b"none", b"/", None, 0x44000, None
small = b"none", str(folder).encode(), b"tmpfs", 0, b"size=300k"
if c.unshare(0x20000) or c.mount(*private) or c.mount(*small):
    raise SystemExit(os.strerror(ctypes.get_errno()))
"""


@pytest.mark.parametrize(("disk", "why"), [(LIMITED, "File too large"), (SMALL, "No space left on device")])
def test_a_recording_on_a_disk_that_fills_up_ends_and_the_run_goes_on(arm: LiveArm, disk: str, why: str) -> None:
    tried = subprocess.run([sys.executable, "-c", disk], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"this user may not mount a file system: {tried.stderr.strip()}")
    with daemon(arm, os.environ, disk) as running:
        running.tell("task", "follow the block")
        wait_for(lambda: bool(running.status()["recording"]["error"]), "the recording's end")
        status = running.status()
        assert why in status["recording"]["error"]
        assert status["state"] == "running"
        before = running.chunks()
        wait_for(lambda: running.chunks() >= before + 2, "chunks after it")
        running.tell("stop")
        assert running.process.wait(DEADLINE) == 0
        assert "recording has stopped, the run goes on" in running.log.read_text()
    arm.story().check_held()


def test_the_console_takes_commands_and_the_space_bar_stays_the_estop(arm: LiveArm) -> None:
    keyboard, terminal = pty.openpty()
    command = [*PROGRAM, "run", str(arm.config.path), "--task", "follow the block"]
    shown = bytearray()

    def watch() -> None:
        try:
            while data := os.read(keyboard, 65536):
                shown.extend(data)
        except OSError:
            pass  # the terminal is closed

    path = daemon_socket_path(arm.config.bus.port)
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:

        def chunks() -> int:
            try:
                session = tell(path, "status")["session"]
            except DeviceError:
                return 0
            return int(session["chunks"]) if session else 0

        wait_for(lambda: chunks() >= 2, "motion")
        with pytest.raises(DeviceError, match="the console of `run` has control"):
            tell(path, "task", "not yours")
        os.write(keyboard, b"/task another one\n")
        wait_for(lambda: tell(path, "status")["session"]["task"] == "another one", "the task")
        os.write(keyboard, b"/pause\n")
        wait_for(lambda: tell(path, "status")["state"] == "paused", "the pause")
        os.write(keyboard, b"/resume\n")
        wait_for(lambda: tell(path, "status")["state"] == "running", "the way on")
        os.write(keyboard, b"/dance now\n")
        wait_for(lambda: b"unknown command /dance" in shown, "the answer")
        for word in (b"ControlLoop", b"Reasoner", b"shoulder_lift", b"/subtask"):
            assert word in shown
        os.write(keyboard, b"/ask is it  ")  # the second space
        assert process.wait(DEADLINE) == 1
        assert b"e-stop" in shown
    except (AssertionError, DeviceError) as error:
        raise AssertionError(bytes(shown[-3000:]).decode(errors="replace")) from error
    finally:
        process.kill()
        process.wait()
        watcher.join(0.5)
        os.close(keyboard)
        watcher.join()
    arm.story().check_held()


class Noted:
    """A handler that notes commands."""

    verbs = Daemon.verbs

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def handle(self, verb: str, text: str, reply: object) -> dict[str, object]:
        self.done.append((verb, text))
        return {}


def test_the_line_is_edited_by_letters_of_any_language() -> None:
    noted = Noted()
    operator = Operator(noted)  # type: ignore[arg-type]
    assert {command[1:] for command in COMMANDS} <= set(Daemon.verbs)
    text = "/subtask 拿起红色方块x\x7f\n"
    for byte in text.encode():  # a letter comes in pieces
        operator.take(bytes([byte]))
    operator.take(b"no command\n/pause\x1b/stop\x7f\x7f\x7f\x7f\x7f\x7f\n/subtask\n/pause now\n/task\n/resume\n")
    assert noted.done == [("subtask", "拿起红色方块"), ("subtask", ""), ("resume", "")]


def test_leaving_a_daemon_joins_its_threads_and_a_second_one_is_refused(arm: LiveArm) -> None:
    with Daemon(arm.config) as first:
        with pytest.raises(Exception, match=r"in use|another program|taken"):
            with Daemon(arm.config):
                pass
        assert first.status["state"] == "idle"
        first.handle("task", "follow the block", lambda answer: None)
        stopper = threading.Timer(2.0, first.stop)
        stopper.start()
        first.serve()
        stopper.join()
        assert first.status["state"] == "stopping"
    arm.story().check_held()


def test_an_error_of_a_session_is_shown_until_the_next_task(arm: LiveArm) -> None:
    config = arm.edit("max_first_step = 1.5", "max_first_step = 0.01")
    with Daemon(config) as running:
        serving = threading.Thread(target=running.serve)
        serving.start()
        try:
            running.handle("task", "follow the block", lambda answer: None)
            wait_for(lambda: "chunks in a row were refused" in running.status["error"], "the refusal")
            wait_for(lambda: running.status["state"] == "idle", "idle")
        finally:
            running.stop()
            serving.join()
    assert np.ptp(arm.story().goals, axis=0).max() == 0
