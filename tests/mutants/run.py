"""Mutants: named breaks, one at a time in a copy of the tree; each must be killed by the test that is named for it."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "mutants"


@dataclass(frozen=True)
class Mutant:
    """One break.

    Attributes:
        name: what is wrong then.
        file: where.
        old: the text that is there, once.
        new: what replaces it.
        program: the test program that must fail.
        test: the test in it that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    program: str
    test: str


MUTANTS = (
    Mutant(
        "the limiter's sign",
        "cpp/control/safety_limiter.cpp",
        "const double v = from.v + acceleration * period_;",
        "const double v = from.v - acceleration * period_;",
        "test_control",
        "startup_is_ramped_from_the_measured_pose",
    ),
    Mutant(
        "rows are one step late",
        "cpp/control/interpolator.hpp",
        "std::min<std::int64_t>(since / plan.step, plan.num_rows - 1)",
        "std::min<std::int64_t>(since / plan.step + 1, plan.num_rows - 1)",
        "test_control",
        "commands_equal_rows_when_not_limited",
    ),
    Mutant(
        "stale feedback is accepted",
        "cpp/control/watchdog.cpp",
        "if (age > config.stale_hold)",
        "if (false && age > config.stale_hold)",
        "test_control",
        "stale_joint_holds_then_faults",
    ),
    Mutant(
        "checksums are ignored",
        "drivers/motors/feetech/sts_protocol.cpp",
        "if (checksum({frame + 2, size - 3}) != frame[size - 1]) {",
        "if (false && checksum({frame + 2, size - 3}) != frame[size - 1]) {",
        "test_drivers",
        "parser_refuses_a_wrong_checksum",
    ),
    Mutant(
        "speed has the scale of load",
        "drivers/motors/feetech/feetech_robot.cpp",
        "get(kPresentSpeed, answer.parameters, first) * kPresentSpeed.scale",
        "get(kPresentSpeed, answer.parameters, first) * kPresentLoad.scale",
        "test_drivers",
        "read_asks_with_one_sync_read_and_converts_to_si",
    ),
    Mutant(
        "the independent step check is gone",
        "cpp/hardware/robot.cpp",
        "if (!(is_small || is_pull_back) || !is_slow)",
        "if (false && (!(is_small || is_pull_back) || !is_slow))",
        "test_drivers",
        "a_step_that_no_joint_can_make_is_not_sent",
    ),
    Mutant(
        "the following error is ignored",
        "cpp/control/safety_limiter.cpp",
        "if (!(std::abs(ahead) > max_following_error_[joint])) return false;",
        "if (!(std::abs(ahead) > 1e9 * max_following_error_[joint])) return false;",
        "test_arm",
        "a_blocked_arm_pushes_no_harder_and_does_not_leap_when_freed",
    ),
    Mutant(
        "a fault or e-stop is not latched",
        "cpp/control/state_machine.cpp",
        "if ((requests & kRequestReset) && state_ == LoopState::fault)",
        "if ((requests & (kRequestReset | kRequestResume)) && state_ == LoopState::fault)",
        "test_control",
        "estop_latches_and_lowers_torque",
    ),
    Mutant(
        "the e-stop's torque limit is not lowered",
        "cpp/control/control_loop.cpp",
        "if (machine_.is_estop() && limiter_.is_at_rest())",
        "if (false && machine_.is_estop() && limiter_.is_at_rest())",
        "test_arm",
        "an_estop_stops_within_the_braking_distance_at_a_low_torque_limit",
    ),
    Mutant(
        "the ramp is skipped",
        "cpp/control/control_loop.cpp",
        "machine_.state() == LoopState::ramp ? config_.ramp_share : 1.0",
        "machine_.state() == LoopState::boot ? config_.ramp_share : 1.0",
        "test_control",
        "startup_is_ramped_from_the_measured_pose",
    ),
    Mutant(
        "lost torque is ignored",
        "cpp/control/control_loop.cpp",
        "if (record_.read.code == ErrorCode::torque_off && machine_.is_enabled())",
        "if (false && record_.read.code == ErrorCode::torque_off && machine_.is_enabled())",
        "test_arm",
        "a_servo_that_lost_its_torque_is_noticed",
    ),
    Mutant(
        "a drive's fault is taken for a warning",
        "cpp/control/watchdog.cpp",
        "if (feedback.drive_health[j] == DriveHealth::fault)",
        "if (false && feedback.drive_health[j] == DriveHealth::fault)",
        "test_control",
        "a_drive_fault_stops_the_robot_and_refuses_enabling",
    ),
    Mutant(
        "rows from before a stop live on",
        "cpp/control/plan_buffer.hpp",
        "has_later_ = latest.generation == generation();",
        "has_later_ = true;",
        "test_control",
        "the_latest_plan_wins_and_old_generations_die",
    ),
    Mutant(
        "a stalled owner is not noticed",
        "cpp/tools/watch.cpp",
        "if (!has_seized_ && now - last_beat_ <= kStall)",
        "if (!has_seized_)",
        "test_tools",
        "a_stalled_owner_is_shut_out_for_good",
    ),
    Mutant(
        "a chunk waits for the words",
        "cpp/runtime/inference_queue.cpp",
        "if (!is_more_urgent) return;",
        "if (is_more_urgent || !is_more_urgent) return;",
        "test_runtime",
        "urgent_work_waits_for_one_slice_and_goes_first_between_blocks",
    ),
    Mutant(
        "one frozen row too few",
        "cpp/engine/realtime_chunking.cpp",
        "static_cast<std::size_t>(guide.num_frozen) * dim;",
        "static_cast<std::size_t>(guide.num_frozen > 0 ? guide.num_frozen - 1 : 0) * dim;",
        "test_engine",
        "frozen_rows_are_the_previous_chunks_on_every_grid",
    ),
    Mutant(
        "unsigned rows begin at zero",
        "cpp/backend/pack.cpp",
        "target.offset[panel * kPanel + c] = -128 * total[c];",
        "target.offset[panel * kPanel + c] = 0;",
        "test_backend",
        "every_weight_lands_in_its_place",
    ),
    Mutant(
        "a thread is left behind",
        "cpp/backend/cpu/thread_pool.cpp",
        "if (spin(is_empty)) return;",
        "return;",
        "test_backend",
        "a_thread_that_has_begun_is_waited_for",
    ),
)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Runs a command; its output is kept."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")


def must(command: list[str]) -> None:
    """Runs a command that has to succeed."""
    done = run(command)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def copy_tree(to: Path) -> None:
    """The sources as they are now, whatever is committed; files that did not change keep their times."""
    sources = ["cpp", "drivers", "benchmarks", "tests/cpp", "CMakeLists.txt"]
    listed = run(["git", "ls-files", "-co", "--exclude-standard", *sources])
    names = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    if not names:
        sys.exit(f"git lists no sources: {listed.stderr}")
    for name in names:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
            shutil.copyfile(ROOT / name, target)
    for path in [p for p in to.rglob("*") if p.is_file() and str(p.relative_to(to)) not in names]:
        path.unlink()


def kill(mutant: Mutant, source: Path, build: Path) -> str:
    """Applies a mutant, runs the test named for it, takes it back; empty: killed."""
    path = source / mutant.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        return f"{mutant.file} has the text to break {text.count(mutant.old)} times, expected once"
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        built = run(["ninja", "-C", str(build), mutant.program])
        if built.returncode != 0:
            return f"it does not build: {built.stdout[-1000:]}"
        done = run([str(build / mutant.program), mutant.test])
        if f"ok   {mutant.test}\n" in done.stdout:
            return f"{mutant.test} passes: the break is not noticed"
        is_killed = f"FAIL {mutant.test}\n" in done.stdout or done.returncode < 0
        return "" if is_killed else f"no such test: {mutant.test}"
    finally:
        path.write_text(text, encoding="utf-8")


def main() -> int:
    """Kills them all; 0 when none survives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help="names of mutants, or parts of them; all by default")
    only = parser.parse_args().only
    chosen = [m for m in MUTANTS if not only or any(part in m.name for part in only)]
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    source, build = BUILD / "source", BUILD / "build"
    copy_tree(source)
    options = ["-G", "Ninja", "-DWALLX_BUILD_TESTS=ON", "-DCMAKE_BUILD_TYPE=Debug"]
    must(["cmake", "-S", str(source), "-B", str(build), *options])
    programs = sorted({mutant.program for mutant in chosen})
    must(["ninja", "-C", str(build), *programs])
    for mutant in chosen:  # a test that fails without a break kills nothing
        must([str(build / mutant.program), mutant.test])
    survivors = 0
    for mutant in chosen:
        start = time.monotonic()
        why = kill(mutant, source, build)
        survivors += bool(why)
        outcome = f"SURVIVES: {why}" if why else f"killed by {mutant.test}"
        print(f"{mutant.name:42s} {outcome} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
