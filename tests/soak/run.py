"""Soak: faults by the thousand, damaged frames and files by the million under sanitizers, threads; `make soak`.

``--scale 1`` is the whole; a smaller number does that share of it. Ends non-zero when anything ends otherwise than
documented. Every table is printed with its seed: the same seed repeats the lock-step part bit for bit.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUM_FAULTS = 1000  # in lock-step, and again on a live arm under load
NUM_ROWS = 30  # of the table in tests/cpp/arm/fault_outcomes.cpp
NUM_FRAMES = 1_000_000  # of each codec
NUM_HEADERS = 1_000_000  # of weight files
SANITIZED = ("test_drivers", "test_emulator", "test_arm")
THREADED = ("test_hardware", "test_control", "test_drivers", "test_tools", "test_runtime")


def main() -> int:
    """Runs the parts that were asked for; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="share of the whole that is done")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", choices=list(PARTS), action="append", help="all by default")
    args = parser.parse_args()
    if not 0 < args.scale <= 100:
        parser.error(f"--scale {args.scale:g} must be above 0 and at most 100")
    failed = []
    for name in args.part or PARTS:
        begin = time.monotonic()
        print(f"== {name}, scale {args.scale:g}, seed {args.seed}", flush=True)
        is_ok = PARTS[name](args.scale, args.seed)
        print(f"== {name}: {'ok' if is_ok else 'FAILED'} after {time.monotonic() - begin:.0f} s", flush=True)
        if not is_ok:
            failed.append(name)
    print(f"soak failed: {', '.join(failed)}" if failed else "soak passed")
    return 1 if failed else 0


def build(preset: str, targets: tuple[str, ...]) -> Path | None:
    """Builds some tests with a preset of CMakePresets.json; None when that fails."""
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for command in (["cmake", "--preset", preset], ["cmake", "--build", f"build/{preset}", "--target", *targets]):
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            print(done.stdout.decode(errors="replace")[-4000:])
            return None
    return ROOT / "build" / preset


def run(program: Path, environment: dict[str, str], is_quiet: bool = True) -> bool:
    """Runs one test program; prints its failures, or all it says."""
    done = subprocess.run(
        [program], env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = done.stdout.decode(errors="replace").splitlines()
    shown = [line for line in lines if not line.startswith("ok")] if is_quiet else lines
    print("\n".join(f"   {line}" for line in shown[-200:]), flush=True)
    if done.returncode:
        print(f"   {program.name} ended with {done.returncode}")
    return done.returncode == 0


def soak_codecs(scale: float, seed: int) -> bool:
    """Fuzzed frames of every codec, and every kind of fault in lock-step, under address and undefined sanitizers."""
    folder = build("sanitize", SANITIZED)
    if folder is None:
        return False
    environment = {
        "WALLX_FUZZ_FRAMES": str(max(1, round(NUM_FRAMES * scale))),
        "WALLX_FAULT_RUNS": str(max(1, math.ceil(NUM_FAULTS * scale / NUM_ROWS))),
        "WALLX_SEED": str(seed),
    }
    results = [run(folder / name, environment) for name in SANITIZED]
    return all(results)


def soak_files(scale: float, seed: int) -> bool:
    """Damaged weight files under address and undefined sanitizers."""
    folder = build("sanitize", ("test_model",))
    if folder is None:
        return False
    headers = str(max(1, round(NUM_HEADERS * scale)))
    return run(folder / "test_model", {"WALLX_FUZZ_HEADERS": headers, "WALLX_SEED": str(seed)})


def soak_threads(scale: float, seed: int) -> bool:
    """Control, buses and tools under the thread sanitizer; as often as the scale says, once at least."""
    folder = build("thread", THREADED)
    if folder is None:
        return False
    results = [run(folder / name, {}) for name in THREADED for _ in range(max(1, round(3 * scale)))]
    return all(results)


def soak_live(scale: float, seed: int) -> bool:
    """Faults on an emulated arm in a process of its own, with two busy threads beside the loop."""
    command = [sys.executable, ROOT / "tests" / "soak" / "live.py"]
    count = max(1, round(NUM_FAULTS * scale))
    return subprocess.run([*command, str(count), str(seed)], check=False).returncode == 0


def soak_session(scale: float, seed: int) -> bool:
    """Ten minutes of acting and thinking: memory flat within 1%, every frame and thread accounted for."""
    from wallx_edge.bench.session import problems, run_for

    with tempfile.TemporaryDirectory() as folder:
        found = run_for(max(10.0, 600.0 * scale), Path(folder))
    print("   " + ", ".join(f"{key} {value}" for key, value in found.items()))
    wrong = problems(found)
    print("\n".join(f"   {line}" for line in wrong))
    return not wrong


PARTS = {
    "session": soak_session,
    "live": soak_live,
    "codecs": soak_codecs,
    "files": soak_files,
    "threads": soak_threads,
}

if __name__ == "__main__":
    sys.exit(main())
