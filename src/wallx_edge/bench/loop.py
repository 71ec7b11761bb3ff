"""What `wallx-edge bench loop` measures: the control loop's lateness beside a bare loop's, on paced wires."""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wallx_edge import _core
from wallx_edge.buses import BusConfig
from wallx_edge.embodiment import load_calibration, load_embodiment, with_drops
from wallx_edge.errors import ConfigError, SafetyStop, WallxError
from wallx_edge.robot import lateness_us
from wallx_edge.sim import SimProcess, openarm, so101

__all__ = ["SETUPS", "bench_loop"]

NUM_JOINTS = 24  # of the robot without wires
AMPLITUDE = 0.1  # of the sine that the joints are told [rad]
FREQUENCY = 0.5  # [1/s]
STEP = 0.05  # between rows [s]
WARM_UP = 0.5  # after torque on, before counting [s]
STOPPED = 3  # exit code of a block in which the loop stopped the robot
CHILD_TIMEOUT = 60.0  # beyond the block's duration [s]


@dataclass(frozen=True)
class Setup:
    """One robot to run the loop on.

    Attributes:
        title: for people.
        embodiment: built-in name; empty: joints without wires.
        rate_hz: of the loop [1/s].
        data_bit_rate: of CAN FD data; 0: classic CAN, or no CAN [bit/s].
    """

    title: str
    embodiment: str
    rate_hz: float
    data_bit_rate: int = 0


SETUPS = {
    "so101": Setup("6 STS servos, 1 Mbaud serial", "so101", 200.0),
    "openarm": Setup("8 Damiao motors, classic CAN, 1 Mbit/s", "openarm", 300.0),
    "openarm-fd": Setup("8 Damiao motors, CAN FD, 1 and 5 Mbit/s", "openarm", 500.0, 5_000_000),
    "loopback": Setup(f"{NUM_JOINTS} joints without wires", "", 1000.0),
}


def bench_loop(
    setup: str,
    rate_hz: float | None = None,
    blocks: int = 5,
    duration: float = 10.0,
    threads: int = 2,
    on_block: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Runs the control loop on an emulated robot, and a bare SCHED_FIFO loop of the same rate, in turns.

    Each block is a process of its own with ``threads`` busy Python threads beside the loop's thread.

    Args:
        setup: key of :data:`SETUPS`.
        rate_hz: of both loops [1/s]; the setup's own by default.
        blocks: of each loop; the median counts.
        duration: of a block [s].
        threads: Python threads that only count.
        on_block: called after every block.

    Returns:
        ``stops``: why the loop stopped the robot, for each block that it did so in; these blocks are not counted.
        Medians over the others: lateness [us] of both loops and its ratio, shares of overruns and of periods with fresh
        feedback from every joint; over all blocks: calls for memory from the loop's thread.

    Raises:
        WallxError: a block failed; with its message.
    """
    chosen = SETUPS[setup]
    rate = rate_hz or chosen.rate_hz
    loops: list[dict[str, Any]] = []
    bare: list[dict[str, Any]] = []
    stops: list[str] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        task = {"rate_hz": rate, "duration": duration, "threads": threads}
        robot = _emulate(stack, chosen, folder)
        for _ in range(blocks):
            try:
                loops.append(_child({**task, **robot}))
            except SafetyStop as error:
                stops.append(str(error))
            bare.append(_child(task))
            if on_block:
                on_block()
    if not loops:
        raise SafetyStop(f"bench loop: every block was stopped: {stops[-1]}")

    def median(runs: list[dict[str, Any]], key: str) -> float:
        return float(statistics.median(run[key] for run in runs))

    p99, bare_p99 = median(loops, "p99_us"), median(bare, "p99_us")
    return {
        "setup": setup,
        "title": chosen.title,
        "rate_hz": rate,
        "blocks": blocks,
        "stops": stops,
        "block_s": duration,
        "busy_threads": threads,
        "cores": os.cpu_count(),
        "lateness_p50_us": median(loops, "p50_us"),
        "lateness_p99_us": p99,
        "bare_p50_us": median(bare, "p50_us"),
        "bare_p99_us": bare_p99,
        "p99_ratio": p99 / bare_p99,
        "read_p50_us": median(loops, "read_p50_us"),
        "overrun_share": median(loops, "overrun_share"),
        "fresh_share": median(loops, "fresh_share"),
        "ticks": sum(run["ticks"] for run in loops),
        "allocations": sum(run["allocations"] for run in loops),
        "frees": sum(run["frees"] for run in loops),
        "mappings": sum(run["mappings"] for run in loops),
        "is_fifo": all(run["is_fifo"] for run in [*loops, *bare]),
        "runs": {"loop": loops, "bare": bare},
    }


def _emulate(stack: ExitStack, setup: Setup, folder: Path) -> dict[str, Any]:
    if not setup.embodiment:
        path = folder / "loopback.toml"
        path.write_text(loopback_toml(NUM_JOINTS), encoding="utf-8")
        return {"embodiment": str(path), "calibration": "", "bus": asdict(BusConfig(kind="loopback", port="none"))}
    is_can = setup.embodiment == "openarm"
    options = ["--classic"] if is_can and not setup.data_bit_rate else []
    stack.enter_context(SimProcess(setup.embodiment, link=folder / "port", options=options))
    (openarm if is_can else so101).write_calibration(folder / "calibration.json")
    kind = "slcan" if is_can else "serial"
    bus = BusConfig(kind=kind, port=str(folder / "port"), data_bit_rate=setup.data_bit_rate)
    return {"embodiment": setup.embodiment, "calibration": str(folder / "calibration.json"), "bus": asdict(bus)}


def loopback_toml(joints: int) -> str:
    joint = """
[[joints]]
name = "joint{i}"
id = {i}
model_numbers = [0]
min_position = -2.0
max_position = 2.0
max_velocity = 3.0
max_acceleration = 20.0
max_jerk = 400.0
rest_position = 0.0
max_following_error = 0.5
gravity_loaded = false
"""
    head = 'name = "loopback"\nmotor_family = "loopback"\n'
    return head + "".join(joint.format(i=i + 1) for i in range(joints))


def _child(task: dict[str, Any]) -> dict[str, Any]:
    library = _counting_library()
    preload = ":".join(filter(None, (str(library), os.environ.get("LD_PRELOAD"))))
    process = subprocess.run(
        [sys.executable, "-m", "wallx_edge.bench.loop", json.dumps(task)],
        capture_output=True,
        text=True,
        timeout=task["duration"] + CHILD_TIMEOUT,
        env={**os.environ, "LD_PRELOAD": preload},
        check=False,
    )
    if process.returncode == STOPPED:
        raise SafetyStop(process.stderr.strip().splitlines()[-1])
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines()
        raise WallxError(f"bench loop: a block failed: {lines[-1] if lines else f'exit {process.returncode}'}")
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def _counting_library() -> Path:
    folder = Path(_core.__file__).parent
    found = sorted(folder.glob("_count_calls.*"))
    if not found:
        raise ConfigError(f"no _count_calls library in {folder}; install wallx-edge again")
    return found[0]


def main() -> None:
    """One block, in its own process: ``python -m wallx_edge.bench.loop TASK``; prints what it found as JSON."""
    task = json.loads(sys.argv[1])
    try:
        with _busy(task["threads"]):
            found = _run_loop(task) if "embodiment" in task else _run_bare(task)
    except SafetyStop as error:
        print(error, file=sys.stderr)
        sys.exit(STOPPED)
    print(json.dumps(found))


def _run_bare(task: dict[str, Any]) -> dict[str, Any]:
    run = _core.bare_loop(task["rate_hz"], task["duration"])
    return {"is_fifo": run["is_fifo"], "ticks": run["ticks"], **_percentiles(run["lateness"])}


def _run_loop(task: dict[str, Any]) -> dict[str, Any]:
    embodiment, _ = with_drops(load_embodiment(task["embodiment"]), False)
    calibration = load_calibration(task["calibration"], embodiment) if task["calibration"] else []
    robot = _core.make_robot(embodiment, calibration, BusConfig(**task["bus"]).core())
    robot.connect()
    loop = _core.ControlLoop(robot, rate_hz=task["rate_hz"])
    loop.start()
    try:
        _wait(lambda: (r := loop.snapshot()) is not None and r["read"]["code"] == "ok", "feedback")
        loop.enable()
        _wait(lambda: loop.state == "armed", "torque")
        record = loop.snapshot()
        assert record is not None
        middle = np.array([(j.limits.min_position + j.limits.max_position) / 2 for j in embodiment.joints])
        start = _core.monotonic()
        _play_until(loop, record["measured"], middle, start, start + WARM_UP)
        loop.drain()
        before, counters = loop.lateness_histogram(), loop.counters()
        columns = _play_until(loop, record["measured"], middle, start, start + WARM_UP + task["duration"])
        calls = _counted_calls()
        lateness, after = loop.lateness_histogram() - before, loop.counters()
        if (report := loop.fault_report()) is not None:
            raise SafetyStop(report["message"])
        is_fifo = loop.real_time["is_fifo"]
    finally:
        loop.stop()
        robot.disconnect()
    ticks = after["ticks"] - counters["ticks"]
    ages, codes, read_us = (np.concatenate([c[key] for c in columns]) for key in ("sample_age", "read_code", "read_us"))
    # on a CAN line an answer to the command before is read: one period old, and never two
    fresh = (ages < 1.1 / task["rate_hz"]).all(axis=1) & (codes == 0)
    return {
        "is_fifo": is_fifo,
        "ticks": ticks,
        **_percentiles(lateness),
        "read_p50_us": float(np.median(read_us)),
        "overrun_share": (after["overruns"] - counters["overruns"]) / max(1, ticks),
        "fresh_share": float(fresh.mean()),
        **calls,
    }


def _play_until(loop: _core.ControlLoop, pose: Any, middle: Any, start: float, end: float) -> list[Any]:
    """Tells the joints a sine from ``pose`` toward the middle of their range; the records until ``end``."""
    columns: list[Any] = []
    sign = np.where(middle >= pose, 1.0, -1.0)
    while (now := _core.monotonic()) < end:
        times = np.arange(32) * STEP + now
        phase = 2 * np.pi * FREQUENCY * (times - start)
        rows = pose + np.outer(AMPLITUDE * (1 - np.cos(phase)), sign)
        loop.submit(rows, now, STEP, loop.generation)
        time.sleep(min(0.5, max(0.0, end - now)))
        columns.append(loop.drain())
    return columns


def _counted_calls() -> dict[str, int]:
    try:
        counted = ctypes.CDLL(None).wallx_counted_calls
    except AttributeError:
        raise WallxError("the calls of the loop's thread were not counted: LD_PRELOAD had no effect") from None
    counts = (ctypes.c_uint64 * 4)()
    counted(counts)
    if counts[3] == 0:
        raise WallxError("the calls of the loop's thread were not counted: it was not found")
    return {"allocations": counts[0], "frees": counts[1], "mappings": counts[2]}


def _percentiles(histogram: Any) -> dict[str, float]:
    return {"p50_us": lateness_us(histogram, 0.5), "p99_us": lateness_us(histogram, 0.99)}


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = _core.monotonic() + 5.0
    while not condition():
        if _core.monotonic() > deadline:
            raise WallxError(f"no {what} within 5 s")
        time.sleep(0.005)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    is_over = threading.Event()

    def work() -> None:
        number = 0
        while not is_over.is_set():
            number += 1

    workers = [threading.Thread(target=work) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        is_over.set()
        for worker in workers:
            worker.join()


if __name__ == "__main__":
    main()
