"""The control loop on an emulated arm: what it does when something goes wrong, by the emulator's own log."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from live_arm import LiveArm, play_sweep, sweep, wait_for, wait_for_the_end
from wallx_edge.errors import BusError, BusTimeout, CalibrationError, ConfigError, SafetyStop
from wallx_edge.robot import Robot


def test_connecting_and_leaving_writes_nothing(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        positions, measured_at = robot.state()
        assert np.isfinite(positions).all()
        assert measured_at <= time.monotonic()
    assert arm.story().num_writes == 0


def test_a_plan_is_played_to_its_last_row(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot, robot.enabled():
        rows = play_sweep(robot, seconds=3.0)
        wait_for_the_end(robot)
        record = robot.loop.snapshot()
        assert record is not None
        # within a tick of the servo: the limiter rounds off the spline's stop
        assert np.abs(record["command"] - rows[-1]).max() < 2 * np.pi / 4096
    story = arm.story()
    story.check_held()


def test_leaving_enabled_in_mid_motion_holds(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with robot.enabled():
            rows = play_sweep(robot)
        wait_for(lambda: robot.loop.state == "hold", "hold")
        wait_until_commands_rest(robot)
        record = robot.loop.snapshot()
        assert record is not None
        assert np.abs(record["command"] - rows[-1]).max() > 0.05, "the plan was played on after leaving"
    arm.story().check_held()


def wait_until_commands_rest(robot: Robot) -> None:
    last: list[np.ndarray] = []

    def is_still() -> bool:
        record = robot.loop.snapshot()
        assert record is not None
        last.append(np.array(record["command"]))
        return len(last) > 20 and bool((np.ptp(np.array(last[-20:]), axis=0) == 0).all())

    wait_for(is_still, "rest")


def test_disconnecting_in_mid_motion_brakes_first(arm: LiveArm) -> None:
    robot = Robot.connect(arm.config)
    with robot.enabled():
        play_sweep(robot)
        robot.disconnect()
    arm.story().check_held()


def test_enabling_again_moves_again(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        for _ in range(2):
            with robot.enabled():
                play_sweep(robot)
            wait_until_commands_rest(robot)
    arm.story().check_held()


def test_a_late_chunk_holds_and_the_next_one_goes_on(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot, robot.enabled():
        play_sweep(robot, seconds=0.5)
        wait_for_the_end(robot)
        play_sweep(robot, seconds=2.0)
        assert robot.loop.state in ("ramp", "run")
        assert robot.loop.counters()["holds"] >= 1
    arm.story().check_held()


def test_rows_from_before_a_stop_die(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with robot.enabled():
            old = robot.loop.generation
            play_sweep(robot)
        with robot.enabled():
            assert robot.loop.generation > old
            assert robot.play(sweep(robot), time.monotonic(), 0.1, old) == 0


def test_rows_are_played_only_while_enabled(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        for _ in range(2):
            with pytest.raises(SafetyStop, match="enabled"):
                robot.play(sweep(robot), time.monotonic(), 0.1, robot.loop.generation)
            with robot.enabled():
                pass
    story = arm.story()
    assert np.ptp(story.goals, axis=0).max() <= 2


def test_leaving_and_entering_at_once_moves_again(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        for _ in range(5):
            with robot.enabled():
                play_sweep(robot)
    arm.story().check_held()


def test_an_interrupt_while_enabling_holds(arm: LiveArm, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Robot, states: object, otherwise: str) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with Robot.connect(arm.config) as robot:
        monkeypatch.setattr(Robot, "_wait_for_state", interrupt)
        with pytest.raises(KeyboardInterrupt), robot.enabled():
            pass
        with pytest.raises(SafetyStop, match="enabled"):
            robot.play(sweep(robot), time.monotonic(), 0.1, robot.loop.generation)


@pytest.mark.parametrize("start", [float("nan"), float("inf"), 1e300])
def test_a_time_that_is_none_is_refused(arm: LiveArm, start: float) -> None:
    with Robot.connect(arm.config) as robot, robot.enabled(), pytest.raises(ConfigError, match="monotonic"):
        robot.play(sweep(robot), start, 0.1, robot.loop.generation)


def test_slow_loops_start_too(arm: LiveArm) -> None:
    config = arm.edit("rate_hz = 200.0", "rate_hz = 20.0")
    with Robot.connect(config) as robot, robot.enabled():
        play_sweep(robot)


def test_rows_that_are_not_numbers_move_nothing(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot, robot.enabled():
        rows = sweep(robot)
        rows[3, 2] = np.nan
        with pytest.raises(ConfigError, match="row 3"):
            robot.play(rows, time.monotonic(), 0.1, robot.loop.generation)
        with pytest.raises(ConfigError):
            robot.play(rows[:, :5], time.monotonic(), 0.1, robot.loop.generation)
        assert robot.loop.snapshot() is not None
    story = arm.story()
    assert (story.goals == story.goals[0]).all()


def test_a_killed_arm_is_noticed_within_three_periods(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match="closed") as caught, robot.enabled():
            play_sweep(robot)
            robot.loop.drain()
            arm.sim.kill()
            wait_for(lambda: robot.loop.state == "fault", "the fault")
            robot.check()
        records = caught.value.records
        assert records is not None
        answered = np.flatnonzero(records["read_code"] == 0)
        assert len(records["tick"]) - 1 - answered[-1] <= 3
        assert records["tick"][-1] - records["tick"][answered[-1]] <= 3


def test_after_an_unplug_it_is_connected_again_and_not_reset(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot, robot.enabled():
        arm.sim.fault("unplug")
        wait_for(lambda: robot.loop.state == "fault", "the fault")
        with pytest.raises(SafetyStop, match="does not come back by itself: disconnect, then connect again"):
            robot.reset()
    arm.sim.clear("unplug")
    with Robot.connect(arm.config) as robot, robot.enabled():
        robot.check()


def test_a_silent_servo_stops_the_others(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match="elbow_flex"), robot.enabled():
            play_sweep(robot)
            arm.sim.fault("silent", 3)
            wait_for(lambda: robot.loop.state == "fault", "the fault")
            robot.check()
        wait_until_commands_rest(robot)
    story = arm.story()
    assert story.trace.torque[-1].all()
    assert np.ptp(story.trace.position[-40:], axis=0).max() <= 2


def test_a_servo_that_restarts_is_noticed(arm: LiveArm) -> None:
    """It comes back without torque, answering as if nothing had been."""
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match=r"shoulder_lift|not answered"), robot.enabled():
            play_sweep(robot)
            arm.sim.fault("brown_out", 2)
            wait_for(lambda: robot.loop.state == "fault", "the fault")
            robot.check()
        wait_until_commands_rest(robot)
        # latched until somebody says so; then it is enabled like the first time
        robot.reset()
        with robot.enabled():
            play_sweep(robot)
    assert arm.story().trace.torque[-1].all()


def test_lost_and_damaged_answers_are_ridden_out(arm: LiveArm) -> None:
    arm.sim.fault("drop", value=0.02)
    arm.sim.fault("corrupt", value=0.02)
    with Robot.connect(arm.config) as robot, robot.enabled():
        play_sweep(robot, seconds=1.5)
        wait_for_the_end(robot)
        assert robot.loop.counters()["stale_ticks"] > 0
        robot.check()
    arm.story().check_held()


def test_estop_brakes_and_holds_at_low_torque(arm: LiveArm) -> None:
    with Robot.connect(arm.config) as robot:
        with pytest.raises(SafetyStop, match="e-stop"), robot.enabled():
            play_sweep(robot)
            robot.loop.estop()
            wait_for(lambda: robot.loop.state == "fault", "the e-stop")
            wait_until_commands_rest(robot)
            robot.check()
        robot.loop.resume()
        assert robot.loop.state == "fault"
    story = arm.story()
    story.check_held()
    assert any(r.get("address") == 48 for r in story.records if r["kind"] == "instruction")


def test_two_programs_cannot_share_a_port(arm: LiveArm) -> None:
    with Robot.connect(arm.config), pytest.raises(BusError, match="port"):
        Robot.connect(arm.config)


def test_an_absent_port_is_named(arm: LiveArm) -> None:
    config = arm.edit(str(arm.config.bus.port), "/nowhere/arm")
    with pytest.raises(BusError, match="/nowhere/arm"):
        Robot.connect(config)


def test_a_servo_that_does_not_answer_is_named(arm: LiveArm) -> None:
    arm.sim.fault("silent", 5)
    with pytest.raises(BusTimeout, match="wrist_roll"):
        Robot.connect(arm.config)
    assert arm.story().num_writes == 0


def test_another_units_calibration_is_refused_before_anything_moves(arm: LiveArm) -> None:
    values = json.loads(arm.config.calibration.read_text(encoding="utf-8"))
    found = values["elbow_flex"]["homing_offset"]
    values["elbow_flex"]["homing_offset"] = found + 7
    arm.config.calibration.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CalibrationError, match="elbow_flex") as caught:
        Robot.connect(arm.config)
    assert str(found) in str(caught.value)
    assert str(found + 7) in str(caught.value)
    assert arm.story().num_writes == 0
