"""The whole chain on an emulated arm: sessions, the programs `run` and `demo`, and how they end."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from live_arm import DEADLINE, LiveArm, wait_for
from wallx_edge import demo
from wallx_edge.cli import main
from wallx_edge.errors import ConfigError, DeviceError, SafetyStop
from wallx_edge.policy import Policy
from wallx_edge.recording import read_mcap
from wallx_edge.robot import Robot
from wallx_edge.robot_config import RobotConfig
from wallx_edge.scene import pattern
from wallx_edge.session import Session, SessionStatus, refusal
from wallx_edge.sim import read_log
from wallx_edge.types import ActionChunk, DofLayout

PROGRAM = [sys.executable, "-c", "import sys; from wallx_edge.cli import main; sys.exit(main())"]


def open_session(stack: ExitStack, config: RobotConfig) -> tuple[Session, Robot, Policy]:
    policy = Policy.load(config.checkpoint, config.policy)
    cameras = stack.enter_context(config.open_cameras())
    robot = stack.enter_context(Robot.connect(config))
    return Session(policy, robot, cameras, "follow the block", config=config.session), robot, policy


def test_a_chunk_that_begins_far_away_is_refused(arm: LiveArm, caplog: pytest.LogCaptureFixture) -> None:
    config = arm.edit("max_first_step = 1.5", "max_first_step = 0.01")
    with ExitStack() as stack:
        session, robot, _ = open_session(stack, config)
        with pytest.raises(SafetyStop, match=r"5 chunks in a row .* \(policy.max_first_step\)"):
            session.run(30.0)
        assert session.chunks == []
        assert robot.loop.state == "hold"
    refused = [r for r in caplog.records if "refused" in r.getMessage()]
    assert len(refused) == 5
    assert np.ptp(arm.story().goals, axis=0).max() == 0


def test_a_chunk_outside_its_statistics_is_refused() -> None:
    layout = DofLayout.from_config({"left": 1, "right": 1})
    rows = np.array([[0.1, 1.0], [0.2, 5.0]])
    measured = np.array([0.0, np.nan])  # a wheel has no position to begin at

    def why(outside: float, first: float = 0.5) -> str:
        return refusal(ActionChunk(rows, 0.1, 1.0, layout, outside), rows, measured, ("left", "right"), first)

    assert why(0.2) == ""
    assert "21% of the chunk's normalised values" in why(0.21)
    assert "0.100 rad for left" in why(0.0, first=0.09)


def test_the_demo_proves_itself(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    command = [*PROGRAM, "demo", "--out", str(out), "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, (ended.stderr, ended.stdout[:1500])
    summary = json.loads(ended.stdout)
    assert json.loads((out / "summary.json").read_text(encoding="utf-8")) == summary
    assert summary["success"] and summary["progress"] == 1.0
    assert summary["chunks_computed"] >= summary["chunks"] > 5
    seen = summary["emulator"]
    assert seen["goals_received"] == seen["commands_sent"] > 400
    assert seen["rows_unexplained"] == 0
    assert max(seen["travel_deg"]) > 20
    with Image.open(out / "joints.png") as picture:
        assert picture.size[0] > 600
        assert len(set(np.asarray(picture.convert("L")).flatten().tolist())) > 20
    with av.open(str(out / "demo.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) > 50
    assert np.abs(frames[0].astype(int) - frames[-1]).max() > 50
    recording = read_mcap(Path(summary["recording"]))
    assert recording.is_whole
    assert {"/chunk", "/loop", "/camera/face_view"} <= {message.topic for message in recording.messages}


@pytest.fixture(scope="module")
def short_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path
) -> tuple[RobotConfig, dict[str, np.ndarray], list[object], Path]:
    from live_arm import live_arm

    folder = tmp_path_factory.mktemp("short")
    with live_arm(folder, tiny_checkpoint) as arm:
        columns, chunks, _ = demo.run(arm.config, "follow the block", 1.5, lambda robot, session: lambda status: None)
        arm.story()
    return arm.config, columns, list(chunks), arm.log


@pytest.mark.parametrize("which", ["goal", "row", "pose", "missing"])
def test_the_demos_check_can_fail(short_run, which: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    config, columns, chunks, log = short_run
    assert demo.check(config, columns, chunks, log)["ok"]
    records = read_log(log)
    goals = [r for r in records if len(r.get("goals", {})) == 6]
    states = [r for r in records if r["kind"] == "state"]
    if which == "goal":
        goals[len(goals) // 2]["goals"]["2"] += 1
    elif which == "missing":
        records.remove(goals[len(goals) // 2])
    elif which == "pose":
        states[-1]["position"][3] += 12
    else:
        # a row that the loop says it reached, and that was not what the policy asked for
        columns = dict(columns)
        exact = np.flatnonzero(columns["is_exact"] & columns["is_on_row"])
        chunk = next(c for c in chunks if c.sequence == columns["plan_sequence"][exact[-1]])
        rows = chunk.rows.copy()
        rows[columns["row"][exact[-1]], 0] += 0.01
        chunks = [c if c is not chunk else replace(c, rows=rows) for c in chunks]
    changed = tmp_path / "log.jsonl"
    changed.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    assert not demo.check(config, columns, chunks, changed)["ok"]


def test_a_camera_that_stops_ends_the_session_with_a_hold(arm: LiveArm) -> None:
    pictures = arm.config.path.parent / "pictures"
    pictures.mkdir()
    for i in range(10):
        Image.fromarray(pattern(i / 10, 320, 240)).save(pictures / f"{i}.png")
    first = 'role = "face_view"\nkind = "pattern"\nwidth = 320\nheight = 240'
    config = arm.edit(first, 'role = "face_view"\nkind = "folder"\npath = "pictures"\nloop = false')
    with ExitStack() as stack, pytest.raises(DeviceError, match="face_view"):
        session, _, _ = open_session(stack, config)
        session.run(60.0)
    arm.story().check_held()


def test_a_killed_arm_ends_the_session(arm: LiveArm) -> None:
    with ExitStack() as stack, pytest.raises(SafetyStop, match="closed"):
        session, _, _ = open_session(stack, arm.config)

        def kill_when_moving(status: SessionStatus) -> None:
            if status.chunks >= 2 and arm.sim.is_running:
                arm.sim.kill()

        session.run(60.0, kill_when_moving)


def test_stop_from_another_thread_holds_at_once(arm: LiveArm) -> None:
    with ExitStack() as stack:
        session, robot, _ = open_session(stack, arm.config)
        results: list[bool] = []
        runner = threading.Thread(target=lambda: results.append(session.run(60.0)))
        runner.start()
        wait_for(lambda: len(session.chunks) >= 2, "two chunks")
        session.stop()
        runner.join(DEADLINE)
        assert results == [False]
        wait_for(lambda: robot.loop.state == "hold", "hold")
    arm.story().check_held()


def test_a_stop_before_the_first_chunk_enables_nothing(arm: LiveArm) -> None:
    with ExitStack() as stack:
        session, _, _ = open_session(stack, arm.config)
        session.stop()
        assert not session.run(60.0)
        with pytest.raises(ConfigError, match="once"):
            session.run(60.0)
    assert arm.story().num_writes == 0


def test_a_policy_that_fails_ends_the_session_with_a_hold(arm: LiveArm, monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        session, _, policy = open_session(stack, arm.config)
        act, calls = policy.act, iter(range(100))

        def fail_later(observation, noise=None, **options):  # type: ignore[no-untyped-def]
            if next(calls) == 3:
                rows = np.full((policy.config.horizon, 6), np.nan, np.float32)
                return act(observation, rows, **options)
            return act(observation, noise, **options)

        monkeypatch.setattr(policy, "act", fail_later)
        with pytest.raises(ConfigError, match="noise"):
            session.run(60.0)
    arm.story().check_held()


def start(arm: LiveArm, *arguments: str) -> subprocess.Popen[str]:
    command = [*PROGRAM, "run", str(arm.config.path), "--task", "follow the block", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def moves(arm: LiveArm) -> bool:
    position = [r["position"] for r in read_log(arm.log) if r["kind"] == "state"]
    return bool(position) and int(np.abs(np.array(position[-1]) - position[0]).max()) > 30


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
def test_a_signal_in_mid_motion_holds(arm: LiveArm, number: signal.Signals, code: int) -> None:
    with start(arm) as program:
        wait_for(lambda: moves(arm), "motion")
        program.send_signal(number)
        output, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode == code, output
    assert "holds" in output
    assert "Traceback" not in output
    arm.story().check_held()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("goals", [0, 1, 20])
def test_a_signal_at_other_moments_never_lets_go(arm: LiveArm, number: signal.Signals, goals: int) -> None:
    """From the program's start, from torque on, and soon after."""
    with start(arm) as program:
        wait_for(lambda: sum("goals" in r for r in read_log(arm.log)) >= goals, f"{goals} goals")
        program.send_signal(number)
        output, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode != 0, output
    story = arm.story()
    torque = story.trace.torque.all(axis=1)
    on = np.flatnonzero(torque)
    assert on.size == 0 or torque[on[0] :].all(), "a motor let go"


def test_the_program_says_why_a_killed_arm_stopped_it(arm: LiveArm) -> None:
    with start(arm) as program:
        wait_for(lambda: moves(arm), "motion")
        arm.sim.kill()
        output, _ = program.communicate(timeout=DEADLINE)
    assert program.returncode == 1, output
    assert "error: " in output and "closed" in output
    assert "Traceback" not in output


def test_a_dry_run_moves_nothing(arm: LiveArm, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "shoulder_pan" in out
    assert "nothing was moved" in out
    assert arm.story().num_writes == 0


def test_a_layout_of_end_effectors_is_refused_before_anything_moves(
    arm: LiveArm, capsys: pytest.CaptureFixture[str]
) -> None:
    from golden import CASE1

    shutil.rmtree(arm.config.checkpoint)
    shutil.copytree(CASE1, arm.config.checkpoint)
    arm.edit('checkpoint = "checkpoint"', 'checkpoint = "checkpoint"\nstatistics = "x2_normal"')
    assert main(["run", str(arm.config.path), "--task", "follow the block", "--dry-run"]) == 1
    assert "follow_left_ee_cartesian_pos" in capsys.readouterr().err
    assert arm.story().num_writes == 0
