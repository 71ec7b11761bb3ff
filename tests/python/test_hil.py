"""hil run: its plan, its order, what it does when a stage fails or is refused, and the evidence it leaves."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from emulated import emulated
from live_arm import LiveArm
from wallx_edge.errors import ConfigError
from wallx_edge.hil import HilPlan, run_plan
from wallx_edge.hil.evidence import StageResult
from wallx_edge.hil.plan import STAGE_NAMES
from wallx_edge.recording import read_mcap
from wallx_edge.robot import Robot

QUICK = "[limits]\nsoak_seconds = 0.5\ntorque_free_seconds = 0.3\nmax_lost_share = 0.5\nconnections = 1\n"


def write_plan(arm: LiveArm, text: str = QUICK, stages: str = "") -> Path:
    path = arm.config.path.parent / "plan.toml"
    path.write_text(f'robot = "{arm.config.path.name}"\n{stages}\n{text}')
    return path


def outcomes(arm: LiveArm, plan: HilPlan, folder: Path, yes: bool = True) -> dict[str, StageResult]:
    results: dict[str, StageResult] = {}
    passed = run_plan(plan, folder, lambda question: yes, lambda r: results.__setitem__(r.name, r))
    assert passed == all(r.outcome == "passed" for r in results.values())
    return results


def test_a_plan_is_checked_before_anything_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    (tmp_path / "robot.toml").write_text("")
    for text, message in [
        ('robot = "absent.toml"', "absent.toml does not exist"),
        ('robot = "robot.toml"\nstage = []', "'stage' is not a known key"),
        ('robot = "robot.toml"\nstages = ["dance"]', "must list some of comms, soak"),
        ('robot = "robot.toml"\n[limits]\namplitude = 3.0', r"amplitude is 3, must be 0\.005\.\.0\.3"),
        ('robot = "robot.toml"\n[limits]\nconnections = 1.5', "must be a whole number"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            HilPlan.load(path)
    path.write_text('robot = "robot.toml"\nstages = ["estop", "comms"]')
    assert HilPlan.load(path).stages == ("comms", "estop")  # never the other way round


def test_the_command_walks_through_every_stage_and_leaves_evidence(arm: LiveArm, tmp_path: Path) -> None:
    folder = tmp_path / "evidence"
    command = [Path(sys.executable).with_name("wallx-edge"), "hil", "run", write_plan(arm), "--yes", "--json"]
    done = subprocess.run([*command, "--out", folder], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["name"] for line in lines[:-1]] == list(STAGE_NAMES)
    assert lines[-1] == {"passed": True, "evidence": str(folder)}

    suites = ET.parse(folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == list(STAGE_NAMES)
    assert all(suite.get("failures") == suite.get("errors") == suite.get("skipped") == "0" for suite in suites)
    assert sum(len(suite) for suite in suites) == sum(len(line["checks"]) for line in lines[:-1])

    recording = read_mcap(folder / "records.mcap")
    assert recording.is_whole
    records = [message.json for message in recording.messages]
    assert {record["stage"] for record in records} == set(STAGE_NAMES)
    motion = [record["tick"] for record in records if record["stage"] == "motion"]
    assert motion == list(range(motion[0], motion[0] + len(motion))), "a record is missing"
    page = (folder / "index.html").read_text()
    assert page.count("<svg") == len(STAGE_NAMES)
    assert "passed" in page
    assert {"plan.toml", "robot.toml", "calibration.json", "report.json"} <= {f.name for f in folder.iterdir()}


@pytest.mark.parametrize("name", ["koch", "openarm"])
def test_the_command_walks_every_other_arm_through_every_stage(name: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f'robot = "robot.toml"\n{QUICK}')
    command = [Path(sys.executable).with_name("wallx-edge"), "hil", "run", tmp_path / "plan.toml", "--yes", "--json"]
    with emulated(name, tmp_path):
        done = subprocess.run(
            [*command, "--out", tmp_path / "evidence"], capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["name"], line["outcome"]) for line in lines[:-1]] == [(name, "passed") for name in STAGE_NAMES]
    assert lines[-1]["passed"]


def test_after_a_failed_stage_nothing_moves(arm: LiveArm, tmp_path: Path) -> None:
    arm.sim.fault("silent", 4)
    plan = HilPlan.load(write_plan(arm))
    results = outcomes(arm, plan, tmp_path / "evidence")
    assert results["comms"].outcome == "failed"
    assert "no answer" in results["comms"].reason
    assert "wrist_flex" in results["comms"].reason
    assert all(results[name].outcome == "skipped" for name in STAGE_NAMES[1:])
    error = ET.parse(tmp_path / "evidence" / "junit.xml").getroot().find("./testsuite[@name='comms']/testcase/error")
    assert error is not None
    assert "wrist_flex" in str(error.get("message"))
    arm.sim.clear("silent")
    assert arm.story().num_writes == 0


def test_what_is_not_confirmed_is_not_done(arm: LiveArm, tmp_path: Path) -> None:
    results = outcomes(arm, HilPlan.load(write_plan(arm)), tmp_path / "evidence", yes=False)
    moving = STAGE_NAMES[2:]
    assert [results[name].outcome for name in STAGE_NAMES] == ["passed"] * 2 + ["skipped"] * len(moving)
    assert all(results[name].reason == "not confirmed" for name in moving)
    assert arm.story().num_writes == 0
    with pytest.raises(ConfigError, match="is not empty; name another folder"):
        outcomes(arm, HilPlan.load(write_plan(arm)), tmp_path / "evidence")


def test_a_blocked_joint_fails_the_motion_and_the_arm_holds(arm: LiveArm, tmp_path: Path) -> None:
    plan = HilPlan.load(write_plan(arm, QUICK + "amplitude = 0.25\nmax_tracking_error = 0.1\n", 'stages = ["motion"]'))
    arm.sim.fault("block", 2)
    results = outcomes(arm, plan, tmp_path / "evidence")
    assert results["motion"].outcome == "failed"
    failed = [check.name for check in results["motion"].checks if not check.is_ok]
    assert "tracking error" in failed
    arm.sim.clear("block")
    arm.story().check_held()


def test_a_joint_that_does_not_move_fails_the_motion_however_small_it_is(arm: LiveArm, tmp_path: Path) -> None:
    arm.sim.fault("stuck", 5)
    results = outcomes(arm, HilPlan.load(write_plan(arm, QUICK, 'stages = ["motion"]')), tmp_path / "evidence")
    assert [check.name for check in results["motion"].checks if not check.is_ok] == ["every joint moved"]


def test_an_interrupted_run_leaves_a_holding_arm_and_its_evidence(arm: LiveArm, tmp_path: Path) -> None:
    plan = HilPlan.load(write_plan(arm, QUICK, 'stages = ["motion", "estop"]'))

    def interrupt(result: StageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(plan, tmp_path / "evidence", lambda question: True, interrupt)
    assert len(ET.parse(tmp_path / "evidence" / "junit.xml").getroot()) == 1
    Robot.connect(arm.config).disconnect()  # the port is free
    arm.story().check_held()
